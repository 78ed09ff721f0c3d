"""A preparation in shards gives what a preparation of the whole gives, bit for bit, however the log is cut."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data import shards as merging
from segue.data import spool, user_hash
from segue.data.dataset import Dataset
from segue.data.preparing import partitions, shard_steps, shards
from segue.data.preparing.prepare import prepare
from segue.data.preparing.shards import prepare_shards
from segue.data.reading import pieces
from segue.data.reading.read import read
from segue.data.shards import Shards
from segue.engines.base import Alone
from segue.engines.engine import Engine
from segue.errors import ConfigError, DataError, StorageError
from segue.files import exclusive
from tests import programs

LOG = pl.DataFrame(
    {
        "user": ["bob", "ann", "bob", "ann", "cid", "bob", "bob"],
        "item": [30, 10, 10, 20, 10, 30, 30],
        "time": [5, 4, 3, 4, 9, 5, 6],
        "rating": [5.0, 4.0, 3.0, 2.0, 5.0, 5.0, 1.0],
    }
)
ARRAYS = ("items", "offsets", "ends", "times", "ratings", "session_offsets")


def assert_same(one: Dataset, other: Dataset, unlike: Sequence[str] = ("logs",)) -> None:
    """Check that two Datasets have the same arrays, ids, tables and steps, bit for bit.

    The metadata `unlike` may differ: a hash of all rows of the log in their order would need them in one place.
    """
    for name in ARRAYS:
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype and np.array_equal(left, right), name
    assert one.users == other.users and one.catalogue == other.catalogue
    assert one.time_unit == other.time_unit
    for name in ("item_table", "user_table"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None) and (left is None or left.fingerprint == right.fingerprint), name
    assert one.fingerprint == other.fingerprint
    assert np.array_equal(one.item_histories.order, other.item_histories.order)
    assert {k: v for k, v in one.metadata.items() if k not in unlike} == {
        k: v for k, v in other.metadata.items() if k not in unlike
    }


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Sizes so small that a few dozen rows go through pieces, batches, chunks and ranges of users."""
    patch.setattr(shard_steps, "ROWS_AT_A_TIME", 5)
    patch.setattr(partitions, "_PARTITION", 4)
    patch.setattr(pieces, "_BYTES", 40)
    patch.setattr(pieces, "_BYTES_AT_ONCE", 25)
    patch.setattr(pieces, "_ROWS", 6)
    patch.setattr(pieces, "_ROWS_AT_ONCE", 4)
    patch.setattr(merging, "CHUNK", 5)
    patch.setattr(user_hash, "_IDS", 3)
    patch.setattr(spool.chunks, "__defaults__", (3,))


def logs(draw: Any) -> pl.DataFrame:
    """A log with duplicates, ties of time, and ids of either type."""
    rows = draw(st.integers(8, 40))
    text = draw(st.booleans())

    def column(largest: int) -> list[int]:
        return draw(st.lists(st.integers(0, largest), min_size=rows, max_size=rows))

    users, items = column(9), column(6)
    return pl.DataFrame(
        {
            "user": [f"ü{user * 7919}" for user in users] if text else [user * 7919 - 20_000 for user in users],
            "item": [f"i{item}" for item in items] if draw(st.booleans()) else items,
            "time": column(12),
            "rating": [float(one) for one in column(4)],
            "visit": [f"v{one}" for one in column(5)] if text else column(5),
        }
    )


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "k_core": st.integers(0, 3),
        "min_per_item": st.integers(0, 3),
        "rounds": st.integers(1, 3),
        "first": st.sampled_from(["items", "users"]),
        "min_rating": st.sampled_from([0.0, 1.0]),
        "duplicates": st.sampled_from(["drop", "keep", "first", "last"]),
        "oldest": st.sampled_from([0.3, 0.7, 1.0]),
        "newest_days": st.sampled_from([5 / 86_400, 0.9]),
        "session_gap": st.sampled_from([2.0]),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_merged_shards_are_the_dataset_of_the_whole(data: st.DataObject) -> None:
    frame = logs(data.draw)
    options = data.draw(OPTIONS)
    with_sessions = "session_gap" not in options and data.draw(st.booleans())
    reading: dict[str, Any] = {"session": "visit" if with_sessions else False}
    files = data.draw(st.integers(1, 3))
    kind = data.draw(st.sampled_from(["csv", "parquet", "frame"]))
    with (
        tempfile.TemporaryDirectory() as name,
        pytest.MonkeyPatch.context() as patch,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        folder = Path(name)
        (folder / "log").mkdir()
        edges = np.linspace(0, len(frame), files + 1).astype(int)
        for number in range(files):
            part = frame[edges[number] : edges[number + 1]]
            file = folder / "log" / f"{number}.{kind}"
            if kind == "csv":
                part.write_csv(file)
            elif kind == "parquet":
                part.write_parquet(file)
        source: Any = frame if kind == "frame" else folder / "log"
        try:
            whole = prepare(source, **reading, **options)
        except DataError as error:
            with pytest.raises(DataError, match="leave nothing"):
                prepare_shards(source, folder / "shards", shards=3, **reading, **options)
            assert "leave nothing" in str(error)
            assert not (folder / "shards").exists()
            return
        shrink(patch)
        made = prepare_shards(source, folder / "shards", shards=data.draw(st.integers(1, 5)), **reading, **options)
        assert_same(whole, made.merged())
        assert_same(whole, Dataset.open(folder / "shards"))
        whole.save(folder / "whole")
        made.merged(folder / "merged")
        for name in ("items.npy", "offsets.npy", "times.npy", "ratings.npy", "by_item.npy", "session_offsets.npy"):
            one, other = folder / "whole" / name, folder / "merged" / name
            assert one.exists() == other.exists()
            assert not one.exists() or one.read_bytes() == other.read_bytes(), name
        check_item_shards(whole, made)


def check_item_shards(whole: Dataset, made: Shards) -> None:
    """Check that the shards of items, one after the other, are the item histories of the whole."""
    assert made.n_item_shards == (0 if whole.ratings is None else made.n_shards)
    ranges = [made.item_shard(number) for number in range(made.n_item_shards)]
    if not ranges:
        return
    histories = whole.item_histories
    assert np.array_equal(np.concatenate([one.items for one in ranges]), np.arange(1, whole.n_items + 1))
    assert np.array_equal(np.concatenate([one.lengths for one in ranges]), histories.lengths[1:])
    for name in ("order", "users", "times", "ratings"):
        expected = getattr(histories, name)
        found = [getattr(one, name) for one in ranges]
        assert (expected is None) == all(one is None for one in found)
        if expected is not None:
            joined = np.concatenate(found)
            assert joined.dtype == expected.dtype and np.array_equal(joined, expected), name
    assert made.users == whole.users


def test_shards_are_ordinary_datasets_over_common_items(tmp_path: Path) -> None:
    made = prepare_shards(LOG, tmp_path / "shards", shards=3)
    assert repr(made) == "Shards(3 shards, 3 users, 3 items, 6 interactions)"
    whole = prepare(LOG)
    assert len(made) == 3 and sum(shard.n_users for shard in made) == 3
    for number, shard in enumerate(made):
        assert shard.catalogue == whole.catalogue and shard.metadata["shard"]["number"] == number
        assert set(made.shard_of(shard.users.ids)) <= {number}
        own = whole.to_frame().filter(pl.col("user").is_in(shard.users.ids.to_list()))
        assert shard.to_frame().equals(own)
    assert made.shard_of("dora").tolist() == made.shard_of(["dora"]).tolist()


def test_one_shard_has_the_arrays_of_the_whole(tmp_path: Path) -> None:
    prepare(LOG, out=tmp_path / "whole")
    prepare_shards(LOG, tmp_path / "shards", shards=1)
    for name in ("items.npy", "offsets.npy", "times.npy", "ratings.npy", "by_item.npy", "users.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "shards/shard-00000" / name).read_bytes()


def test_tables_of_items_and_users(tmp_path: Path) -> None:
    items = pl.DataFrame({"item": [10, 30, 77], "price": [1.5, 2.5, 9.0], "name": ["tea", "jam", "new"]})
    users = pl.DataFrame(
        {
            "user": ["cid", "ann", "zoe"],
            "age": [30, None, 7],
            "vector": pl.Series([[1.0, 2.0]] * 3, dtype=pl.Array(pl.Float32, 2)),
        }
    )
    given_tables: dict[str, Any] = {"items": items, "users": users}
    whole = prepare(LOG, **given_tables)
    made = prepare_shards(LOG, tmp_path / "shards", shards=4, **given_tables)
    assert_same(whole, made.merged())
    check_item_shards(whole, made)
    assert made.metadata["user_table"] == whole.metadata["user_table"]
    with pytest.raises(DataError, match="none of its 1 keys is a user of the log"):
        prepare_shards(LOG, tmp_path / "other", shards=4, users=pl.DataFrame({"user": ["x"], "age": [1]}))
    numbers = LOG.with_columns(pl.col("user").replace_strict({"ann": 1, "bob": 2, "cid": 3}))
    with pytest.raises(DataError, match="none of its 1 keys is a user of the log"):
        prepare_shards(numbers, tmp_path / "other", shards=4, users=pl.DataFrame({"user": ["x"], "age": [1]}))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
def test_bad_rows_are_named_or_dropped(tmp_path: Path, bad_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    file = tmp_path / "log.csv"
    rows = [f"u{n % 5},i{n % 3},{n}" for n in range(30)]
    rows[21] = "u1,,21"
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    if bad_rows == "error":
        with pytest.raises(DataError, match=r"log\.csv, line 23: the item"):
            prepare_shards(file, tmp_path / "shards", shards=2)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["log.csv"]
        return
    made = prepare_shards(file, tmp_path / "shards", shards=2, bad_rows="drop")
    assert_same(prepare(file, bad_rows="drop"), made.merged())
    assert made.metadata["bad_rows_dropped"] == 1


def test_ids_that_turn_out_to_be_text_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first 2,000 rows hold integers; the word behind them makes all ids texts."""
    file = tmp_path / "log.csv"
    rows = [f"{n % 50},{n % 3},{n}" for n in range(2_100)] + ["ann,1,9"]
    file.write_text("user,item,time\n" + "\n".join(rows) + "\n")
    monkeypatch.setattr(pieces, "_BYTES", 3_000)
    monkeypatch.setattr(pieces, "_BYTES_AT_ONCE", 2_000)
    made = prepare_shards(file, tmp_path / "shards", shards=3)
    assert made.user_ids == "String"
    assert_same(prepare(file), made.merged())


def test_a_word_such_as_null_among_ids_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    file = tmp_path / "log.csv"
    file.write_text("user,item,time\n" + "".join(f"{'NULL' if n % 4 else 'ann'},i{n % 3},{n}\n" for n in range(30)))
    with pytest.warns(UserWarning, match=r"the column \"user\" \(user\) holds a word such as NULL or NA") as caught:
        prepare_shards(file, tmp_path / "shards", shards=2)
    assert len([one for one in caught if "NULL or NA" in str(one.message)]) == 1


def test_a_log_that_was_read(tmp_path: Path) -> None:
    assert_same(prepare(read(LOG)), prepare_shards(read(LOG), tmp_path / "shards", shards=2).merged())
    with pytest.raises(ConfigError, match=r"which is read already: pass user to segue\.read"):
        prepare_shards(read(LOG), tmp_path / "shards", shards=2, user="item")


def test_other_formats_are_read_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(3):
        lines = [f"u{line},{line * 10 + number},3,{5 + line},{6 + number},7" for line in range(4)]
        (folder / f"{number}.txt").write_text("user_id,time,session_length,session_items\n" + "\n".join(lines) + "\n")
    whole = prepare(folder, format="session-file")
    assert_same(whole, prepare_shards(folder, tmp_path / "shards", shards=3, format="session-file").merged())


def test_processes_give_the_same_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        columns = {name: rng.integers(0, high, 400) for name, high in (("user", 60), ("item", 40), ("time", 200))}
        pl.DataFrame(columns).write_parquet(folder / f"{number}.parquet")
    alone = prepare_shards(folder, tmp_path / "alone", shards=4, k_core=5)
    both = prepare_shards(folder, tmp_path / "both", shards=4, k_core=5, engine=Engine(processes=2))
    assert_same(alone.merged(), both.merged())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shards, "workers", lambda engine: Elsewhere(None))
    assert_same(alone.merged(), prepare_shards("log", "elsewhere", shards=4, k_core=5).merged(), ("logs", "source"))
    shutil.rmtree("elsewhere")
    one, other = ((tmp_path / name / "shards.json").read_bytes() for name in ("alone", "both"))
    assert one == other
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "both", "log"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shards": 0}, ConfigError, "shards=0: expected a number of shards from 1 to 10,000"),
        ({"k_core": -1}, ConfigError, "expected 0 or more, found -1"),
        ({"k_core": 9}, DataError, r"the filters leave nothing \(read: 7 interactions.*9-core: 0 interactions\)"),
        ({"oldest": 2.0}, ConfigError, "oldest=2.0 is a share"),
        ({"items": 7}, DataError, "cannot read a"),
    ],
)
def test_errors(tmp_path: Path, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        prepare_shards(LOG, tmp_path / "shards", **{"shards": 2, **options})
    assert list(tmp_path.iterdir()) == []


def test_nothing_foreign_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare(LOG, out=out)
    with pytest.raises(StorageError, match="holds a dataset, and a dataset in shards would take its place"):
        prepare_shards(LOG, out, shards=2)
    made = tmp_path / "shards"
    prepare_shards(LOG, made, shards=2)
    with pytest.raises(StorageError, match="holds a dataset in shards, and a dataset would take its place"):
        prepare(LOG, out=made)
    assert prepare_shards(LOG, made, shards=5).n_shards == 5
    with pytest.raises(StorageError, match="already holds a dataset in shards, and overwrite=False keeps it"):
        prepare_shards(LOG, made, shards=2, overwrite=False)
    (made / "shard-00001" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"also shard-00001/notes\.txt, which does not belong to it"):
        prepare_shards(LOG, made, shards=2)
    assert Shards.open(made).n_shards == 5


def test_a_failed_step_leaves_the_former_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "shards"
    prepare_shards(LOG, made, shards=2)
    before = (made / "shards.json").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", str(made.with_name(".shards.x.segue-tmp") / "y"))

    monkeypatch.setattr(shards.shard_steps, "save_moving", full)
    with pytest.raises(OSError, match="No space left on device") as failure:
        prepare_shards(LOG, made, shards=3)
    assert failure.value.filename == str(made)
    assert (made / "shards.json").read_bytes() == before and Shards.open(made).merged().n_users == 3
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_a_killed_preparation_leaves_the_former_shards(tmp_path: Path) -> None:
    """The process dies while its last step has written the first of three shards; the next command clears up."""
    made = tmp_path / "shards"
    LOG.write_parquet(tmp_path / "log.parquet")
    prepare_shards(LOG, made, shards=2)
    script = """
import os, signal, sys
from segue.data.preparing import shard_steps
from segue.data.preparing.shards import prepare_shards
write = shard_steps.write_shard
def dying(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)
shard_steps.write_shard = dying
prepare_shards("log.parquet", "shards", shards=3)
"""
    killed = programs.run("-c", script, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = [path for path in tmp_path.iterdir() if path.name.endswith(".segue-tmp")]
    assert left and Shards.open(made).n_shards == 2
    assert_same(Shards.open(made).merged(), prepare_shards(LOG, made, shards=3).merged())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.parquet", "shards"]


def test_two_preparations_into_one_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "shards"), pytest.raises(StorageError, match=r"shards is in use by process \d+"):
        prepare_shards(LOG, tmp_path / "shards", shards=2)


def test_a_dying_worker_costs_its_part_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step can be done again: here every worker leaves its files, dies, and another one does the part again."""
    folder = tmp_path / "log"
    folder.mkdir()
    for number in range(2):
        LOG.write_parquet(folder / f"{number}.parquet")
    whole = prepare(folder, k_core=1, min_per_item=2)
    monkeypatch.setattr(shards, "workers", lambda engine: Twice())
    made = prepare_shards(folder, tmp_path / "shards", shards=2, min_per_item=2)
    assert np.array_equal(made.merged().items, whole.items)
    assert made.merged().fingerprint == whole.fingerprint


class Elsewhere(Alone):
    """A worker with another current folder than the command."""

    def run(self, function: Any, parts: Any) -> Iterator[tuple[int, Any]]:
        for number, part in enumerate(parts):
            here = Path.cwd()
            os.chdir("/")
            try:
                result = pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(part)))
            finally:
                os.chdir(here)
            yield number, result


class Twice(Alone):
    """A worker that does every part twice, as if the first one had died after its work."""

    def __init__(self) -> None:
        super().__init__(None)

    def run(self, function: Any, parts: Any) -> Iterator[tuple[int, Any]]:
        parts = list(parts)
        for _ in super().run(function, parts):
            pass
        return super().run(function, parts)


@pytest.mark.realdata
@pytest.mark.skipif("SEGUE_TEST_DATA" not in os.environ, reason="SEGUE_TEST_DATA names no folder of public datasets")
def test_public_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ["SEGUE_TEST_DATA"])
    monkeypatch.setattr(pieces, "_BYTES", 300_000)
    monkeypatch.setattr(pieces, "_BYTES_AT_ONCE", 200_000)
    monkeypatch.setattr(pieces, "_ROWS", 200_000)
    ratings = folder / "ml-100k" / "u.data"
    for options in ({"k_core": 20, "min_rating": 3}, {"oldest": 0.41, "duplicates": "last", "sessions": "day"}):
        whole = prepare(ratings, out=tmp_path / "whole", **options)
        made = prepare_shards(ratings, tmp_path / "shards", shards=4, **options)
        assert_same(whole, made.merged(tmp_path / "merged"))
        assert (tmp_path / "whole/by_item.npy").read_bytes() == (tmp_path / "merged/by_item.npy").read_bytes()
    baskets = folder / "complete-journey" / "transactions.parquet"
    columns = {"user": "household_id", "item": "product_id", "session": "basket_id", "time": "transaction_timestamp"}
    whole = prepare(baskets, **columns, rating=False, k_core=5)
    made = prepare_shards(baskets, tmp_path / "baskets", shards=3, **columns, rating=False, k_core=5)
    assert_same(whole, made.merged())
