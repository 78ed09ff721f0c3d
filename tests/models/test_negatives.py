from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from segue.errors import TrainingError
from segue.models.negatives import Negatives, SharedNegatives
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
        assert set(row) == set(range(1, N_ITEMS + 1)) - set(
            history
        )  # the probability of missing one is below 7 (6/7)^400


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


# ---- negatives that a batch shares ----------------------------------------------------------------------------------

COUNTS = np.array([0, 6, 0, 1, 3])  # of items 1 … 4


@pytest.mark.parametrize("in_batch", [0.0, 0.5, 0.7, 1.0])
def test_shared_draws_have_their_expected_counts(in_batch: float) -> None:
    shared = SharedNegatives(COUNTS, 10, in_batch)
    generator = np.random.default_rng(0)
    targets = np.repeat(np.arange(5), COUNTS)  # a batch of all targets
    rounds = 4000
    drawn = np.concatenate([shared.draw(targets, generator) for _ in range(rounds)])
    assert len(drawn) == 10 * rounds
    seen = np.bincount(drawn, minlength=5)
    uniform, from_batch = shared.uniform, shared.from_batch
    assert (uniform, from_batch) == (10 - round(10 * in_batch), round(10 * in_batch))
    for item in range(1, 5):
        expected = uniform / 4 + from_batch * COUNTS[item] / 10
        assert abs(seen[item] / rounds - expected) < 5 * np.sqrt(max(expected, 0.01) / rounds)
        if expected:
            assert shared.log_counts(np.array([item]))[0] == pytest.approx(np.log(expected), abs=1e-6)


def test_draws_from_the_batch_are_its_targets() -> None:
    shared = SharedNegatives(COUNTS, 40, 0.5)
    drawn = shared.draw(np.array([3, 3, 4]), np.random.default_rng(0))
    assert set(drawn[:20]) == {1, 2, 3, 4} and set(drawn[20:]) == {3, 4}
