from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.preparing.filters import Oldest, k_core, nth_smallest, without_duplicates

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


INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3) | st.integers(10**18, 10**18 + 10**6)
PIECES = st.lists(st.lists(INTEGERS, max_size=8), min_size=1, max_size=5).filter(lambda pieces: any(pieces))


@settings(deadline=None)
@given(PIECES, st.data())
def test_the_nth_smallest_is_that_of_a_sort(pieces: list[list[int]], data: st.DataObject) -> None:
    ordered = sorted(value for piece in pieces for value in piece)
    n = data.draw(st.integers(1, len(ordered)))
    arrays = [np.array(piece, dtype=np.int64) for piece in pieces]
    value, below = nth_smallest(lambda: arrays, n)
    assert value == ordered[n - 1]
    assert below == sum(one < value for one in ordered)


@settings(deadline=None)
@given(PIECES, st.data())
def test_of_equal_times_at_the_cut_the_first_stay(pieces: list[list[int]], data: st.DataObject) -> None:
    flat = [value for piece in pieces for value in piece]
    n = data.draw(st.integers(1, len(flat)))
    arrays = [np.array(piece, dtype=np.int64) for piece in pieces]
    oldest = Oldest(lambda: arrays, n)
    kept = np.flatnonzero(np.concatenate([oldest.next(piece) for piece in arrays]))
    assert kept.tolist() == sorted(sorted(range(len(flat)), key=lambda row: flat[row])[:n])
