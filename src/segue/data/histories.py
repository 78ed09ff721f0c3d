"""A batch of histories: what every model reads when it is asked for scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions, rows_of

NOW = np.iinfo(np.int64).max
"""The moment after everything that is known."""


@dataclass(frozen=True, eq=False)
class Histories:
    """n histories, each a slice of one flat array that is shared, not copied.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = a user the model does not know.
    items
        (any,) int32 item codes, oldest first within a history.
    starts, ends
        (n,) int64; history r is `items[starts[r]:ends[r]]`.
    times
        (any,) int64 beside `items`, or None.
    baskets
        (n,) int64 where the session in progress begins: its items, in the order they were added, are
        `items[baskets[r]:ends[r]]`, perhaps none. None: nobody is in the middle of one, so all is history.
    session_offsets
        (any,) int64, ascending: the positions in `items` where sessions begin, and their end; None if there are none.
    moments
        (n,) int64 when each question is asked, in the unit of `times`; None: now, after everything.
    """

    users: Int64
    items: npt.NDArray[np.int32]
    starts: Int64
    ends: Int64
    times: npt.NDArray[np.int64] | None = None
    baskets: Int64 | None = None
    session_offsets: Int64 | None = None
    moments: Int64 | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def from_lists(cls, histories: Sequence[npt.ArrayLike], users: Int64 | None = None) -> Histories:
        """Histories given one by one, as sequences of item codes."""
        arrays = [np.asarray(history, dtype=np.int32) for history in histories]
        offsets = offsets_of(np.array([len(array) for array in arrays], dtype=np.int64))
        flat = np.concatenate(arrays) if arrays else np.zeros(0, dtype=np.int32)
        codes = np.zeros(len(arrays), dtype=np.int64) if users is None else users
        return cls(codes, flat, offsets[:-1], offsets[1:])

    @property
    def lengths(self) -> Int64:
        """(n,) number of items in each history."""
        return self.ends - self.starts

    def select(self, index: npt.NDArray[np.int64] | slice) -> Histories:
        """The histories at `index`, in its order."""
        return replace(
            self,
            users=self.users[index],
            starts=self.starts[index],
            ends=self.ends[index],
            baskets=None if self.baskets is None else self.baskets[index],
            moments=None if self.moments is None else self.moments[index],
        )

    def last(self, length: int) -> Histories:
        """The same histories cut to their newest `length` items."""
        starts = np.maximum(self.starts, self.ends - length)
        baskets = None if self.baskets is None else np.maximum(self.baskets, starts)
        return replace(self, starts=starts, baskets=baskets)

    def seen(self) -> tuple[Int64, npt.NDArray[np.int32]]:
        """(row, item code) of every interaction, as two flat arrays."""
        return rows_of(self.starts, self.ends), self.items[positions(self.starts, self.ends)]

    def padded(self, width: int) -> npt.NDArray[np.int64]:
        """(n, width) int64 item codes, oldest first from column 0, 0 behind the newest; cut to the newest `width`."""
        cut = self.last(width)
        rows, items = cut.seen()
        columns = positions(np.zeros(len(cut), dtype=np.int64), cut.lengths)
        matrix = np.zeros((len(self), width), dtype=np.int64)
        matrix[rows, columns] = items
        return matrix

    def ages(self, width: int) -> npt.NDArray[np.int64] | None:
        """(n, width) int64 how long before the newest item of its row each item of `padded(width)` came, 0 at padding.

        In the unit of `times`; None without them. What stands there from after the moment that is asked about (a
        session in progress, replayed) counts as of that moment.
        """
        if self.times is None:
            return None
        cut = self.last(width)
        rows, columns = rows_of(cut.starts, cut.ends), positions(np.zeros(len(cut), dtype=np.int64), cut.lengths)
        where = positions(cut.starts, cut.ends)
        moments = np.full(len(cut), NOW) if self.moments is None else self.moments
        times = np.minimum(self.times[where], moments[rows])
        newest = np.minimum(self.times[cut.ends[rows] - 1], moments[rows])
        matrix = np.zeros((len(self), width), dtype=np.int64)
        matrix[rows, columns] = newest - times
        return matrix

    def places(self, width: int) -> Int64:
        """(n, width) int64 positions in `items` of what stands in `padded(width)`, -1 where that is padding."""
        cut = self.last(width)
        columns = np.arange(width)
        return np.where(columns < cut.lengths[:, None], cut.starts[:, None] + columns, -1)
