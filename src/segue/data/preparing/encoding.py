"""Raw ids to codes, batch by batch, in one pass that keeps only the ids in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.vocabulary import Vocabulary

_SMALL_TABLE = 1 << 24  # entries of a table that is always affordable (64 MB)


class IntegerIds:
    """Integer ids: collected batch by batch, encoded once all are known.

    Attributes
    ----------
    dtype
        Type of the values that `add` returns and `codes` takes: the ids themselves.
    """

    dtype = np.dtype(np.int64)

    def __init__(self) -> None:
        self._seen = np.empty(0, dtype=np.int64)
        self._waiting: list[npt.NDArray[np.int64]] = []
        self._small = np.zeros(_SMALL_TABLE, dtype=bool)  # marks ids of an ordinary size
        self._table: npt.NDArray[np.int32] | None = None

    def add(self, ids: pl.Series) -> npt.NDArray[Any]:
        """Add a batch of ids (n,), and return the values (n,) to keep until all are known."""
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
        """Return the vocabulary of all ids. Call it before `codes`."""
        self._waiting.append(np.flatnonzero(self._small))
        self._merge()
        low, high = int(self._seen[0]), int(self._seen[-1])
        if high - low < max(_SMALL_TABLE, 4 * len(self._seen)):
            self._table = np.zeros(high - low + 1, dtype=np.int32)
            self._table[self._seen - low] = np.arange(1, len(self._seen) + 1, dtype=np.int32)
        return Vocabulary(pl.Series(self._seen))

    def codes(self, kept: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Codes (n,) of values (n,) that `add` returned."""
        if self._table is not None:
            codes: npt.NDArray[np.int32] = self._table[kept - self._seen[0]]
            return codes
        return (np.searchsorted(self._seen, kept) + 1).astype(np.int32)

    def _merge(self) -> None:
        self._seen = pl.Series(np.concatenate([self._seen, *self._waiting])).unique().sort().to_numpy()
        self._waiting = []


class TextIds:
    """String ids: numbered in the order of arrival, then renumbered in the order of the vocabulary."""

    dtype = np.dtype(np.uint32)

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        # Polars drops categories that no Series uses. Between two batches this Series uses them.
        self._anchor = pl.Series([], dtype=pl.Categorical(self._categories))
        self._code = np.empty(0, dtype=np.int32)

    def add(self, ids: pl.Series) -> npt.NDArray[Any]:
        """Add a batch of ids (n,), and return the values (n,) to keep until all are known."""
        kept: npt.NDArray[Any] = ids.cast(pl.Categorical(self._categories)).to_physical().to_numpy()
        return kept

    def finish(self) -> Vocabulary:
        """Return the vocabulary of all ids. Call it before `codes`."""
        ids = self._categories.to_series().cast(pl.String)
        order = ids.arg_sort().to_numpy()
        self._code = np.empty(len(ids), dtype=np.int32)
        self._code[order] = np.arange(1, len(ids) + 1, dtype=np.int32)
        return Vocabulary(ids)

    def codes(self, kept: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Codes (n,) of values (n,) that `add` returned."""
        codes: npt.NDArray[np.int32] = self._code[kept]
        return codes


def ids_of(dtype: pl.DataType) -> IntegerIds | TextIds:
    """The collector for a column of this type (Int64 or String)."""
    return IntegerIds() if dtype == pl.Int64 else TextIds()
