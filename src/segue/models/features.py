"""Features of items, from their table: values with learned vectors, and given vectors, in flat arrays.

A category, and a bucket of a number or moment, is a *value* with a number. An item has a few values. Quantiles of the
training items bound the buckets. Values that no training item has are left out, because nothing is learned of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.ragged import Int64, offsets_of
from segue.data.tables.kinds import Kind
from segue.data.tables.table import Table
from segue.errors import ConfigError, nearest

FeatureNames = tuple[str, ...] | Literal["auto"] | None
"""Names of columns of the item table; "auto" for all that a model can read, None for none."""

BUCKETS = 16
"""Number of buckets of a number or moment."""
_READABLE: tuple[Kind, ...] = ("category", "categories", "number", "moment", "vector")
_WORDS = "categories, numbers, moments and vectors"
_NAMES = 0.5
"""Distinct values per item from which a category is a name of items rather than a property; "auto" leaves it out."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


def resolved(features: FeatureNames, dataset: Dataset) -> tuple[str, ...] | None:
    """Return the names of the columns to read; None for none.

    Raises
    ------
    ConfigError
        There is no item table; a column is unknown or holds text; or no column can be read.
    """
    if features is None or features == ():
        return None
    table = dataset.item_table
    if table is None:
        raise ConfigError(
            f"features={_stated(features)} reads an item table, and this Dataset has none: prepare it with one "
            "(segue prepare --items products.parquet, or segue.prepare(log, items=products))."
        )
    if features == "auto" or (features == ("auto",) and "auto" not in table.kinds):
        return _all_readable(table)
    for name in features:
        if name not in table.kinds:
            raise ConfigError(f'features: the item table has no column "{name}"; {nearest(name, table.columns)}')
        if table.kinds[name] not in _READABLE:
            raise ConfigError(
                f'features: the column "{name}" holds {table.kinds[name]}; models read {_WORDS}. Make vectors of the '
                'text first, or state another kind when the Dataset is prepared (item_kinds={"' + name + '": …}).'
            )
    return tuple(dict.fromkeys(features))


def _stated(features: FeatureNames) -> str:
    return "auto" if features == "auto" else str(list(features or ()))


def _all_readable(table: Table) -> tuple[str, ...]:
    names = [name for name in table.of_kind(*_READABLE) if not _is_name(table, name)]
    if not names:
        kinds = ", ".join(f"{name} ({kind})" for name, kind in table.kinds.items())
        raise ConfigError(
            f"features=auto reads {_WORDS} of the item table, and it has none that items share: found {kinds}."
        )
    return tuple(names)


def _is_name(table: Table, name: str) -> bool:
    if table.kinds[name] != "category":
        return False
    given = table.frame[name].drop_nulls()
    return given.n_unique() > max(_NAMES * len(given), 1)


@dataclass(frozen=True, eq=False)
class Coding:
    """Numbers of values, learned from the training items: later tables are read with the same ones.

    Attributes
    ----------
    names
        Columns of the table.
    keys
        (v,) int64 hashes of the values, ascending. The position of a key is the number of its value.
    edges, edge_offsets
        (e,) float64 bounds of the buckets of each number or moment, column by column, and the offsets of the columns.
    scales
        (c,) float32 factors of the vectors of each column: their mean square is 1 over the training items.
    """

    names: tuple[str, ...]
    keys: Int64
    edges: npt.NDArray[np.float64]
    edge_offsets: Int64
    scales: Floats

    @classmethod
    def of(cls, table: Table, names: Sequence[str], trained: Bools) -> Coding:
        """Learn the coding.

        Parameters
        ----------
        table
            The item table.
        names
            Columns to read.
        trained
            (n_items + 1,) mask of the item codes that occur in training.
        """
        rows = trained[1:]
        edges = [_edges(numbers[rows]) for numbers in _numbers(table, names)]
        flat = np.concatenate([np.zeros(0), *edges])
        offsets = offsets_of(np.array([len(one) for one in edges], dtype=np.int64))
        scales = [_scale(table.vectors[name][rows]) for name in names if table.kinds[name] == "vector"]
        plain = cls(tuple(names), np.zeros(0, dtype=np.int64), flat, offsets, np.array(scales, dtype=np.float32))
        keys = [keys[trained[codes]] for codes, keys in plain._values(table)]
        return cls(plain.names, np.unique(np.concatenate([plain.keys, *keys])), flat, offsets, plain.scales)

    def extended(self, table: Table, trained: Bools) -> Coding:
        """The coding with numbers for the values of more training items, (n_items + 1,) mask; buckets and scales stay.

        The numbers of known values may change; their keys do not.
        """
        keys = [keys[trained[codes]] for codes, keys in self._values(table)]
        return replace(self, keys=np.unique(np.concatenate([self.keys, *keys])))

    def read(self, table: Table) -> Features:
        """Read the features of a table with the same columns."""
        parts = [
            (codes[known], places[known], column)
            for column, (codes, keys) in enumerate(self._values(table))
            for places in [np.searchsorted(self.keys, keys)]
            for known in [_equal_at(self.keys, places, keys)]
        ]
        none = np.zeros(0, dtype=np.int64)
        codes = np.concatenate([none, *(part[0] for part in parts)])
        values = np.concatenate([none, *(part[1] for part in parts)])
        order = np.argsort(codes, kind="stable")
        offsets = offsets_of(np.bincount(codes, minlength=len(table) + 1))
        given = [
            np.asarray(table.vectors[name]) * scale
            for name, scale in zip((n for n in self.names if table.kinds[n] == "vector"), self.scales, strict=True)
        ]
        width = sum(one.shape[1] for one in given)
        vectors = np.zeros((len(table) + 1, width), dtype=np.float32)
        if given:
            np.concatenate(given, axis=1, out=vectors[1:])
        return Features(offsets, values[order], vectors)

    def _values(self, table: Table) -> Iterator[tuple[Int64, Int64]]:
        """Item codes (m,) and keys (m,) of the values of each column that has values."""
        number = 0
        for name in self.names:
            if table.kinds[name] in ("category", "categories"):
                yield _categories(name, table.frame[name])
            elif table.kinds[name] != "vector":
                edges = self.edges[self.edge_offsets[number] : self.edge_offsets[number + 1]]
                number += 1
                numbers = _as_numbers(table.frame[name])
                rows = np.flatnonzero(~np.isnan(numbers))
                buckets = np.searchsorted(edges, numbers[rows], side="right")
                hashes = _hashes(name, [f"bucket {bucket}" for bucket in range(len(edges) + 1)])
                yield rows + 1, hashes[buckets]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of n items; row 0 is padding.

    Attributes
    ----------
    offsets, values
        (n + 2,) and (m,) int64 numbers of the values of each item.
    vectors
        (n + 1, width) float32 given vectors, scaled, one column of the table beside the other; 0 for missing ones.
    """

    offsets: Int64
    values: Int64
    vectors: Floats


def _numbers(table: Table, names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    return [_as_numbers(table.frame[name]) for name in names if table.kinds[name] in ("number", "moment")]


def _as_numbers(column: pl.Series) -> npt.NDArray[np.float64]:
    """Numbers (n,) float64 of a column of numbers or moments (microseconds); NaN for missing ones."""
    numbers = column.to_physical().cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.asarray(numbers, dtype=np.float64)


def _edges(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Bounds of the buckets: quantiles of the numbers (n,) that are not NaN, without repeats."""
    given = numbers[~np.isnan(numbers)]
    if not len(given):
        return np.zeros(0)
    quantiles = np.quantile(given, np.arange(1, BUCKETS) / BUCKETS, method="higher")
    return np.unique(quantiles)


def _scale(vectors: Floats) -> float:
    square = np.square(vectors, dtype=np.float64).sum(axis=1)
    square = square[square > 0]
    return float(1 / np.sqrt(square.mean())) if len(square) else 1.0


def _categories(name: str, column: pl.Series) -> tuple[Int64, Int64]:
    """Item codes (m,) and keys (m,) of the categories, each once per item."""
    codes = pl.Series("code", np.arange(1, len(column) + 1))
    frame = pl.DataFrame([codes, column.alias("value")])
    if isinstance(column.dtype, pl.List):
        frame = frame.explode("value")
    frame = frame.drop_nulls().with_columns(pl.col("value").cast(pl.String)).unique()
    if not len(frame):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    distinct = frame["value"].unique().sort()
    number = frame["value"].rank("dense").to_numpy().astype(np.int64) - 1
    order = np.lexsort((number, frame["code"].to_numpy()))
    return frame["code"].to_numpy()[order], _hashes(name, distinct.to_list())[number[order]]


def _hashes(name: str, values: Sequence[str]) -> Int64:
    """Hashes (n,) of the values of a column, the same in every version of every library."""
    digests = [hashlib.blake2b(f"{name}\0{value}".encode(), digest_size=8).digest() for value in values]
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)


def _equal_at(keys: Int64, places: Int64, wanted: Int64) -> Bools:
    """Mask (m,) of the wanted keys that stand at their places."""
    if not len(keys):
        return np.zeros(len(wanted), dtype=np.bool_)
    return np.asarray(keys[np.minimum(places, len(keys) - 1)] == wanted)
