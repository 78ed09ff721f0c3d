"""`<name>_columns_dtype.json`, which may stand beside a session file: what its columns hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.reading.values import Reading, canonical_integer, read_id, time_style
from segue.errors import ColumnError, DataError, StorageError
from segue.files import read_json

_COLUMNS = ("user_id", "time", "session_length", "session_items", "history")
_INTEGERS = frozenset({"int", "integer", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})
_TEXTS = frozenset({"object", "str", "string", "category"})
_NUMBERS = frozenset({"float", "float16", "float32", "float64", "double"})


@dataclass(frozen=True)
class Stated:
    """The type that a file states for a column.

    Attributes
    ----------
    dtype
        As written: "int32".
    file
        Where it is written, for messages.
    """

    dtype: str
    file: str

    @property
    def integer(self) -> bool:
        """Whether the column holds integers. Their width is not applied: no id is ever cut to fit."""
        return self.dtype in _INTEGERS

    @property
    def text(self) -> bool:
        """Whether the column holds text, digits included."""
        return self.dtype in _TEXTS


def types_beside(path: Path) -> Path:
    """Where the types of a session file stand.

    >>> types_beside(Path("data/synthetic.txt.gz")).name
    'synthetic_columns_dtype.json'
    """
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{name.rpartition('.')[0] or name}_columns_dtype.json")


def stated_types(path: Path) -> Mapping[str, Stated]:
    """Column → what is stated of it; empty where no such file stands beside the session file.

    Raises
    ------
    DataError
        The file is no JSON object of the types of known columns.
    """
    file = types_beside(path)
    if not file.is_file():
        return {}
    try:
        content: Any = read_json(file)
    except StorageError as error:
        raise DataError(str(error)) from None
    if not isinstance(content, dict):
        raise DataError(f'{file}: expected an object such as {{"user_id": "int32"}}, found {content!r}.')
    known = _INTEGERS | _TEXTS | _NUMBERS
    for column, dtype in content.items():
        if column not in _COLUMNS:
            raise DataError(f'{file}: unknown column "{column}"; a session file has {", ".join(_COLUMNS)}.')
        if not isinstance(dtype, str) or (dtype not in known and not dtype.startswith("datetime64")):
            raise DataError(f'{file}: "{column}" has the unknown type {dtype!r}; expected int32, int64, object, ….')
    # "object" for the list of items says that it is a list, and nothing of the items.
    return {column: Stated(dtype, str(file)) for column, dtype in content.items() if column != "session_items"}


def read_stated(sample: pl.Series, stated: Stated) -> Reading:
    """How ids of a stated type are read: integers as integers alone, text as text."""
    if stated.integer:
        expected = f'an integer id, as {stated.file} says ("{stated.dtype}")'
        return Reading(sample.name, canonical_integer(pl.col(sample.name)), expected, "stated")
    return read_id(sample, as_text=stated.text)


def stated_time(sample: pl.Series, stated: Stated | None) -> pl.Series:
    """The sample of the times, checked.

    Raises
    ------
    ColumnError
        It holds no integers, and they are stated.
    """
    if stated is not None and stated.integer and time_style(sample) != "integer":
        raise ColumnError(
            f'the column "time" begins with {sample[0]!r}; {stated.file} says that it holds integers '
            f'("{stated.dtype}"). Correct one of the two.'
        )
    return sample
