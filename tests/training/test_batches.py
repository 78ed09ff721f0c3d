from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.training.batches import plan_epoch


def plan(lengths: list[int] | np.ndarray, batch_size: int, seed: int = 0) -> list[np.ndarray]:
    lengths = np.asarray(lengths, dtype=np.int64)
    return plan_epoch(lengths, lengths, batch_size, np.random.default_rng(seed))


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 50), st.integers(0, 9))
def test_every_example_is_in_one_batch_and_batches_hold_like_lengths(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    batches = plan(lengths, batch_size, seed)
    assert all(len(batch) for batch in batches)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert len(batches) <= max(1, round(len(lengths) / batch_size))
    ranges = sorted((min(np.array(lengths)[b]), max(np.array(lengths)[b])) for b in batches)
    assert all(before[1] <= after[0] for before, after in pairwise(ranges))


def test_batches_weigh_about_the_same_and_hold_the_mean_number_of_examples() -> None:
    lengths = np.random.default_rng(1).geometric(0.1, 5000).clip(max=50)
    batches = plan(lengths, 100)
    weights = np.array([lengths[batch].sum() for batch in batches])
    assert len(batches) == 50
    assert np.abs(weights - lengths.sum() / 50).max() <= 50, "one example more or less"
    assert len(max(batches, key=len)) > 3 * len(min(batches, key=len)), "many short examples or few long ones"


def test_the_order_is_decided_by_the_generator() -> None:
    lengths = [1, 2, 3, 4] * 50
    first, again, other = (plan(lengths, 10, seed) for seed in (1, 1, 2))
    assert [b.tolist() for b in first] == [b.tolist() for b in again] != [b.tolist() for b in other]


def test_neither_batches_nor_equal_lengths_keep_their_order() -> None:
    lengths = np.repeat(np.arange(1, 21), 50)
    batches = plan(lengths, 25)
    means = np.array([lengths[batch].mean() for batch in batches])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5
    assert any((np.diff(batch) < 0).any() for batch in batches)


@pytest.mark.parametrize(("n", "batch_size", "expected"), [(3, 100, 1), (1, 1, 1), (6, 3, 2)])
def test_tiny_epochs(n: int, batch_size: int, expected: int) -> None:
    assert len(plan([4] * n, batch_size)) == expected
