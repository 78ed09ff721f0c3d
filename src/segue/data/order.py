"""The stable order of interactions by user, then time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64


def time_order(users: npt.NDArray[Any], times: Int64 | None) -> Int64 | None:
    """The stable order (n,) by user, then time; None if the arrays are in that order already.

    >>> time_order(np.array([2, 1, 1]), np.array([5, 7, 6]))
    array([2, 1, 0])
    """
    if not len(users):
        return None
    key = users.astype(np.int64) - int(users.min())
    bits = int(key.max()).bit_length()
    if times is not None:
        low, high = int(times.min()), int(times.max())
        time_bits = (high - low).bit_length()
        bits += time_bits
        if bits > 63:
            return np.lexsort((times, users))
        key <<= time_bits
        key += times - low
    if bool((key[1:] >= key[:-1]).all()):
        return None
    position_bits = (len(key) - 1).bit_length()
    if bits + position_bits > 63:
        return np.argsort(key, kind="stable")
    # With its position in the lowest bits every key differs, and sorting the keys alone is several times faster.
    key <<= position_bits
    key |= np.arange(len(key), dtype=np.int64)
    key.sort()
    key &= (1 << position_bits) - 1
    return key
