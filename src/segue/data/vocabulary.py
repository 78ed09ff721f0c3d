"""The two-way map between raw ids and codes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.errors import DataError, StorageError, UnknownIdError

Codes = npt.NDArray[np.int64]

_FEW = 64
"""Text ids are found by bisection if the vocabulary has so many ids for each of them, and else by a join."""

_MISSING = "an id is missing (null): a vocabulary holds only real ids."

_FORGOTTEN = "\0forgotten "
"""Start of the text that stands in the place of a forgotten id."""
_FORGOTTEN_NUMBER = -9_103_627_158_204_385_792
"""Integer that stands in the place of a forgotten id, together with its code: the sum. Drawn once; no log has it."""

_EXACT = 2.0**53
"""Floats of this size and more have lost digits, so two ids may have become one."""


class Vocabulary:
    """Raw ids in a fixed order: the id at position p has code p + 1. Code 0 stands for every unknown id.

    A new vocabulary is sorted. Ids that arrive later are appended by `extended`, so a code never changes.

    Parameters
    ----------
    ids
        Unique raw ids: integers (stored as Int64) or strings. Other types are converted to strings.

    Examples
    --------
    >>> words = segue.Vocabulary(["tea", "milk"])
    >>> words.encode(["tea", "wine"])
    array([2, 0])
    >>> words.decode([1]).to_list()
    ['milk']
    >>> words.extended(["beer", "tea"]).encode(["milk", "tea", "beer"])
    array([1, 2, 3])
    """

    def __init__(self, ids: Iterable[Any]) -> None:
        self.ids: pl.Series = _checked(as_ids(ids).sort())

    @classmethod
    def in_order(cls, ids: Iterable[Any]) -> Vocabulary:
        """Vocabulary that keeps the ids in the given order.

        >>> Vocabulary.in_order(["tea", "milk"]).encode(["tea", "milk"])
        array([1, 2])
        """
        return cls._of(_checked(as_ids(ids)))

    @classmethod
    def _of(cls, ids: pl.Series) -> Vocabulary:
        """Vocabulary of ids that are known to be unique and not null."""
        vocabulary = cls.__new__(cls)
        vocabulary.ids = ids
        return vocabulary

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.ids.dtype == other.ids.dtype and self.ids.equals(other.ids)

    def __hash__(self) -> int:
        return hash((len(self), str(self.ids.dtype)))

    def __repr__(self) -> str:
        return f"Vocabulary({len(self)} ids, {self.ids.dtype})"

    @cached_property
    def is_sorted(self) -> bool:
        """True if codes follow the sorted order of the ids; an extended vocabulary may not."""
        return self.ids.is_sorted()

    def extended(self, ids: Iterable[Any]) -> Vocabulary:
        """Vocabulary with the unknown ones of `ids` appended, in the order of their first arrival.

        The codes of all other ids stay the same. Ids of another type are converted as by `convert`. An empty vocabulary
        takes the type of `ids`.

        Parameters
        ----------
        ids
            Raw ids; known and repeated ones are allowed.

        Raises
        ------
        DataError
            An id is null, or text that is no integer should join a vocabulary of integers.
        """
        arrived = as_ids(ids)
        if arrived.null_count():
            raise DataError(_MISSING)
        if len(self):
            converted = self.convert(arrived)
            if converted.null_count():
                example = arrived.filter(converted.is_null())[0]
                raise DataError(
                    f"the id {example!r} is not an integer (of 64 bits), and the ids of this vocabulary are integers: "
                    f"convert the new ids to integers, or prepare the whole log again with ids that are text."
                )
            arrived = converted
        new = arrived.filter(pl.Series(self.encode(arrived) == 0, dtype=pl.Boolean)).unique(maintain_order=True)
        if not len(new):
            return self
        return Vocabulary._of(pl.concat([self.ids, new.alias("id")], rechunk=True) if len(self) else new.alias("id"))

    def without(self, codes: npt.ArrayLike) -> Vocabulary:
        """Vocabulary in which the ids of these codes (n,) are forgotten; the codes of all other ids stay the same.

        A forgotten id is unknown, and its code belongs to nobody. If the id arrives again, it gets a new code.

        >>> words = Vocabulary(["milk", "tea"]).without([1])
        >>> words.encode(["milk", "tea"]), words.extended(["milk"]).encode(["milk"])
        (array([0, 2]), array([3]))
        """
        numbers = np.unique(np.asarray(codes, dtype=np.int64))
        numbers = numbers[numbers > 0]
        if not len(numbers):
            return self
        return Vocabulary._of(self.ids.scatter(numbers - 1, self._tombstones(numbers)))

    @cached_property
    def forgotten(self) -> npt.NDArray[np.bool_]:
        """Mask (n + 1,) of the codes whose ids are forgotten."""
        mask = np.zeros(len(self) + 1, dtype=bool)
        if self.ids.dtype == pl.Int64:
            mask[1:] = self._integers == _FORGOTTEN_NUMBER + np.arange(1, len(self) + 1, dtype=np.int64)
        elif len(self):
            mask[1:] = self.ids.str.starts_with(_FORGOTTEN).to_numpy()
        return mask

    @cached_property
    def codes(self) -> Codes:
        """Codes of all ids that are not forgotten, ascending."""
        return np.flatnonzero(~self.forgotten[1:]) + 1

    @cached_property
    def has_forgotten(self) -> bool:
        """True if some ids are forgotten."""
        return bool(self.forgotten.any())

    def _tombstones(self, codes: Codes) -> pl.Series:
        """Values (n,) that stand in the places of forgotten ids."""
        if self.ids.dtype == pl.Int64:
            return pl.Series(_FORGOTTEN_NUMBER + codes)
        return pl.Series([_FORGOTTEN]).new_from_index(0, len(codes)) + pl.Series(codes).cast(pl.String)

    def convert(self, ids: Iterable[Any]) -> pl.Series:
        """Raw ids (n) in the type of this vocabulary; null if an id cannot be written in that type.

        An integer as text must be written as segue writes it: "2" is the id 2, but "+2", " 2", "002" and "2.0" are not.

        >>> Vocabulary([2, 3]).convert(["2", "+2", "002"]).to_list()
        [2, None, None]
        """
        series = as_ids(ids)
        if series.dtype == self.ids.dtype:
            return series
        converted = series.cast(self.ids.dtype, strict=False)
        if series.dtype != pl.String:
            return converted
        same = converted.cast(pl.String) == series
        return converted if same.all() else converted.set(~same.fill_null(False), None)

    def encode(self, ids: Iterable[Any]) -> Codes:
        """Codes (n,) of raw ids (n); 0 for unknown and missing ids. Ids of another type are read as by `convert`."""
        codes = self._encode(ids)
        if self.has_forgotten:
            codes[self.forgotten[codes]] = 0
        return codes

    def _encode(self, ids: Iterable[Any]) -> Codes:
        """Codes of ids, as in `encode`; what stands in the place of a forgotten id has its code."""
        series = self.convert(ids)
        if not len(self):
            return np.zeros(len(series), dtype=np.int64)
        if self.ids.dtype == pl.Int64:
            requested = (series.fill_null(0) if series.null_count() else series).to_numpy()
            ranks = np.minimum(np.searchsorted(self._sorted_integers, requested), len(self) - 1)
            known = self._sorted_integers[ranks] == requested
        elif len(series) * _FEW > len(self):
            joined = pl.DataFrame({"id": series}).join(self._table, on="id", how="left", maintain_order="left")
            return joined["code"].fill_null(0).to_numpy().astype(np.int64)  # a copy, which may be written
        else:
            ranks = np.minimum(self._sorted_ids.search_sorted(series).to_numpy().astype(np.int64), len(self) - 1)
            known = (self._sorted_ids[ranks] == series).fill_null(False).to_numpy()
        if series.null_count():
            known = known & series.is_not_null().to_numpy()
        positions = ranks if self._order is None else self._order[ranks]
        return np.where(known, positions + 1, 0).astype(np.int64, copy=False)

    def code_of(self, raw_id: int | str) -> int:
        """Code of one raw id; 0 if it is unknown. `encode` of a list gives the same, several times slower.

        >>> Vocabulary(["milk", "tea"]).code_of("tea")
        2
        """
        if not len(self):
            return 0
        if type(raw_id) is int and self._holds_integers:
            if not -(2**63) <= raw_id < 2**63:
                return 0
            rank = int(self._sorted_integers.searchsorted(raw_id))
            known = rank < len(self) and self._sorted_integers[rank] == raw_id
        elif type(raw_id) is str and not self._holds_integers:
            rank = int(self._sorted_ids.search_sorted(raw_id))
            known = rank < len(self) and self._sorted_ids[rank] == raw_id
        else:
            return int(self.encode([raw_id])[0])
        if not known:
            return 0
        return (rank if self._order is None else int(self._order[rank])) + 1

    def require(self, ids: Iterable[Any], what: str) -> Codes:
        """Codes (n,) of raw ids (n); every id must be known.

        Parameters
        ----------
        ids
            Raw ids.
        what
            Noun for the error message, such as "item".

        Raises
        ------
        UnknownIdError
            Some ids are unknown; the message lists them.
        """
        series = as_ids(ids)
        codes = self.encode(series)
        if not codes.all():
            missing = series.filter(pl.Series(codes == 0))
            listed = ", ".join(repr(value) for value in missing.head(5))
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            example = ", ".join(repr(value) for value in self.ids.head(3))
            raise UnknownIdError(f"unknown {what}: {listed}{more}. Known ones look like {example}.")
        return codes

    def decode(self, codes: npt.ArrayLike) -> pl.Series:
        """Raw ids (n) of codes (n); null for code 0 and for forgotten ids."""
        numbers = np.asarray(codes, dtype=np.int64)
        if self.has_forgotten:
            numbers = np.where(self.forgotten[numbers], 0, numbers)
        if numbers.ndim == 1 and numbers.all():
            if self._holds_integers:
                return pl.Series("id", self._integers[numbers - 1])
            return self.ids[numbers - 1]  # many times as fast as an index that may hold nulls
        index = pl.Series(numbers - 1).set(pl.Series(numbers == 0), None)
        return self.ids.gather(index)

    def decode_few(self, codes: Codes) -> list[Any]:
        """Raw ids (n) of codes (n) from 1, as a list. `decode` gives the same, several times slower for a few.

        >>> Vocabulary([30, 10]).decode_few(np.array([2, 1]))
        [30, 10]
        """
        if self._holds_integers and not self.has_forgotten:
            found: list[Any] = self._integers[codes - 1].tolist()
            return found
        return self.decode(codes).to_list()

    def save(self, path: Path) -> None:
        """Write a Parquet file with the single column `id`, in the order of the codes."""
        self.ids.to_frame().write_parquet(path)

    @classmethod
    def load(cls, path: Path, size: int | None = None) -> Vocabulary:
        """Read a file that `save` wrote; every id keeps its code.

        Parameters
        ----------
        path
            The file.
        size
            Number of ids that it must hold; None for any.

        Raises
        ------
        StorageError
            The file is no Parquet file, has other columns or types, or an id is missing or occurs twice.
        """
        try:
            frame = pl.scan_parquet(path)
            schema, rows = frame.collect_schema(), frame.select(pl.len()).collect().item()
            if list(schema) != ["id"] or schema["id"] not in (pl.Int64, pl.String):
                raise StorageError(f"{path} has the columns {dict(schema)}: expected id, of integers or texts.")
            if size is not None and rows != size:
                raise StorageError(f"{path} holds {rows:,} ids, expected {size:,}: it belongs to another folder.")
            return cls.in_order(pl.read_parquet(path, memory_map=False)["id"])
        except DataError as error:
            raise StorageError(f"{path}: {error}") from None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise StorageError(f"{path} is not a readable Parquet file: {error}") from None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the ids and their order: vocabularies with the same fingerprint give each id the same code."""
        return hashlib.sha256(str(self.ids.dtype).encode() + self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Ids as bytes for hashing, the same in every version of every library."""
        if self.ids.dtype == pl.Int64:
            return self.ids.to_numpy().tobytes()
        lengths = self.ids.str.len_bytes().to_numpy()
        return lengths.tobytes() + "".join(self.ids).encode()

    @cached_property
    def _order(self) -> Codes | None:
        """Positions (n,) of the ids in sorted order; None if the ids are sorted."""
        return None if self.is_sorted else self.ids.arg_sort().to_numpy().astype(np.int64)

    @cached_property
    def _holds_integers(self) -> bool:
        return bool(self.ids.dtype == pl.Int64)

    @cached_property
    def _integers(self) -> Codes:
        integers: Codes = self.ids.to_numpy()
        return integers

    @cached_property
    def _sorted_integers(self) -> Codes:
        return self._integers if self._order is None else self._integers[self._order]

    @cached_property
    def _sorted_ids(self) -> pl.Series:
        return self.ids if self.is_sorted else self.ids.sort()

    @cached_property
    def _table(self) -> pl.DataFrame:
        return pl.DataFrame({"id": self.ids, "code": np.arange(1, len(self) + 1, dtype=np.int64)})


def _checked(ids: pl.Series) -> pl.Series:
    """The same ids, if each is given and unique."""
    if ids.null_count():
        raise DataError(_MISSING)
    if ids.n_unique() != len(ids):
        raise DataError("an id occurs twice: the ids of a vocabulary are unique.")
    return ids.alias("id")


def as_ids(ids: Iterable[Any]) -> pl.Series:
    """Raw ids as a polars Series of Int64 (integers of any width, whole floats) or String (all else).

    None, NaN, `pandas.NA` and `pandas.NaT` are null. No integer passes through a float.

    Raises
    ------
    DataError
        The ids have several types, such as numbers and strings; they are no ids, such as lists; or they are floats of
        2⁵³ and more, which have lost digits.
    """
    if isinstance(ids, list) and len(ids) == 1:  # a service asks for one user at a time
        if type(ids[0]) is str and ids[0].isascii():
            return pl.Series(ids, dtype=pl.String)
        if type(ids[0]) is int and abs(ids[0]) < _EXACT:
            return pl.Series(ids, dtype=pl.Int64)
    series = raw_series(ids)
    if series.dtype in (pl.Int64, pl.String):
        return series
    if series.dtype == pl.Null:
        return series.cast(pl.Int64)
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise DataError(f"ids of type {series.dtype} are no ids: expected integers or text, one for each row.")
    if series.dtype.is_integer():
        numbers = series.cast(pl.Int64, strict=False)
        return numbers if numbers.null_count() == series.null_count() else series.cast(pl.String)
    if series.dtype.is_float():
        return _of_floats(series)
    if series.dtype.is_numeric():
        numbers = series.cast(pl.Int64, strict=False)
        if numbers.null_count() == series.null_count() and bool((numbers.cast(series.dtype) == series).all()):
            return numbers
    return series.cast(pl.String)


def raw_series(ids: Iterable[Any]) -> pl.Series:
    """Ids of any library as a polars Series in their own type.

    Raises
    ------
    DataError
        The ids have several types, or they are no ids.
    """
    if isinstance(ids, pl.Series):
        return ids if ids.dtype != pl.Object else raw_series(ids.to_list())
    array = as_array(ids)
    if array is not None:
        if array.ndim != 1:
            raise DataError(f"the ids are an array of shape {array.shape}: expected one dimension, with an id each.")
        if array.dtype != object:
            return pl.Series(array)
        ids = array
    elif type(ids).__module__.startswith("pyarrow"):
        return pl.Series(ids)
    try:
        values = list(ids)
    except TypeError:
        raise DataError(f"{type(ids).__name__!r} holds no ids: expected a list, an array or a column of ids.") from None
    types = set(map(type, values))
    if any(_may_be_missing(one) for one in types):
        values = [None if is_missing(value) else value for value in values]
        types = set(map(type, values))
    types -= {type(None)}
    families = {_family(one) for one in types}
    if len(families) > 1:
        raise DataError(f"ids mix types ({', '.join(sorted(families))}): make them all of one type.")
    if any(issubclass(one, np.generic) for one in types):
        if len(types) == 1 and families == {"number"} and None not in values:
            values = np.array(values).tolist()  # several times as fast as one by one
        else:
            values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if families <= {"number", "bool"}:
        return _numbers(values)
    try:
        return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)
    except UnicodeEncodeError as error:
        raise DataError(f"the id {error.object!r} holds half a character: expected Unicode text.") from None


def as_array(values: Any) -> npt.NDArray[Any] | None:
    """NumPy array of an array, a tensor or a pandas column; None for everything else."""
    if isinstance(values, np.ndarray):
        return values
    library = type(values).__module__.partition(".")[0]
    if library == "torch" and hasattr(values, "detach"):
        return np.asarray(values.detach().cpu().numpy())
    if library == "pandas" and hasattr(values, "to_numpy") and not hasattr(values, "columns"):
        extension = not isinstance(values.dtype, np.dtype)  # a nullable column of integers would become floats
        return np.asarray(values.to_numpy(dtype=object) if extension else values.to_numpy())
    if library in ("jax", "jaxlib", "tensorflow", "cupy") and hasattr(values, "shape"):
        return np.asarray(values)
    return None


def is_missing(value: Any) -> bool:
    """True for None, NaN, `pandas.NA` and `pandas.NaT`."""
    return value is None or (_may_be_missing(type(value)) and (type(value).__name__ in _NULLS or value != value))


def _may_be_missing(value_type: type) -> bool:
    return value_type.__name__ in _NULLS or issubclass(value_type, float | np.floating)


def _of_floats(numbers: pl.Series) -> pl.Series:
    """Ids of floats (n): Int64 if all are whole, else text in which whole numbers have no point."""
    numbers = numbers.fill_nan(None)
    large = numbers.filter(numbers.abs() >= _EXACT)
    if len(large):
        raise _inexact(large[0])
    integers = numbers.cast(pl.Int64, strict=False)
    whole = (numbers == integers.cast(numbers.dtype)).fill_null(numbers.is_null())
    if whole.all():
        return integers
    return integers.cast(pl.String).zip_with(whole, numbers.cast(pl.String))


def _numbers(values: list[Any]) -> pl.Series:
    """Numbers and None as a Series; as text if one of them is an integer that no type of polars holds."""
    floats = {isinstance(value, float) for value in values if value is not None}
    if len(floats) > 1:  # polars would make floats of the integers
        large = [value for value in values if isinstance(value, float) and abs(value) >= _EXACT]
        if large:
            raise _inexact(large[0])
        values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        floats = {isinstance(value, float) for value in values if value is not None}
    if len(floats) < 2:
        series = pl.Series(values, strict=False)
        if series.null_count() == values.count(None):
            return series
    return pl.Series([None if value is None else str(value) for value in values], dtype=pl.String)


def _inexact(value: float) -> DataError:
    return DataError(
        f"the id {value!r} is a float of 2**53 or more, which may have lost digits: give ids as integers or as text "
        '(in pandas, the type "Int64" holds integers beside missing values).'
    )


_NULLS = ("NAType", "NaTType")
"""Names of the types of `pandas.NA` and `pandas.NaT`."""

_NO_IDS = (list, tuple, dict, set, frozenset, bytes, bytearray, np.ndarray, pl.Series, pl.DataFrame)
"""Types whose text would be no id."""


def _family(value_type: type) -> str:
    """Name of the family of a type; values of one family can be ids together.

    Raises
    ------
    DataError
        Values of the type are no ids.
    """
    if issubclass(value_type, bool | np.bool_):
        return "bool"
    if issubclass(value_type, int | float | np.integer | np.floating):
        return "number"
    if issubclass(value_type, str):
        return "str"
    if issubclass(value_type, _NO_IDS) or hasattr(value_type, "__array__"):
        raise DataError(f"an id is a {value_type.__name__}: expected single integers or texts.")
    return value_type.__name__


def is_scalar(value: Any) -> bool:
    """True for one raw id, text included; False for a collection of ids."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return True
    return getattr(value, "ndim", 1) == 0  # an array or a tensor that holds one value
