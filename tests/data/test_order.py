from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.order import time_order

interactions = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 3)), max_size=40)


@settings(max_examples=200, deadline=None)
@given(interactions, st.sampled_from([1, 2**40, 2**61]))
def test_time_order_is_stable(rows, stretch):
    users = np.array([row[0] for row in rows], dtype=np.int32)
    times = np.array([(row[2] - 1) * stretch for row in rows], dtype=np.int64)
    order = time_order(users, times)
    result = list(range(len(rows))) if order is None else order.tolist()
    assert result == sorted(range(len(rows)), key=lambda row: (users[row], times[row]))


@pytest.mark.parametrize(("users", "order"), [([], None), ([1, 1, 2], None), ([2, 1, 1], [1, 2, 0])])
def test_without_times_the_order_of_the_log_stays(users, order):
    result = time_order(np.array(users, dtype=np.int32), None)
    assert (result if result is None else result.tolist()) == order
