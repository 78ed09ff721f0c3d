"""Numbers of ids that only the events have, in the order of their arrival."""

from __future__ import annotations

import numpy as np
import polars as pl

from segue.data.ragged import Int64

_FEW = 1_000
"""Texts that are looked up one by one, at least."""
_SHARE = 8
"""They are also looked up one by one if there are this many times as many numbers: a table of these takes longer."""


class Arrivals(dict[str, int]):
    """Numbers of texts: the first that arrives has the number `first`, and each new one the next.

    Parameters
    ----------
    first
        The first number.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self._table: pl.DataFrame | None = None

    def number(self, text: str) -> int:
        """Number of one text."""
        return self.setdefault(text, self.first + len(self))

    def numbers(self, texts: pl.Series) -> Int64:
        """Numbers (n,) of texts. Of many texts, only those that are new are touched one by one."""
        if len(texts) < max(_FEW, len(self) // _SHARE):
            return np.array([self.number(text) for text in texts.to_list()], dtype=np.int64)
        if self._table is None or len(self._table) != len(self):
            self._table = _table(pl.Series(list(self), dtype=pl.String), self.first)
        found = _looked_up(texts, self._table)
        unknown = found.is_null()
        numbers = found.fill_null(0).to_numpy().copy()
        if unknown.any():
            fresh = texts.filter(unknown)
            arrived = _table(fresh.unique(maintain_order=True), self.first + len(self))
            numbers[unknown.to_numpy()] = _looked_up(fresh, arrived).to_numpy()
            self._table = pl.concat([self._table, arrived])
            self.update(zip(arrived["text"].to_list(), arrived["number"].to_list(), strict=True))
        return numbers

    def settle(self) -> None:
        """Let go of what is kept for many texts at a time."""
        self._table = None


def _table(texts: pl.Series, first: int) -> pl.DataFrame:
    """Table of distinct texts and their numbers."""
    return pl.DataFrame({"text": texts, "number": pl.int_range(first, first + len(texts), eager=True)})


def _looked_up(texts: pl.Series, table: pl.DataFrame) -> pl.Series:
    """Numbers of texts; null where the table has none."""
    return texts.alias("text").to_frame().join(table, on="text", how="left", maintain_order="left")["number"]
