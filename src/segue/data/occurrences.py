"""Occurrences of items in histories: how often, how long ago and at which pace a user took each item before.

One sort of all interactions gives every interaction the facts of its item up to then. The items of a history are then
the interactions without a later one of the same item, so a query costs one comparison per interaction of its history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from segue.data.histories import NOW, Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of

if TYPE_CHECKING:
    from segue.data.dataset import Dataset

Float32 = npt.NDArray[np.float32]

FEATURES = ("count", "ago", "age", "fast", "slow", "time_ago", "time_age", "steps")
"""Features of an item in a history, in this order. A step is a session or, without sessions, an interaction.

- `count`: number of steps with the item;
- `ago`, `age`: steps from its last and its first one to the newest step;
- `fast`, `slow`: the count with each step decayed by `FAST` and `SLOW` to the power of its steps ago;
- `time_ago`, `time_age`: time from its last and its first step to the newest interaction; -1 without times;
- `steps`: number of steps of the history.
"""
FAST, SLOW = 0.9, 0.98
"""Decays of the count per step. The slow one is the best for counting on a year of grocery baskets."""

_SAMPLED = 2_000_000
"""Number of interactions, about, of which `repeat_share` looks."""


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Facts of m interactions, sorted by history and time, about earlier interactions of the same history and item.

    Attributes
    ----------
    items
        (m,) int32 item codes.
    steps
        (m,) int64 number of the step, ascending within a history.
    times
        (m,) int64, or None.
    before
        (m,) int64 newest interaction with the same item in an earlier step of the history; -1 if there is none.
    later
        (m,) int64 next interaction with the same item; m if there is none.
    counts
        (m,) float32 number of steps with the item up to here.
    first
        (m,) int64 first interaction with the item.
    decayed
        (2, m) float32 counts with the decays `FAST` and `SLOW`.
    """

    items: npt.NDArray[np.int32]
    steps: Int64
    times: npt.NDArray[np.int64] | None
    before: Int64
    later: Int64
    counts: Float32
    first: Int64
    decayed: Float32

    @classmethod
    def of(cls, rows: Int64, items: npt.NDArray[np.int32], steps: Int64, times: npt.NDArray[np.int64] | None) -> Self:
        """Facts of interactions of the histories `rows` (m,), which ascend, in the order of time within each."""
        m = len(items)
        keys = rows * (int(items.max(initial=0)) + 1) + items
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], steps[order]
        index = np.arange(m)
        begins = np.ones(m, dtype=np.bool_)  # of a pair of history and item
        begins[1:] = keys[1:] != keys[:-1]
        new = begins.copy()  # a new step of the pair
        new[1:] |= ordered[1:] != ordered[:-1]
        group = np.maximum.accumulate(np.where(begins, index, 0))
        run = np.maximum.accumulate(np.where(new, index, 0))
        total = np.cumsum(new)
        before, later = np.full(m, -1, dtype=np.int64), np.full(m, m, dtype=np.int64)
        first, counts = np.empty(m, dtype=np.int64), np.empty(m, dtype=np.float32)
        decayed = np.empty((2, m), dtype=np.float32)
        before[order] = np.where(run > group, order[np.maximum(run - 1, 0)], -1)
        later[order[:-1]] = np.where(begins[1:], m, order[1:])
        first[order] = order[group]
        counts[order] = total - total[group] + 1
        for row, decay in enumerate((FAST, SLOW)):
            decayed[row, order] = _decayed(new, group, ordered, decay)
        return cls(items, steps, times, before, later, counts, first, decayed)

    @classmethod
    def in_dataset(cls, dataset: Dataset) -> Self:
        """Facts of all interactions of a Dataset, visible or not; each depends on earlier ones only."""
        m = len(dataset.items)
        rows = rows_of(dataset.offsets[:-1], dataset.offsets[1:])
        return cls.of(rows, dataset.items, _steps(np.arange(m), dataset.session_offsets), dataset.times)

    @classmethod
    def in_histories(cls, histories: Histories) -> tuple[Self, Int64]:
        """Facts of the interactions of n histories before their sessions in progress, and their offsets (n + 1,)."""
        ends = histories.ends if histories.baskets is None else histories.baskets
        flat, rows = positions(histories.starts, ends), rows_of(histories.starts, ends)
        times = None
        if histories.times is not None:
            latest = NOW if histories.as_of is None else histories.as_of[rows]
            times = np.minimum(histories.times[flat], latest)
        steps = _steps(flat, histories.session_offsets)
        return cls.of(rows, histories.items[flat], steps, times), offsets_of(ends - histories.starts)

    def newest(self, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
        """Rows (k,) and newest interactions (k,) of the distinct items of the histories [start, end) (n,)."""
        flat, rows = positions(starts, ends), rows_of(starts, ends)
        last = self.later[flat] >= ends[rows]
        return rows[last], flat[last]

    def features(self, places: Int64, starts: Int64, ends: Int64) -> Float32:
        """Features (k, 8) of the items at `places` (k,) in the histories [start, end) (k,), which are not empty."""
        now, first = ends - 1, self.first[places]
        ago = self.steps[now] - self.steps[places]
        features = np.empty((len(places), len(FEATURES)), dtype=np.float32)
        features[:, 0] = self.counts[places]
        features[:, 1] = ago
        features[:, 2] = self.steps[now] - self.steps[first]
        features[:, 3] = self.decayed[0, places] * np.exp(features[:, 1] * np.float32(np.log(FAST)))
        features[:, 4] = self.decayed[1, places] * np.exp(features[:, 1] * np.float32(np.log(SLOW)))
        if self.times is None:
            features[:, 5:7] = -1
        else:
            features[:, 5] = self.times[now] - self.times[places]
            features[:, 6] = self.times[now] - self.times[first]
        features[:, 7] = self.steps[now] - self.steps[starts] + 1
        return features


def repeat_share(dataset: Dataset) -> float:
    """Share of the visible interactions whose user took the item in an earlier step; of a sample of many users.

    A step is a session or, without sessions, an interaction.
    """
    codes = np.flatnonzero(dataset.lengths)
    every = max(1, dataset.n_interactions // _SAMPLED)
    histories = dataset.histories(codes[::every])
    rows, items = histories.seen()
    if not len(items):
        return 0.0
    steps = _steps(positions(histories.starts, histories.ends), histories.session_offsets)
    order = np.lexsort((steps, items, rows))
    rows, items, steps = rows[order], items[order], steps[order]
    same = (rows[1:] == rows[:-1]) & (items[1:] == items[:-1])
    new = np.append(True, ~same)
    first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))
    return float((steps > steps[first]).mean())


def _steps(flat: Int64, session_offsets: Int64 | None) -> Int64:
    """Steps (m,) of the interactions at the positions `flat` (m,)."""
    return flat if session_offsets is None else np.searchsorted(session_offsets, flat, side="right")


def _decayed(new: npt.NDArray[np.bool_], group: Int64, steps: Int64, decay: float) -> Float32:
    """Sums (m,) of the decayed steps of each group up to each entry.

    The sum over the last 2d entries is the sum over the last d, plus that of the entry d places before, decayed. So the
    number of passes is the logarithm of the largest group.
    """
    sums, rate = new.astype(np.float32), np.float32(np.log(decay))
    place = np.arange(len(new)) - group
    distance, longest = 1, int(place.max(initial=0))
    active = np.flatnonzero(place >= 1)
    while distance <= longest:
        active = active[place[active] >= distance]
        ago = (steps[active] - steps[active - distance]).astype(np.float32)
        sums[active] += np.exp(ago * rate) * sums[active - distance]
        distance *= 2
    return sums
