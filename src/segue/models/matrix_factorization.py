"""Matrix factorization: a rating is the sum of biases of user and item and the product of their factors.

Koren, Bell & Volinsky, *Matrix Factorization Techniques for Recommender Systems* (Computer, 2009), with biases, fitted
by alternating least squares. With fixed item vectors, each user vector is a small ridge regression, and vice versa.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.models.base import CodeRows, ModelConfig
from segue.models.rating_bias import BiasModel
from segue.models.rating_groups import RatingGroups
from segue.models.ratings import Rated, RatingInputs, training_ratings
from segue.models.scores import ProductScores
from segue.settings import Count, Positive, between

_INITIAL_DEVIATION = 0.1
"""Standard deviation of the initial factors."""


@dataclass(frozen=True)
class MatrixFactorization(ModelConfig):
    """Biased matrix factorization by alternating least squares: mean + b_user + b_item + p_user · q_item.

    On ratings scaled to mean 0 and standard deviation 1, it minimises

    Σ (rating - b_user - b_item - p_user · q_item)² + Σ bias_reg · b² + Σ reg · n^frequency · |p or q|²

    with n the number of ratings of the user or the item. An unknown user or item has bias 0 and no factors. The
    defaults were chosen on a validation part of MovieLens 100K.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3], "rating": [5, 3, 4, 2, 3, 1]})
    >>> data = segue.prepare(log, time=False)
    >>> factors = segue.fit(segue.MatrixFactorization(width=2), data)
    >>> factors.recommend(1, k=1)["item"].to_list()  # the only item that user 1 did not rate
    [3]
    """

    width: Count = 32
    """Number of factors of each user and item."""

    reg: Positive = 1.25
    """Pull of the factors towards 0, for ratings with standard deviation 1."""

    frequency: Annotated[float, between(0, 1)] = 0.5
    """Exponent of the number of ratings in the pull: 0 pulls all equally, 1 in proportion."""

    bias_reg: Positive = 3.0
    """Pull of the biases towards 0, as a number of additional average ratings."""

    sweeps: Count = 12
    """Number of sweeps; each solves for all user vectors, then for all item vectors."""

    name: ClassVar[str] = "matrix-factorization"
    task: ClassVar[str] = "ratings"
    may_change_on_start: ClassVar[frozenset[str]] = frozenset({"reg", "frequency", "bias_reg", "sweeps"})

    def build(self, n_users: int, n_items: int) -> MatrixFactorizationModel:
        """Return a module with random item factors, from which `count` starts."""
        return MatrixFactorizationModel(self, n_users, n_items)


class MatrixFactorizationModel(BiasModel):
    """Biases as in `BiasModel`, plus products of user and item factors.

    Buffers
    -------
    user_factors
        (n_users + 1, width) float32; 0 for the unknown user and for users without ratings.
    item_factors
        (n_items + 1, width) float32; 0 for items without ratings.
    """

    recounts = False
    config: MatrixFactorization
    user_factors: Tensor
    item_factors: Tensor

    def __init__(self, config: MatrixFactorization, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.register_buffer("user_factors", torch.zeros(n_users + 1, config.width))
        self.register_buffer("item_factors", torch.randn(n_items + 1, config.width) * _INITIAL_DEVIATION)

    def code_rows(self) -> Mapping[str, CodeRows]:
        """Rows of biases and factors; a new user or item has none."""
        factors = {"user_factors": CodeRows("users", "zero"), "item_factors": CodeRows("items", "zero")}
        return {**super().code_rows(), **factors}

    def learned_buffers(self) -> set[str]:
        """The item factors: the first sweep solves for the users from them."""
        return {"item_factors"}

    def count(self, dataset: Dataset) -> None:
        """Fit biases and factors to the visible ratings, starting from the random factors."""
        known = training_ratings(dataset)
        self._set_mean(known)
        scale = float(known.ratings.std()) or 1.0
        targets = torch.from_numpy(((known.ratings - known.ratings.mean()) / scale).astype(np.float32))
        users = _Side(known.users, known.items, targets, self.n_users + 1)
        items = _Side(known.items, known.users, targets, self.n_items + 1)
        # Rows (n + 1, 1 + width) of a bias and the factors.
        of_users = torch.zeros(self.n_users + 1, 1 + self.config.width)
        of_items = torch.cat([torch.zeros(self.n_items + 1, 1), self.item_factors.cpu()], dim=1)
        of_items[~self.rated.cpu()] = 0
        for _ in range(self.config.sweeps):
            users.solve(of_users, of_items, self.config)
            items.solve(of_items, of_users, self.config)
        self.user_biases.copy_(of_users[:, 0] * scale)
        self.item_biases.copy_(of_items[:, 0] * scale)
        self.user_factors.copy_(of_users[:, 1:] * scale**0.5)
        self.item_factors.copy_(of_items[:, 1:] * scale**0.5)

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """Predict the mean plus both biases plus the product of the factors, at any time; without probabilities."""
        from_biases = super().rate(users, items, moments).expected
        return Rated(from_biases + (self.user_factors[users] * self.item_factors[items]).sum(1), None)

    def encode(self, inputs: RatingInputs) -> Tensor:
        """Queries (n, width + 2): user factors, the factor 1 of the item biases, and the term of the user."""
        return torch.cat([self.user_factors[inputs.users_and_times[:, 0]], super().encode(inputs)], dim=1)

    def scores(self) -> ProductScores:
        """Expected ratings, as products with the item factors and biases."""
        return ProductScores(torch.cat([self.item_factors, self.item_biases[:, None]], dim=1), offset=True)

    def item_vectors(self) -> Tensor:
        """Factors (n_items + 1, width): items are similar if the same users like them more than the biases say."""
        return self.item_factors


class _Side:
    """Ratings grouped by user or by item, with one ridge regression per group.

    Parameters
    ----------
    owners, others
        (n,) int64 codes: the user or item whose regression has the rating, and the other side of the rating.
    targets
        (n,) float32 scaled ratings.
    n_codes
        Number of codes of owners.
    """

    def __init__(self, owners: Int64, others: Int64, targets: Tensor, n_codes: int) -> None:
        self._groups = RatingGroups(owners, n_codes)
        self._others = torch.from_numpy(others)
        self._targets = targets

    def solve(self, own: Tensor, other: Tensor, config: MatrixFactorization) -> None:
        """Replace `own` (codes, 1 + width) by the solution for `other`; owners without ratings stay as they are."""
        pull = torch.full((1 + config.width,), config.reg)
        for codes, positions, real in self._groups:
            rows = other[self._others[positions]]  # (group, ratings, 1 + width)
            targets = (self._targets[positions] - rows[..., 0]) * real
            rows[..., 0] = 1.0
            rows *= real[..., None]
            counts = real.sum(1, keepdim=True).float()
            pulls = pull * counts**config.frequency
            pulls[:, 0] = config.bias_reg
            left = rows.mT @ rows
            left.diagonal(dim1=1, dim2=2).add_(pulls)
            right = rows.mT @ targets[..., None]
            own[codes] = torch.cholesky_solve(right, torch.linalg.cholesky(left)).squeeze(2)
