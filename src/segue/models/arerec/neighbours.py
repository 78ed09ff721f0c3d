"""Neighbours of a rating: windows of earlier ratings in the history of its item.

Ratings of one item share most of their neighbours. So they are learnt and predicted in groups, and the vectors of a
neighbour are computed once per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.ragged import Int64, first_not_before, positions

LookBack = Literal["past", "train", "reference"]
NO_NEIGHBOUR = 0
"""User code and column of the empty neighbour, which is read if there are no others."""


class RatingBatch(NamedTuple):
    """Groups of ratings with their neighbours. Column 0 of each dimension w is the empty neighbour.

    Attributes
    ----------
    items
        (u,) int64 item of each group.
    users
        (u, c) int64 users of the ratings; 0 is padding.
    levels
        (u, c) int64 index of each rating on the scale; -1 is padding, or a rating to predict.
    neighbours
        (m,) int64 distinct user codes of all neighbours; the first is the empty neighbour.
    neighbour_index
        (u, w) int64 index in `neighbours`, oldest first from column 1; 0 behind the last.
    contexts
        (u, w) int64 number of the neighbour's rating among all training ratings, from 1; 0 for none.
    neighbour_levels
        (u, w) int64 index of the neighbour's rating on the scale; -1 for none.
    inside
        (u, c, w) bool, True if a rating reads a neighbour. It reads the empty neighbour only if there are no others.
    """

    items: Tensor
    users: Tensor
    levels: Tensor
    neighbours: Tensor
    neighbour_index: Tensor
    contexts: Tensor
    neighbour_levels: Tensor
    inside: Tensor


@dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """Ratings of each item, and the rule that selects the neighbours of a new rating among them.

    Attributes
    ----------
    users
        (n,) int32 user codes, by item, then time.
    levels
        (n,) uint8 index of each rating on the scale.
    times
        (n,) int64 times; None if they do not matter.
    offsets
        (n_items + 2,) int64: the ratings of item i are `offsets[i]` to before `offsets[i + 1]`; item 0 has none.
    look_back
        "past": ratings before the time of the prediction; "train": all except the user's own; "reference": all.
    limit
        Largest number of neighbours.
    keep
        Neighbours to keep above the limit: the newest or the oldest.
    """

    users: npt.NDArray[np.int32]
    levels: npt.NDArray[np.uint8]
    times: Int64 | None
    offsets: Int64
    look_back: LookBack
    limit: int
    keep: Literal["newest", "oldest"]

    @property
    def counts(self) -> Int64:
        """Number of ratings (n_items + 1,) of each item."""
        return np.diff(self.offsets)

    def windows(self, items: Int64, moments: Int64) -> tuple[Int64, Int64]:
        """Start and end of the ratings that may be neighbours, for items and moments of the same shape.

        With "train" a window has one more rating than the limit, since one of them may be the user's own.
        """
        most = self.limit + (self.look_back == "train")
        starts, ends = self.offsets[items], self.offsets[items + 1]
        if self.look_back == "past":
            assert self.times is not None
            ends = first_not_before(self.times, starts, ends, moments)
        if self.keep == "newest":
            return np.maximum(starts, ends - most), ends
        return starts, np.minimum(ends, starts + most)

    def batch(self, items: Int64, users: Int64, levels: Int64, moments: Int64) -> RatingBatch:
        """Return groups of ratings with their neighbours.

        Parameters
        ----------
        items
            (u,) item codes.
        users, levels, moments
            (u, c) as in `RatingBatch`, and the time of each rating.
        """
        starts, ends = self.windows(np.broadcast_to(items[:, None], users.shape), moments)
        low, high = starts.min(axis=1), ends.max(axis=1)
        rated_positions = low[:, None] + np.arange(max(int((high - low).max(initial=0)), 0))
        real = rated_positions < high[:, None]
        rated_positions = np.where(real, rated_positions, 0)
        raters = np.where(real, self.users[rated_positions] if len(self.users) else rated_positions, NO_NEIGHBOUR)
        inside = (
            (rated_positions[:, None] >= starts[:, :, None])
            & (rated_positions[:, None] < ends[:, :, None])
            & real[:, None]
        )
        if self.look_back == "train":
            inside &= raters[:, None] != users[:, :, None]
            inside = self._at_most(inside)
        distinct, index = np.unique(_with_empty_column(raters, NO_NEIGHBOUR), return_inverse=True)
        neighbour_levels = np.where(real, self.levels[rated_positions].astype(np.int64) if len(self.levels) else 0, -1)
        arrays = (
            items,
            users,
            levels,
            distinct.astype(np.int64),
            index.reshape(len(items), 1 + rated_positions.shape[1]),
            _with_empty_column(np.where(real, rated_positions + 1, 0), 0),
            _with_empty_column(neighbour_levels, -1),
            np.concatenate([~inside.any(axis=2, keepdims=True), inside], axis=2),
        )
        return RatingBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _at_most(self, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Keep the first or last `limit` neighbours of each row (u, c, w)."""
        if self.keep == "oldest":
            return inside & (inside.cumsum(axis=2) <= self.limit)
        return inside & (inside[:, :, ::-1].cumsum(axis=2)[:, :, ::-1] <= self.limit)


class RatingExamples:
    """Training units: groups of up to `size` ratings of one item.

    With `look_back="past"` ratings are grouped in the order of time, so that a group has nearly the same neighbours.
    Otherwise they are grouped at random, once.

    Parameters
    ----------
    index
        Ratings that may be neighbours.
    items, users, levels, moments
        (n,) ratings to learn, sorted by item, then time; `levels` are indices on the scale.
    size
        Largest number of ratings of a unit.
    """

    def __init__(
        self, index: ItemNeighbours, items: Int64, users: Int64, levels: Int64, moments: Int64, size: int
    ) -> None:
        if index.look_back != "past":
            order = np.lexsort((np.random.default_rng(0).random(len(items)), items))
            users, levels, moments = users[order], levels[order], moments[order]
        self.index = index
        self._columns = users, levels, moments
        self._offsets = group_offsets(items, size)
        self._items = items[self._offsets[:-1]]
        self.weights = np.diff(self._offsets)
        self.usual_batch, self.usual_averaging = 128, 0.0
        self.lengths = np.minimum(index.counts[self._items], index.limit)

    def batch(self, index: Int64, generator: np.random.Generator) -> RatingBatch:
        """Return the units at `index` with their neighbours."""
        users, levels, moments = self._columns
        padded, real = padded_positions(self._offsets[index], self._offsets[index + 1])
        return self.index.batch(
            self._items[index],
            np.where(real, users[padded], 0),
            np.where(real, levels[padded], -1),
            moments[padded],
        )


def padded_positions(starts: Int64, ends: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Positions (n, width) of slices, padded by their last position, and a mask that is False at padding."""
    columns = np.arange(int((ends - starts).max(initial=0)))
    padded = starts[:, None] + columns
    return np.minimum(padded, ends[:, None] - 1), padded < ends[:, None]


def group_offsets(items: Int64, size: int) -> Int64:
    """Offsets of groups of up to `size` consecutive equal items; `items` (n,) are sorted.

    >>> group_offsets(np.array([1, 1, 1, 4, 4]), 2)
    array([0, 2, 3, 5])
    """
    if not len(items):
        return np.zeros(1, dtype=np.int64)
    first = np.flatnonzero(np.concatenate([[True], items[1:] != items[:-1]]))
    lengths = np.diff(np.append(first, len(items)))
    groups = -(-lengths // size)
    item = np.repeat(np.arange(len(first)), groups)
    number = positions(np.zeros_like(groups), groups)
    return np.append(first[item] + number * size, len(items))


def _with_empty_column(matrix: npt.NDArray[np.int64], value: int) -> npt.NDArray[np.int64]:
    """Put a column of `value` before the matrix (u, w - 1)."""
    return np.concatenate([np.full((len(matrix), 1), value, dtype=np.int64), matrix], axis=1)
