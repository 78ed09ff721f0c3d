"""Values of a column as ids, times and ratings: lazy expressions.

Every expression is null for a value that cannot be used, so that one count of nulls checks a whole column.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from segue.errors import ColumnError, ConfigError

UNITS = ("s", "ms", "us", "ns")
INTEGER = r"^-?(0|[1-9][0-9]{0,18})$"
EPOCH = 1e8  # seconds: 1973. A number below it is no time of any log.

_STEP = 1_000
_TOP_OF_SECONDS = 10**11  # the year 5138; in milliseconds, 1973
_COMPACT_DATE = r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$"
_PER_UNIT = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
_DAY = r"^\d{4}-\d{2}-\d{2}"
_MINUTE = r"\d{2}:\d{2}"
_CLOCK = _MINUTE + r":\d{2}(\.\d+)?"
_ZONE = r" ?(Z|[+-]\d{2}:?\d{2})"
_COMPACT = "%Y%m%d"  # 20201231, which as seconds would be in the summer of 1970
_STYLES = {
    "integer": r"^[+-]?\d+$",
    "float": r"^[+-]?(\d+\.\d*|\.\d+|\d+(\.\d*)?[eE][+-]?\d+)$",
    "%Y-%m-%d": _DAY + "$",
    "%Y-%m-%dT%H:%M:%S%.f": _DAY + "T" + _CLOCK + "$",
    "%Y-%m-%d %H:%M:%S%.f": _DAY + " " + _CLOCK + "$",
    "%Y-%m-%dT%H:%M": _DAY + "T" + _MINUTE + "$",
    "%Y-%m-%d %H:%M": _DAY + " " + _MINUTE + "$",
    "%Y-%m-%dT%H:%M:%S%.f%#z": _DAY + "T" + _CLOCK + _ZONE + "$",
    "%Y-%m-%d %H:%M:%S%.f%#z": _DAY + " " + _CLOCK + _ZONE + "$",
}


STATED_INTEGERS = frozenset({"int", "integer", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))})
STATED_TEXTS = frozenset({"object", "str", "string", "category"})
STATED_NUMBERS = frozenset({"float", "float16", "float32", "float64", "double"})


@dataclass(frozen=True)
class Stated:
    """The type that a file states for a column.

    Attributes
    ----------
    dtype
        The type as written, such as "int32".
    file
        The file that states it, for messages.
    """

    dtype: str
    file: str

    @property
    def integer(self) -> bool:
        """True if the column holds integers. Their width is not applied: no id is ever cut to fit."""
        return self.dtype in STATED_INTEGERS

    @property
    def text(self) -> bool:
        """True if the column holds text, digits included."""
        return self.dtype in STATED_TEXTS


@dataclass(frozen=True)
class Reading:
    """Reading of one column: the expression of its values, and a noun for them in messages."""

    column: str
    value: pl.Expr
    expected: str
    id_type: str = ""


def read_id(sample: pl.Series, *, as_text: bool = False) -> Reading:
    """Reading of ids: integers (also whole floats) as Int64, all else as String.

    Parameters
    ----------
    sample
        The first values of the column; its name is the column's.
    as_text
        Keep digits as text, because a later id is no integer.

    Raises
    ------
    ColumnError
        The column holds lists or structures.
    """
    column, dtype = pl.col(sample.name), sample.dtype
    if dtype.is_nested() or dtype == pl.Object or dtype == pl.Binary:
        raise ColumnError(f'the column "{sample.name}" has the type {dtype}: an id is an integer or a string.')
    if dtype == pl.String:
        filled = pl.when(column != "").then(column)
        known = sample.drop_nulls()
        known = known.filter(known != "")
        if as_text or not len(known):
            return Reading(sample.name, filled, "an id", "text")
        if known.str.contains(INTEGER).all():
            return Reading(sample.name, canonical_integer(column), "an integer id", "integer")
        if known.str.contains(r"^-?\d+\.0*$").all():
            return Reading(sample.name, _whole(column.cast(pl.Float64, strict=False)), "a whole number", "whole")
        return Reading(sample.name, filled, "an id", "text")
    if as_text or not (dtype.is_numeric() or dtype == pl.Null):
        return Reading(sample.name, column.cast(pl.String), "an id", "text")
    if dtype.is_float() or dtype.is_decimal():
        return Reading(sample.name, _whole(column.cast(pl.Float64)), "a whole number", "whole")
    return Reading(sample.name, column.cast(pl.Int64, strict=False), "an integer id", "integer")


def read_stated_id(sample: pl.Series, stated: Stated) -> Reading:
    """Reading of ids with a stated type: integers as integers only, text as text."""
    if stated.integer:
        expected = f'an integer id, as {stated.file} says ("{stated.dtype}")'
        return Reading(sample.name, canonical_integer(pl.col(sample.name)), expected, "stated")
    return read_id(sample, as_text=stated.text)


def canonical_integer(column: pl.Expr) -> pl.Expr:
    """Text as Int64; null for 007 or +7, because other text stands for the same integer."""
    spelled = (column.str.len_bytes() == 1) | ~(column.str.starts_with("0") | column.str.starts_with("+"))
    return pl.when(spelled).then(column.cast(pl.Int64, strict=False))


def _whole(column: pl.Expr) -> pl.Expr:
    return pl.when(column == column.floor()).then(column).cast(pl.Int64, strict=False)


def read_rating(sample: pl.Series) -> Reading:
    """Reading of ratings: finite float32."""
    number = pl.col(sample.name).cast(pl.Float32, strict=False)
    return Reading(sample.name, pl.when(number.is_finite()).then(number), "a number")


def read_time(sample: pl.Series, unit: str | None) -> tuple[Reading, str]:
    """Reading of times as int64, and their unit.

    Integers keep their unit, which follows from their size. Seconds with a fraction, dates and datetimes become
    microseconds in UTC; a time without a zone counts as UTC.

    Parameters
    ----------
    sample
        The first values of the column.
    unit
        "s", "ms", "us" or "ns" if the caller knows it; then any integer is accepted.

    Raises
    ------
    ColumnError
        The values are not times.
    ConfigError
        The unit is unknown, or is given for dates.
    """
    if unit is not None and unit not in UNITS:
        raise ConfigError(f'unknown time_unit "{unit}": one of {", ".join(UNITS)}.')
    column, name = pl.col(sample.name), sample.name
    style = time_style(sample)
    if style == _COMPACT and unit is not None:
        style = "integer"
    if style is None:
        value = sample.drop_nulls().head(1).to_list()
        raise ColumnError(
            f'the column "{name}" holds no times: its first value is {value[0] if value else None!r}. Expected seconds '
            f"since 1970 (or ms, us, ns) or ISO dates (2020-12-31, 2020-12-31T23:59:59); time=False leaves it out."
        )
    if style in ("integer", "float"):
        likely_unit = unit or _unit(sample)
        expected = f"a time in {likely_unit}"
        if style == "integer":
            integers = column.cast(pl.Int64, strict=False)
            return Reading(name, _within(integers, likely_unit, checked=unit is None), expected), likely_unit
        numbers = column.cast(pl.Float64, strict=False)
        microseconds = (_within(numbers, likely_unit, checked=unit is None) * _PER_UNIT[likely_unit]).round(0)
        return Reading(name, microseconds.cast(pl.Int64, strict=False), expected), "us"
    if unit is not None:
        raise ConfigError(f'time_unit="{unit}" is for numbers; the column "{name}" holds dates, which are kept in us.')
    if style == "native":
        return Reading(name, _microseconds(column.cast(pl.Datetime("us", _zone(sample))), sample), "a time"), "us"
    text = column.cast(pl.String) if style == _COMPACT else column
    parsed = text.str.to_datetime(style, strict=False, time_unit="us")
    return Reading(name, parsed.dt.epoch("us"), f"a time like {_example(sample, style)}"), "us"


def check_stated_time(sample: pl.Series, stated: Stated | None) -> None:
    """Raise a ColumnError if integers are stated for the times, and the sample holds something else."""
    if stated is not None and stated.integer and time_style(sample) != "integer":
        raise ColumnError(
            f'the column "time" begins with {sample[0]!r}; {stated.file} says that it holds integers '
            f'("{stated.dtype}"). Correct one of the two.'
        )


def time_style(sample: pl.Series) -> str | None:
    """Style of most times in a sample: "integer", "float", "native", a strptime format, or None."""
    dtype = sample.dtype
    if dtype.is_integer() or dtype == pl.String:
        compact = sample.drop_nulls().cast(pl.String).str.contains(_COMPACT_DATE)
        if len(compact) and compact.all():
            return _COMPACT
    if dtype.is_integer():
        return "integer"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if dtype == pl.Datetime or dtype == pl.Date:
        return "native"
    if dtype != pl.String:
        return None
    shares = {style: int(sample.str.contains(pattern).sum()) for style, pattern in _STYLES.items()}
    if shares["float"]:
        shares["float"] += shares["integer"]
    best = max(shares, key=lambda style: shares[style])
    return best if shares[best] else None


def _example(sample: pl.Series, style: str) -> str:
    alike = sample.cast(pl.String).drop_nulls()
    return str(alike.filter(alike.str.contains(_STYLES.get(style, _COMPACT_DATE)))[0])


def _unit(sample: pl.Series) -> str:
    """The unit whose range holds the middle value of the sample."""
    middle = sample.cast(pl.Float64, strict=False).abs().median()
    size = float(middle) if isinstance(middle, int | float) else 0.0
    return next((unit for step, unit in enumerate(UNITS) if size < _TOP_OF_SECONDS * _STEP**step), "ns")


def _within(value: pl.Expr, unit: str, *, checked: bool) -> pl.Expr:
    """Values in the range of the unit, else null: they have another unit, or stand for "unknown"."""
    if not checked:
        return pl.when(value.is_not_null()).then(value)
    step = UNITS.index(unit)
    low = _TOP_OF_SECONDS * _STEP ** (step - 1) if step else 0
    size = value.abs()
    inside = (size >= low) & (size < _TOP_OF_SECONDS * _STEP**step) if step < 3 else size >= low
    return pl.when(inside).then(value)


def _zone(sample: pl.Series) -> str | None:
    return getattr(sample.dtype, "time_zone", None)


def _microseconds(column: pl.Expr, sample: pl.Series) -> pl.Expr:
    return column.dt.convert_time_zone("UTC").dt.epoch("us") if _zone(sample) else column.dt.epoch("us")
