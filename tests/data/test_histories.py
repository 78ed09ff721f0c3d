from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segue.data.histories import Histories

rows = st.lists(st.tuples(st.lists(st.integers(1, 6), max_size=5), st.lists(st.integers(1, 9), max_size=4)), max_size=4)


@given(rows)
def test_an_item_is_held_by_the_history_of_its_own_row(made: list[tuple[list[int], list[int]]]) -> None:
    histories, others = (Histories.from_lists([pair[side] for pair in made]) for side in (0, 1))
    expected = [item in history for history, items in made for item in items]
    assert histories.holds(others).tolist() == expected


def test_rows_may_be_slices_of_one_array() -> None:
    items = np.array([3, 1, 2, 3, 2], dtype=np.int32)
    users = np.array([1, 2])
    histories = Histories(users, items, np.array([0, 3]), np.array([2, 4]))
    later = Histories(users, items, np.array([2, 4]), np.array([3, 5]))
    assert histories.holds(later).tolist() == [False, False]
    longer = Histories(users, items, np.array([1, 3]), np.array([4, 4]))
    assert histories.holds(longer).tolist() == [True, False, True, True]
