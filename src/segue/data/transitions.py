"""Transitions: how often items follow each other in histories. No library of tensors is needed to read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from segue.data.histories import Histories
from segue.data.ragged import Int64, positions

if TYPE_CHECKING:
    from segue.data.dataset import Dataset

Floats = npt.NDArray[np.float32]

STEPS = 3
"""Largest distance of a counted transition, and number of newest items that are read."""
DECAY = 0.5
"""Weight of each further place."""
_MOST = 256
"""Items after one item that are kept: those with the largest counts."""
_CHUNK = 1 << 24
"""Interactions counted at a time: bounds the memory of sorting."""


class TransitionCounts(NamedTuple):
    """Items that followed each item, in CSR form.

    Attributes
    ----------
    offsets
        (n_items + 2,) int64 offsets of the rows.
    followers
        (m,) int32 items, ascending within a row.
    counts
        (m,) float32 decayed counts C.
    """

    offsets: Int64
    followers: npt.NDArray[np.int32]
    counts: Floats

    @classmethod
    def of(cls, dataset: Dataset) -> TransitionCounts:
        """Count the transitions between the visible interactions."""
        side = dataset.n_items + 1
        pairs, counts = count_pairs(dataset, STEPS, DECAY)
        rows = pairs // side
        if len(pairs) and np.bincount(rows).max() > _MOST:
            order = np.lexsort((pairs, -counts, rows))
            place = positions(np.zeros(side, dtype=np.int64), np.bincount(rows, minlength=side))
            kept = np.sort(order[place < _MOST])
            pairs, counts, rows = pairs[kept], counts[kept], rows[kept]
        offsets = np.searchsorted(rows, np.arange(side + 1)).astype(np.int64)
        return cls(offsets, (pairs % side).astype(np.int32), counts.astype(np.float32))

    def fault(self) -> str | None:
        """Offsets that do not fit, items that do not exist, or counts below 0, in words; None if all is right."""
        ends = self.offsets[0] == 0 and self.offsets[-1] == len(self.followers) == len(self.counts)
        if not ends or bool((np.diff(self.offsets) < 0).any()):
            return "the offsets of the transitions do not fit"
        if bool(((self.followers <= 0) | (self.followers >= len(self.offsets) - 1)).any()):
            return "the transitions hold items that do not exist"
        return "the transitions hold counts below 0" if bool((self.counts < 0).any()) else None

    def backwards(self) -> TransitionCounts:
        """The same counts by follower: the items before each item."""
        side = len(self.offsets) - 1
        leaders = np.repeat(np.arange(side, dtype=np.int32), np.diff(self.offsets))
        order = np.argsort(self.followers, kind="stable")
        offsets = np.searchsorted(self.followers[order], np.arange(side + 1)).astype(np.int64)
        return TransitionCounts(offsets, leaders[order], self.counts[order])

    def entries(self, newest: Int64) -> tuple[Int64, Int64, Floats]:
        """Rows (m,), places (m,) in `followers` and weights (m,) of everything that followed the items (n, STEPS)."""
        rows, steps = np.nonzero(newest)
        items = newest[rows, steps]
        first, last = self.offsets[items], self.offsets[items + 1]
        lengths = last - first
        weights = (DECAY ** steps.astype(np.float32)).astype(np.float32)
        return np.repeat(rows, lengths), positions(first, last), np.repeat(weights, lengths)

    def after(self, histories: Histories) -> tuple[Int64, Floats]:
        """Items (n, r) int64 that followed the newest ones, ascending, 0 behind the last, and log(1 + c) of each."""
        side, n = len(self.offsets) - 1, len(histories)
        rows, places, weights = self.entries(newest_items(histories.items, histories.starts, histories.ends))
        keys, values = summed(rows * side + self.followers[places], weights * self.counts[places])
        rows, codes = np.divmod(keys, side)
        lengths = np.bincount(rows, minlength=n)
        place = positions(np.zeros_like(lengths), lengths)
        items = np.zeros((n, int(lengths.max(initial=0))), dtype=np.int64)
        logs = np.zeros(items.shape, dtype=np.float32)
        items[rows, place], logs[rows, place] = codes, np.log1p(values)
        return items, logs


def newest_items(items: npt.NDArray[np.int32], begins: Int64, ends: Int64) -> Int64:
    """Newest items (n, STEPS) of the histories [begin, end) in `items`, newest first, 0 behind the oldest."""
    place = ends[:, None] - 1 - np.arange(STEPS)
    return np.where(place >= begins[:, None], items[np.maximum(place, 0)], 0).astype(np.int64)


def summed(keys: Int64, values: Floats, size: int | None = None) -> tuple[Int64, Floats]:
    """Distinct keys, ascending, and the sum of the values of each, which are above 0; keys are less than `size`."""
    if not len(keys):
        return keys, values
    if size is not None and size < 16 * len(keys):  # a sum for every key is cheaper than sorting them
        sums = np.bincount(keys, values, size)
        distinct = np.flatnonzero(sums)
        return distinct, sums[distinct].astype(np.float32)
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[first], np.add.reduceat(values, first)


def count_pairs(dataset: Dataset, steps: int, decay: float) -> tuple[Int64, npt.NDArray[np.float64]]:
    """Observed pairs (n,), ascending and coded a × (n_items + 1) + b, and the decayed count (n,) of each.

    Parameters
    ----------
    dataset
        Dataset whose visible interactions are counted.
    steps, decay
        Largest distance of a pair, and weight of each further place.
    """
    visible = dataset.compact()
    items = visible.items
    ends = np.repeat(visible.ends, visible.lengths)
    side = visible.n_items + 1
    pairs, counts = np.zeros(0, dtype=np.int64), np.zeros(0)
    for step in range(1, steps + 1):
        for low in range(0, max(len(items) - step, 0), _CHUNK):
            high = min(low + _CHUNK, len(items) - step)
            position = np.arange(low, high)
            position = position[position + step < ends[low:high]]
            keys = items[position].astype(np.int64) * side + items[position + step]
            more, times = np.unique(keys, return_counts=True)
            pairs, counts = _merge(pairs, counts, more, times * decay ** (step - 1))
    return pairs, counts


def _merge(
    pairs: Int64, counts: npt.NDArray[np.float64], more: Int64, more_counts: npt.NDArray[np.float64]
) -> tuple[Int64, npt.NDArray[np.float64]]:
    """Add the counts of two ascending lists of pairs."""
    if not len(pairs):
        return more, more_counts
    union, index = np.unique(np.concatenate([pairs, more]), return_inverse=True)
    summed = np.bincount(index, np.concatenate([counts, more_counts]), minlength=len(union))
    return union, summed.astype(np.float64, copy=False)
