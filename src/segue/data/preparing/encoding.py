"""Raw ids to codes, batch by batch, in one pass: nothing but the ids themselves is kept in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.vocabulary import Vocabulary

_SMALL_TABLE = 1 << 24  # entries of a table that is always affordable (64 MB)


class IntegerIds:
    """Integer ids: collected as they come, encoded when all are known.

    Attributes
    ----------
    dtype
        What `add` gives back and `codes` takes: the ids themselves.
    """

    dtype = np.dtype(np.int64)

    def __init__(self) -> None:
        self._seen = np.empty(0, dtype=np.int64)
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._small = np.zeros(_SMALL_TABLE, dtype=bool)  # ids of an ordinary size are ticked off here
        self._table: npt.NDArray[np.int32] | None = None

    def add(self, ids: pl.Series) -> npt.NDArray[Any]:
        """Take note of a batch of ids (n,), and return what is to be kept of it (n,)."""
        raw: npt.NDArray[np.int64] = ids.to_numpy()
        if len(raw) and raw.min() >= 0 and raw.max() < _SMALL_TABLE:
            self._small[raw] = True
            return raw
        self._waiting.append(pl.Series(raw).unique().to_numpy())
        # Merging only when as much waits as is known makes the whole cost n log n, however many batches come.
        if sum(map(len, self._waiting)) > max(len(self._seen), 1 << 20):
            self._merge()
        return raw

    def finish(self) -> Vocabulary:
        """The vocabulary of all ids; from now on `codes` answers."""
        self._waiting.append(np.flatnonzero(self._small))
        self._merge()
        low, high = int(self._seen[0]), int(self._seen[-1])
        if high - low < max(_SMALL_TABLE, 4 * len(self._seen)):
            self._table = np.zeros(high - low + 1, dtype=np.int32)
            self._table[self._seen - low] = np.arange(1, len(self._seen) + 1, dtype=np.int32)
        return Vocabulary(pl.Series(self._seen))

    def codes(self, kept: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Codes (n,) of what `add` returned (n,)."""
        if self._table is not None:
            found: npt.NDArray[np.int32] = self._table[kept - self._seen[0]]
            return found
        return (np.searchsorted(self._seen, kept) + 1).astype(np.int32)

    def _merge(self) -> None:
        self._seen = pl.Series(np.concatenate([self._seen, *self._waiting])).unique().sort().to_numpy()
        self._waiting = []


class TextIds:
    """String ids: numbered in the order of their appearance, then renumbered in the order of the vocabulary."""

    dtype = np.dtype(np.uint32)

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        # Categories are forgotten when no Series uses them: between two batches, this one does.
        self._anchor = pl.Series([], dtype=pl.Categorical(self._categories))
        self._code = np.empty(0, dtype=np.int32)

    def add(self, ids: pl.Series) -> npt.NDArray[Any]:
        """Take note of a batch of ids (n,), and return what is to be kept of it (n,)."""
        kept: npt.NDArray[Any] = ids.cast(pl.Categorical(self._categories)).to_physical().to_numpy()
        return kept

    def finish(self) -> Vocabulary:
        """The vocabulary of all ids; from now on `codes` answers."""
        found = self._categories.to_series().cast(pl.String)
        order = found.arg_sort().to_numpy()
        self._code = np.empty(len(found), dtype=np.int32)
        self._code[order] = np.arange(1, len(found) + 1, dtype=np.int32)
        return Vocabulary(found)

    def codes(self, kept: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Codes (n,) of what `add` returned (n,)."""
        found: npt.NDArray[np.int32] = self._code[kept]
        return found


def ids_of(dtype: pl.DataType) -> IntegerIds | TextIds:
    """The collector for a column of this type (Int64 or String)."""
    return IntegerIds() if dtype == pl.Int64 else TextIds()
