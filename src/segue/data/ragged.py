"""Vectorised work on ragged arrays: many slices of one flat array, without a loop over the slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


def offsets_of(lengths: npt.NDArray[Any]) -> Int64:
    """Offsets (n + 1) of slices of the given lengths (n), laid end to end.

    >>> offsets_of(np.array([2, 0, 3]))
    array([0, 2, 2, 5])
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def positions(starts: Int64, ends: Int64) -> Int64:
    """All positions of the slices [start, end), one slice after the other.

    >>> positions(np.array([0, 7]), np.array([3, 9]))
    array([0, 1, 2, 7, 8])
    """
    lengths = ends - starts
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1], dtype=np.int64) + np.repeat(starts - offsets[:-1], lengths)


def rows_of(starts: Int64, ends: Int64) -> Int64:
    """Number of the slice that each of `positions(starts, ends)` comes from.

    >>> rows_of(np.array([0, 7]), np.array([3, 9]))
    array([0, 0, 0, 1, 1])
    """
    return np.repeat(np.arange(len(starts), dtype=np.int64), ends - starts)


def first_not_before(times: Int64, starts: Int64, ends: Int64, moments: Int64) -> Int64:
    """First position from `starts` to `ends` (any shape) with a time not before `moments`; `ends` if none.

    Times ascend within each slice.
    """
    low, high = starts.copy(), ends.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = open_ & (times[np.minimum(middle, len(times) - 1)] < moments)
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low
