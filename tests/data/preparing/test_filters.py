from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.order import time_order
from segue.data.preparing.filters import k_core, without_duplicates

interactions = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3)), max_size=40)


def columns(rows):
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    return tuple(np.array([row[place] for row in rows], dtype=np.int64) for place in range(3))


def naive_core(rows, per_user, per_item, rounds, first="items"):
    """Rounds over a list of (user, item)."""
    rows, done = list(enumerate(rows)), 0
    turns = [(1, per_item), (0, per_user)] if first == "items" else [(0, per_user), (1, per_item)]
    while rounds is None or done < rounds:
        before = len(rows)
        for place, least in turns:
            found = Counter(pair[place] for _, pair in rows)
            rows = [row for row in rows if found[row[1][place]] >= least]
        done += 1
        if len(rows) == before:
            break
    return [place for place, _ in rows]


@settings(max_examples=200, deadline=None)
@given(
    interactions,
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from([None, 1, 2]),
    st.sampled_from(["items", "users"]),
)
def test_k_core_is_the_naive_one(rows, per_user, per_item, rounds, first):
    users, items, _ = columns(rows)
    lengths = np.bincount(users, minlength=7)
    keep, of_user, of_item = k_core(items, lengths, 6, per_user=per_user, per_item=per_item, rounds=rounds, first=first)
    pairs = list(zip(users.tolist(), items.tolist(), strict=True))
    assert np.flatnonzero(keep).tolist() == naive_core(pairs, per_user, per_item, rounds, first)
    np.testing.assert_array_equal(of_user, np.bincount(users[keep], minlength=7))
    np.testing.assert_array_equal(of_item, np.bincount(items[keep], minlength=7))


@settings(max_examples=200, deadline=None)
@given(interactions, st.sampled_from(["drop", "keep", "first", "last"]))
def test_duplicates(rows, which):
    users, items, times = columns(rows)
    keep = without_duplicates(users, items, times, which)
    found = list(range(len(users))) if keep is None else np.flatnonzero(keep).tolist()
    seen: dict[tuple[int, ...], int] = {}
    for place, (user, item, time) in enumerate(zip(users.tolist(), items.tolist(), times.tolist(), strict=True)):
        key = {"drop": (user, item, time), "keep": (place,)}.get(which, (user, item))
        if which == "last" or key not in seen:
            seen[key] = place
    assert found == sorted(seen.values())


def test_duplicates_without_times_are_not_known():
    users, items = np.array([1, 1]), np.array([2, 2])
    assert without_duplicates(users, items, None, "drop") is None
    keep = without_duplicates(users, items, None, "first")
    assert keep is not None and keep.tolist() == [True, False]


@settings(max_examples=200, deadline=None)
@given(interactions, st.sampled_from([1, 2**40, 2**61]))
def test_time_order_is_stable(rows, stretch):
    users = np.array([row[0] for row in rows], dtype=np.int32)
    times = np.array([(row[2] - 1) * stretch for row in rows], dtype=np.int64)
    order = time_order(users, times)
    found = list(range(len(rows))) if order is None else order.tolist()
    assert found == sorted(range(len(rows)), key=lambda place: (users[place], times[place]))


@pytest.mark.parametrize(("users", "order"), [([], None), ([1, 1, 2], None), ([2, 1, 1], [1, 2, 0])])
def test_without_times_the_order_of_the_log_stays(users, order):
    found = time_order(np.array(users, dtype=np.int32), None)
    assert (found if found is None else found.tolist()) == order
