"""Whose ratings a model of item histories looks back at: windows into the history of each item.

Ratings of one item share most of what they look at. So they are learnt and predicted in groups, and what a neighbour
brings is computed once per group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.ragged import Int64, positions

LookBack = Literal["past", "train", "reference"]
NOBODY = 0
"""The user code, and the column, of the neighbour who stands where there are no others."""


class RatingBatch(NamedTuple):
    """Groups of ratings with all that they look at. Column 0 of what is w wide is nobody.

    Attributes
    ----------
    items
        (u,) int64 the item of each group.
    users
        (u, c) int64 who gives the ratings; 0 where a group has fewer.
    levels
        (u, c) int64 place of each rating in the scale; -1 where a group has fewer, or where it is to be found out.
    neighbours
        (m,) int64 the user codes of all neighbours, each once; the first is nobody.
    which
        (u, w) int64 places in `neighbours`, oldest first from column 1; 0 behind the last.
    contexts
        (u, w) int64 from 1 the neighbour's rating among all ratings of training; 0 for none.
    given
        (u, w) int64 place in the scale of what the neighbour gave; -1 for none.
    inside
        (u, c, w) bool whether a rating looks at a neighbour. Nobody is looked at only where there is no other.
    """

    items: Tensor
    users: Tensor
    levels: Tensor
    neighbours: Tensor
    which: Tensor
    contexts: Tensor
    given: Tensor
    inside: Tensor


@dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """Who rated each item, and which of them count when somebody else does.

    Attributes
    ----------
    users
        (n,) int32 user codes, by item, then time.
    levels
        (n,) uint8 place of each rating in the scale.
    times
        (n,) int64, or none where they do not matter.
    offsets
        (n_items + 2,) int64: item i has those from `offsets[i]` to before `offsets[i + 1]`; item 0 has none.
    look_back
        past: only ratings before the moment asked about; train: all but the asked user's own; reference: all.
    limit
        How many count at most.
    keep
        Which of more than these: the newest or the oldest.
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
        """(n_items + 1,) how many ratings each item has."""
        return np.diff(self.offsets)

    def windows(self, items: Int64, moments: Int64) -> tuple[Int64, Int64]:
        """Where what counts begins and ends, for items and moments of the same shape.

        With "train" there is one more than may count, since one of them may be the asked user's own.
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
        """What groups of ratings look at.

        Parameters
        ----------
        items
            (u,) item codes.
        users, levels, moments
            (u, c) as in `RatingBatch`, and when each rating is given.
        """
        starts, ends = self.windows(np.broadcast_to(items[:, None], users.shape), moments)
        low, high = starts.min(axis=1), ends.max(axis=1)
        places = low[:, None] + np.arange(max(int((high - low).max(initial=0)), 0))
        real = places < high[:, None]
        places = np.where(real, places, 0)
        raters = np.where(real, self.users[places] if len(self.users) else places, NOBODY)
        inside = (places[:, None] >= starts[:, :, None]) & (places[:, None] < ends[:, :, None]) & real[:, None]
        if self.look_back == "train":
            inside &= raters[:, None] != users[:, :, None]
            inside = self._at_most(inside)
        distinct, which = np.unique(_with_nobody(raters, NOBODY), return_inverse=True)
        given = np.where(real, self.levels[places].astype(np.int64) if len(self.levels) else 0, -1)
        arrays = (
            items,
            users,
            levels,
            distinct.astype(np.int64),
            which.reshape(len(items), 1 + places.shape[1]),
            _with_nobody(np.where(real, places + 1, 0), 0),
            _with_nobody(given, -1),
            np.concatenate([~inside.any(axis=2, keepdims=True), inside], axis=2),
        )
        return RatingBatch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def _at_most(self, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The first or last `limit` of each row (u, c, w)."""
        if self.keep == "oldest":
            return inside & (inside.cumsum(axis=2) <= self.limit)
        return inside & (inside[:, :, ::-1].cumsum(axis=2)[:, :, ::-1] <= self.limit)


class RatingExamples:
    """Units of training: up to `size` ratings of one item.

    Ratings that look at the past are grouped in the order of time, so that they look at nearly the same neighbours;
    others at random, once.

    Parameters
    ----------
    index
        What is looked back at.
    items, users, levels, moments
        (n,) the ratings to learn, sorted by item, then time; `levels` are places in the scale.
    size
        Ratings per unit, at most.
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
        """The units at `index` with all that they look at."""
        users, levels, moments = self._columns
        places, real = ragged_places(self._offsets[index], self._offsets[index + 1])
        return self.index.batch(
            self._items[index], np.where(real, users[places], 0), np.where(real, levels[places], -1), moments[places]
        )


def ragged_places(starts: Int64, ends: Int64) -> tuple[Int64, npt.NDArray[np.bool_]]:
    """Positions (n, width) of slices side by side, and whether they are real; behind the last it stands again."""
    columns = np.arange(int((ends - starts).max(initial=0)))
    places = starts[:, None] + columns
    return np.minimum(places, ends[:, None] - 1), places < ends[:, None]


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


def first_not_before(times: Int64, starts: Int64, ends: Int64, moments: Int64) -> Int64:
    """The first position from `starts` to `ends` (any shape) whose time is not before `moments`; `ends` if none.

    Times ascend within each slice.
    """
    low, high = starts.copy(), ends.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = open_ & (times[np.minimum(middle, len(times) - 1)] < moments)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low


def _with_nobody(matrix: npt.NDArray[np.int64], value: int) -> npt.NDArray[np.int64]:
    """The matrix (u, w - 1) with a column of `value` before it."""
    return np.concatenate([np.full((len(matrix), 1), value, dtype=np.int64), matrix], axis=1)
