"""The two-way map between raw ids and codes."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.errors import DataError, UnknownIdError

Codes = npt.NDArray[np.int64]


class Vocabulary:
    """Raw ids, sorted; the id at position p has code p + 1, and code 0 is every id that is not here.

    Parameters
    ----------
    ids
        Unique raw ids: integers (kept as Int64) or strings. Anything else is written as a string first.

    Examples
    --------
    >>> words = Vocabulary(["tea", "milk"])
    >>> words.encode(["tea", "wine"])
    array([2, 0])
    >>> words.decode([1]).to_list()
    ['milk']
    """

    def __init__(self, ids: Iterable[Any]) -> None:
        series = as_ids(ids)
        ordered = series.sort()
        if ordered.null_count():
            raise DataError("an id is missing (null): a vocabulary holds only real ids.")
        if ordered.n_unique() != len(ordered):
            raise DataError("an id occurs twice: the ids of a vocabulary are unique.")
        self.ids: pl.Series = ordered.alias("id")

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    def __hash__(self) -> int:
        return hash((len(self), str(self.ids.dtype)))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids, {self.ids.dtype})"

    def encode(self, ids: Iterable[Any]) -> Codes:
        """Codes (n,) of raw ids (n); 0 where an id is unknown. Digits given as text match integer ids."""
        series = as_ids(ids)
        if series.dtype != self.ids.dtype:
            series = series.cast(self.ids.dtype, strict=False)
        if self._integers is None:
            joined = pl.DataFrame({"id": series}).join(self._table, on="id", how="left", maintain_order="left")
            return joined["code"].fill_null(0).to_numpy().astype(np.int64, copy=False)
        if not len(self):
            return np.zeros(len(series), dtype=np.int64)
        known = series.is_not_null().to_numpy()
        wanted = series.fill_null(0).to_numpy()
        place = np.searchsorted(self._integers, wanted)
        hit = known & (self._integers[np.minimum(place, len(self) - 1)] == wanted)
        return np.where(hit, place + 1, 0).astype(np.int64, copy=False)

    def require(self, ids: Iterable[Any], what: str) -> Codes:
        """Like `encode`, but unknown ids are an UnknownIdError that lists them; `what` names them ("item")."""
        series = as_ids(ids)
        codes = self.encode(series)
        missing = series.filter(pl.Series(codes == 0))
        if len(missing):
            shown = ", ".join(repr(value) for value in missing.head(5))
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            example = ", ".join(repr(value) for value in self.ids.head(3))
            raise UnknownIdError(f"unknown {what}: {shown}{more}. Known ones look like {example}.")
        return codes

    def decode(self, codes: npt.ArrayLike) -> pl.Series:
        """Raw ids (n) of codes (n); null for code 0."""
        wanted = np.asarray(codes, dtype=np.int64)
        index = pl.Series(wanted - 1).set(pl.Series(wanted == 0), None)
        return self.ids.gather(index)

    def save(self, path: Path) -> None:
        """Write a Parquet file with the one column `id`."""
        self.ids.to_frame().write_parquet(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote."""
        return cls(pl.read_parquet(path, memory_map=False)["id"])

    def to_bytes(self) -> bytes:
        """The ids as bytes, the same in every version of every library, to be hashed."""
        if self._integers is not None:
            return self._integers.tobytes()
        lengths = self.ids.str.len_bytes().to_numpy()
        return lengths.tobytes() + "".join(self.ids).encode()

    @cached_property
    def _integers(self) -> npt.NDArray[np.int64] | None:
        return self.ids.to_numpy() if self.ids.dtype == pl.Int64 else None

    @cached_property
    def _table(self) -> pl.DataFrame:
        return pl.DataFrame({"id": self.ids, "code": np.arange(1, len(self) + 1, dtype=np.int64)})


def as_ids(ids: Iterable[Any]) -> pl.Series:
    """Raw ids as a polars Series of Int64 (integers of any width, whole floats) or String (anything else); NaN is null.

    Raises
    ------
    DataError
        Ids of several types (numbers and strings, for example) stand in one collection.
    """
    series = _series(ids)
    if series.dtype == pl.Null:
        return series.cast(pl.Int64)
    if series.dtype.is_float():
        series = series.fill_nan(None)
    if series.dtype.is_numeric():
        numbers = series.cast(pl.Int64, strict=False)
        if numbers.null_count() == series.null_count() and (series.dtype.is_integer() or _whole(series)):
            return numbers
    return series if series.dtype == pl.String else series.cast(pl.String)


def _whole(numbers: pl.Series) -> bool:
    return bool((numbers == numbers.floor()).all())


def _series(ids: Iterable[Any]) -> pl.Series:
    if isinstance(ids, pl.Series):
        return ids
    if isinstance(ids, np.ndarray) and ids.dtype != object:
        return pl.Series(ids)
    if type(ids).__module__.startswith("pyarrow"):
        return pl.Series(ids)
    values = list(ids)
    kinds = set(map(type, values)) - {type(None)}
    families = {_family(kind) for kind in kinds}
    if len(families) > 1:
        raise DataError(f"ids mix types ({', '.join(sorted(families))}): make them all of one type.")
    if any(issubclass(kind, np.generic) for kind in kinds):
        if len(kinds) == 1 and families == {"number"} and None not in values:
            values = np.array(values).tolist()  # several times as fast as one by one
        else:
            values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if families <= {"number", "bool"}:
        series = pl.Series(values, strict=False)
        if series.null_count() == values.count(None):  # else there is an integer that no polars type holds
            return series
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _family(kind: type) -> str:
    """Values of one family can be ids together."""
    if issubclass(kind, bool | np.bool_):
        return "bool"
    if issubclass(kind, int | float | np.integer | np.floating):
        return "number"
    return "str" if issubclass(kind, str) else kind.__name__
