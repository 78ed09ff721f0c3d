"""The baselines of rating prediction: the mean of all ratings, and what users and items are above or below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.models.base import CountingModel, ModelConfig
from segue.models.ratings import Rated, RatingInputs, RatingModel, TrainingRatings, training_ratings
from segue.models.scores import ProductScores
from segue.settings import Positive

Float64 = npt.NDArray[np.float64]

_TOLERANCE = 1e-7
"""The biases are solved for until what is left of the equations is this small, as a share of what they began with."""
_STEPS = 200


@dataclass(frozen=True)
class GlobalMean(ModelConfig):
    """The mean of all ratings, for every user and item: the baseline of all baselines."""

    name: ClassVar[str] = "global-mean"
    task: ClassVar[str] = "ratings"

    def build(self, n_users: int, n_items: int) -> BiasModel:
        """An empty module; `count` fills it."""
        return BiasModel(self, n_users, n_items)


@dataclass(frozen=True)
class RatingBias(ModelConfig):
    """User and item bias: how far a user's ratings, and an item's, lie above the mean of all.

    The rating expected is mean + b_user + b_item, with the biases that minimise

    Σ (rating - mean - b_user - b_item)² + user_reg · Σ b_user² + item_reg · Σ b_item²

    as in Koren, *Factor in the Neighbors* (2010), solved for exactly. An unknown user or item has bias 0. The defaults
    were chosen on a validation part of MovieLens 100K.
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
    """Expects the mean, plus the bias of the user, plus the bias of the item.

    Buffers
    -------
    mean
        () float32: of all ratings.
    user_biases
        (n_users + 1,) float32; 0 for the unknown user, and of users and items without ratings.
    item_biases
        (n_items + 1,) float32.
    rated
        (n_items + 1,) bool: which items have a rating in training.
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
        self._note(known)
        if isinstance(self.config, RatingBias):
            sizes = self.n_users + 1, self.n_items + 1
            users, items = ridge_biases(known, sizes, (self.config.user_reg, self.config.item_reg))
            self.user_biases.copy_(torch.from_numpy(users))
            self.item_biases.copy_(torch.from_numpy(items))

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """The mean plus both biases, at any moment; no probabilities."""
        return Rated(self.mean + self.user_biases[users] + self.item_biases[items], None)

    def unrated(self) -> Tensor:
        """(n_items + 1,) bool: the items that have no rating in training."""
        found = ~self.rated
        found[0] = False
        return found

    def encode(self, inputs: RatingInputs) -> Tensor:
        """(n, 2): the factor 1 of the items' biases, and what the user adds to every rating."""
        own = self.mean + self.user_biases[inputs.asked[:, 0]]
        return torch.stack([torch.ones_like(own), own], dim=1)

    def scores(self) -> ProductScores:
        """Expected ratings, as products with the items' biases."""
        return ProductScores(self.item_biases[:, None], offset=True)

    def _note(self, known: TrainingRatings) -> None:
        """Keep the mean, and which items have ratings."""
        self.mean.fill_(float(known.ratings.mean()))
        self.rated.copy_(torch.from_numpy(np.bincount(known.items, minlength=self.n_items + 1) > 0))


def ridge_biases(known: TrainingRatings, sizes: tuple[int, int], regs: tuple[float, float]) -> tuple[Float64, Float64]:
    """The biases of users and items that minimise the penalised squares of `RatingBias`.

    Parameters
    ----------
    known
        The ratings.
    sizes
        Numbers of user codes and of item codes, the unknown ones included.
    regs
        Pull on the users' biases and on the items', above 0.

    Returns
    -------
    users, items
        One bias for each code; 0 where there is no rating.

    Notes
    -----
    The normal equations are never written out: conjugate gradients, each equation divided by its own count, need them
    only multiplied by a vector, which is two sums over the ratings.
    """
    residuals = known.ratings - known.ratings.mean()
    pull = np.repeat(np.asarray(regs, dtype=np.float64), sizes)

    def sums(values: Float64) -> Float64:
        """Of values per rating, by user and by item."""
        by_user = np.bincount(known.users, values, minlength=sizes[0])
        return np.concatenate([by_user, np.bincount(known.items, values, minlength=sizes[1])])

    def product(biases: Float64) -> Float64:
        return sums(biases[known.users] + biases[sizes[0] + known.items]) + pull * biases

    solved = conjugate_gradients(product, sums(residuals), sums(np.ones_like(residuals)) + pull)
    return solved[: sizes[0]], solved[sizes[0] :]


def conjugate_gradients(product: Any, right: Float64, diagonal: Float64) -> Float64:
    """The solution x (n,) of A x = `right` for a positive definite A, of which `product` is x ↦ A x.

    Steps are preconditioned by A's `diagonal` (Golub & Van Loan, *Matrix Computations*, 11.5).
    """
    solution, left = np.zeros_like(right), right.copy()
    scaled = left / diagonal
    direction, slope = scaled.copy(), float(left @ scaled)
    enough = _TOLERANCE**2 * slope
    for _ in range(_STEPS):
        if slope <= enough:
            break
        image = product(direction)
        length = slope / float(direction @ image)
        solution += length * direction
        left -= length * image
        scaled = left / diagonal
        before, slope = slope, float(left @ scaled)
        direction = scaled + slope / before * direction
    return solution
