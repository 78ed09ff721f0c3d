"""Kinds of columns in a table of items or users: recognized from their values, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.reading.values import MISSING
from segue.errors import DataError, nearest

Kind = Literal["text", "category", "categories", "number", "moment", "vector"]
"""Kind of a column.

"text": words for people. "category": one of several values that items share. "categories": a list of them. "number": a
quantity. "moment": a date, with or without a time. "vector": numbers of the same length for all items.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

Vectors = npt.NDArray[np.float32]

_ID_NAME = re.compile(r"(.*[\W_])?(id|code)|.*[a-z](Id|ID|Code)", re.ASCII)
"""Names of columns whose integers are no quantities."""

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LEADING_ZERO = r"^[+-]?0[0-9]"
_MOMENT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?$"
_SEPARATOR = "|"
_MOSTLY = 0.9
"""Share of numbers from which a text among them is a fault."""
_SEPARATED = 0.1
"""Share of values with a separator from which a column holds several categories."""
_LONGEST_CATEGORY = 100


def recognized(column: pl.Series, stated: Kind | None, *, untyped: bool, is_title: bool, table: str) -> Kind:
    """Find the kind of a column from its type and its values.

    Parameters
    ----------
    column
        The column, as it was read.
    stated
        Kind that the user or the file states; it is returned as it is.
    untyped
        True if the column is text because its file knows no other type, as CSV does.
    is_title
        True for the column of the titles.
    table
        Name of the table, for messages.

    Raises
    ------
    DataError
        The column has a type that is no kind, or mixes numbers and texts.
    """
    if is_title:
        return "text"
    if stated is not None:
        return stated
    kind, inner = column.dtype, getattr(column.dtype, "inner", None)
    if isinstance(kind, pl.List | pl.Array):
        is_vector = inner is not None and (inner.is_float() or (inner.is_numeric() and isinstance(kind, pl.Array)))
        return "vector" if is_vector else "categories"
    if kind == pl.Boolean or isinstance(kind, pl.Categorical | pl.Enum) or kind == pl.Null:
        return "category"
    if kind.is_integer():
        return "category" if _ID_NAME.fullmatch(column.name) else "number"
    if kind.is_numeric():
        return "number"
    if isinstance(kind, pl.Date | pl.Datetime):
        return "moment"
    if kind != pl.String:
        raise DataError(
            f'{table}: the column "{column.name}" has the type {kind}: expected text, numbers, dates or lists of them. '
            "Convert the column, or leave it out."
        )
    return _kind_of_text(column, untyped, table)


def _kind_of_text(column: pl.Series, untyped: bool, table: str) -> Kind:
    given = (without_words(column) if untyped else column).drop_nulls()
    if not len(given):
        return "category"
    if bool(given.str.contains(_MOMENT).all()):
        return "moment"
    if untyped:
        is_number = given.str.contains(_NUMBER) & ~given.str.contains(_LEADING_ZERO)
        share = float(is_number.mean() or 0.0)  # type: ignore[arg-type]
        if share == 1.0:
            is_id = _ID_NAME.fullmatch(column.name) and bool(given.str.contains(_INTEGER).all())
            return "category" if is_id else "number"
        if share >= _MOSTLY:
            raise _mixed(column.name, table, given, is_number)
    if _is_separated(given):
        return "categories"
    shared = 1 - float(given.is_unique().mean() or 0.0)  # type: ignore[arg-type]
    longest = int(given.str.len_chars().max() or 0)  # type: ignore[arg-type]
    return "category" if shared >= 0.5 and longest <= _LONGEST_CATEGORY else "text"


def _mixed(name: str, table: str, given: pl.Series, is_number: pl.Series) -> DataError:
    other = given.filter(~is_number)
    return DataError(
        f'{table}: the column "{name}" mixes numbers ({given.filter(is_number)[0]}, …) with other values '
        f"({other[0]!r}; {len(other):,} of {len(given):,}). Correct these values or leave them empty, or state the "
        f'kind of the column, as in item_kinds={{"{name}": "category"}} (on the command line, --item-kinds '
        f"{name}=category)."
    )


def _is_separated(given: pl.Series) -> bool:
    """Return whether values (n,) are lists of categories such as "a|b": parts are shared, and hold no separator."""
    separated = given.str.contains(_SEPARATOR, literal=True)
    if float(separated.mean() or 0.0) < _SEPARATED:  # type: ignore[arg-type]
        return False
    parts = given.str.split(_SEPARATOR).explode().str.strip_chars()
    return parts.n_unique() * 2 <= len(parts) or len(given) < 20


def without_words(column: pl.Series) -> pl.Series:
    """The same texts, null for empty ones and for words that stand for missing values."""
    return column.set(column.is_in((*MISSING, "")).fill_null(False), None)


def converted(column: pl.Series, kind: Kind, *, untyped: bool, blanks: bool, table: str) -> pl.Series | Vectors:
    """Convert a column to the type of its kind.

    Parameters
    ----------
    column
        The column (n,), as it was read.
    kind
        Its kind.
    untyped
        True if the column is text because its file knows no other type.
    blanks
        True if blanks separate several categories or numbers, as in RecBole's files; else "|" does.
    table
        Name of the table, for messages.

    Returns
    -------
    Series or array
        text: String; category: String, Int64 or Boolean; categories: List(String); number: Int64 or Float64; moment:
        Datetime in microseconds, UTC. A vector is an array (n, width) float32, zero for a missing one.

    Raises
    ------
    DataError
        A value does not fit the kind: a number that is no number, vectors of unequal length, NaN, ….
    """
    if untyped and column.dtype == pl.String:
        column = without_words(column)
    if kind == "vector":
        return _vectors(column, blanks, table)
    if kind == "categories":
        return _lists(column, blanks)
    if kind == "moment":
        return _moments(column, table)
    if kind == "number":
        return _numbers(column, table)
    if kind == "category" and untyped and _ID_NAME.fullmatch(column.name):
        given = column.drop_nulls()
        if len(given) and bool(given.str.contains(_INTEGER).all()):
            return column.cast(pl.Int64)
    if column.dtype.is_nested():
        raise DataError(
            f'{table}: the column "{column.name}" holds lists: its kind is categories or vector, not {kind}.'
        )
    if kind == "category" and (column.dtype == pl.Boolean or column.dtype.is_integer()):
        return column if column.dtype == pl.Boolean else column.cast(pl.Int64)
    return column.cast(pl.String)


def _numbers(column: pl.Series, table: str) -> pl.Series:
    numbers = column
    if column.dtype == pl.String:
        integers = column.cast(pl.Int64, strict=False)
        numbers = integers if integers.null_count() == column.null_count() else column.cast(pl.Float64, strict=False)
    elif not column.dtype.is_numeric() and column.dtype != pl.Boolean:
        raise DataError(f'{table}: the column "{column.name}" has the type {column.dtype}: expected numbers.')
    bad = numbers.is_null() & column.is_not_null()
    if bool(bad.any()):
        raise DataError(
            f'{table}: the column "{column.name}" is of numbers, and {column.filter(bad)[0]!r} is none '
            f"({int(bad.sum()):,} of {len(column):,} values). Correct the values, or state another kind."
        )
    if numbers.dtype.is_integer() or numbers.dtype == pl.Boolean:
        return numbers.cast(pl.Int64)
    numbers = numbers.cast(pl.Float64).fill_nan(None)
    if bool(numbers.is_infinite().any()):
        raise DataError(f'{table}: the column "{column.name}" holds an infinite number: expected finite ones.')
    return numbers


def _moments(column: pl.Series, table: str) -> pl.Series:
    if isinstance(column.dtype, pl.Datetime):
        zoned = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if column.dtype.time_zone else column
        return zoned.cast(pl.Datetime("us"))
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us"))
    if column.dtype == pl.String:
        written = column.str.replace(" ", "T", literal=True)
        moments = pl.Series(column.name, [None], dtype=pl.Datetime("us")).new_from_index(0, len(column))
        for pattern in ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
            moments = moments.zip_with(
                moments.is_not_null(), written.str.to_datetime(pattern, time_unit="us", strict=False)
            )
        bad = column.filter(moments.is_null() & column.is_not_null())
        if len(bad):
            raise DataError(
                f'{table}: the column "{column.name}" is of moments, and {bad[0]!r} is none: expected 2024-03-01 or '
                "2024-03-01T12:00:00."
            )
        return moments
    raise DataError(f'{table}: the column "{column.name}" has the type {column.dtype}: expected dates for moments.')


def _lists(column: pl.Series, blanks: bool) -> pl.Series:
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        texts = column.cast(pl.String)
        column = texts.str.split(" " if blanks else _SEPARATOR)
    names = pl.element().cast(pl.String).str.strip_chars()
    return column.list.eval(names.filter(names.is_not_null() & (names != ""))).cast(pl.List(pl.String))


def _vectors(column: pl.Series, blanks: bool, table: str) -> Vectors:
    place = f'{table}: the column "{column.name}" of vectors'
    if column.dtype == pl.String:
        column = _parsed_vectors(column, blanks, place)
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List) or not column.dtype.inner.is_numeric():
        raise DataError(f"{place} has the type {column.dtype}: expected lists of numbers, all of the same length.")
    lengths = column.list.len()
    widths = lengths.drop_nulls().unique().sort()
    if len(widths) > 1:
        counts = lengths.drop_nulls().value_counts(sort=True)
        usual, odd = counts[column.name][0], counts[column.name][1]
        row = int((lengths == odd).arg_true()[0]) + 1
        raise DataError(
            f"{place} holds vectors of unequal length: {usual:,} numbers in most rows, {odd:,} in row {row:,}. Give "
            'every row the same length, or state that these are several categories ("categories").'
        )
    if not len(widths) or not widths[0]:
        raise DataError(f"{place} holds no numbers.")
    width = int(widths[0])
    flat = column.drop_nulls().explode()
    broken = int(flat.null_count() + (0 if flat.dtype.is_integer() else (~flat.is_finite()).sum()))
    if broken:
        rows = column.list.eval(pl.element().cast(pl.Float64).is_finite().fill_null(False)).list.all()
        row = int((rows == False).arg_true()[0]) + 1  # noqa: E712 - a Series
        raise DataError(
            f"{place} holds {broken:,} numbers that are missing, NaN or infinite, first in row {row:,}. Leave the "
            "whole vector of such a row empty (null)."
        )
    vectors = np.zeros((len(column), width), dtype=np.float32)
    vectors[column.is_not_null().to_numpy()] = flat.cast(pl.Float32).to_numpy().reshape(-1, width)
    return vectors


def _parsed_vectors(column: pl.Series, blanks: bool, place: str) -> pl.Series:
    """Vectors that were written as text: "[1, 2]", or "1 2"."""
    texts = column.str.strip_chars("[]() ").str.replace_all(r"[\s,;|]+", " ")
    numbers = texts.str.split(" ").list.eval(pl.element().cast(pl.Float64, strict=False))
    broken = numbers.list.eval(pl.element().is_null()).list.any().fill_null(False)
    if bool(broken.any()):
        raise DataError(f"{place} holds {column.filter(broken)[0]!r}: expected numbers, as in [0.1, 0.2].")
    return numbers


def read_kinds(kinds: Mapping[str, str], columns: list[str], table: str, option: str) -> dict[str, Kind]:
    """Check kinds that a user states.

    Raises
    ------
    DataError
        A column or a kind is unknown.
    """
    for name, kind in kinds.items():
        if name not in columns:
            raise DataError(f'{option} names the column "{name}", which {table} lacks: {nearest(str(name), columns)}')
        if kind not in KINDS:
            raise DataError(f'{option}: unknown kind "{kind}" of the column "{name}": {nearest(str(kind), KINDS)}')
    return {name: next(known for known in KINDS if known == kind) for name, kind in kinds.items()}
