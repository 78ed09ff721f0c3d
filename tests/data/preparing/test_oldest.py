from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.preparing.oldest import Oldest, nth_smallest

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
    found = np.flatnonzero(np.concatenate([oldest.next(piece) for piece in arrays]))
    assert found.tolist() == sorted(sorted(range(len(flat)), key=lambda place: flat[place])[:n])
