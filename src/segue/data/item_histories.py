"""Histories of items: the users of each item in order of time. The transpose of a Dataset's user histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.order import time_order
from segue.data.ragged import Int64
from segue.data.spool import CHUNK, Columns, Spool, chunks, release, scatter
from segue.locks import temporary_folder

Positions = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_RANGE = 1 << 18
"""Interactions sorted at a time: few enough for item, time and position to fit into one integer in most cases."""
_MAX_RANGES = 1_000


@dataclass(frozen=True, eq=False)
class ItemHistories:
    """Visible interactions of a Dataset, sorted by item, then time: the users of each item, oldest first.

    Attributes
    ----------
    order
        (n,) int32 (int64 beyond 2³¹ interactions) positions in the Dataset's arrays. Interactions with equal times, or
        without times, keep the order of their positions.
    offsets
        (n_items + 2,) int64: the history of item i is `order[offsets[i]:offsets[i + 1]]`; item 0 has none.
    user_offsets
        (n_users + 2,) `Dataset.offsets`.
    all_times, all_ratings
        `Dataset.times` and `Dataset.ratings`, the sources of `times` and `ratings`.

    Examples
    --------
    >>> import polars as pl
    >>> data = segue.prepare(pl.DataFrame({"user": [1, 2, 2], "item": ["a", "a", "b"], "time": [2, 1, 3]}))
    >>> data.item_histories.lengths.tolist()  # of no item, of a and of b
    [0, 2, 1]
    >>> data.item_histories.users.tolist()  # of a, oldest first, then of b
    [2, 1, 2]
    """

    order: Positions
    offsets: Int64
    user_offsets: Int64
    all_times: npt.NDArray[np.int64] | None = None
    all_ratings: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __repr__(self) -> str:
        return f"ItemHistories({len(self.offsets) - 2:,} items, {len(self):,} interactions)"

    @property
    def lengths(self) -> Int64:
        """Number of interactions of each item (n_items + 1,); 0 for item 0."""
        return np.diff(self.offsets)

    @cached_property
    def users(self) -> npt.NDArray[np.int32]:
        """User codes (n,) int32, in the order of `order`."""
        codes = np.repeat(np.arange(len(self.user_offsets) - 1, dtype=np.int32), np.diff(self.user_offsets))
        return codes[self.order]

    @cached_property
    def times(self) -> npt.NDArray[np.int64] | None:
        """Times (n,) int64, in the order of `order`; None without times."""
        return None if self.all_times is None else self.all_times[self.order]

    @cached_property
    def ratings(self) -> npt.NDArray[np.float32] | None:
        """Ratings (n,) float32, in the order of `order`; None without ratings."""
        return None if self.all_ratings is None else self.all_ratings[self.order]


def item_order(items: npt.NDArray[np.int32], times: npt.NDArray[np.int64] | None) -> Positions:
    """Positions (n,) of interactions, sorted by item, then time, then position.

    >>> item_order(np.array([2, 1, 2], dtype=np.int32), np.array([8, 7, 6]))
    array([1, 2, 0], dtype=int32)
    """
    order = time_order(items, times)
    return (np.arange(len(items)) if order is None else order).astype(position_type(len(items)), copy=False)


def item_order_within(order: Positions, kept: npt.NDArray[np.bool_]) -> Positions:
    """`item_order` of a subset, from the `order` (n,) of all positions and the mask `kept` (n,) of the subset.

    >>> item_order_within(np.array([1, 2, 0]), np.array([True, False, True]))
    array([1, 0], dtype=int32)
    """
    new_positions = np.cumsum(kept, dtype=position_type(len(kept))) - 1
    return new_positions[order[kept[order]]]


def save_item_order(
    file: Path, items: npt.NDArray[np.int32], times: npt.NDArray[np.int64] | None, item_counts: Int64
) -> None:
    """Write `item_order(items, times)` as a NumPy file; items are sorted in ranges, so memory stays bounded.

    Parameters
    ----------
    file
        File to write; temporary files are kept beside its folder until it is whole.
    items, times
        (n,) each; they may be memory-mapped, and times may be None.
    item_counts
        (n_items + 1,) number of interactions of each item.
    """
    dtype = position_type(len(items))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": items.shape}
    with (
        temporary_folder(file.parent.parent, "by-item") as folder,
        file.open("wb") as out,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for columns in _ranges(items, times, item_counts, dtype, folder):
            order = time_order(columns["item"], columns.get("time"))
            out.write(np.ascontiguousarray(columns["position"] if order is None else columns["position"][order]).data)


def _ranges(
    items: npt.NDArray[np.int32],
    times: npt.NDArray[np.int64] | None,
    item_counts: Int64,
    dtype: np.dtype[Any],
    folder: Path,
) -> Iterator[Columns]:
    """Interactions in ranges of items that are small enough to sort; each range is in the order of positions."""
    size = max(_RANGE, len(items) // _MAX_RANGES)
    range_of = ((np.cumsum(item_counts) - item_counts) // size).astype(np.int16)
    optional = {} if times is None else {"time": times}
    dtypes = {"position": dtype, "item": items.dtype} | {name: values.dtype for name, values in optional.items()}
    spools = [Spool(folder / str(number), dtypes) for number in range(int(range_of[-1]) + 1)]
    for part in chunks(len(items), 2 * _RANGE):
        columns = {"position": np.arange(part.start, part.stop, dtype=dtype), "item": items[part]}
        columns |= {name: values[part] for name, values in optional.items()}
        if len(spools) == 1 and part.stop - part.start == len(items):
            yield columns
            return
        scatter(columns, range_of[items[part]], spools)
        release(items)
        if times is not None:
            release(times)
    for spool in spools:
        loaded = spool.load()
        spool.remove()
        yield loaded


def merged_item_order(
    order: Positions,
    offsets: Int64,
    times: npt.NDArray[np.int64] | None,
    moved: Positions,
    new: Columns,
) -> Iterator[Positions]:
    """`item_order` of a log that has grown, piece by piece. Only the new interactions are sorted.

    Parameters
    ----------
    order, offsets, times
        `item_order` (n,) of the former log, offsets (n_items + 2,) of its items, and its times (n,) or None.
    moved
        (n,) position of each former interaction in the grown log. If it is not there any more, ~position: that of the
        first interaction behind it.
    new
        Interactions that were not there before, in the order of their positions: `item`, `position` and, if there are
        any, `time`, (m,) each.
    """
    ranks = item_order(new["item"], new.get("time"))
    new = {name: values[ranks] for name, values in new.items()}
    known = np.minimum(new["item"], len(offsets) - 1)  # of a new item the range is empty, at the end
    low, high = offsets[known], offsets[np.minimum(known + 1, len(offsets) - 1)]
    while (open_ := low < high).any():
        middle = (low + high) // 2
        former = order[np.minimum(middle, len(order) - 1)]
        position = moved[former]
        before = np.where(position < 0, ~position, position) < new["position"]
        if times is not None:
            time = times[former]
            before = np.where(time == new["time"], before, time < new["time"])
        low = np.where(open_ & before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    edges = [*range(0, max(len(order), 1), CHUNK), len(order)]
    bounds = np.searchsorted(low, [*edges[:-1], len(order) + 1]).tolist()
    for number, start in enumerate(edges[:-1]):
        position = moved[order[start : edges[number + 1]]]
        stays = position >= 0
        arrived = slice(bounds[number], bounds[number + 1])
        former_before = np.concatenate([[0], np.cumsum(stays)])[low[arrived] - start]
        is_new = np.zeros(int(stays.sum()) + len(former_before), dtype=bool)
        is_new[former_before + np.arange(len(former_before))] = True
        piece = np.empty(len(is_new), dtype=moved.dtype)
        piece[~is_new] = position[stays]
        piece[is_new] = new["position"][arrived]
        yield piece


def is_item_order(
    order: Positions,
    items: npt.NDArray[np.int32],
    times: npt.NDArray[np.int64] | None,
    item_counts: Int64,
) -> bool:
    """Return whether `order` (n,), with values from 0 to n - 1, is `item_order(items, times)`.

    >>> items, times = np.array([2, 1, 2], dtype=np.int32), np.array([8, 7, 6])
    >>> is_item_order(np.array([1, 2, 0]), items, times, np.array([0, 1, 2]))
    True
    >>> is_item_order(np.array([1, 0, 2]), items, times, np.array([0, 1, 2]))
    False
    """
    ends = np.cumsum(item_counts)
    for part in chunks(len(order), _RANGE):
        places = order[max(part.start - 1, 0) : part.stop]
        numbers = np.arange(max(part.start - 1, 0), part.stop)
        item = np.take(items, places)
        # As many places as the item has, each before the next: then they are all its places.
        if not (np.all(numbers < ends[item]) and np.all(numbers >= ends[item] - item_counts[item])):
            return False
        later = places[1:] > places[:-1]
        if times is not None:
            time = np.take(times, places)
            later = np.where(time[1:] == time[:-1], later, time[1:] > time[:-1])
        if not np.all(later | (item[1:] != item[:-1])):
            return False
    return True


def position_type(n: int) -> np.dtype[Any]:
    """Smallest integer type for n positions: int32 or int64."""
    return np.dtype(np.int32 if n <= np.iinfo(np.int32).max else np.int64)
