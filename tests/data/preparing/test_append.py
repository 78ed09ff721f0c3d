"""Appending a log gives what preparing both logs at once gives, up to the order of the codes."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data.item_histories import item_order
from segue.errors import ConfigError, DataError, StorageError

DAY = 86_400
ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(0, 40), st.integers(1, 5), st.booleans()),
    min_size=2,
    max_size=60,
)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"duplicates": "keep"},
    {"duplicates": "first"},
    {"duplicates": "last"},
    {"min_rating": 3},
    {"sessions": "day"},
    {"session_gap": 3 * DAY},
    {"session_gap": 3 * DAY, "duplicates": "keep", "min_rating": 2},
    {"sessions": "day", "duplicates": "last"},
    {"newest_days": 10},
    {"newest_days": 10, "session_gap": 3 * DAY, "min_rating": 2},
    {"newest_days": 20, "duplicates": "first", "sessions": "day"},
]


def frames(rows: list[tuple[int, int, int, int, bool]], text: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two logs: the rows without and with the mark. Times are days; many are equal."""
    frame = pl.DataFrame(
        {
            "user": [row[0] for row in rows],
            "item": [row[1] for row in rows],
            "time": [1_600_000_000 + row[2] * DAY for row in rows],
            "rating": [float(row[3]) for row in rows],
            "late": [row[4] for row in rows],
        },
        schema_overrides={"rating": pl.Float64},
    )
    if text:
        frame = frame.with_columns(pl.format("u{}", "user").alias("user"), pl.format("i{}", "item").alias("item"))
    return frame.filter(~pl.col("late")).drop("late"), frame.filter("late").drop("late")


def content(dataset: segue.Dataset) -> pl.DataFrame:
    """The interactions in the order of raw user ids; the order within a user stays."""
    return dataset.to_frame().sort("user", maintain_order=True)


def quietly(call: Any, *args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args, **options)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, options=st.sampled_from(OPTIONS), text=st.booleans())
def test_appending_equals_preparing_at_once(
    rows: list[tuple[int, int, int, int, bool]], options: dict[str, Any], text: bool
) -> None:
    first, second = frames(rows, text)
    if not len(first) or not len(second):
        return
    try:
        whole = quietly(segue.prepare, pl.concat([first, second]), **options)
        data = quietly(segue.prepare, first, **options)
    except DataError:  # a filter leaves nothing
        return
    if first.equals(second):
        return
    grown = quietly(data.append, second)
    assert content(grown).equals(content(whole))
    assert grown.users.ids[: data.n_users].equals(data.users.ids)
    assert grown.catalogue.ids[: data.n_items].equals(data.catalogue.ids)
    assert grown.in_order and grown.n_interactions == len(grown.items)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, options=st.sampled_from(OPTIONS), chunk=st.sampled_from([3, 1000]))
def test_histories_of_items_are_merged(
    rows: list[tuple[int, int, int, int, bool]], options: dict[str, Any], chunk: int
) -> None:
    """The stored order of the items' histories is merged with the new interactions, in pieces of any size."""
    first, second = frames(rows, False)
    if not len(first) or not len(second) or first.equals(second):
        return
    try:
        data = quietly(segue.prepare, first, **options)
    except DataError:  # a filter leaves nothing
        return
    stored = replace(data, by_item=item_order(data.items, data.times))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segue.data.preparing.append.CHUNK", chunk)
        patch.setattr("segue.data.preparing.append._PIECE", chunk)
        patch.setattr("segue.data.item_histories.CHUNK", chunk)
        grown = quietly(stored.append, second)
    assert content(grown).equals(content(quietly(data.append, second)))
    assert grown.by_item is not None
    assert grown.by_item.tolist() == item_order(grown.items, grown.times).tolist()


def test_a_damaged_order_of_the_items_histories_is_found() -> None:
    data = segue.prepare(log(rating=[1.0, 2.0, 3.0]))
    damaged = replace(data, by_item=np.array([0, 2, 2], dtype=np.int32))
    with pytest.raises(StorageError, match="the order of the items' histories of this Dataset"):
        damaged.append(log(user=["b", "b", "b"], rating=[1.0, 2.0, 3.0], time=[3, 11, 12]))


@settings(deadline=None, max_examples=40)
@given(rows=ROWS, duplicates=st.sampled_from(["drop", "keep"]))
def test_sessions_of_a_column(rows: list[tuple[int, int, int, int, bool]], duplicates: str) -> None:
    """Each session is in one log, and those of a user do not overlap."""
    rows = [(*row[:4], (row[0] + row[2] // 5) % 2 == 1) for row in rows]
    first, second = (
        frame.with_columns(session=pl.format("{}-{}", "user", (pl.col("time") - 1_600_000_000) // (5 * DAY)))
        for frame in frames(rows, False)
    )
    if not len(first) or not len(second):
        return
    whole = quietly(segue.prepare, pl.concat([first, second]), duplicates=duplicates)
    grown = quietly(quietly(segue.prepare, first, duplicates=duplicates).append, second)
    assert content(grown).equals(content(whole))


@settings(deadline=None, max_examples=30)
@given(parts=st.lists(ROWS, min_size=3, max_size=3))
def test_three_logs(parts: list[list[tuple[int, int, int, int, bool]]]) -> None:
    logs = [pl.concat(frames(rows, True)) for rows in parts]
    if len({str(log.rows()) for log in logs}) < 3:
        return
    grown = quietly(segue.prepare, logs[0])
    for log in logs[1:]:
        try:
            grown = quietly(grown.append, log)
        except DataError as error:
            assert "part of this Dataset already" in str(error)
            return
    assert content(grown).equals(content(quietly(segue.prepare, pl.concat(logs))))


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, least=st.integers(2, 4))
def test_k_core_asks_new_ids_for_enough_new_interactions(
    rows: list[tuple[int, int, int, int, bool]], least: int
) -> None:
    first, second = frames(rows, False)
    if not len(first) or not len(second):
        return
    try:
        data = quietly(segue.prepare, first, k_core=least, duplicates="keep")
    except DataError:
        return
    if first.equals(second):
        return
    grown = quietly(data.append, second)
    users, items = set(data.users.ids), set(data.catalogue.ids)
    kept = [(row["user"], row["item"], row["time"]) for row in second.iter_rows(named=True)]
    while True:  # the rule, one row at a time
        of_user, of_item = Counter(row[0] for row in kept), Counter(row[1] for row in kept)
        left = [
            row
            for row in kept
            if (row[0] in users or of_user[row[0]] >= least) and (row[1] in items or of_item[row[1]] >= least)
        ]
        if len(left) == len(kept):
            break
        kept = left
    expected = Counter(data.to_frame().select("user", "item", "time").rows()) + Counter(kept)
    assert Counter(grown.to_frame().select("user", "item", "time").rows()) == expected
    assert set(grown.users.ids) == users | {row[0] for row in kept}
    assert set(grown.catalogue.ids) == items | {row[1] for row in kept}


def log(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({"user": ["a", "b", "a"], "item": ["x", "y", "y"], "time": [5, 6, 9]} | columns)


def test_a_log_without_times_goes_behind() -> None:
    data = quietly(segue.prepare, pl.DataFrame({"user": [1, 2, 1], "item": [5, 5, 6]}))
    grown = quietly(data.append, pl.DataFrame({"user": [2, 1, 3], "item": [7, 5, 5]}))
    assert grown.to_frame().rows() == [(1, 5), (1, 6), (1, 5), (2, 5), (2, 7), (3, 5)]


def test_the_same_log_twice_is_refused_by_name(tmp_path: Path) -> None:
    data = segue.prepare(log())
    log(time=[10, 11, 12]).write_csv(tmp_path / "tuesday.csv")
    grown = data.append(tmp_path / "tuesday.csv")
    (tmp_path / "tuesday.csv").rename(tmp_path / "copy.csv")
    with pytest.raises(DataError, match=r"copy.csv is part of this Dataset already: it was appended as .*tuesday.csv"):
        grown.append(tmp_path / "copy.csv")
    with pytest.raises(DataError, match="it was prepared as"):
        grown.append(log())


def test_times_before_the_end_are_said() -> None:
    with pytest.warns(UserWarning, match=r"2 of 3 new interactions are older than the newest one of the Dataset \(9\)"):
        grown = segue.prepare(log()).append(log(time=[1, 7, 20]))
    assert grown.to_frame().filter(pl.col("user") == "a")["time"].to_list() == [1, 5, 9, 20]


def test_times_are_converted_to_the_unit_of_the_dataset() -> None:
    data = segue.prepare(log(time=[1_600_000_000, 1_600_000_001, 1_600_000_002]))
    grown = data.append(log(time=[1_600_000_003_000, 1_600_000_004_000, 1_600_000_005_999]))
    assert grown.time_unit == "s"
    assert grown.to_frame()["time"].max() == 1_600_000_005


def test_the_rule_of_newest_days_is_kept_and_applied_again() -> None:
    start = 1_600_000_000
    days = [start, start + 5 * DAY, start + 9 * DAY]
    data = segue.prepare(log(time=days), newest_days=6)
    assert data.to_frame()["time"].to_list() == [days[2], days[1]]
    grown = data.append(log(user=["c", "c", "c"], time=[start + 12 * DAY, start + 13 * DAY, start + 14 * DAY]))
    assert grown.to_frame()["user"].to_list() == ["a", "c", "c", "c"]
    assert grown.users.ids.to_list() == ["a", "b", "c"]  # b keeps the code
    longer = data.append(log(user=["c"] * 3, item=["x", "y", "z"], time=[start + 12 * DAY] * 3), newest_days=30)
    assert longer.metadata["options"]["newest_days"] == 30
    assert longer.n_interactions == 5


def test_a_stored_dataset_grows_in_place_and_elsewhere(tmp_path: Path) -> None:
    data = segue.prepare(log(rating=[1.0, 2.0, 3.0]), out=tmp_path / "data")
    grown = data.append(log(rating=[4.0, 5.0, 1.0], time=[20, 21, 22]), out=tmp_path / "grown")
    assert segue.Dataset.open(tmp_path / "grown").to_frame().equals(grown.to_frame())
    again = data.append(log(rating=[4.0, 5.0, 1.0], time=[20, 21, 22]), out=tmp_path / "data")
    assert again.fingerprint == grown.fingerprint
    assert np.array_equal(again.item_histories.order, grown.item_histories.order)
    assert segue.Dataset.open(tmp_path / "data").fingerprint == grown.fingerprint


def test_bad_input(tmp_path: Path) -> None:
    data = segue.prepare(log(rating=[1.0, 2.0, 3.0]))
    with pytest.raises(DataError, match="the Dataset has ratings, and the new log has none"):
        data.append(log())
    with pytest.raises(DataError, match="the Dataset has times, and the new log has none"):
        quietly(data.append, log(rating=[1.0, 2.0, 3.0]).drop("time"))
    with pytest.raises(DataError, match=r"oldest=0\.5.*prepare the whole log again"):
        segue.prepare(log(), oldest=0.5).append(log(time=[10, 11, 12]))
    with pytest.raises(DataError, match="is not an integer"):
        segue.prepare(log(user=[1, 2, 3])).append(log(time=[10, 11, 12]))
    with pytest.raises(ConfigError, match="newest_days=-1"):
        data.append(log(rating=[1.0, 2.0, 3.0]), newest_days=-1)
    with pytest.raises(DataError, match="sessions, and the new log has none"):
        segue.prepare(log(session=[1, 2, 3])).append(log(time=[10, 11, 12]))
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        data.append(log(rating=[1.0, 2.0, 3.0], time=[10, 11, 12]), out=tmp_path / "file")


def test_forgotten_users_leave_their_codes_to_nobody(tmp_path: Path) -> None:
    data = segue.prepare(log(user=["a", "b", "c"]))
    left = data.forget(["b"])
    left.save(tmp_path / "data")
    left = segue.Dataset.open(tmp_path / "data")
    assert left.users.encode(["a", "b", "c"]).tolist() == [1, 0, 3]
    assert left.users.decode([1, 2, 3]).to_list() == ["a", None, "c"]
    grown = left.append(log(user=["b", "b", "b"], time=[20, 21, 22]))
    assert grown.users.encode(["a", "b", "c"]).tolist() == [1, 4, 3]
    assert grown.to_frame()["user"].to_list() == ["a", "c", "b", "b", "b"]
    assert "b" not in str(left.to_frame())


def test_forgotten_integers() -> None:
    data = segue.prepare(log(user=[7, 8, 9]))
    left = data.forget(8).forget([9])
    assert left.users.encode([7, 8, 9]).tolist() == [1, 0, 0]
    assert left.users.codes.tolist() == [1]
    assert left.users.encode(left.users.ids).tolist() == [1, 0, 0]
    with pytest.raises(segue.SegueError, match="unknown user"):
        left.forget(8)


def test_a_product_table_grows_with_the_catalogue(tmp_path: Path) -> None:
    log = pl.DataFrame({"user": [1, 1, 2, 2, 3], "item": [1, 2, 2, 3, 1], "time": [1, 2, 3, 4, 5]})
    table = pl.DataFrame({"item": [1, 2, 3, 4], "title": ["tea", "milk", "salt", "oats"]})
    grown = segue.prepare(log, items=table).append(pl.DataFrame({"user": [1, 4], "item": [4, 5], "time": [10, 11]}))
    expected = {"item": [1, 2, 3, 4, 5], "title": ["tea", "milk", "salt", "oats", None]}
    assert grown.items_frame.to_dict(as_series=False) == expected
    assert not len(grown.cold_items), "item 4 was cold, and has an interaction now"
    grown.save(tmp_path / "grown")
    assert segue.Dataset.open(tmp_path / "grown").items_frame.to_dict(as_series=False) == expected
