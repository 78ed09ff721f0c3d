from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from segue.errors import TrainingError
from segue.models.negatives import Negatives
from tests.helpers import make_dataset

N_ITEMS = 7
HISTORIES = st.lists(
    st.lists(st.integers(1, N_ITEMS), max_size=10).filter(lambda row: len(set(row)) < N_ITEMS), min_size=1, max_size=6
)


@settings(deadline=None)
@given(HISTORIES, st.integers(0, 2**32))
def test_draws_are_all_the_items_outside_the_history_and_no_others(histories: list[list[int]], seed: int) -> None:
    dataset = make_dataset(histories, catalogue=range(1, N_ITEMS + 1))
    users = np.arange(1, len(histories) + 1)
    drawn = Negatives(dataset).draw(users, 400, np.random.default_rng(seed))
    assert drawn.shape == (len(users), 400)
    for row, history in zip(drawn, histories, strict=True):
        assert set(row) == set(range(1, N_ITEMS + 1)) - set(history)  # missing one has a chance below 7 (6/7)^400


def test_draws_are_uniform_and_those_of_a_row_independent() -> None:
    dataset = make_dataset([[2, 5, 2], [], [1, 2, 3, 4, 6, 7]], catalogue=range(1, N_ITEMS + 1))
    generator = np.random.default_rng(0)
    drawn = Negatives(dataset).draw(np.repeat([1, 2], 30_000), 2, generator)
    for rows, n_free in ((drawn[:30_000], 5), (drawn[30_000:], 7)):
        pairs = np.unique(rows[:, 0] * (N_ITEMS + 1) + rows[:, 1], return_counts=True)[1]
        assert len(pairs) == n_free**2
        assert chisquare(pairs).pvalue > 1e-3
    assert set(Negatives(dataset).draw(np.array([3]), 50, generator).ravel()) == {5}


def test_only_the_visible_history_is_excluded() -> None:
    dataset = make_dataset([[1, 2, 3]], catalogue=range(1, 4))
    view = dataset.until(dataset.ends - np.array([0, 1]))
    assert set(Negatives(view).draw(np.array([1]), 20, np.random.default_rng(0)).ravel()) == {3}


def test_a_user_with_every_item_is_named() -> None:
    dataset = make_dataset({"ann": ["tea"], "bob": ["milk", "tea", "milk"]})
    with pytest.raises(TrainingError, match=r"user 'bob' has taken every item .* use loss='softmax'"):
        Negatives(dataset)
