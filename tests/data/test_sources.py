"""A history is the same whatever source it comes from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.preparing.prepare import prepare
from segue.data.sources import RecentEvents, events_of, given_histories
from segue.errors import DataError

Row = tuple[int, int, int, int]

rows = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(0, 40)), min_size=6, max_size=40)


def log(drawn: list[tuple[int, int, int]]) -> pl.DataFrame:
    """Users, items and times, each of the latter once; a session for every ten units of time."""
    frame = pl.DataFrame(drawn, schema=["user", "item", "time"], orient="row").unique(["user", "time"])
    return frame.sort("user", "time").with_columns(session=pl.col("time") // 10 + 100 * pl.col("user"))


def plain(histories: Histories, dataset: Any) -> list[Any]:
    """Items, times and sessions of each history, as lists."""
    found: list[Any] = []
    for start, end in zip(histories.starts, histories.ends, strict=True):
        cuts = histories.session_offsets
        inner = [] if cuts is None else [int(cut) - start for cut in cuts if start <= cut < end]
        times = None if histories.times is None else histories.times[start:end].tolist()
        found.append((dataset.catalogue.decode(histories.items[start:end]).to_list(), times, inner))
    return found


@settings(deadline=None, max_examples=60)
@given(rows, st.integers(0, 40))
def test_a_dataset_with_the_rest_as_events_is_the_whole_dataset(drawn: list[Any], cut: int) -> None:
    frame = log(drawn)
    whole = prepare(frame, duplicates="keep")
    old = frame.filter(pl.col("time") < cut)
    new = frame.filter(pl.col("time") >= cut)
    if not len(new):
        return
    catalogue = new.filter(~pl.col("item").is_in(old["item"].to_list()))  # known, and taken by nobody yet
    base = prepare(pl.concat([old, catalogue]), duplicates="keep").before(cut)
    source = RecentEvents(base, events_of(base, new))
    codes = source.users.encode(whole.users.ids)
    together = source.histories(codes)
    expected = whole.histories(np.arange(1, whole.n_users + 1))
    for one, other in zip(plain(together, source), plain(expected, whole), strict=True):
        assert one[:2] == other[:2]
    assert (together.users <= base.n_users).all()
    assert plain(source.before(cut).histories(codes), source) == plain(
        base.histories(codes * (codes <= base.n_users)), base
    )


def shop() -> Dataset:
    frame = pl.DataFrame({"user": ["a", "a", "b"], "item": ["x", "y", "x"], "time": [10, 20, 30], "session": [1, 1, 2]})
    return prepare(frame)


def test_events_are_sorted_among_what_is_stored_and_keep_their_sessions() -> None:
    data = shop()
    frame = pl.DataFrame({"user": ["a", "c"], "item": ["z", "y"], "time": [15, 5], "session": [7, 8]})
    events = events_of(data, frame)
    assert events.unknown.to_list() == ["z"]
    frame = frame.with_columns(item=pl.lit("x"))
    source = RecentEvents(data, events_of(data, frame))
    histories = source.histories(source.users.encode(["a", "b", "c", "nobody"]))
    assert plain(histories, data) == [
        (["x", "x", "y"], [10, 15, 20], [0, 1]),
        (["x"], [30], [0]),
        (["x"], [5], [0]),
        ([], [], []),
    ]
    assert histories.users.tolist() == [1, 2, 0, 0]


def test_events_may_be_laid_on_events() -> None:
    data = shop()
    first = RecentEvents(data, events_of(data, pl.DataFrame({"user": ["c"], "item": ["x"], "time": [1]})))
    second = RecentEvents(
        first, events_of(data, pl.DataFrame({"user": ["c", "d"], "item": ["y", "y"], "time": [2, 3]}))
    )
    histories = second.histories(second.users.encode(["c", "d", "a"]))
    assert [one[0] for one in plain(histories, data)] == [["x", "y"], ["y"], ["x", "y"]]
    assert first.users.encode(["c"]).tolist() == second.users.encode(["c"]).tolist()
    assert first.fingerprint != second.fingerprint != data.fingerprint


def test_times_are_brought_to_the_unit_of_the_dataset() -> None:
    data = prepare(pl.DataFrame({"user": [1], "item": [2], "time": [1_700_000_000]}))
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [1_700_000_001_500]})
    events = events_of(data, frame)
    assert data.time_unit == "s" and events.times is not None and events.times.tolist() == [1_700_000_001]


def test_events_without_times_are_refused_if_the_dataset_has_times() -> None:
    with pytest.raises(DataError, match="the events have no times, and the Dataset has: add a column of times"):
        events_of(shop(), pl.DataFrame({"user": ["a"], "item": ["x"]}))


def test_a_dataset_without_times_takes_events_in_their_order() -> None:
    data = prepare(pl.DataFrame({"user": [1, 1], "item": [5, 6]}))
    source = RecentEvents(data, events_of(data, pl.DataFrame({"user": [1, 1], "item": [6, 5]})))
    assert plain(source.histories(np.array([1])), data)[0][0] == [5, 6, 6, 5]


def test_sessions_of_events_are_found_by_the_rule_of_the_dataset() -> None:
    day = 86_400
    times = [1_700_000_000 + shift for shift in (0, 60, day)]
    data = prepare(pl.DataFrame({"user": [1] * 3, "item": [5, 6, 5], "time": times}), sessions="day")
    frame = pl.DataFrame({"user": [1] * 3, "item": [5, 6, 6], "time": [one + 10 * day for one in times]})
    source = RecentEvents(data, events_of(data, frame))
    assert plain(source.histories(np.array([1])), data)[0][2] == [0, 2, 3, 5]
    gap = replace(data, metadata={**data.metadata, "options": {"sessions": {"kind": "gap", "gap": 30.0}}})
    source = RecentEvents(gap, events_of(gap, frame))
    assert plain(source.histories(np.array([1])), data)[0][2] == [0, 2, 3, 4, 5]


def test_given_frames_have_times_and_sessions() -> None:
    data = shop()
    frame = pl.DataFrame({"user": ["a", "q", "a"], "item": ["y", "x", "x"], "time": [9, 8, 7], "session": [2, 3, 1]})
    ids, histories, unknown = given_histories(data, data, frame)
    assert ids.to_list() == ["a", "q"] and not len(unknown) and histories.users.tolist() == [1, 0]
    assert plain(histories, data) == [(["x", "y"], [7, 9], [0, 1]), (["x"], [8], [0])]
    _, histories, _ = given_histories(data, data, frame.drop("time"))
    assert histories.times is None
