"""What every model of ratings is: asked about a pair, it answers with the rating it expects.

Such a model is a Model like the others, whose score is the expected rating; so it recommends, is evaluated and is saved
as they are.
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
    """What is expected of n pairs of a user and an item.

    Attributes
    ----------
    expected
        (n,) float32: the rating expected; higher is better.
    probabilities
        (n, levels) float32: of each level of the scale; None of a model that expects a number and no more.
    """

    expected: Tensor
    probabilities: Tensor | None


class Neighbours(NamedTuple):
    """Which earlier ratings of its item decided what is expected of each of n pairs, as flat arrays.

    Attributes
    ----------
    rows
        (m,) int64 which pair, ascending.
    users
        (m,) int64 code of the neighbour: someone who rated the item.
    ratings
        (m,) float32 what the neighbour gave.
    positions
        (m,) int64 from 1, oldest first: where the neighbour stands in the item's history; ascending within a pair.
    times
        (m,) int64, or None without times.
    weights
        (m, heads) float32 attention; over a pair's neighbours they sum to 1. None of a model without attention.
    agreement
        (m,) float32 how far the user agrees with the neighbour: its rating counts so many times, against itself where
        this is below 0. None of a model that does not read what neighbours gave.
    decided
        (m,) float32 the share of the regions of which the neighbour was the strongest.
    effects
        (m,) float32 the rating expected, minus the one expected without this neighbour.
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


def joined(parts: Sequence[Neighbours]) -> Neighbours:
    """One after the other; at least one."""
    columns: list[Any] = list(zip(*parts, strict=True))
    whole: list[Any] = [None if column[0] is None else np.concatenate(column) for column in columns]
    return Neighbours(*whole)


class RatingModel(Model):
    """A model that predicts the rating that a user gives an item. Histories only say who asks, and when."""

    max_history = 1
    personal = True
    needs_history = False

    @property
    def levels(self) -> tuple[float, ...] | None:
        """The scale, ascending, where the model knows a probability of each level; else None."""
        return None

    @abstractmethod
    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        """What is expected of pairs.

        Parameters
        ----------
        users, items
            (n,) int64 codes; 0 = unknown.
        moments
            (n,) int64 when each rating is given, in the unit of the Dataset's times; `NOW` = after all that is known.
        """

    def unrated(self) -> Tensor:
        """(n_items + 1,) bool: the items that have no rating in training, of which little can be said."""
        return torch.zeros(self.n_items + 1, dtype=torch.bool)

    def neighbours(self, users: Tensor, items: Tensor, moments: Tensor) -> Neighbours | None:
        """Whose ratings decided what `rate` expects of these pairs (n,); None of a model that looks at none."""
        return None

    def inputs(self, histories: Histories) -> RatingInputs:
        """The user of each history, and the moment of the question."""
        moments = np.full(len(histories), NOW) if histories.as_of is None else histories.as_of
        return RatingInputs(torch.from_numpy(np.stack([histories.users, moments], axis=1)))

    def encode(self, inputs: RatingInputs) -> Tensor:
        """The users and moments (n, 2) themselves: all that expected ratings depend on."""
        return inputs.asked

    def scores(self) -> ItemScores:
        """Expected ratings."""
        return ExpectedRatings(self)


class RatingInputs(NamedTuple):
    """Who asks, and when.

    Attributes
    ----------
    asked
        (n, 2) int64: user codes, and moments in the unit of the Dataset's times.
    """

    asked: Tensor


class ExpectedRatings(ItemScores):
    """Expected ratings as scores, asked pair by pair; from users and moments (batch, 2) int64."""

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
        (n,) float64.
    places
        (n,) int64 where each stands in the Dataset's arrays.
    """

    users: Int64
    items: Int64
    ratings: npt.NDArray[np.float64]
    places: Int64


def training_ratings(dataset: Dataset) -> TrainingRatings:
    """All that a model of ratings may learn from.

    Raises
    ------
    DataError
        The Dataset has no ratings, none is visible, or one is not a finite number.
    """
    if dataset.ratings is None:
        raise DataError(
            "this Dataset has no ratings, and the model predicts them: prepare it from a log with a column of ratings "
            "(--rating names it)."
        )
    places = positions(dataset.starts, dataset.ends)
    if not len(places):
        raise DataError("there are no ratings to learn from: nothing of this Dataset is visible.")
    ratings = dataset.ratings[places].astype(np.float64)
    broken = ~np.isfinite(ratings)
    if broken.any():
        raise DataError(f"{int(broken.sum()):,} of {len(ratings):,} ratings are missing or not finite numbers.")
    users = rows_of(dataset.starts, dataset.ends)
    return TrainingRatings(users, dataset.items[places].astype(np.int64), ratings, places)
