from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.errors import ConfigError, DataError
from segue.models.base import CountingModel, ModelConfig
from segue.models.rating_bias import BiasModel, GlobalMean, RatingBias
from segue.models.ratings import training_ratings
from tests.helpers import make_dataset, queries_of

NOBODY = torch.zeros(1, dtype=torch.int64)


def fitted(config: ModelConfig, dataset: Dataset) -> BiasModel:
    model = config.build(dataset.n_users, dataset.n_items)
    assert isinstance(model, BiasModel) and isinstance(model, CountingModel)
    model.count(dataset)
    return model


def random_ratings(seed: int, n_users: int, n_items: int, longest: int) -> Dataset:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest + 1, n_users)
    items = [generator.integers(1, n_items + 1, length).tolist() for length in lengths]
    ratings = [generator.integers(1, 6, length).tolist() for length in lengths]
    # One more item, without ratings.
    return make_dataset(items, ratings=ratings, catalogue=range(1, n_items + 2))


def solved(dataset: Dataset, user_reg: float, item_reg: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean and biases from the normal equations, built rating by rating."""
    known = training_ratings(dataset)
    n = dataset.n_users + 1 + dataset.n_items + 1
    matrix = np.diag([user_reg] * (dataset.n_users + 1) + [item_reg] * (dataset.n_items + 1)).astype(float)
    right, mean = np.zeros(n), sum(known.ratings) / len(known.ratings)
    for user, item, rating in zip(known.users, known.items, known.ratings, strict=True):
        row = np.zeros(n)
        row[user] = row[dataset.n_users + 1 + item] = 1
        matrix += np.outer(row, row)
        right += row * (rating - mean)
    biases = np.linalg.solve(matrix, right)
    return mean, biases[: dataset.n_users + 1], biases[dataset.n_users + 1 :]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(1, 15),
    st.floats(0.01, 20),
    st.floats(0.01, 20),
)
def test_biases_solve_the_normal_equations(
    seed: int, n_users: int, n_items: int, longest: int, user_reg: float, item_reg: float
) -> None:
    dataset = random_ratings(seed, n_users, n_items, longest)
    model = fitted(RatingBias(user_reg, item_reg), dataset)
    mean, users, items = solved(dataset, user_reg, item_reg)
    assert model.mean.item() == pytest.approx(mean, rel=1e-6)
    assert model.user_biases.numpy() == pytest.approx(users, abs=1e-5)
    assert model.item_biases.numpy() == pytest.approx(items, abs=1e-5)
    expected = model.rate(torch.tensor([n_users]), torch.tensor([1]), NOBODY)
    assert expected.expected.item() == pytest.approx(mean + users[n_users] + items[1], abs=1e-5)
    assert expected.probabilities is None


def test_a_bias_by_hand() -> None:
    # One user, two items, mean 3: b_u = 0 by symmetry, and an item's bias is its residual over 1 + item_reg.
    model = fitted(RatingBias(1.0, 3.0), make_dataset([[1, 2]], ratings=[[4, 2]]))
    assert model.user_biases.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert model.item_biases.tolist() == pytest.approx([0, 0.25, -0.25])


def test_unknown_users_and_unrated_items_have_bias_0() -> None:
    dataset = random_ratings(3, 5, 4, 6)
    model = fitted(RatingBias(), dataset)
    last = dataset.n_items
    pairs = torch.tensor([0, 2, 0]), torch.tensor([1, last, 0]), torch.zeros(3, dtype=torch.int64)
    mean = model.mean.item()
    expected = [mean + model.item_biases[1].item(), mean + model.user_biases[2].item(), mean]
    assert model.rate(*pairs).expected.tolist() == pytest.approx(expected)
    assert model.unrated().nonzero().flatten().tolist() == [
        code for code in range(1, last + 1) if code not in set(dataset.items.tolist())
    ]
    assert last in model.unrated().nonzero().flatten().tolist()


def test_the_global_mean_is_the_same_for_all() -> None:
    model = fitted(GlobalMean(), make_dataset([[1, 2], [1]], ratings=[[4, 2], [5]]))
    scores = model.scores().all(queries_of(model, make_dataset([[1], [2]]).histories()), 0, 3)
    assert scores.numpy() == pytest.approx(np.full((2, 3), 11 / 3))


def test_equal_ratings_have_no_biases() -> None:
    model = fitted(RatingBias(), make_dataset([[1, 2], [1]], ratings=[[4, 4], [4]]))
    assert model.mean.item() == 4 and not model.user_biases.any() and not model.item_biases.any()


@pytest.mark.parametrize("ratings", [None, [[1, float("nan")], [3]]])
def test_ratings_must_be_there(ratings: list[list[float]] | None) -> None:
    with pytest.raises(DataError, match="ratings"):
        fitted(RatingBias(), make_dataset([[1, 2], [1]], ratings=ratings))


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_bad_settings_are_named(value: float) -> None:
    with pytest.raises(ConfigError, match="user_reg="):
        RatingBias(user_reg=value)
    with pytest.raises(ConfigError, match="item_reg="):
        RatingBias(item_reg=value)
