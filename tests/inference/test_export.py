from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from segue.errors import ConfigError, StorageError, UnknownIdError
from segue.inference import export as module
from segue.inference.asking.everyone import EVERYONE
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender
from segue.models.markov import Markov
from tests.inference.fakes import random_dataset


def markov() -> Recommender:
    data = random_dataset(23, 12, 6)
    model = Markov().build(data.n_users, data.n_items)
    model.count(data)
    return Recommender(model, data)


class Killed(BaseException):
    pass


class Watched:
    """Count the parts that are made, and stop after some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts = 0
        self.stop_after: int | None = None
        original = module.best_lists

        def best_lists(*args: Any) -> Any:
            if self.parts == self.stop_after:
                raise Killed
            self.parts += 1
            return original(*args)

        monkeypatch.setattr(module, "best_lists", best_lists)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_the_same_as_recommend(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    path = markov().export(tmp_path / "out.parquet", EVERYONE, k=4, chunk=10, progress=lambda *done: calls.append(done))
    assert_frame_equal(pl.read_parquet(path), markov().recommend(EVERYONE, k=4), check_exact=True)
    assert calls == [(0, 23), (10, 23), (20, 23), (23, 23)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize(
    ("suffix", "read"), [(".csv", pl.read_csv), (".jsonl", pl.read_ndjson), (".parquet", pl.read_parquet)]
)
def test_formats(tmp_path: Path, suffix: str, read: Any) -> None:
    path = markov().export(tmp_path / f"out{suffix}", EVERYONE, k=2, chunk=9)
    expected = markov().recommend(EVERYONE, k=2)
    for column in ("user", "item", "rank"):
        assert read(path)[column].to_list() == expected[column].to_list()
    assert read(path)["score"].to_list() == pytest.approx(expected["score"].to_list(), rel=1e-5)


def test_options_reach_the_lists(tmp_path: Path) -> None:
    options: dict[str, Any] = {"users": [5, 2], "k": 3, "exclude_seen": False, "allow": [10, 20, 30], "deny": [20]}
    path = markov().export(tmp_path / "out.parquet", **options)
    assert_frame_equal(pl.read_parquet(path), markov().recommend(**options))


def test_a_killed_run_continues(tmp_path: Path, watched: Watched) -> None:
    target = tmp_path / "out.parquet"
    watched.stop_after = 3
    with pytest.raises(Killed):
        markov().export(target, EVERYONE, k=4, chunk=5)
    assert not target.exists()
    watched.stop_after = None
    markov().export(target, EVERYONE, k=4, chunk=5)
    assert watched.parts == 5
    assert_frame_equal(pl.read_parquet(target), markov().recommend(EVERYONE, k=4), check_exact=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.parquet"]


@pytest.mark.parametrize("other", [{"k": 3}, {"exclude_seen": False}, {"users": [1, 2]}, {"deny": [10]}, {"chunk": 6}])
def test_parts_of_another_export_are_not_used(tmp_path: Path, watched: Watched, other: dict[str, Any]) -> None:
    target = tmp_path / "out.parquet"
    watched.stop_after = 2
    with pytest.raises(Killed):
        markov().export(target, EVERYONE, k=4, chunk=5)
    watched.stop_after = None
    options = {"users": EVERYONE, "k": 4, "chunk": 5, **other}
    markov().export(target, **options)
    options.pop("chunk")
    assert_frame_equal(pl.read_parquet(target), markov().recommend(**options), check_exact=True)


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path, watched: Watched) -> None:
    target = tmp_path / "out.parquet"
    markov().export(target, EVERYONE, k=2)
    old = target.read_bytes()
    watched.stop_after = watched.parts
    with pytest.raises(Killed):
        markov().export(target, EVERYONE, k=3, chunk=5)
    assert target.read_bytes() == old


def test_unknown_users_are_named_once(tmp_path: Path) -> None:
    with pytest.warns(UnknownIdWarning, match="1 unknown user left out: 99") as caught:
        markov().export(tmp_path / "out.parquet", [1, 99, 2], k=1, chunk=1)
    assert len(caught) == 1
    assert pl.read_parquet(tmp_path / "out.parquet")["user"].to_list() == [1, 2]


def test_no_users(tmp_path: Path) -> None:
    path = markov().export(tmp_path / "out.parquet", [], k=1)
    assert pl.read_parquet(path).shape == (0, 5)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("out.xlsx", {}, ConfigError, r"ends in '\.xlsx': expected one of \.parquet, \.csv, \.jsonl"),
        ("out.csv", {"chunk": 2, "shards": 2}, ConfigError, "both divide the users"),
        ("out", {"shards": 0}, ConfigError, "shards=0"),
        ("out.csv", {"chunk": 0}, ConfigError, "chunk=0"),
        ("out.csv", {"k": 13}, ConfigError, "the catalogue has only 12 items"),
        ("out.csv", {"k": -2}, ConfigError, "k=-2: expected 1 or more"),
        ("out.csv", {"users": [99]}, UnknownIdError, "unknown user: 99"),
    ],
)
def test_bad_input(tmp_path: Path, name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        markov().export(tmp_path / name, **{"users": EVERYONE, **options})
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_program_stays(tmp_path: Path) -> None:
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "mine.txt").write_text("keep")
    with pytest.raises(StorageError, match="was not written by segue"):
        markov().export(tmp_path / "out.csv", EVERYONE, k=1)
    assert (tmp_path / "out.csv.parts" / "mine.txt").read_text() == "keep"


def test_the_note_of_an_unfinished_export(tmp_path: Path, watched: Watched) -> None:
    watched.stop_after = 1
    with pytest.raises(Killed):
        markov().export(tmp_path / "out.csv", EVERYONE, k=1, chunk=5)
    note = json.loads((tmp_path / "out.csv.parts" / "export.json").read_text())
    assert note["k"] == 1 and note["n"] == 23 and note["chunk"] == 5
