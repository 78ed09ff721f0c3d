from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segue.data.simulation.planted import Planted, omegas, root_of, vine_factor
from segue.data.simulation.simulate import simulate
from segue.errors import StorageError
from tests.helpers import truncate


def test_omegas_are_correlation_matrices_of_blocks() -> None:
    both = omegas(20)
    assert np.array_equal(both, both.transpose(0, 2, 1))
    assert (np.diagonal(both, axis1=1, axis2=2) == 1).all()
    assert np.linalg.eigvalsh(both).min() > -1e-12, "singular, and no worse"
    upper = np.triu_indices(20, 1)
    assert [int((omega[upper] != 0).sum()) for omega in both] == [22, 22]
    differing = np.argwhere(np.triu(both[0] != both[1]))
    assert differing.tolist() == [[8, 10], [9, 10], [14, 16], [18, 19]]
    assert both[:, 18, 19].tolist() == [0.99, -0.5]
    assert both[:, 12, 13].tolist() == [-1, -1]


@pytest.mark.parametrize("categories", [1, 5, 13, 20])
def test_fewer_categories_have_the_leading_part(categories: int) -> None:
    part = omegas(categories)
    assert np.array_equal(part, omegas(20)[:, :categories, :categories])
    root = root_of(part)
    assert np.allclose(root @ root.transpose(0, 2, 1), part, atol=1e-12)


def test_tastes_within_a_category_have_a_random_correlation_matrix() -> None:
    """A vine of partial correlations from Beta(0.2, 1): its determinant is the product of 1 - partial squared."""
    truth = simulate(1, 1, products=40).truth
    correlations = truth.correlations
    assert np.allclose(np.diagonal(correlations, axis1=1, axis2=2), 1, atol=1e-6)
    assert np.linalg.eigvalsh(correlations).min() > -1e-6
    assert (correlations[0] != correlations[1]).any()
    shapes = [simulate(1, 1, products=2, seed=seed).truth.correlations[:, 0, 1] for seed in range(100)]
    drawn = np.concatenate(shapes)  # of two products, the correlation is the one partial correlation
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(1 / 6, abs=5 * 0.25 / np.sqrt(2000))
    assert np.median(drawn) == pytest.approx(0.5**5, abs=0.015)


def test_a_vine_is_what_its_recursion_says() -> None:
    """Raw correlations of a C-vine from its partial ones, one by one, as textbooks have them."""
    rng = np.random.default_rng(0)
    partial = np.tril(rng.uniform(0, 0.9, size=(6, 6)), -1)
    expected = np.eye(6)
    for k in range(6):
        for i in range(k + 1, 6):
            value = partial[i, k]
            for m in range(k - 1, -1, -1):
                value = value * np.sqrt((1 - partial[i, m] ** 2) * (1 - partial[k, m] ** 2))
                value += partial[i, m] * partial[k, m]
            expected[i, k] = expected[k, i] = value
    factor = vine_factor(partial)
    assert np.allclose(factor @ factor.T, expected)


def test_tastes_are_drawn_again_the_same(tmp_path: Path) -> None:
    made = simulate(130, 2, products=3)
    whole = made.truth.tastes(np.arange(130))
    assert whole.shape == (130, 20, 3)
    assert np.array_equal(made.truth.tastes([129, 3, 64]), whole[[129, 3, 64]])
    made.truth.save(tmp_path / "t.npz")
    assert np.array_equal(Planted.load(tmp_path / "t.npz").tastes([5]), whole[[5]])


def test_half_of_the_users_are_in_each_group() -> None:
    assert simulate(5, 1).truth.groups.tolist() == [0, 0, 0, 1, 1]
    assert simulate(1, 1).truth.groups.tolist() == [0]


def test_a_damaged_truth_is_named(tmp_path: Path) -> None:
    path = simulate(5, 1).truth.save(tmp_path / "t.npz")
    truncate(path, 100)
    with pytest.raises(StorageError, match=r"t\.npz does not hold the truth"):
        Planted.load(path)
    with pytest.raises(StorageError, match="does not hold the truth"):
        Planted.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(StorageError, match="does not hold the truth"):
        Planted.load(tmp_path / "other.npz")
