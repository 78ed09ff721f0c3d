"""Live histories are those of a Dataset with newer events."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.sources import RecentEvents, events_of
from segue.serving import arrivals, live
from segue.serving.live import LiveHistories
from segue.serving.store.base import FORGOTTEN, RETRACTED, TOOK, Change, TookPart
from tests.helpers import make_dataset

ROW = tuple[str, str, int]


def change(seq: int, user: str, item: str, time: int, kind: int = TOOK, session: str | None = None) -> Change:
    return Change(seq, kind, user, item, time * 1_000_000, session, 0)


def part(changes: list[Change]) -> TookPart:
    listed = [(one.user, one.item, one.session or "", one.time) for one in changes]
    return TookPart.of_rows(changes[-1].seq if changes else 0, listed)


def rows(histories: Histories) -> list[tuple[list[int], list[int]]]:
    return [
        (
            histories.items[start:end].tolist(),
            [] if histories.times is None else histories.times[start:end].tolist(),
        )
        for start, end in zip(histories.starts, histories.ends, strict=True)
    ]


def dataset(times: bool = True) -> Dataset:
    lists = {"ann": ["a", "b"], "bob": ["c"], "cat": []}
    return make_dataset(lists, {"ann": [10, 20], "bob": [30], "cat": []} if times else None, catalogue="abcdef")


def of(source: LiveHistories, *users: str) -> list[tuple[list[int], list[int]]]:
    return rows(source.histories(source.users.encode(list(users))))


USERS = st.sampled_from(["ann", "bob", "cat", "new", "newer"])


@settings(max_examples=60)
@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["ann", "bob", "cat", "new", "newer"]), st.sampled_from("abcdefz"), st.integers(0, 40)
        ),
        min_size=1,
        max_size=12,
        unique=True,
    ),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    loaded=st.integers(0, 12),
)
def test_histories_are_those_of_with_events(events: list[ROW], cuts: list[int], loaded: int) -> None:
    """However many events are loaded at the start, come later, and are merged in between."""
    data = dataset()
    fresh = [one for one in events if one not in {("ann", "a", 10), ("ann", "b", 20), ("bob", "c", 30)}]
    arrived = [change(seq, *one) for seq, one in enumerate(fresh, 1)]
    source = LiveHistories(data)
    source.load([part(arrived[:loaded])])
    first = min(loaded, len(arrived))
    for cut in [*sorted(cuts), len(arrived)]:
        source.apply(arrived[first : max(first, cut)])
        first = max(first, cut)
        state = source._state
        source._state = live._State(state.events, state.newest, {})
        source._merge()
    users = ["ann", "bob", "cat", "new", "newer", "nobody"]
    known = [one for one in fresh if one[1] != "z"]
    if not known:
        expected: Any = data.histories(data.users.encode(users))
    else:
        # In the order of arrival: equal times keep it.
        frame = pl.DataFrame(known, schema=["user", "item", "time"], orient="row")
        recent = RecentEvents(data, events_of(data, frame))
        expected = recent.histories(recent.users.encode(users))
    assert of(source, *users) == rows(expected)
    assert source.unknown_items == len(fresh) - len(known)


def test_an_event_that_a_refreshed_dataset_has_counts_once() -> None:
    source = LiveHistories(dataset())
    source.load([part([change(1, "ann", "b", 20), change(2, "ann", "d", 25)])])
    source.apply([change(3, "bob", "c", 30), change(4, "bob", "c", 31)])
    assert of(source, "ann", "bob") == [([1, 2, 4], [10, 20, 25]), ([3, 3], [30, 31])]


@pytest.mark.parametrize("times", [True, False])
def test_taking_back_and_forgetting(times: bool) -> None:
    source = LiveHistories(dataset(times))
    source.load([part([change(1, "ann", "d", 25), change(2, "ann", "e", 26)])])
    source.apply(
        [change(3, "ann", "f", 27), change(4, "ann", "d", 25, RETRACTED), change(5, "ann", "f", 27, RETRACTED)]
    )
    assert of(source, "ann")[0][0] == [1, 2, 5]
    source.apply([change(6, "ann", "", 50, FORGOTTEN)])
    histories = source.histories(source.users.encode(["ann", "bob"]))
    assert rows(histories)[0][0] == [] and rows(histories)[1][0] == [3]
    assert histories.users.tolist() == [0, 2]
    source.apply([change(7, "ann", "a", 60)])
    assert of(source, "ann")[0][0] == [1]
    assert source.last == 7


def test_earlier_histories() -> None:
    source = LiveHistories(dataset())
    source.apply([change(1, "ann", "c", 15), change(2, "ann", "d", 25)])
    assert rows(source.before(20).histories(np.array([1, 2]))) == [([1, 3], [10, 15]), ([], [])]
    assert rows(source.before(20).before(12).histories(np.array([1]))) == [([1], [10])]


def test_sessions_follow_the_rule_of_the_dataset() -> None:
    log = pl.DataFrame({"user": ["u", "u", "u"], "item": ["a", "b", "a"], "time": [0, 10, 5000]})
    data = segue.prepare(log, session_gap=1800)
    source = LiveHistories(data)
    source.apply([change(1, "u", "a", 20_000), change(2, "u", "b", 20_010), change(3, "u", "a", 30_000)])
    source.apply([change(4, "u", "b", 30_001, session="x"), change(5, "u", "a", 30_002, session="x")])
    histories = source.histories(np.array([1]))
    assert histories.items.tolist() == [1, 2, 1, 1, 2, 1, 2, 1]
    assert histories.session_offsets is not None
    assert histories.session_offsets.tolist() == [0, 2, 3, 5, 6, 8]


@pytest.mark.parametrize("few", [0, 1_000])
def test_events_with_unknown_items_count_when_the_catalogue_has_them(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_FEW", few)
    data = dataset()
    source = LiveHistories(data)
    source.load([part([change(1, "ann", "y", 21), change(2, "new", "z", 22), change(3, "new", "a", 23)])])
    source.apply([change(4, "new", "y", 24), change(5, "ann", "x", 25), change(6, "ann", "y", 26)])
    source.apply([change(7, "ann", "y", 26, RETRACTED)])
    assert (of(source, "ann", "new"), source.n_events) == ([([1, 2], [10, 20]), ([1], [23])], 1)
    larger = source.on(data.with_items(["y", "z"]))
    assert of(larger, "ann", "new") == [([1, 2, 7], [10, 20, 21]), ([8, 1, 7], [22, 23, 24])]
    assert (larger.n_events, larger.unknown_items) == (4, 1)
    larger.apply([change(8, "new", "z", 30)])
    assert of(larger, "new") == [([8, 1, 7, 8], [22, 23, 24, 30])]
    assert of(larger.on(data.with_items(["y", "z", "x"])), "ann") == [([1, 2, 7, 9], [10, 20, 21, 25])]
