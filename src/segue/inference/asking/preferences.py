"""Rules over the item table as one number per item: −inf for items that may not be listed, else what is added."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.tables.table import Table
from segue.errors import ConfigError, nearest
from segue.inference.asking.conditions import condition_mask

Offset = npt.NDArray[np.float32]
Boost = Mapping[str, Mapping[Any, float]]
"""Numbers to add to the scores of items, by column and value: {"category": {"tea": 0.5}}."""

_KEPT = 256
"""Compiled rules that are kept; a service asks for the same ones again and again."""


class Preferences:
    """Compiled rules over an item table. Any number of threads may use it: entries are made whole, then stored.

    Parameters
    ----------
    table
        The item table; None without one.
    ids
        Raw ids of the items in the order of the codes.
    """

    def __init__(self, table: Table | None, ids: pl.Series) -> None:
        self.table = table
        self.ids = ids
        self._offsets: dict[str, Offset | None] = {}
        self._values: dict[str, npt.NDArray[np.int32]] = {}
        self._vectors: dict[str, Offset] = {}

    def offset(self, where: str | None, boost: Boost | None) -> Offset | None:
        """Numbers (n_items + 1,) to add to the scores: boosts, and −inf for items outside of the condition.

        Parameters
        ----------
        where
            Condition on the columns of the table (see `condition_mask`).
        boost
            Numbers by column and value. An item with several boosted categories gets their sum.

        Raises
        ------
        ConfigError
            A rule needs the table, names an unknown column or value, or is no condition.
        """
        plain = _plain(boost)
        if where is None and not plain:
            return None
        if where is not None and not isinstance(where, str):
            raise ConfigError(f'where={where!r}: expected a condition as text, such as "price < 20".')
        key = json.dumps([where, plain])
        offset = self._offsets.get(key)
        if offset is None:
            offset = np.zeros(len(self.ids) + 1, dtype=np.float32)
            for column, weights in (boost or {}).items():
                self._add(offset, column, weights)
            if where is not None:
                offset[~condition_mask(where, self.table, self.ids)] = -np.inf
            offset.setflags(write=False)
            if len(self._offsets) >= _KEPT:
                self._offsets.clear()
            self._offsets[key] = offset
        return offset

    def values(self, column: str, argument: str) -> npt.NDArray[np.int32]:
        """Numbers (n_items + 1, width) of the categories of each item, from 1; 0 = none.

        Raises
        ------
        ConfigError
            There is no such column, or it holds no categories.
        """
        if column not in self._values:
            series = self._categories(column, argument)
            lists = series if isinstance(series.dtype, pl.List) else None
            flat = series.cast(pl.String) if lists is None else lists.explode(empty_as_null=False, keep_nulls=False)
            numbers = flat.rank("dense").fill_null(0).cast(pl.Int32).to_numpy()
            if lists is None:
                matrix = np.zeros((len(series) + 1, 1), dtype=np.int32)
                matrix[1:, 0] = numbers
            else:
                lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
                matrix = np.zeros((len(series) + 1, max(int(lengths.max(initial=1)), 1)), dtype=np.int32)
                rows = np.repeat(np.arange(len(series)), lengths)
                columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                matrix[rows + 1, columns] = numbers
            self._values[column] = matrix
        return self._values[column]

    def vectors(self, name: str, make: Callable[[], Offset]) -> Offset:
        """Unit vectors (n_items + 1, width) under a name, made at the first call. Zero vectors stay zero."""
        if name not in self._vectors:
            given = make()
            norms = np.linalg.norm(given, axis=1, keepdims=True)
            self._vectors[name] = np.asarray(given / np.maximum(norms, np.float32(1e-30)), dtype=np.float32)
        return self._vectors[name]

    def _categories(self, column: str, argument: str) -> pl.Series:
        if self.table is None:
            raise ConfigError(f"{argument} needs a table of items: prepare the Dataset with items= (--items).")
        usable = self.table.of_kind("category", "categories")
        if column not in usable:
            kind = self.table.kinds.get(column)
            reason = f"is of kind {kind}, not of categories" if kind else "is no column of the item table"
            raise ConfigError(f'{argument}: "{column}" {reason}: {nearest(str(column), usable)}')
        return self.table.frame[column]

    def _add(self, offset: Offset, column: str, weights: Mapping[Any, float]) -> None:
        series = self._categories(column, "boost")
        if not isinstance(weights, Mapping):
            raise ConfigError(f'boost: expected numbers by value, as in {{"{column}": {{"tea": 0.5}}}}.')
        for value, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError(f'boost of {value!r} in "{column}" is {weight!r}: expected a finite number.')
            if isinstance(series.dtype, pl.List):
                fits = series.list.contains(str(value))
            elif series.dtype == pl.Boolean:
                fits = series.cast(pl.String) == str(value).lower()
            else:
                fits = series.cast(pl.String) == str(value)
            mask = fits.fill_null(False).to_numpy()
            if not mask.any():
                known = series.explode() if isinstance(series.dtype, pl.List) else series
                near = nearest(str(value), known.cast(pl.String).drop_nulls().unique().sort().head(1000))
                raise ConfigError(f'boost: no item has {value!r} in "{column}"; {near}')
            offset[1:][mask] += np.float32(weight)


def _plain(boost: Boost | None) -> Any:
    if boost is None:
        return None
    if not isinstance(boost, Mapping):
        raise ConfigError('boost: expected numbers by column and category, as in {"category": {"tea": 0.5}}.')
    return {
        str(column): {str(value): str(weight) for value, weight in weights.items()}
        if isinstance(weights, Mapping)
        else str(weights)
        for column, weights in boost.items()
    }
