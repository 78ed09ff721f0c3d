from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.data.dataset import Dataset
from segue.errors import ConfigError, DataError
from segue.models import bayesian_factorization as module
from segue.models.bayesian_factorization import BayesianFactorization, BayesianFactorizationModel, Rows, Sampler
from segue.models.ratings import training_ratings
from tests.models.test_rating_bias import random_ratings

WIDTH = 3


class Plain:
    """The sampler in float64 NumPy, with dense matrices and one rating after the other, on the same random numbers."""

    def __init__(self, users, items, targets, sizes, first, generator) -> None:  # type: ignore[no-untyped-def]
        self.codes, self.targets, self.generator = (users, items), targets.astype(np.float64), generator
        self.rows = [np.zeros((sizes[0], 1 + WIDTH)), np.zeros((sizes[1], 1 + WIDTH))]
        self.rows[1][np.unique(items)] = first[np.unique(items)]
        self.vectors = [np.zeros((sizes[1], WIDTH)), np.zeros((sizes[0], WIDTH))]
        self.sums = [np.zeros((sizes[0], WIDTH)), np.zeros((sizes[1], WIDTH))]
        self.means = [np.zeros(1 + WIDTH), np.zeros(1 + WIDTH)]
        self.vector_means = [np.zeros(WIDTH), np.zeros(WIDTH)]
        self.alpha = 1.0

    def normal(self, *shape: int) -> np.ndarray:
        return torch.randn(shape, generator=self.generator).double().numpy()

    def gamma(self, shape: float, n: int) -> np.ndarray:
        return torch._standard_gamma(torch.full((n,), shape), generator=self.generator).double().numpy()

    def factors(self, side: int) -> np.ndarray:
        return self.rows[side][:, 1:] + self.sums[side]

    def prior(self, rows: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n, d = rows.shape
        precision = self.gamma(1 + n / 2, d) / (0.5 + ((rows - mean) ** 2).sum(0) / 2 + mean**2 / 2)
        return rows.sum(0) / (n + 1) + self.normal(d) / np.sqrt(precision * (n + 1)), precision

    def draw_side(self, side: int) -> None:
        own, other = self.codes[side], self.codes[1 - side]
        rated = np.unique(own)
        features, biases = self.factors(1 - side), self.rows[1 - side][:, 0]
        self.means[side], precision = self.prior(self.rows[side][rated], self.means[side])
        noise = self.normal(len(rated), 1 + WIDTH)
        for code, own_noise in zip(rated, noise, strict=True):
            left, right = np.diag(precision), precision * self.means[side]
            for r in np.flatnonzero(own == code):
                v = features[other[r]]
                d = np.concatenate([[1], v])
                left = left + self.alpha * np.outer(d, d)
                right = right + self.alpha * d * (self.targets[r] - biases[other[r]] - self.sums[side][code] @ v)
            lower = np.linalg.cholesky(left)
            self.rows[side][code] = np.linalg.solve(left, right) + np.linalg.solve(lower.T, own_noise)
        seen = np.unique(other)
        self.vector_means[side], precision = self.prior(self.vectors[side][seen], self.vector_means[side])
        errors = self.normal(len(own)) / np.sqrt(self.alpha)
        noise = self.normal(*self.vectors[side].shape)
        n_own, n_other = len(self.rows[side]), len(self.vectors[side])
        shares = np.zeros((n_own, n_other))
        for o, t in zip(own, other, strict=True):
            shares[o, t] += 1 / np.sqrt((own == o).sum())
        # One dense system over all numbers of all vectors; row r of the design is the rating r.
        design = np.einsum("rc,rf->rcf", shares[own], features[other]).reshape(len(own), -1)
        rest = self.targets - biases[other] - self.rows[side][own, 0]
        rest = rest - (self.rows[side][own, 1:] * features[other]).sum(1) + errors
        weights = np.tile(precision, n_other)
        right = self.alpha * design.T @ rest + np.tile(precision * self.vector_means[side], n_other)
        right += np.sqrt(weights) * noise.ravel()
        solution = np.linalg.solve(self.alpha * design.T @ design + np.diag(weights), right)
        self.vectors[side] = solution.reshape(n_other, WIDTH)
        self.sums[side] = shares @ self.vectors[side]

    def sweep(self) -> None:
        self.draw_side(0)
        self.draw_side(1)
        users, items = self.codes
        predictions = self.rows[0][users, 0] + self.rows[1][items, 0]
        predictions = predictions + (self.factors(0)[users] * self.factors(1)[items]).sum(1)
        squares = ((self.targets - predictions) ** 2).sum()
        self.alpha = self.gamma((1 + len(users)) / 2, 1)[0] / (0.5 + squares / 2)


@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_is_that_of_the_equations(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOLERANCE", 1e-7)
    random = np.random.default_rng(seed)
    users, items = random.integers(1, 8, 40), random.integers(1, 7, 40)  # some pairs occur twice
    targets = random.normal(size=40).astype(np.float32)
    first = random.normal(size=(9, 1 + WIDTH)).astype(np.float32)
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    plain = Plain(users, items, targets, (10, 9), first, generators[0])
    sampler = Sampler(users, items, torch.from_numpy(targets), (10, 9), torch.from_numpy(first), True, generators[1])
    for _ in range(3):
        plain.sweep()
        sampler.sweep()
    assert sampler.precision == pytest.approx(plain.alpha, rel=1e-3)
    for side, rows in enumerate((sampler.users, sampler.items)):
        rated = rows.rated.numpy()
        assert np.allclose(rows.values[rated], plain.rows[side][rated], atol=1e-3)
        assert np.allclose(rows.vectors, plain.vectors[side], atol=1e-3)
        unrated = np.setdiff1d(np.arange(len(rows.values)), rated)
        assert np.allclose(rows.whole()[unrated], plain.means[side], atol=1e-3)


def test_draws_of_rows_have_the_mean_and_covariance_of_the_posterior() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(3, 3, generator=generator)
    left, right = root @ root.T + torch.eye(3), torch.randn(3, generator=generator)
    n = 200_000
    noise = torch.randn(n, 3, generator=generator)
    draws = module.draw_rows(left.expand(n, 3, 3), right.expand(n, 3), noise)
    assert torch.allclose(draws.mean(0), torch.linalg.solve(left, right), atol=0.01)
    assert torch.allclose(torch.cov(draws.T), torch.linalg.inv(left), atol=0.02)


def fitted(config: BayesianFactorization, dataset: Dataset, seed: int = 0) -> BayesianFactorizationModel:
    torch.manual_seed(seed)
    model = config.resolved(dataset).build(dataset.n_users, dataset.n_items)
    model.count(dataset)
    return model


def made_ratings(seed: int = 0, n_users: int = 150, n_items: int = 60) -> tuple[Dataset, np.ndarray]:
    """Ratings of known factors with noise of deviation .7, rounded to the scale of 1 to 5, and the true products."""
    random = np.random.default_rng(seed)
    taste, kind = random.normal(size=(n_users, 2)), random.normal(size=(n_items, 2))
    true = 3 + 0.5 * random.normal(size=(n_users, 1)) + 0.5 * random.normal(size=n_items) + 0.7 * taste @ kind.T
    given = random.random(true.shape) < 0.4
    users, items = np.nonzero(given)
    ratings = np.clip(np.round(true[given] + 0.7 * random.normal(size=given.sum())), 1, 5)
    return segue.prepare(pl.DataFrame({"user": users, "item": items, "rating": ratings}), time=False), true


def test_it_finds_the_factors_and_its_intervals_cover() -> None:
    dataset, true = made_ratings()
    model = fitted(BayesianFactorization(width=4, burn_in=40, draws=80), dataset)
    codes = np.stack(np.meshgrid(np.arange(1, 151), np.arange(1, 61), indexing="ij")).reshape(2, -1)
    seen = np.zeros((151, 61), dtype=bool)
    known = training_ratings(dataset)
    seen[known.users, known.items] = True
    users, items = torch.from_numpy(codes[:, ~seen[codes[0], codes[1]]])
    rated = model.rate(users, items, torch.zeros_like(users))
    place = [int(value) for value in dataset.users.decode(users)], [int(v) for v in dataset.catalogue.decode(items)]
    hidden = true[place]
    random = np.random.default_rng(1)
    ratings = np.clip(np.round(hidden + 0.7 * random.normal(size=len(hidden))), 1, 5)
    mean_of_all = known.ratings.mean()
    error = np.sqrt(np.mean((rated.expected.numpy() - ratings) ** 2))
    assert error < 0.9 < np.sqrt(np.mean((mean_of_all - ratings) ** 2))  # .76 is the noise and the rounding alone
    assert rated.probabilities is not None
    shares = rated.probabilities.double().numpy()
    assert np.allclose(shares.sum(1), 1, atol=1e-5)
    below = np.cumsum(shares, axis=1) - shares
    level = ratings.astype(int) - 1
    rows = np.arange(len(level))
    # Where the rating falls in its predicted distribution is uniform if the distribution is right.
    place_of = below[rows, level] + random.random(len(level)) * shares[rows, level]
    for share in (0.5, 0.8, 0.9):
        covered = np.mean(np.abs(place_of - 0.5) <= share / 2)
        assert covered == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize("implicit", [True, False])
def test_fits_are_repeatable_and_lists_agree_with_ratings(implicit: bool) -> None:
    dataset = random_ratings(3, 12, 9, 60)
    config = BayesianFactorization(width=2, burn_in=3, draws=5, implicit=implicit)
    first, second = fitted(config, dataset), fitted(config, dataset)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    users = torch.arange(dataset.n_users + 1).repeat_interleave(dataset.n_items)
    items = torch.arange(1, dataset.n_items + 1).repeat(dataset.n_users + 1)
    expected = first.rate(users, items, torch.zeros_like(users)).expected.view(dataset.n_users + 1, -1)
    inputs = module.RatingInputs(torch.stack([torch.arange(dataset.n_users + 1)] * 2, dim=1))
    scores = first.scores().all(first.encode(inputs), 1, dataset.n_items + 1)
    assert torch.allclose(scores, expected, atol=1e-4)


def test_a_scale_is_taken_from_the_data_or_checked() -> None:
    dataset, _ = made_ratings(n_users=30, n_items=20)
    assert BayesianFactorization().resolved(dataset).levels == (1.0, 2.0, 3.0, 4.0, 5.0)
    with pytest.raises(ConfigError, match="no scale"):
        BayesianFactorization(levels=(3.0, 1.0))
    with pytest.raises(DataError, match="none of the 2 levels"):
        fitted(BayesianFactorization(levels=(1.0, 2.0), draws=2, burn_in=1), dataset)
    amounts = pl.DataFrame(
        {"user": np.arange(300) % 20, "item": np.arange(300) % 17, "rating": np.random.default_rng(0).random(300)}
    )
    model = fitted(BayesianFactorization(draws=2, burn_in=1), segue.prepare(amounts, time=False))
    assert model.levels is None
    one = torch.ones(1, dtype=torch.int64)
    assert model.rate(one, one, one).probabilities is None


def test_rows_without_ratings_are_never_drawn() -> None:
    users, items = torch.tensor([1, 1, 2]), torch.tensor([1, 2, 1])
    rows = Rows(users, items, torch.ones(4, 1 + WIDTH), 3)
    assert rows.values[[0, 3]].eq(0).all() and rows.values[[1, 2]].eq(1).all()
    assert torch.equal(rows.given.to_dense() @ torch.ones(3), torch.tensor([0, 2 / 2**0.5, 1, 0]))
