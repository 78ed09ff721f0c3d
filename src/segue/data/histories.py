"""Histories: a batch of user histories in flat arrays, the input of every model that answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions, rows_of

NOW = np.iinfo(np.int64).max
"""Time of a question that is asked now: later than every interaction."""


@dataclass(frozen=True, eq=False)
class Histories:
    """Histories of n users, as slices of one flat array that is shared and not copied.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = a user unknown to the model.
    items
        (any,) int32 item codes, oldest first within a history.
    starts, ends
        (n,) int64; history r is `items[starts[r]:ends[r]]`.
    times
        (any,) int64 times of `items`, or None.
    baskets
        (n,) int64 position of the first item of each session in progress. The basket of history r is
        `items[baskets[r]:ends[r]]`, in the order of adding; it may be empty. None: no user has a session in progress.
    session_offsets
        (any,) int64, ascending: positions in `items` of the first item of each session, and the end of the last one;
        None without sessions.
    as_of
        (n,) int64 time of each question, in the unit of `times`; None: now, after everything.
    """

    users: Int64
    items: npt.NDArray[np.int32]
    starts: Int64
    ends: Int64
    times: npt.NDArray[np.int64] | None = None
    baskets: Int64 | None = None
    session_offsets: Int64 | None = None
    as_of: Int64 | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def from_lists(cls, histories: Sequence[npt.ArrayLike], users: Int64 | None = None) -> Histories:
        """Histories from sequences of item codes, one per user; user codes are 0 if not given."""
        arrays = [np.asarray(history, dtype=np.int32) for history in histories]
        offsets = offsets_of(np.array([len(array) for array in arrays], dtype=np.int64))
        flat = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int32)
        codes = np.zeros(len(arrays), dtype=np.int64) if users is None else users
        return cls(codes, flat, offsets[:-1], offsets[1:])

    @property
    def lengths(self) -> Int64:
        """Number of items in each history (n,)."""
        return self.ends - self.starts

    def select(self, index: npt.NDArray[np.int64] | slice) -> Histories:
        """The histories at `index`, in its order."""
        return replace(
            self,
            users=self.users[index],
            starts=self.starts[index],
            ends=self.ends[index],
            baskets=None if self.baskets is None else self.baskets[index],
            as_of=None if self.as_of is None else self.as_of[index],
        )

    def compact(self) -> Histories:
        """The same histories in arrays of their own, end to end: they can travel without those of others."""
        flat, offsets = positions(self.starts, self.ends), offsets_of(self.lengths)
        sessions = None
        if self.session_offsets is not None:
            low, high = np.searchsorted(self.session_offsets, np.stack([self.starts, self.ends]))
            within = np.asarray(self.session_offsets)[positions(low, high)]
            sessions = np.unique(np.concatenate([offsets, within - np.repeat(self.starts - offsets[:-1], high - low)]))
        return replace(
            self,
            items=self.items[flat],
            starts=offsets[:-1],
            ends=offsets[1:],
            times=None if self.times is None else self.times[flat],
            baskets=None if self.baskets is None else self.baskets - self.starts + offsets[:-1],
            session_offsets=sessions,
        )

    def last(self, length: int) -> Histories:
        """The same histories, cut to the newest `length` items."""
        starts = np.maximum(self.starts, self.ends - length)
        baskets = None if self.baskets is None else np.maximum(self.baskets, starts)
        return replace(self, starts=starts, baskets=baskets)

    def seen(self) -> tuple[Int64, npt.NDArray[np.int32]]:
        """Rows (m,) and item codes (m,) of all interactions."""
        return rows_of(self.starts, self.ends), self.items[positions(self.starts, self.ends)]

    def holds(self, others: Histories) -> npt.NDArray[np.bool_]:
        """(m,) True for each item of `others`, row by row, that stands in the same row here; n rows in both."""
        rows, items = self.seen()
        other_rows, other_items = others.seen()
        stride = 1 + max(int(items.max(initial=0)), int(other_items.max(initial=0)))
        return np.isin(other_rows * stride + other_items, rows * stride + items)

    def padded(self, width: int) -> npt.NDArray[np.int64]:
        """Item codes (n, width) int64 of the newest `width` items, oldest first, with padding 0 behind the newest."""
        if len(self) == 1 and self.ends[0] - self.starts[0] >= width:
            return self.items[None, self.ends[0] - width : self.ends[0]].astype(np.int64)
        if not len(self.items):
            return np.zeros((len(self), width), dtype=np.int64)
        where = np.maximum(self.starts, self.ends - width)[:, None] + np.arange(width)
        inside = where < self.ends[:, None]
        return np.where(inside, self.items[where * inside], 0).astype(np.int64)

    def ages(self, width: int) -> npt.NDArray[np.int64] | None:
        """Ages (n, width) int64 of the items of `padded(width)`: time before the newest item of the row, 0 at padding.

        In the unit of `times`; None without times. A time after `as_of` counts as `as_of`; such times occur if a
        recorded session is replayed.
        """
        if self.times is None:
            return None
        cut = self.last(width)
        rows, columns = rows_of(cut.starts, cut.ends), positions(np.zeros(len(cut), dtype=np.int64), cut.lengths)
        latest = (np.full(len(cut), NOW) if self.as_of is None else self.as_of)[rows]
        times = np.minimum(self.times[positions(cut.starts, cut.ends)], latest)
        newest = np.minimum(self.times[cut.ends[rows] - 1], latest)
        matrix = np.zeros((len(self), width), dtype=np.int64)
        matrix[rows, columns] = newest - times
        return matrix

    def padded_positions(self, width: int) -> Int64:
        """Positions (n, width) in `items` of the entries of `padded(width)`; -1 at padding."""
        cut = self.last(width)
        columns = np.arange(width)
        return np.where(columns < cut.lengths[:, None], cut.starts[:, None] + columns, -1)
