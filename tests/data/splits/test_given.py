from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.data.dataset import Dataset
from segue.data.splits.holdouts import Holdout
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, DataError, StorageError
from tests.helpers import visible

Questions = dict[Any, tuple[list[Any], list[Any]]]


def questions(part: Holdout) -> Questions:
    """User → raw history and raw targets."""
    data, histories = part.dataset, part.histories()
    rows = zip(data.users.decode(part.users), histories.starts, part.history_ends, part.target_ends, strict=True)
    return {
        user: tuple(data.catalogue.decode(data.items[low:high]).to_list() for low, high in ((a, b), (b, c)))
        for user, a, b, c in rows
    }  # fmt: skip


def write(path: Path, header: str, rows: Sequence[Sequence[Any]]) -> Path:
    path.write_text("\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n")
    return path


LOG = "user_id:token\titem_id:token\ttimestamp:float"
LISTS = "user_id:token\titem_id_list:token_seq\titem_id:token"


def three(folder: Path, parts: Mapping[str, Sequence[Sequence[Any]]], header: str = LOG) -> list[Path]:
    return [write(folder / f"d.{name}.inter", header, rows) for name, rows in parts.items()]


def test_the_parts_of_three_files(tmp_path: Path) -> None:
    files = three(
        tmp_path,
        {
            "train": [(1, 10, 3), (1, 11, 2), (2, 10, 5)],
            "valid": [(1, 12, 4), (2, 11, 6)],
            "test": [(1, 13, 1), (2, 12, 7)],
        },
    )
    with pytest.warns(UserWarning, match=r"2 of 2 items of the test part are not in training: 2 of 2 targets"):
        split = segue.given_split(*files)
    assert visible(split.train) == {1: [11, 10], 2: [10]}
    assert questions(split.validation) == {1: ([11, 10], [12]), 2: ([10], [11])}
    assert questions(split.test) == {1: ([11, 10, 12], [13]), 2: ([10, 11], [12])}
    assert visible(split.refit) == {1: [11, 10, 12], 2: [10, 11]}
    assert not split.dataset.in_order  # the test of user 1 is older than the rest, and stays the test
    assert split.dataset.metadata["given"]["test"]["items_without_training"] == 2
    assert split.spec == {"name": "given"}


def test_a_folder_and_frames_give_the_same(tmp_path: Path) -> None:
    parts = {"train": [(1, 10, 1), (2, 11, 1)], "valid": [(1, 11, 2)], "test": [(1, 10, 3), (2, 10, 4)]}
    files = three(tmp_path, parts)
    (tmp_path / "d.item").write_text("item_id:token\n10\n")
    frames = [pl.DataFrame(rows, schema=["user", "item", "time"], orient="row") for rows in parts.values()]
    whole = pl.concat([one.with_columns(part=pl.lit(name)) for one, name in zip(frames, parts, strict=True)])
    splits = [segue.given_split(*given) for given in (files, [tmp_path], frames)]
    splits += [segue.given_split(whole, part="part"), segue.given_split(whole.sample(fraction=1, seed=1), part=3)]
    first = splits[0]
    for other in splits[1:]:
        assert questions(other.test) == questions(first.test) == {1: ([10, 11], [10]), 2: ([11], [10])}
        assert questions(other.validation) == questions(first.validation)
        assert visible(other.train) == visible(first.train)
        assert other.dataset.fingerprint == first.dataset.fingerprint


def test_a_split_without_validation_keeps_the_last_epoch(tmp_path: Path) -> None:
    log = pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 2, 1], "part": ["train", "test"] * 2})
    split = segue.given_split(log, part="part")
    assert len(split.validation) == 0
    assert questions(split.test) == {1: ([1], [2]), 2: ([2], [1])}


def test_users_without_a_history_are_counted_and_not_evaluated() -> None:
    log = pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 1, 1], "part": ["train", "test", "test"]})
    with pytest.warns(UserWarning, match="1 of 2 users of the test part are not in training: 1 of them are not"):
        split = segue.given_split(log, part="part")
    assert list(questions(split.test)) == ["a"]
    assert visible(split.refit) == {"a": [1], "b": []}


def test_item_lists_of_known_users(tmp_path: Path) -> None:
    """Rows of training are steps of one sequence; lists of validation and test hold its newest items."""
    files = three(
        tmp_path,
        {
            "train": [("u", "1 2", 3), ("u", "1 2 3", 4), ("v", "5", 6)],
            "valid": [("u", "3 4", 5), ("v", "5 6", 1)],
            "test": [("u", "1 2 3 4 5", 6), ("v", "6 1", 2)],
        },
        LISTS,
    )
    split = segue.given_split(*files)
    assert visible(split.train) == {"u": [1, 2, 3, 4], "v": [5, 6]}
    assert questions(split.validation) == {"u": ([1, 2, 3, 4], [5]), "v": ([5, 6], [1])}
    assert questions(split.test) == {"u": ([1, 2, 3, 4, 5], [6]), "v": ([5, 6, 1], [2])}


def test_item_lists_of_sessions(tmp_path: Path) -> None:
    """Sessions of the test are not those of training; one with two targets becomes two."""
    header = LISTS.replace("user", "session")
    files = three(
        tmp_path,
        {"train": [(1, "1 2", 3), (2, "3", 1)], "test": [(8, "1", 2), (8, "1 2", 3), (9, "3", 2)]},
        header,
    )
    with pytest.warns(UserWarning, match="3 of 3 users .* answered from their histories alone"):
        split = segue.given_split(files[0], test=files[1])
    assert questions(split.test) == {"8#1": ([1], [2]), "8#2": ([1, 2], [3]), "9": ([3], [2])}
    assert not split.test.known
    assert visible(split.train)["1"] == [1, 2, 3]
    recommender = segue.fit(segue.Markov(), split)
    assert segue.evaluate(recommender, split.test, k=2, resamples=0)["hr@2"] == 1.0


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([("u", "1 2", 3), ("u", "7 7 7", 4)], [("u", "1", 2)], "rows of 'u' are not steps of one sequence"),
        ([("u", "1 2", 3)], [("u", "7 8", 4)], "the list of 'u' does not go on"),
        ([("u", "1 2", 3)], [("u", "1 2 3", 4), ("u", "1 2 3 4", 5)], "'u' has several targets"),
        ([("u", "1 2", 3)], [("u", "", 4)], "expected a user, a list of items and an item in every row"),
    ],
)
def test_lists_that_do_not_go_together(tmp_path: Path, train: Any, test: Any, message: str) -> None:
    files = three(tmp_path, {"train": train, "test": test}, LISTS)
    with pytest.raises(DataError, match=message):
        segue.given_split(files[0], test=files[1])


def gsasrec_files(folder: Path, histories: Mapping[int, list[int]], validated: set[int]) -> None:
    """Files as gSASRec's program writes them: users of validation lack three items in training, others two."""
    lines: dict[str, list[str]] = {
        name: [] for name in ("train/input", "val/input", "val/output", "test/input", "test/output")
    }
    for user, items in histories.items():
        lines["train/input"].append(" ".join(map(str, items[: -3 if user in validated else -2])))
        lines["test/input"].append(" ".join(map(str, items[:-1])))
        lines["test/output"].append(str(items[-1]))
        if user in validated:
            lines["val/input"].append(" ".join(map(str, items[:-2])))
            lines["val/output"].append(str(items[-2]))
    for name, rows in lines.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")


def test_gsasrec_files(tmp_path: Path) -> None:
    """Users 2 and 4 have equal histories, and both are validated; items that are neither learnt nor asked for count."""
    histories = {1: [1, 2, 3, 4], 2: [2, 3, 4, 5, 1], 3: [5, 1, 2], 4: [2, 3, 4, 5, 1]}
    gsasrec_files(tmp_path, histories, {2, 4})
    split = segue.given_split(tmp_path)
    assert visible(split.train) == {1: [1, 2], 2: [2, 3], 3: [5], 4: [2, 3]}
    assert questions(split.validation) == {2: ([2, 3, 4], [5]), 4: ([2, 3, 4], [5])}
    assert questions(split.test) == {user: (items[:-1], items[-1:]) for user, items in histories.items()}
    assert visible(split.refit) == {user: items[:-1] for user, items in histories.items()}
    (tmp_path / "val" / "output.txt").write_text("9\n9\n")
    with pytest.raises(DataError, match=r"val: line 1 of input\.txt, with its target behind it, is no line"):
        segue.given_split(tmp_path)


def test_s3rec_files(tmp_path: Path) -> None:
    (tmp_path / "Toys.txt").write_text("1 5 6 7 8\n2 5 6\n3 6 5 7\n")
    split = segue.given_split(tmp_path / "Toys.txt")
    assert questions(split.test) == {1: ([5, 6, 7], [8]), 3: ([6, 5], [7])}
    assert questions(split.validation) == {1: ([5, 6], [7]), 3: ([6], [5])}
    assert visible(split.train) == {1: [5, 6], 2: [5, 6], 3: [6]}


@pytest.mark.realdata
def test_every_test_item_of_a_published_split_is_kept(tmp_path: Path, real_data: Path) -> None:
    """RecBole breaks ties in time in an order of its own: our own leave-last-out has other items for many users."""
    log = pl.read_csv(real_data / "ml-100k" / "ml-100k.inter", separator="\t")
    user, item, rating, time = log.columns
    rng = np.random.default_rng(7)
    log = log.with_columns(draw=pl.Series(rng.permutation(len(log)))).sort(user, time, "draw")  # ties by chance
    after = log.with_columns(after=pl.len().over(user) - 1 - pl.int_range(pl.len()).over(user))
    wanted = {"train": pl.col("after") > 1, "valid": pl.col("after") == 1, "test": pl.col("after") == 0}
    for name, rows in wanted.items():
        part = after.filter(rows).select(user, item, rating, time)
        part.sample(fraction=1, shuffle=True, seed=3).write_csv(tmp_path / f"ml-100k.{name}.inter", separator="\t")
    published = dict(after.filter(wanted["test"]).select(user, item).iter_rows())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = segue.given_split(tmp_path)
    ours = {one: targets[0] for one, (_, targets) in questions(split.test).items()}
    assert len(ours) == 943
    assert ours == published
    own = questions(segue.leave_last_out(segue.prepare(real_data / "ml-100k" / "ml-100k.inter")).test)
    assert sum(published[one] == targets[0] for one, (_, targets) in own.items()) < 800


# ---- as a Dataset ----------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    parts = ["train"] * 4 + ["valid", "test"]
    return pl.DataFrame({"user": np.repeat(np.arange(20), 6), "item": rng.integers(0, 9, 120), "which": parts * 20})


def test_the_command_keeps_the_split_through_training_and_evaluation(
    tmp_path: Path, log: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    log.write_csv(tmp_path / "log.csv")
    out, run = str(tmp_path / "data"), str(tmp_path / "run")
    assert main(["prepare", str(tmp_path / "log.csv"), "--part", "which", "--out", out]) == 0
    assert "test: 20 targets of 20 users, as given" in capsys.readouterr().err
    assert main(["train", out, "--model", "markov", "--out", run]) == 0
    assert "split: given" in capsys.readouterr().err
    assert main(["evaluate", run, "--json", "--k", "3"]) == 0
    recommender = segue.load(run)
    split = split_by(recommender.dataset, recommender.metadata["split"])
    assert questions(split.test) == questions(segue.given_split(log, part="which").test)


def test_parts_are_saved_and_checked(tmp_path: Path, log: pl.DataFrame) -> None:
    data = segue.given_split(log, part="which").dataset
    data.save(tmp_path / "data")
    again = Dataset.open(tmp_path / "data")
    assert again.parts is not None and data.parts is not None
    assert again.parts.tolist() == data.parts.tolist()
    assert again.fingerprint == data.fingerprint
    forgotten = questions(split_by(again.forget([3]), {"name": "given"}).test)
    assert forgotten.keys() == set(range(20)) - {3}
    with pytest.raises(DataError, match="came with a split"):
        again.append(pl.DataFrame({"user": [1], "item": [2]}))
    wrong = data.parts.copy()
    wrong[:2] = [4, 0]
    bad = Dataset(**{**vars_of(data), "parts": wrong})
    bad.save(tmp_path / "bad")
    with pytest.raises(StorageError, match=r"parts\.npy holds parts"):
        Dataset.open(tmp_path / "bad")


def vars_of(data: Dataset) -> dict[str, Any]:
    return {name: getattr(data, name) for name in ("items", "offsets", "users", "catalogue", "in_order")}


def test_other_data_have_no_split(log: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="came with no split"):
        split_by(segue.prepare(log.drop("which")), {"name": "given"})


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"validation": 1}, ConfigError, "needs a test part"),
        ({"test": 1, "part": "which"}, ConfigError, "leave validation and test out"),
        ({"part": "other"}, DataError, r"the column 'other' holds \d: expected train, valid"),
        ({}, DataError, "one log without a split of its own"),
    ],
)
def test_arguments_that_do_not_go_together(
    log: pl.DataFrame, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    log = log.with_columns(other=pl.col("item") % 3)
    with pytest.raises(error, match=message):
        segue.given_split(log, **{name: log if value == 1 else value for name, value in given.items()})


def test_folders_without_a_split(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match='holds no file with "train" in its name'):
        segue.given_split(tmp_path)
    for name in ("train.csv", "x_train.csv", "test.csv"):
        (tmp_path / name).write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match=r"train\.csv, x_train\.csv could be the same part"):
        segue.given_split(tmp_path)
