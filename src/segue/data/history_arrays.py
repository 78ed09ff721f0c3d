"""Histories as padded arrays: the inputs of encoders, before any library of tensors reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segue.data.histories import Histories
from segue.data.occurrences import FEATURES, Occurrences
from segue.data.ragged import Int64, positions


class HistoryArrays(NamedTuple):
    """Newest items of n histories, with the facts that an encoder reads.

    Attributes
    ----------
    users
        (n,) int64 user codes; 0 = unknown.
    items
        (n, length) int64 newest items, oldest first, 0 behind the newest.
    lengths
        (n,) int64 number of items in each row, from 1.
    ages
        (n, length) int64 time from each item to the newest of its row; -1 in rows without times. (n, 0) for models
        without times.
    repeated, features
        Repeats of the histories; see `repeat_arrays`.
    """

    users: Int64
    items: Int64
    lengths: Int64
    ages: Int64
    repeated: Int64
    features: npt.NDArray[np.float32]


def history_arrays(histories: Histories, length: int, with_times: bool = False, repeats: bool = False) -> HistoryArrays:
    """Newest `length` items of n histories, with their ages if `with_times`, and with their repeats if `repeats`."""
    lengths = np.minimum(histories.lengths, length)
    width = int(lengths.max())
    ages = histories.ages(width) if with_times else np.zeros((len(lengths), 0), dtype=np.int64)
    if ages is None:
        ages = np.full((len(lengths), width), -1, dtype=np.int64)
    arrays = (histories.users, histories.padded(width), lengths, ages)
    return HistoryArrays._make([*map(np.ascontiguousarray, arrays), *repeat_arrays(histories, repeats)])


def repeat_arrays(histories: Histories, wanted: bool = True) -> tuple[Int64, npt.NDArray[np.float32]]:
    """Distinct items of n histories before their sessions in progress, with their features; none unless `wanted`.

    Returns
    -------
    items
        (n, r) int64 distinct items of each history, ascending, 0 behind the last.
    features
        (n, r, 8) float32 features of these items.
    """
    if not wanted:
        shape = (len(histories), 0)
        return np.zeros(shape, dtype=np.int64), np.zeros((*shape, len(FEATURES)), dtype=np.float32)
    known, offsets = Occurrences.in_histories(histories)
    rows, places = known.newest(offsets[:-1], offsets[1:])
    order = np.lexsort((known.items[places], rows))
    rows, places = rows[order], places[order]
    counts = np.bincount(rows, minlength=len(histories))
    columns = positions(np.zeros_like(counts), counts)
    width = int(counts.max(initial=0))
    items = np.zeros((len(histories), width), dtype=np.int64)
    features = np.ones((len(histories), width, len(FEATURES)), dtype=np.float32)
    items[rows, columns] = known.items[places]
    features[rows, columns] = known.features(places, offsets[rows], offsets[rows + 1])
    return items, features
