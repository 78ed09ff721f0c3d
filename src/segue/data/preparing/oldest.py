"""The oldest rows of a log, found without sorting it: the times are counted, a few times over."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64

_BINS = 1 << 16


class Oldest:
    """Which rows of a log are its `rows` oldest; of equal times at the cut, those that stand first in the log.

    Parameters
    ----------
    pieces
        Gives all times of the log, piece by piece; called a few times.
    rows
        How many to keep, from 1 to all.
    """

    def __init__(self, pieces: Callable[[], Iterable[Int64]], rows: int) -> None:
        self._cut, below = nth_smallest(pieces, rows)
        self._left = rows - below  # of those at the cut itself

    def next(self, times: Int64) -> npt.NDArray[np.bool_]:
        """Which rows (n,) of the next piece stay. The pieces must come in the order of the log, each once."""
        keep: npt.NDArray[np.bool_] = times < self._cut
        at_the_cut = np.flatnonzero(times == self._cut)[: self._left]
        keep[at_the_cut] = True
        self._left -= len(at_the_cut)
        return keep


def nth_smallest(pieces: Callable[[], Iterable[Int64]], n: int) -> tuple[int, int]:
    """The n-th smallest value (from 1) of all pieces, and how many are smaller: by counting, in ever smaller ranges.

    >>> nth_smallest(lambda: [np.array([5, 1]), np.array([3, 3])], 3)
    (3, 1)
    """
    known = [(int(piece.min()), int(piece.max())) for piece in pieces() if len(piece)]
    low, high, below = min(low for low, _ in known), max(high for _, high in known), 0
    while low < high:
        width = (high - low) // _BINS + 1
        counts = np.zeros(_BINS + 1, dtype=np.int64)
        for piece in pieces():
            # Differences of times may need all 64 bits: as unsigned numbers they are exact.
            above = piece[(piece >= low) & (piece <= high)].view(np.uint64) - np.uint64(low % 2**64)
            counts += np.bincount((above // np.uint64(width)).astype(np.int64), minlength=len(counts))
        reached = np.cumsum(counts)
        place = int(np.searchsorted(reached, n - below))
        below += int(reached[place] - counts[place])
        low, high = low + place * width, min(high, low + (place + 1) * width - 1)
    return low, below
