"""A table of items or users whose rows are in the order of the codes: in memory, and on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.tables.kinds import KINDS, Kind, Vectors
from segue.errors import StorageError

_TYPES: Mapping[Kind, tuple[Any, ...]] = {
    "text": (pl.String(),),
    "category": (pl.String(), pl.Int64(), pl.Boolean()),
    "categories": (pl.List(pl.String),),
    "number": (pl.Int64(), pl.Float64()),
    "moment": (pl.Datetime("us"),),
}
assert set(_TYPES) | {"vector"} == set(get_args(Kind))


@dataclass(frozen=True, eq=False)
class Table:
    """Properties of the items, or of the users: a row for each code, in the order of the codes.

    Attributes
    ----------
    frame
        (n, columns) all columns but vectors; row i (from 0) belongs to code i + 1. Missing values are null.
    kinds
        Kind of each column, in the order of the source; vectors too.
    key
        Name of the column of the ids in the source.
    title
        Column with the names that people read; None if there is none.
    vectors
        (n, width) float32 by column; a missing vector is zero.
    """

    frame: pl.DataFrame
    kinds: Mapping[str, Kind]
    key: str
    title: str | None = None
    vectors: Mapping[str, Vectors] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame) if self.frame.width else max((len(one) for one in self.vectors.values()), default=0)

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {kind}" for name, kind in self.kinds.items())
        return f"Table({len(self):,} rows, {columns})"

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in the order of the source."""
        return list(self.kinds)

    def of_kind(self, *kinds: Kind) -> list[str]:
        """Names of the columns of these kinds."""
        return [name for name, kind in self.kinds.items() if kind in kinds]

    @cached_property
    def titles(self) -> pl.Series | None:
        """Titles (n,) as text, null for items without one; None if the table has no titles."""
        return None if self.title is None else self.frame[self.title]

    @cached_property
    def described(self) -> npt.NDArray[np.bool_]:
        """Mask (n,) of the rows with at least one value; the others were not in the source."""
        mask = np.zeros(len(self), dtype=np.bool_)
        if self.frame.width:
            mask |= self.frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().to_numpy()
        for vectors in self.vectors.values():
            mask |= _has_values(vectors)
        return mask

    def missing(self) -> dict[str, float]:
        """Share of the rows without a value, by column."""
        n = max(len(self), 1)
        counts = {name: self.frame[name].null_count() for name in self.frame.columns}
        counts |= {name: len(self) - int(_has_values(one).sum()) for name, one in self.vectors.items()}
        return {name: counts[name] / n for name in self.kinds}

    def to_frame(self) -> pl.DataFrame:
        """All columns in the order of the source, with vectors as fixed-size arrays (null if they are missing)."""
        arrays = {name: _as_column(name, one) for name, one in self.vectors.items()}
        return pl.DataFrame([arrays[name] if name in arrays else self.frame[name] for name in self.kinds])

    def extended(self, n: int) -> Table:
        """The same table with empty rows behind the last one, so that it has n rows.

        >>> Table(pl.DataFrame({"price": [2]}), {"price": "number"}, "sku").extended(3).frame["price"].to_list()
        [2, None, None]
        """
        more = n - len(self)
        if more <= 0:
            return self
        empty = self.frame.clear(more)
        vectors = {
            name: np.concatenate([one, np.zeros((more, one.shape[1]), dtype=np.float32)])
            for name, one in self.vectors.items()
        }
        return replace(self, frame=pl.concat([self.frame, empty]), vectors=vectors)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all values, the same in every version of every library."""
        digest = hashlib.sha256(repr((dict(self.kinds), self.title)).encode())
        for name in self.frame.columns:
            for part in _bytes_of(self.frame[name]):
                digest.update(part)
        for vectors in self.vectors.values():
            digest.update(np.ascontiguousarray(vectors).data)
        return digest.hexdigest()

    # ---- storage ------------------------------------------------------------------------------------------------

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write `<name>_table.parquet` and a file for each column of vectors; return the entry of the manifest."""
        self.frame.write_parquet(folder / f"{name}_table.parquet")
        files = {column: f"{name}_vectors_{number}.npy" for number, column in enumerate(self.vectors)}
        for column, file in files.items():
            np.save(folder / file, np.asarray(self.vectors[column], dtype=np.float32), allow_pickle=False)
        return {"key": self.key, "title": self.title, "columns": dict(self.kinds), "vectors": files}

    @classmethod
    def load(cls, folder: Path, name: str, entry: Any, n: int, listed: Mapping[str, Any]) -> Table:
        """Open what `save` wrote; vectors are memory-mapped.

        Parameters
        ----------
        folder, name
            The folder, and "item" or "user".
        entry
            The entry of the manifest.
        n
            Number of rows that the table must have.
        listed
            Files that the manifest lists.

        Raises
        ------
        StorageError
            A file is missing or unreadable, or does not fit the manifest.
        """
        path = folder / f"{name}_table.parquet"
        if not _is_entry(entry) or not {path.name, *entry["vectors"].values()} <= set(listed):
            raise StorageError(f"{folder}: the manifest does not describe the {name} table: it was damaged or edited.")
        kinds: dict[str, Kind] = entry["columns"]
        try:
            frame = pl.read_parquet(path, memory_map=False)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise StorageError(f"{path} is not a readable Parquet file: {error}") from None
        plain = {column: kind for column, kind in kinds.items() if kind != "vector"}
        fits = set(frame.columns) == set(plain) and all(frame[c].dtype in _TYPES[k] for c, k in plain.items())
        vectors = {column: _map_matrix(folder / file) for column, file in entry["vectors"].items()}
        fits = fits and set(vectors) == set(kinds) - set(plain)
        if not fits or any(len(one) != n for one in vectors.values()) or (frame.width and len(frame) != n):
            raise StorageError(f"{path} does not have the rows and columns of its manifest: it was damaged or edited.")
        return cls(frame, kinds, entry["key"], entry["title"], vectors)


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("key"), str)
        and isinstance(entry.get("columns"), dict)
        and all(kind in KINDS for kind in entry["columns"].values())
        and (entry.get("title") is None or entry["columns"].get(entry["title"]) == "text")
        and isinstance(entry.get("vectors"), dict)
        and all(isinstance(file, str) and Path(file).name == file for file in entry["vectors"].values())
    )


def _map_matrix(path: Path) -> Vectors:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StorageError(f"{path} is not a readable array file: {error}") from None
    if matrix.ndim != 2 or matrix.dtype != np.float32 or not matrix.shape[1]:
        raise StorageError(f"{path} holds {matrix.dtype} of shape {matrix.shape}, expected two dimensions of float32.")
    return np.asarray(matrix)


def _has_values(vectors: Vectors) -> npt.NDArray[np.bool_]:
    return np.asarray(vectors.any(axis=1))


def _as_column(name: str, vectors: Vectors) -> pl.Series:
    column = pl.Series(name, vectors, dtype=pl.Array(pl.Float32, vectors.shape[1]))
    return column.set(pl.Series(~_has_values(vectors)), None) if not _has_values(vectors).all() else column


def _bytes_of(column: pl.Series) -> list[bytes]:
    """Values of a column as bytes for hashing."""
    if isinstance(column.dtype, pl.List):
        lengths = column.list.len().fill_null(2**32 - 1).to_numpy()
        return [lengths.tobytes(), *_bytes_of(column.drop_nulls().explode(empty_as_null=False))]
    nulls = column.is_null().to_numpy().tobytes()
    if column.dtype == pl.String:
        given = column.fill_null("")
        return [nulls, given.str.len_bytes().to_numpy().tobytes(), "".join(given).encode()]
    plain = column.to_physical().cast(pl.Float64 if column.dtype == pl.Float64 else pl.Int64)
    return [nulls, plain.fill_null(0).to_numpy().tobytes()]
