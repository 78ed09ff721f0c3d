from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.histories import Histories
from segue.data.ragged import offsets_of, positions, rows_of

SLICES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 6)), max_size=8)
ROWS = st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=6)


@settings(deadline=None)
@given(SLICES)
def test_positions_and_rows_are_those_of_a_loop(slices: list[tuple[int, int]]) -> None:
    starts = np.array([start for start, _ in slices], dtype=np.int64)
    lengths = np.array([length for _, length in slices], dtype=np.int64)
    expected = [(row, start + i) for row, (start, length) in enumerate(slices) for i in range(length)]
    assert positions(starts, starts + lengths).tolist() == [place for _, place in expected]
    assert rows_of(starts, starts + lengths).tolist() == [row for row, _ in expected]
    assert offsets_of(lengths).tolist() == [sum(lengths[:i]) for i in range(len(lengths) + 1)]


@settings(deadline=None)
@given(ROWS, st.integers(1, 7))
def test_histories_of_lists(rows: list[list[int]], width: int) -> None:
    histories = Histories.from_lists(rows)
    assert histories.lengths.tolist() == [len(row) for row in rows]
    assert histories.users.tolist() == [0] * len(rows)
    newest = [row[-width:] for row in rows]
    assert histories.padded(width).tolist() == [row + [0] * (width - len(row)) for row in newest]
    assert histories.last(width).lengths.tolist() == [len(row) for row in newest]
    seen_rows, seen_items = histories.seen()
    expected = [(i, item) for i, row in enumerate(rows) for item in row]
    assert list(zip(seen_rows.tolist(), seen_items.tolist(), strict=True)) == expected


def test_selected_histories_keep_their_order_users_and_array() -> None:
    histories = Histories.from_lists([[1], [2, 3], [4]], users=np.array([7, 8, 9]))
    some = histories.select(np.array([2, 0]))
    assert (some.users.tolist(), some.padded(1).tolist()) == ([9, 7], [[4], [1]])
    assert some.items is histories.items
    assert histories.select(slice(1, 2)).padded(2).tolist() == [[2, 3]]
