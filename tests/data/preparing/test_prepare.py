from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data import spool
from segue.data.dataset import Dataset
from segue.data.preparing import partitions
from segue.data.preparing.prepare import prepare
from segue.data.reading.read import read
from segue.errors import ConfigError, DataError

LOG = pl.DataFrame(
    {
        "user": ["bob", "ann", "bob", "ann", "cid", "bob", "bob"],
        "item": [30, 10, 10, 20, 10, 30, 30],
        "time": [5, 4, 3, 4, 9, 5, 6],
        "rating": [5.0, 4.0, 3.0, 2.0, 5.0, 5.0, 1.0],
    }
)


def counts(dataset):
    return [tuple(step.values()) for step in dataset.metadata["steps"]]


def test_prepare_encodes_and_sorts():
    dataset = prepare(LOG)
    assert dataset.users.ids.to_list() == ["ann", "bob", "cid"]
    assert dataset.catalogue.ids.to_list() == [10, 20, 30]
    assert dataset.items.dtype == np.int32 and dataset.items.tolist() == [1, 2, 1, 3, 3, 1]
    assert dataset.offsets.tolist() == [0, 0, 2, 5, 6]
    assert dataset.times.tolist() == [4, 4, 3, 5, 6, 9]
    assert dataset.ratings.tolist() == [4, 2, 3, 5, 1, 5]
    assert dataset.time_unit == "s"
    assert counts(dataset) == [("read", 3, 3, 7), ("duplicates: drop", 3, 3, 6)]


def test_filters_apply_in_order():
    dataset = prepare(LOG, min_rating=2, duplicates="last", min_per_item=2)
    assert counts(dataset) == [
        ("read", 3, 3, 7),
        ("rating at least 2", 3, 3, 6),
        ("duplicates: last", 3, 3, 5),
        ("at least 0 per user, 2 per item", 3, 1, 3),
    ]
    assert dataset.to_frame().rows() == [("ann", 10, 4, 4.0), ("bob", 10, 3, 3.0), ("cid", 10, 9, 5.0)]


def test_duplicates():
    assert prepare(LOG, duplicates="keep").n_interactions == 7
    assert prepare(LOG, duplicates="first").to_frame().filter(pl.col("user") == "bob")["time"].to_list() == [3, 5]
    assert prepare(LOG, duplicates="last").to_frame().filter(pl.col("user") == "bob")["time"].to_list() == [3, 6]
    untimed = read(LOG, time=False, rating=False)
    assert prepare(untimed).to_frame().filter(pl.col("user") == "bob")["item"].to_list() == [30, 10, 30, 30]


def test_core_to_the_fixed_point_or_for_some_rounds():
    pairs = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4)]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    assert prepare(frame, k_core=2).to_frame().rows() == pairs[:4]
    assert prepare(frame, k_core=2, rounds=1).to_frame().rows() == pairs[:6]
    dataset = prepare(frame, min_per_user=0, min_per_item=3)
    assert dataset.to_frame().rows() == [(1, 2), (2, 2), (3, 2)]
    assert counts(dataset)[-1] == ("at least 0 per user, 3 per item", 3, 1, 3)
    assert counts(prepare(frame, k_core=2, rounds=1))[-1] == ("2-core, rounds: 1", 3, 3, 6)


def test_out_is_a_folder_that_opens(tmp_path: Path):
    shares: list[tuple[str, float]] = []
    written = prepare(LOG, out=tmp_path / "deep" / "data", progress=lambda what, share: shares.append((what, share)))
    opened = Dataset.open(tmp_path / "deep" / "data")
    assert opened.to_frame().equals(prepare(LOG).to_frame())
    assert opened.fingerprint == written.fingerprint == prepare(LOG).fingerprint
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["data"]
    assert shares[-1] == ("writing", 1.0) and {what for what, _ in shares} >= {"reading", "sorting"}
    assert all(0 <= share <= 1 for _, share in shares)


def test_metadata_says_where_the_data_comes_from(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text("user,item\n1,2\n,3\n")
    metadata = prepare(read(path, bad_rows="drop")).metadata
    assert metadata["source"] == str(path) and metadata["bad_rows_dropped"] == 1
    assert metadata["options"]["duplicates"] == "drop"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k_core": -1}, ConfigError, "count interactions: expected 0 or more, found -1"),
        ({"rounds": 0}, ConfigError, "rounds=0: expected 1 or more"),
        ({"first": "user"}, ConfigError, "first='user': expected items or users; did you mean"),
        ({"oldest": 0}, ConfigError, "oldest=0 is a share of the rows: expected more than 0, at most 1"),
        ({"oldest": 20}, ConfigError, "oldest=20 is a share"),
        ({"oldest": float("nan")}, ConfigError, "oldest=nan: expected a number"),
        ({"duplicates": "frist"}, ConfigError, "duplicates='frist': expected drop, keep, first or last; did you mean"),
        ({"k_core": 9}, DataError, r"the filters leave nothing \(read: 7 interactions.*9-core: 0 interactions\)"),
        ({"min_rating": 6}, DataError, r"rating at least 6: 0 interactions"),
    ],
)
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        prepare(LOG, **options)


def test_rating_threshold_needs_ratings(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"min_rating=3 needs ratings; there are only user, item, time"):
        prepare(read(LOG, rating=False), min_rating=3, out=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_rows_need_times():
    with pytest.raises(ConfigError, match=r"oldest=0\.5 needs times; there are only user, item, rating"):
        prepare(read(LOG, time=False), oldest=0.5)


def test_the_oldest_rows_are_taken_first_of_all():
    """4 of 7: at 3, 4 and 4, and of the two at 5 the first in the file; then each has two again at most."""
    dataset = prepare(LOG, oldest=4 / 7, min_rating=4)
    assert counts(dataset)[:3] == [
        ("read", 3, 3, 7),
        ("the oldest 0.571429 of the rows", 2, 3, 4),
        ("rating at least 4", 2, 2, 2),
    ]
    assert dataset.to_frame().rows() == [("ann", 10, 4, 4.0), ("bob", 30, 5, 5.0)]
    assert dataset.metadata["options"]["oldest"] == 4 / 7


def test_users_or_items_first():
    """User 1 is too short. Without them item 1 has too few; item 1 first leaves user 2 and the item as they are."""
    pairs = [(1, 1), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3), (3, 4)]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    items = prepare(frame, k_core=2, rounds=1)
    users = prepare(frame, k_core=2, rounds=1, first="users")
    assert items.to_frame().rows() == [(2, 1), (2, 2), (2, 3), (3, 2), (3, 3)]
    assert users.to_frame().rows() == [(2, 2), (2, 3), (3, 2), (3, 3)]
    assert counts(users)[-1] == ("2-core, rounds: 1, users first", 2, 2, 4)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a few dozen rows go through batches, chunks and partitions."""
    patch.setattr(partitions, "_BATCH", 5)
    patch.setattr(partitions, "_PARTITION", 4)
    patch.setattr(spool.chunks, "__defaults__", (3,))


rows = st.lists(
    st.tuples(st.sampled_from([0, 7, 2**40, -3]), st.sampled_from(["b", "a", "", "zz", "ä"]), st.integers(-2, 3)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(rows=rows)
def test_encoding_and_stable_order_in_pieces(rows):
    rows = [(user, item or "empty", time) for user, item, time in rows]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        dataset = prepare(frame, duplicates="keep")
        core = prepare(frame, duplicates="last", min_per_user=1)
    expected = sorted(rows, key=lambda row: (row[0], row[2]))
    assert dataset.to_frame().rows() == expected
    assert core.fingerprint == prepare(frame, duplicates="last").fingerprint
    assert dataset.users.ids.to_list() == sorted({row[0] for row in rows})
    assert dataset.catalogue.ids.to_list() == sorted({row[1] for row in rows}, key=str.encode)


@settings(max_examples=60, deadline=None)
@given(rows=rows, share=st.floats(0.01, 1.0), stretch=st.sampled_from([1, 10**6, 2**61]))
def test_the_oldest_rows_are_those_of_a_stable_sort(rows, share, stretch):
    rows = [(user, item or "empty", time * stretch, place + 1.0) for place, (user, item, time) in enumerate(rows)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        dataset = prepare(read(frame, time_unit="s"), oldest=share, duplicates="keep")
    expected = sorted(rows, key=lambda row: row[2])[: max(1, round(len(rows) * share))]
    assert dataset.to_frame().rows() == sorted(expected, key=lambda row: (row[0], row[2], row[3]))


@pytest.mark.realdata
def test_the_preparation_of_arerec(real_data: Path):
    """The reference's steps in plain polars: the oldest rows, then short users, then short items, once each."""
    log = pl.read_csv(
        real_data / "ml-100k" / "u.data",
        separator="\t",
        has_header=False,
        new_columns=["user", "item", "rating", "time"],
    )
    for share in (None, 0.4):
        kept = log if share is None else log.sort("time", maintain_order=True).head(round(share * len(log)))
        kept = kept.filter(pl.len().over("user") >= 20)
        kept = kept.filter(pl.len().over("item") >= 20)
        found = prepare(
            real_data / "ml-100k" / "u.data", oldest=share, min_per_user=20, min_per_item=20, rounds=1, first="users"
        ).to_frame()
        order = ["user", "item", "time", "rating"]
        expected = kept.select(order).cast({"rating": pl.Float32}).sort(order)
        assert 10_000 < len(expected) < len(log)
        assert found.sort(order).rows() == expected.rows()


@pytest.mark.realdata
def test_movielens(real_data: Path, tmp_path: Path):
    dataset = prepare(real_data / "ml-100k" / "u.data", min_rating=4, k_core=5, out=tmp_path / "ml")
    assert counts(dataset)[:2] == [("read", 943, 1682, 100_000), ("rating at least 4", 942, 1447, 55_375)]
    assert dataset.item_counts()[1:].min() >= 5 and dataset.lengths[1:].min() >= 5
    again = prepare(real_data / "ml-100k" / "ml-100k.inter", min_rating=4, k_core=5)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.realdata
def test_public_sequences(real_data: Path):
    beauty = prepare(real_data / "amazon-beauty" / "Beauty.txt", k_core=5)
    assert (beauty.n_users, beauty.n_items, beauty.n_interactions) == (22_363, 12_101, 198_502)
    assert beauty.items[beauty.offsets[2] : beauty.offsets[3]].tolist() == [6, 7, 8, 9, 10, 4, 11]
    games = prepare(real_data / "amazon-games" / "Video.txt")
    assert (games.n_users, games.n_items, games.n_interactions) == (31_013, 23_715, 287_107)


def test_a_path_is_checked_while_it_is_read(tmp_path: Path):
    path = tmp_path / "x.csv"
    good = "user,item,time\n" + "1,2,5\n" * 5000
    for bad, message in [("1,2,soon", "line 5002: the time"), ("1,2", "line 5002 has 2 fields"), ("", None)]:
        path.write_text(good + bad)
        if message:
            with pytest.raises(DataError, match=message):
                prepare(path, out=tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.csv"]
    path.write_text(good + '"ann, the first",2,6\n')
    assert prepare(path).users.ids.to_list() == ["1", "ann, the first"]
    path.write_text("user,item,time\n\n \n")
    with pytest.raises(DataError, match="no interactions"):
        prepare(path)
