"""Base class of rating models, which predict the rating of a user for an item.

A rating model is a Model with the expected rating as its score. So it recommends, is evaluated and is saved like the
others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import NOW, Histories
from segue.data.ragged import Int64, positions, rows_of
from segue.errors import DataError
from segue.models.base import Model
from segue.models.scores import ItemScores

_PAIRS = 1 << 16


class Rated(NamedTuple):
    """Predictions for n pairs of a user and an item.

    Attributes
    ----------
    expected
        (n,) float32 expected rating; higher is better.
    probabilities
        (n, levels) float32 probability of each level of the scale; None if the model predicts only a number.
    """

    expected: Tensor
    probabilities: Tensor | None


class Neighbours(NamedTuple):
    """Earlier ratings that decided the predictions for n pairs of a user and an item, as flat arrays.

    Attributes
    ----------
    rows
        (m,) int64 index of the pair, ascending.
    users
        (m,) int64 code of the neighbour: a user who rated the item.
    ratings
        (m,) float32 rating of the neighbour.
    positions
        (m,) int64 position of the neighbour in the history of the item, from 1 (the oldest); ascending within a pair.
    times
        (m,) int64 time of the rating; None without times.
    weights
        (m, heads) float32 attention weights; they sum to 1 over the neighbours of a pair. None without attention.
    agreement
        (m,) float32 factor of the neighbour's rating, the agreement of the user with the neighbour; below 0 the rating
        counts in the opposite direction. None if the model does not read the neighbours' ratings.
    decided
        (m,) float32 share of the regions in which the neighbour was the strongest.
    effects
        (m,) float32 expected rating, minus the expected rating without this neighbour.
    """

    rows: Int64
    users: Int64
    ratings: npt.NDArray[np.float32]
    positions: Int64
    times: Int64 | None
    weights: npt.NDArray[np.float32] | None
    agreement: npt.NDArray[np.float32] | None
    decided: npt.NDArray[np.float32]
    effects: npt.NDArray[np.float32]


def concatenated(parts: Sequence[Neighbours]) -> Neighbours:
    """Concatenate one or more Neighbours."""
    columns: list[Any] = list(zip(*parts, strict=True))
    whole: list[Any] = [None if column[0] is None else np.concatenate(column) for column in columns]
    return Neighbours(*whole)


class RatingModel(Model):
    """Model that predicts the rating of a user for an item. It reads only users and times from histories."""

    max_history = 1
    personal = True
    needs_history = False

    @property
    def levels(self) -> tuple[float, ...] | None:
        """Levels of the scale, ascending, if the model predicts a probability of each level; else None."""
        return None

    @abstractmethod
    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """Predict the ratings of pairs.

        Parameters
        ----------
        users, items
            (n,) int64 codes; 0 = unknown.
        moments
            (n,) int64 time of each rating, in the unit of the Dataset's times; `NOW` = after all known interactions.
        """

    def unrated(self) -> Tensor:
        """Mask (n_items + 1,) bool of the items without ratings in training, whose predictions are weak."""
        return torch.zeros(self.n_items + 1, dtype=torch.bool)

    def neighbours(self, users: Tensor, items: Tensor, moments: Tensor) -> Neighbours | None:
        """Ratings that decided the predictions of `rate` for these pairs (n,); None if the model reads none."""
        return None

    def inputs(self, histories: Histories) -> RatingInputs:
        """Return the user and the time of each history."""
        moments = np.full(len(histories), NOW) if histories.as_of is None else histories.as_of
        return RatingInputs(torch.from_numpy(np.stack([histories.users, moments], axis=1)))

    def encode(self, inputs: RatingInputs) -> Tensor:
        """Return the users and times (n, 2), on which the expected ratings depend."""
        return inputs.users_and_times

    def scores(self) -> ItemScores:
        """Expected ratings as scores."""
        return ExpectedRatings(self)


class RatingInputs(NamedTuple):
    """Users and times of the predictions.

    Attributes
    ----------
    users_and_times
        (n, 2) int64 user codes, and times of the predictions in the unit of the Dataset's times.
    """

    users_and_times: Tensor


class ExpectedRatings(ItemScores):
    """Expected ratings as scores, pair by pair; the queries are users and times (batch, 2) int64."""

    def __init__(self, model: RatingModel) -> None:
        self._model = model

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Expected ratings (batch, stop - start) of the item codes start … stop - 1."""
        items = torch.arange(start, stop, device=queries.device).expand(len(queries), -1)
        scores = self.of(queries, items)
        return scores if out is None else out.copy_(scores)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Expected ratings (batch, n) of `items` (batch, n)."""
        users = queries[:, :1].expand(items.shape).reshape(-1)
        moments = queries[:, 1:].expand(items.shape).reshape(-1)
        flat = items.reshape(-1)
        parts = [slice(low, low + _PAIRS) for low in range(0, len(flat), _PAIRS)]
        expected = [self._model.rate(users[part], flat[part], moments[part]).expected for part in parts]
        return torch.cat(expected).view(items.shape) if expected else torch.zeros(items.shape, device=items.device)


class TrainingRatings(NamedTuple):
    """The visible ratings of a Dataset, as flat arrays.

    Attributes
    ----------
    users, items
        (n,) int64 codes.
    ratings
        (n,) float64 ratings.
    """

    users: Int64
    items: Int64
    ratings: npt.NDArray[np.float64]


def training_ratings(dataset: Dataset) -> TrainingRatings:
    """Return the visible ratings, from which a rating model may learn.

    Raises
    ------
    DataError
        The Dataset has no ratings, none is visible, or one is not a finite number.
    """
    if dataset.ratings is None:
        raise DataError(
            "this Dataset has no ratings, and the model predicts them: prepare it from a log with a column of ratings "
            "(--rating NAME)."
        )
    visible = positions(dataset.starts, dataset.ends)
    if not len(visible):
        raise DataError("there are no ratings to learn from: no interaction of this Dataset is visible.")
    ratings = dataset.ratings[visible].astype(np.float64)
    broken = ~np.isfinite(ratings)
    if broken.any():
        raise DataError(f"{int(broken.sum()):,} of {len(ratings):,} ratings are missing or not finite numbers.")
    users = rows_of(dataset.starts, dataset.ends)
    return TrainingRatings(users, dataset.items[visible].astype(np.int64), ratings)
