"""Bayesian factorization: the mean prediction of many draws of a factorization with implicit feedback.

The priors and the draws follow Salakhutdinov & Mnih, *Bayesian Probabilistic Matrix Factorization using Markov Chain
Monte Carlo* (ICML 2008), and Rendle, *Factorization Machines with libFM* (2012). The items that a user rated, and the
users who rated an item, are features: Koren, *Factorization Meets the Neighborhood* (KDD 2008), and Rendle, Zhang &
Koren, *On the Difficulty of Evaluating Baselines* (2019), who found this model the best on the MovieLens ratings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.errors import ConfigError
from segue.models.arerec.scale import MOST_LEVELS, level_indices
from segue.models.base import CodeRows, ModelConfig
from segue.models.rating_bias import BiasModel
from segue.models.rating_groups import RatingGroups
from segue.models.ratings import Rated, RatingInputs, training_ratings
from segue.models.scores import ProductScores
from segue.progress import Bar
from segue.settings import Count

_INITIAL_DEVIATION = 0.1
"""Standard deviation of the initial factors."""
_INITIAL_PRECISION = 10.0
"""Precision of all rows before the first draw of it, for ratings with standard deviation 1."""
_TOLERANCE = 1e-3
"""Norm of the residual at which the solver of the implicit vectors stops, as a share of the right side."""
_MOST_STEPS = 100


@dataclass(frozen=True)
class BayesianFactorization(ModelConfig):
    """Mean over draws of mean + b_user + b_item + (p_user + x̄_user) · (q_item + ȳ_item), and its probabilities.

    x̄_user is the sum of a vector x of each item that the user rated, divided by the square root of their number; ȳ_item
    is the same over the users who rated the item. All numbers are drawn by Gibbs sampling. The defaults were chosen on
    a validation part of MovieLens 100K.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [5, 3, 4, 2, 3, 1]})
    >>> data = segue.prepare(log, time=False)
    >>> drawn = segue.fit(segue.BayesianFactorization(width=2, burn_in=2, draws=5), data)
    >>> drawn.recommend(1, k=1)["item"].to_list()  # the only item that user 1 did not rate
    [3]
    """

    width: Count = 6
    """Number of factors of each user and item."""

    implicit: bool = True
    """Add a vector for each item that the user rated, and for each user who rated the item."""

    burn_in: Count = 60
    """Number of draws that are thrown away before the first one that counts."""

    draws: Count = 200
    """Number of draws whose predictions are averaged. Each has its own row for every user and item."""

    levels: tuple[float, ...] | None = None
    """Levels of the rating scale, for probabilities. When not given, those of the data; more than 101 are no scale."""

    name: ClassVar[str] = "bayesian-factorization"
    task: ClassVar[str] = "ratings"
    may_change_on_start: ClassVar[frozenset[str]] = frozenset({"burn_in", "levels"})

    def check(self) -> None:
        """Raise a ConfigError if the levels are not two numbers or more that ascend."""
        if self.levels is not None and (len(self.levels) < 2 or list(self.levels) != sorted(set(self.levels))):
            raise ConfigError(f"levels={self.levels} are no scale: expected two numbers or more, ascending.")

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the levels of the data, if they are a scale."""
        if self.levels is not None:
            return self
        values = np.unique(training_ratings(dataset).ratings)
        scale = 2 <= len(values) <= MOST_LEVELS
        return replace(self, levels=tuple(float(value) for value in values)) if scale else self

    def build(self, n_users: int, n_items: int) -> BayesianFactorizationModel:
        """Return a module with random item factors, from which `count` starts."""
        return BayesianFactorizationModel(self, n_users, n_items)


class BayesianFactorizationModel(BiasModel):
    """Draws of the biases and factors of all users and items.

    Ratings are scaled to mean 0 and standard deviation 1, and y = b_u + b_i + (p_u + x̄_u) · (q_i + ȳ_i) + noise of
    precision α. A row (b, p) is normal, with a mean and a precision per column that are drawn too: precision ~
    Gamma(1/2, 1/2), mean ~ N(0, 1 / precision), α ~ Gamma(1/2, 1/2). Each sweep draws, given all other numbers: the
    rows of users, the vectors x, the rows of items, the vectors y, and α.

    Buffers
    -------
    user_draws, item_draws
        (n_users + 1, draws, 1 + width) and (n_items + 1, draws, 1 + width) float32 bias and whole factors of each draw,
        in the unit of the ratings. A user or item without ratings has the mean of the rows.
    noise
        (draws,) float32 standard deviation of a rating around its prediction.
    """

    recounts = False
    config: BayesianFactorization
    user_draws: Tensor
    item_draws: Tensor
    noise: Tensor
    seed: Tensor

    def __init__(self, config: BayesianFactorization, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        rows = config.draws, 1 + config.width
        self.register_buffer("user_draws", torch.zeros(n_users + 1, *rows))
        first = torch.randn(n_items + 1, 1, rows[1]) * _INITIAL_DEVIATION
        self.register_buffer("item_draws", first.expand(-1, config.draws, -1).clone())
        self.register_buffer("noise", torch.zeros(config.draws))
        self.register_buffer("seed", torch.randint(2**31, ()))

    @property
    def levels(self) -> tuple[float, ...] | None:
        """Levels of the scale, ascending; None if the ratings have none."""
        return self.config.levels

    def code_rows(self) -> Mapping[str, CodeRows]:
        """Rows of biases and draws; a new user or item has none."""
        draws = {"user_draws": CodeRows("users", "zero"), "item_draws": CodeRows("items", "zero")}
        return {**super().code_rows(), **draws}

    def learned_buffers(self) -> set[str]:
        """The draws of the items: the last one is where the sampler starts."""
        return {"item_draws"}

    def count(self, dataset: Dataset) -> None:
        """Draw from the posterior of the visible ratings, starting from the last draw of the items."""
        known = training_ratings(dataset)
        if self.levels is not None:
            level_indices(known.ratings, self.levels)
        self._set_mean(known)
        scale = float(known.ratings.std()) or 1.0
        targets = torch.from_numpy(((known.ratings - known.ratings.mean()) / scale).astype(np.float32))
        sizes = self.n_users + 1, self.n_items + 1
        generator = torch.Generator().manual_seed(int(self.seed))
        first = self.item_draws[:, -1].cpu() * torch.tensor([1 / scale] + [scale**-0.5] * self.config.width)
        sampler = Sampler(known.users, known.items, targets, sizes, first, self.config.implicit, generator)
        units = torch.tensor([scale] + [scale**0.5] * self.config.width)
        with Bar("draws", total=self.config.burn_in + self.config.draws) as bar:
            for number in range(-self.config.burn_in, self.config.draws):
                sampler.sweep()
                bar.advance(1)
                if number >= 0:
                    self.user_draws[:, number] = sampler.users.whole() * units
                    self.item_draws[:, number] = sampler.items.whole() * units
                    self.noise[number] = scale / sampler.precision**0.5
        self.user_biases.copy_(self.user_draws[:, :, 0].mean(1))
        self.item_biases.copy_(self.item_draws[:, :, 0].mean(1))

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """Predict the mean over the draws, at any time.

        The probabilities are those of a normal distribution with the variance of the draws plus that of the noise: each
        level has the values that are nearer to it than to any other.
        """
        of_users, of_items = self.user_draws[users], self.item_draws[items]
        drawn = of_users[..., 0] + of_items[..., 0] + (of_users[..., 1:] * of_items[..., 1:]).sum(2)
        expected = self.mean + drawn.mean(1)
        if self.levels is None:
            return Rated(expected, None)
        levels = torch.tensor(self.levels, device=drawn.device)
        deviation = (drawn.var(1, unbiased=False) + (self.noise**2).mean()).sqrt()
        middles = (levels[1:] + levels[:-1]) / 2
        below = torch.special.ndtr((middles - expected[:, None]) / deviation[:, None])
        edges = torch.cat([torch.zeros_like(below[:, :1]), below, torch.ones_like(below[:, :1])], dim=1)
        return Rated(expected, edges.diff(dim=1))

    def encode(self, inputs: RatingInputs) -> Tensor:
        """Queries (n, draws · width + 2): factors of the user, the factor 1 of the biases, and the term of the user."""
        factors = self.user_draws[inputs.users_and_times[:, 0], :, 1:].flatten(1) / self.config.draws
        return torch.cat([factors, super().encode(inputs)], dim=1)

    def scores(self) -> ProductScores:
        """Expected ratings, as products with the item factors and biases."""
        return ProductScores(torch.cat([self.item_vectors(), self.item_biases[:, None]], dim=1), offset=True)

    def item_vectors(self) -> Tensor:
        """Factors (n_items + 1, draws · width) of all draws; items are similar if the same users like them."""
        return self.item_draws[:, :, 1:].flatten(1)


class Rows:
    """Biases and factors of one side, users or items, with the implicit vectors of the other side's codes.

    Parameters
    ----------
    owners, others
        (n,) int64 codes: the user or item that has the row, and the other side of the rating.
    first
        (owners, 1 + width) rows to start from.
    n_others
        Number of codes of the other side.
    """

    def __init__(self, owners: Tensor, others: Tensor, first: Tensor, n_others: int) -> None:
        self.owners = owners
        self.groups = RatingGroups(owners.numpy(), len(first))
        self.rated = torch.from_numpy(np.flatnonzero(self.groups.counts))
        self.values = torch.zeros_like(first)
        self.values[self.rated] = first[self.rated]
        width = first.shape[1] - 1
        self.mean, self.precision = torch.zeros(1 + width), torch.full((1 + width,), _INITIAL_PRECISION)
        self.vectors = torch.zeros(n_others, width)
        self.vector_mean, self.vector_precision = torch.zeros(width), torch.full((width,), _INITIAL_PRECISION)
        self.other_rated = torch.from_numpy(np.unique(others.numpy()))
        shares = torch.from_numpy(np.maximum(self.groups.counts, 1).astype(np.float32) ** -0.5)
        self.given = _csr(owners, others, shares[owners], (len(first), n_others))
        self.taken = _csr(others, owners, shares[owners], (n_others, len(first)))
        self.squared = self.taken * self.taken
        self.sums = torch.zeros(len(first), width)

    def factors(self) -> Tensor:
        """Factors (owners, width), with the sums of the implicit vectors."""
        return self.values[:, 1:] + self.sums

    def whole(self) -> Tensor:
        """Rows (owners, 1 + width); those without ratings have the mean of the prior."""
        rows = torch.cat([self.values[:, :1], self.factors()], dim=1)
        unrated = torch.ones(len(rows), dtype=torch.bool)
        unrated[self.rated] = False
        rows[unrated] = self.mean
        return rows


class Sampler:
    """Gibbs sampler of the model of `BayesianFactorizationModel`, on scaled ratings.

    Parameters
    ----------
    users, items
        (n,) int64 codes of the ratings.
    targets
        (n,) float32 scaled ratings.
    sizes
        Number of user codes and of item codes.
    first
        (item codes, 1 + width) item rows to start from.
    implicit
        Draw implicit vectors.
    generator
        Source of all draws.
    """

    def __init__(
        self,
        users: Any,
        items: Any,
        targets: Tensor,
        sizes: tuple[int, int],
        first: Tensor,
        implicit: bool,
        generator: torch.Generator,
    ) -> None:
        of_users, of_items = torch.from_numpy(users), torch.from_numpy(items)
        self.targets, self.implicit, self.generator = targets, implicit, generator
        self.users = Rows(of_users, of_items, torch.zeros(sizes[0], first.shape[1]), sizes[1])
        self.items = Rows(of_items, of_users, first, sizes[0])
        self.precision = 1.0

    def sweep(self) -> None:
        """Draw all numbers once."""
        self._draw_side(self.users, self.items)
        self._draw_side(self.items, self.users)
        errors = self.targets - self._explained(self.users, self.items)
        n, squares = len(errors), float(errors.double().square().sum())
        self.precision = float(self._gamma(torch.tensor((1 + n) / 2))) * 2 / (1 + squares)

    def _explained(self, side: Rows, other: Rows) -> Tensor:
        """Predictions (n,) of the scaled ratings."""
        biases = side.values[side.owners, 0] + other.values[other.owners, 0]
        return biases + (side.factors()[side.owners] * other.factors()[other.owners]).sum(1)

    def _draw_side(self, side: Rows, other: Rows) -> None:
        """Draw the rows of one side, and then its implicit vectors."""
        factors = other.factors()[other.owners]  # (n, width)
        remaining = self.targets - other.values[other.owners, 0]
        side.mean, side.precision = self._prior(side.values[side.rated], side.mean)
        design = torch.cat([torch.ones(len(factors), 1), factors], dim=1)
        left, right = side.groups.normal_equations(design, remaining - (side.sums[side.owners] * factors).sum(1))
        left, right = left[side.rated] * self.precision, right[side.rated] * self.precision
        left.diagonal(dim1=1, dim2=2).add_(side.precision)
        noise = self._normal(right.shape)
        side.values[side.rated] = draw_rows(left, right + side.precision * side.mean, noise)
        if not self.implicit:
            return
        prior = self._prior(side.vectors[side.other_rated], side.vector_mean)
        side.vector_mean, side.vector_precision = prior
        remaining = remaining - side.values[side.owners, 0] - (side.values[side.owners, 1:] * factors).sum(1)
        remaining = remaining + self._normal(remaining.shape) / self.precision**0.5
        left, right = side.groups.normal_equations(factors, remaining)
        noise = self._normal(side.vectors.shape)
        side.vectors = draw_vectors(side, left * self.precision, right * self.precision, noise)
        side.sums = side.given @ side.vectors

    def _prior(self, rows: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision of each column of the rows (n, d), given the mean before."""
        n = len(rows)
        rate = (1 + (rows - mean).square().sum(0) + mean.square()) / 2
        precision = self._gamma(torch.full_like(rate, (2 + n) / 2)) / rate
        deviation = (precision * (n + 1)).rsqrt()
        return rows.sum(0) / (n + 1) + self._normal(deviation.shape) * deviation, precision

    def _gamma(self, shape: Tensor) -> Tensor:
        drawn: Tensor = torch._standard_gamma(shape, generator=self.generator)
        return drawn

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self.generator)


def draw_rows(left: Tensor, right: Tensor, noise: Tensor) -> Tensor:
    """Draws (n, d) from N(A⁻¹ b, A⁻¹), for matrices A (n, d, d) and b (n, d), by standard normal `noise` (n, d)."""
    lower = torch.linalg.cholesky(left)
    deviation = torch.linalg.solve_triangular(lower.mT, noise[..., None], upper=True)
    draws: Tensor = (torch.cholesky_solve(right[..., None], lower) + deviation)[..., 0]
    return draws


def draw_vectors(side: Rows, left: Tensor, right: Tensor, noise: Tensor) -> Tensor:
    """Draw the implicit vectors V (codes, width) of one side.

    The solution of (Xᵀ G X + Λ) V = Xᵀ r + Λ m + Λ^½ ε is a draw, if r has the noise of the ratings (Papandreou &
    Yuille, *Gaussian sampling by local perturbations*, NIPS 2010). X holds the shares of the implicit vectors.
    Conjugate gradients solve it, and the blocks of the matrix on its diagonal precondition them.

    Parameters
    ----------
    side
        Rows that the vectors belong to; the solver starts from its vectors.
    left, right
        G (owners, width, width) and r (owners, width).
    noise
        ε (codes, width), standard normal.
    """
    precision = side.vector_precision
    blocks = (side.squared @ left.flatten(1)).view(-1, *left.shape[1:])
    blocks.diagonal(dim1=1, dim2=2).add_(precision)
    inverse = torch.linalg.inv(blocks)

    def product(vectors: Tensor) -> Tensor:
        mapped = torch.bmm(left, (side.given @ vectors)[..., None])[..., 0]
        return side.taken @ mapped + precision * vectors

    whole = side.taken @ right + precision * side.vector_mean + precision.sqrt() * noise
    return solved(product, whole, side.vectors, lambda rows: torch.bmm(inverse, rows[..., None])[..., 0])


def solved(
    product: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """Solution (n, d) of A x = `right`, for a positive definite A that `product` applies, by conjugate gradients."""
    solution, residual = start.clone(), right - product(start)
    enough = _TOLERANCE**2 * float((right * precondition(right)).sum())
    scaled = precondition(residual)
    direction, slope = scaled, float((residual * scaled).sum())
    for _ in range(_MOST_STEPS):
        if slope <= enough:
            break
        image = product(direction)
        length = slope / float((direction * image).sum())
        solution += length * direction
        residual -= length * image
        scaled = precondition(residual)
        before, slope = slope, float((residual * scaled).sum())
        direction = scaled + slope / before * direction
    return solution


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Sparse matrix in CSR form; entries of the same place are added."""
    entries = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR")  # torch warns that CSR is in beta
        return entries.coalesce().to_sparse_csr()
