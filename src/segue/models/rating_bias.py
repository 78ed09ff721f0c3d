"""Baselines of rating prediction: the mean of all ratings, and the biases of users and items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.models.base import CodeRows, CountingModel, ModelConfig, Side
from segue.models.ratings import Rated, RatingInputs, RatingModel, TrainingRatings, training_ratings
from segue.models.scores import ProductScores
from segue.settings import Positive

Float64 = npt.NDArray[np.float64]

_TOLERANCE = 1e-7
"""Norm of the residual at which the solver of the biases stops, as a share of the initial norm."""
_MOST_STEPS = 200


@dataclass(frozen=True)
class GlobalMean(ModelConfig):
    """The mean of all ratings, for every user and item: the baseline that every other model must beat.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [5, 3, 4, 2, 3, 1]})
    >>> data = segue.prepare(log, time=False)
    >>> segue.fit(segue.GlobalMean(), data).score(1, [3], long=True)["score"].item()
    3.0
    """

    name: ClassVar[str] = "global-mean"
    task: ClassVar[str] = "ratings"

    def build(self, n_users: int, n_items: int) -> BiasModel:
        """An empty module; `count` fills it."""
        return BiasModel(self, n_users, n_items)


@dataclass(frozen=True)
class RatingBias(ModelConfig):
    """User and item biases: differences of a user's ratings, and of an item's, from the mean of all ratings.

    The expected rating is mean + b_user + b_item, with the biases that minimise

    Σ (rating - mean - b_user - b_item)² + user_reg · Σ b_user² + item_reg · Σ b_item²

    as in Koren, *Factor in the Neighbors* (2010). The solution is exact. An unknown user or item has bias 0. The
    defaults were chosen on a validation part of MovieLens 100K.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [5, 3, 4, 2, 3, 1]})
    >>> data = segue.prepare(log, time=False)
    >>> scores = segue.fit(segue.RatingBias(), data).score(3, [1, 3], long=True)["score"]
    >>> bool(scores[0] > scores[1])  # people like item 1 better
    True
    """

    user_reg: Positive = 3.0
    """Pull of a user's bias towards 0, as a number of additional average ratings."""

    item_reg: Positive = 3.0
    """Pull of an item's bias towards 0, as a number of additional average ratings."""

    name: ClassVar[str] = "rating-bias"
    task: ClassVar[str] = "ratings"

    def build(self, n_users: int, n_items: int) -> BiasModel:
        """An empty module; `count` fills it."""
        return BiasModel(self, n_users, n_items)


class BiasModel(RatingModel, CountingModel):
    """Model whose expected rating is the mean, plus the bias of the user, plus the bias of the item.

    Buffers
    -------
    mean
        () float32 mean of all ratings.
    user_biases
        (n_users + 1,) float32; 0 for the unknown user and for users without ratings.
    item_biases
        (n_items + 1,) float32; 0 for items without ratings.
    rated
        (n_items + 1,) bool, True for items with a rating in training.
    """

    mean: Tensor
    user_biases: Tensor
    item_biases: Tensor
    rated: Tensor

    def __init__(self, config: ModelConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("user_biases", torch.zeros(n_users + 1))
        self.register_buffer("item_biases", torch.zeros(n_items + 1))
        self.register_buffer("rated", torch.zeros(n_items + 1, dtype=torch.bool))

    def count(self, dataset: Dataset) -> None:
        """Fit the mean and, if the config has them, the biases to the visible ratings."""
        known = training_ratings(dataset)
        self._set_mean(known)
        if isinstance(self.config, RatingBias):
            sizes = self.n_users + 1, self.n_items + 1
            users, items = ridge_biases(known, sizes, (self.config.user_reg, self.config.item_reg))
            self.user_biases.copy_(torch.from_numpy(users))
            self.item_biases.copy_(torch.from_numpy(items))

    def code_rows(self) -> Mapping[str, CodeRows]:
        """Rows of the biases; a new user or item has none."""
        names: dict[str, Side] = {"user_biases": "users", "item_biases": "items", "rated": "items"}
        return {name: CodeRows(side, "zero") for name, side in names.items()}

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """Predict the mean plus both biases, at any time; without probabilities."""
        return Rated(self.mean + self.user_biases[users] + self.item_biases[items], None)

    def unrated(self) -> Tensor:
        """Mask (n_items + 1,) bool of the items without ratings in training."""
        unrated = ~self.rated
        unrated[0] = False
        return unrated

    def encode(self, inputs: RatingInputs) -> Tensor:
        """Queries (n, 2): the factor 1 of the item biases, and the term of the user for every rating."""
        own = self.mean + self.user_biases[inputs.users_and_times[:, 0]]
        return torch.stack([torch.ones_like(own), own], dim=1)

    def scores(self) -> ProductScores:
        """Expected ratings, as products with the item biases."""
        return ProductScores(self.item_biases[:, None], offset=True)

    def _set_mean(self, known: TrainingRatings) -> None:
        """Store the mean of the ratings, and the items that have ratings."""
        self.mean.fill_(float(known.ratings.mean()))
        self.rated.copy_(torch.from_numpy(np.bincount(known.items, minlength=self.n_items + 1) > 0))


def ridge_biases(known: TrainingRatings, sizes: tuple[int, int], regs: tuple[float, float]) -> tuple[Float64, Float64]:
    """Biases of users and items that minimise the penalised squares of `RatingBias`.

    Parameters
    ----------
    known
        Ratings in training.
    sizes
        Number of user codes and of item codes, with code 0.
    regs
        Strength of the penalty on the user biases and on the item biases, above 0.

    Returns
    -------
    users, items
        One bias per code; 0 for codes without ratings.

    Notes
    -----
    The matrix of the normal equations is never built. Conjugate gradients need only its product with a vector, which is
    two sums over the ratings. Dividing each equation by its count preconditions them.
    """
    residuals = known.ratings - known.ratings.mean()
    pull = np.repeat(np.asarray(regs, dtype=np.float64), sizes)

    def sums(values: Float64) -> Float64:
        """Sums of values per rating, by user and then by item."""
        by_user = np.bincount(known.users, values, minlength=sizes[0])
        return np.concatenate([by_user, np.bincount(known.items, values, minlength=sizes[1])])

    def product(biases: Float64) -> Float64:
        return sums(biases[known.users] + biases[sizes[0] + known.items]) + pull * biases

    solved = conjugate_gradients(product, sums(residuals), sums(np.ones_like(residuals)) + pull)
    return solved[: sizes[0]], solved[sizes[0] :]


def conjugate_gradients(product: Any, right: Float64, diagonal: Float64) -> Float64:
    """Solution x (n,) of A x = `right` for a positive definite A, where `product` maps x to A x.

    The `diagonal` of A preconditions the steps (Golub & Van Loan, *Matrix Computations*, 11.5).
    """
    solution, residual = np.zeros_like(right), right.copy()
    scaled = residual / diagonal
    direction, slope = scaled.copy(), float(residual @ scaled)
    enough = _TOLERANCE**2 * slope
    for _ in range(_MOST_STEPS):
        if slope <= enough:
            break
        image = product(direction)
        length = slope / float(direction @ image)
        solution += length * direction
        residual -= length * image
        scaled = residual / diagonal
        before, slope = slope, float(residual @ scaled)
        direction = scaled + slope / before * direction
    return solution
