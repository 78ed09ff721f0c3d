"""Values of a column as ids, times and ratings: lazy expressions.

Every expression is null for a value that cannot be used, so that one count of nulls checks a whole column.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import polars as pl

from segue.errors import ColumnError, ConfigError

UNITS = ("s", "ms", "us", "ns")
INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
WHOLE = r"^(0|-?[1-9][0-9]*)\.0*$"
"""A whole number that was written as a float, such as 13085.0: the same id as 13085."""
FRACTION = r"^-?[0-9]+\.[0-9]*[1-9][0-9]*$"
SCIENTIFIC = r"^-?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+$"
"""A number in scientific notation: as an id it has lost digits."""
MISSING = ("NULL", "null", "Null", "NA", "<NA>", "N/A", "n/a", "#N/A", "NaN", "nan", "NAN", "NaT", "None", r"\N")
"""Words that other programs write for a missing value."""
EXACT = 2**53
"""From here on neighbouring whole numbers are the same float64."""

_STEP = 1_000
_TOP_OF_SECONDS = 10**11  # the year 5138; in milliseconds, 1973
_OF_OUR_TIME = 631_152_000.0  # seconds: 1990
_EARLIEST = 10**8  # seconds: 1973. If most times are of our time, a smaller one has another scale.
_LATEST = 4_102_444_800.0  # seconds: 2100
_TICKS = (621_355_968_000_000_000.0, 662_380_416_000_000_000.0)  # .NET: 100 ns since the year 1, from 1970 to 2100
_EXCEL_DAYS = (25_569.0, 73_051.0)  # days since 1900, from 1970 to 2100
_DATE_NAME = re.compile(r"date|day|dt$|time", re.IGNORECASE)
_PER_UNIT = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
_DAY = r"^\d{4}-\d{2}-\d{2}"
_SLASHED = r"^\d{4}/\d{2}/\d{2}"
_MINUTE = r"\d{2}:\d{2}"
_CLOCK = _MINUTE + r":\d{2}(\.\d+)?"
_ZONE = r" ?(Z|[+-]\d{2}:?\d{2})"
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
    "%Y/%m/%d": _SLASHED + "$",
    "%Y/%m/%d %H:%M": _SLASHED + " " + _MINUTE + "$",
    "%Y/%m/%d %H:%M:%S%.f": _SLASHED + " " + _CLOCK + "$",
    "%a %b %d %H:%M:%S %z %Y": r"^[A-Z][a-z]{2} [A-Z][a-z]{2} \d{2} \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}$",
}
_YEAR, _MONTH, _DATE, _HOUR, _SIXTY = (
    r"(19|20)\d{2}",
    r"(0[1-9]|1[0-2])",
    r"(0[1-9]|[12]\d|3[01])",
    r"([01]\d|2[0-3])",
    r"[0-5]\d",
)
_DIGITS = {
    "%Y%m%d": (_YEAR + _MONTH + _DATE, "000000"),
    "%Y%m": (_YEAR + _MONTH, "01000000"),
    "%Y%m%d%H": (_YEAR + _MONTH + _DATE + _HOUR, "0000"),
    "%Y%m%d%H%M": (_YEAR + _MONTH + _DATE + _HOUR + _SIXTY, "00"),
    "%Y%m%d%H%M%S": (_YEAR + _MONTH + _DATE + _HOUR + _SIXTY + _SIXTY, ""),
}
"""Dates written as digits: the form, and the digits that make it a moment. 20201231 as seconds would be in 1970."""
_DAY_OR_MONTH = r"^(\d{1,2})([/.-])(\d{1,2})[/.-]\d{4}(?: \d{1,2}:\d{2}(:\d{2})?)?$"
_UNCERTAIN = "day or month first"
"""Style of dates such as 01/02/2020, if no value tells the day from the month."""


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
    """Reading of one column: the expression of its values, and a noun for them in messages.

    Attributes
    ----------
    id_type
        For ids, the level of `read_id`, or "float", "stated".
    is_count
        For times, True if they are small numbers: steps or counts rather than moments.
    """

    column: str
    value: pl.Expr
    expected: str
    id_type: str = ""
    is_count: bool = False


def read_id(sample: pl.Series, level: str = "") -> Reading:
    """Reading of ids, by one rule for every column: integers as Int64, all else as String, nothing through a float.

    A whole number written as a float (13085.0) is the same id as the integer. It is refused from 2^53 on, and so is
    scientific notation among integers: such numbers have lost digits.

    Parameters
    ----------
    sample
        The first values of the column; its name is the column's.
    level
        The reading to use, because the sample misled: "whole" (integers, some of them written as floats), "words"
        (text, in which 13085.0 is 13085) or "text". Empty to find it.

    Raises
    ------
    ColumnError
        The column holds lists or structures.
    """
    column, dtype, name = pl.col(sample.name), sample.dtype, sample.name
    if dtype.is_nested() or dtype == pl.Object or dtype == pl.Binary:
        raise ColumnError(f'the column "{name}" has the type {dtype}: an id is an integer or a string.')
    if dtype == pl.String:
        return _read_text_id(name, column, level or _id_level(sample))
    if dtype.is_float() and level not in ("words", "text"):
        limit = 2**24 if dtype == pl.Float32 else EXACT
        whole = pl.when((column == column.floor()) & (column.abs() < limit)).then(column)
        exponent = 24 if dtype == pl.Float32 else 53
        expected = f"a whole number below 2^{exponent} (floats beyond it have lost digits: pass integers or text)"
        return Reading(name, whole.cast(pl.Int64, strict=False), expected, "float")
    if isinstance(dtype, pl.Decimal) and dtype.scale:
        # Only as text is a decimal both exact and comparable with ids of other columns.
        return _read_text_id(name, column.cast(pl.String), level or "whole")
    if level in ("words", "text") or not (dtype.is_numeric() or dtype == pl.Null):
        return Reading(name, column.cast(pl.String), "an id", "text")
    return Reading(name, column.cast(pl.Int64, strict=False), "an integer id", "integer")


def _id_level(sample: pl.Series) -> str:
    """Reading that suits ids given as text."""
    known = sample.drop_nulls()
    known = known.filter((known.str.strip_chars() != "") & ~known.is_in(MISSING))
    if not len(known):
        return "text"
    if known.str.contains(INTEGER).all():
        return "integer"
    if known.str.contains(f"{INTEGER}|{WHOLE}|{SCIENTIFIC}").all():
        return "whole"
    return "words" if known.str.contains(WHOLE).any() and not known.str.contains(FRACTION).any() else "text"


def _read_text_id(name: str, column: pl.Expr, level: str) -> Reading:
    if level == "integer":
        return Reading(name, canonical_integer(column), "an integer id", level)
    if level == "whole":
        number = canonical_integer(column.str.replace(r"\.0*$", ""))
        exact = ~column.str.contains(".", literal=True) | number.is_between(1 - EXACT, EXACT - 1)
        expected = "an integer id, without lost digits (1e+16 and floats from 2^53 on have lost some)"
        return Reading(name, pl.when(exact).then(number), expected, level)
    if level == "words":
        column = column.str.strip_chars()
        column = pl.when(column.str.contains(WHOLE)).then(column.str.replace(r"\.0*$", "")).otherwise(column)
    return Reading(name, pl.when(column != "").then(column), "an id", level)


def read_stated_id(sample: pl.Series, stated: Stated) -> Reading:
    """Reading of ids with a stated type: integers as integers only, text as text."""
    if stated.integer:
        expected = f'an integer id, as {stated.file} says ("{stated.dtype}")'
        return Reading(sample.name, canonical_integer(pl.col(sample.name)), expected, "stated")
    return read_id(sample, "text" if stated.text else "")


def canonical_integer(column: pl.Expr) -> pl.Expr:
    """Text as Int64; null for 007, +7 or -0, because other text stands for the same integer."""
    odd = column.str.starts_with("0") | column.str.starts_with("+") | column.str.starts_with("-0")
    return pl.when((column.str.len_bytes() == 1) | ~odd).then(column.cast(pl.Int64, strict=False))


def as_text_id(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Ids of any type as text in which equal ids are equal, for parts of a log whose types differ."""
    if dtype.is_float():
        whole = pl.when((column == column.floor()) & (column.abs() < EXACT)).then(column).cast(pl.Int64, strict=False)
        return pl.coalesce(whole.cast(pl.String), column.cast(pl.String))
    return column.cast(pl.String)


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
    name = sample.name
    style = time_style(sample)
    if style in _DIGITS and unit is not None:
        style = "integer" if not (sample.dtype.is_float() or sample.dtype.is_decimal()) else "float"
    if style is None:
        value = sample.drop_nulls().head(1).to_list()
        raise ColumnError(
            f'the column "{name}" holds no times: its first value is {value[0] if value else None!r}. Expected seconds '
            f"since 1970 (or ms, us, ns) or ISO dates (2020-12-31, 2020-12-31T23:59:59); time=False leaves it out."
        )
    if style == _UNCERTAIN:
        raise ColumnError(
            f'the column "{name}" holds dates such as {sample.drop_nulls()[0]!r}, in which the day cannot be told from '
            f"the month. Write them as 2020-12-31, or leave them out with time=False."
        )
    if style in ("integer", "float"):
        reading, result_unit = _read_numbers(sample, style, unit)
    elif unit is not None:
        raise ConfigError(f'time_unit="{unit}" is for numbers; the column "{name}" holds dates, which are kept in us.')
    else:
        reading, result_unit = _read_dates(sample, style), "us"
    if unit is None:
        _check_moments(sample, reading, result_unit)
    return reading, result_unit


def _read_numbers(sample: pl.Series, style: str, unit: str | None) -> tuple[Reading, str]:
    column, likely_unit = pl.col(sample.name), unit or _unit(sample)
    limits = None if unit is not None else _limits(sample, likely_unit)
    expected = f"a time in {likely_unit}"
    if style == "integer":
        integers = column.cast(pl.Int64, strict=False)
        is_count = abs(_middle(sample)) < _EARLIEST
        return Reading(sample.name, _within(integers, limits), expected, is_count=is_count), likely_unit
    numbers = column.cast(pl.Float64, strict=False)
    microseconds = (_within(numbers, limits) * _PER_UNIT[likely_unit]).round(0)
    return Reading(sample.name, microseconds.cast(pl.Int64, strict=False), expected), "us"


def _read_dates(sample: pl.Series, style: str) -> Reading:
    column, name = pl.col(sample.name), sample.name
    if style == "native":
        return Reading(name, _microseconds(column.cast(pl.Datetime("us", _zone(sample))), sample), "a time")
    example = _example(sample, style)
    if style in _DIGITS:
        form, rest = _DIGITS[style]
        text = _digits(column, sample.dtype)
        moment = pl.when(text.str.contains(f"^{form}$")).then(text + rest)
        parsed = moment.str.to_datetime("%Y%m%d%H%M%S", strict=False, time_unit="us")
        return Reading(name, parsed.dt.epoch("us"), f"a date like {example}")
    parsed = column.str.to_datetime(style, strict=False, time_unit="us")
    return Reading(name, parsed.dt.epoch("us"), f"a time like {example}")


def moments(sample: pl.Series) -> pl.Series | None:
    """Times of a sample in microseconds since 1970, as Float64; None if it holds no times."""
    try:
        reading, unit = read_time(sample, None)
    except ColumnError:
        return None
    values = sample.to_frame().select(reading.value.cast(pl.Float64) * _PER_UNIT[unit]).to_series()
    return values if values.is_not_null().any() else None


def _check_moments(sample: pl.Series, reading: Reading, unit: str) -> None:
    """Raise a ColumnError if most of the times lie outside of 1970 to 2100: they are something else."""
    given = sample.drop_nulls()
    _check_other_epochs(given)
    if reading.is_count:
        return
    microseconds = given.to_frame().select(reading.value.cast(pl.Float64) * _PER_UNIT[unit]).to_series()
    inside = microseconds.is_between(0, _LATEST * _PER_UNIT["s"], closed="left").fill_null(True)
    if len(given) and int((~inside).sum()) * 2 > len(given):
        outside = given.filter(~inside)
        if outside.dtype.is_temporal():
            outside = outside.cast(pl.String)  # Python has no years beyond 1 to 9999
        way_out = (
            "" if unit == "us" and time_style(sample) == "native" else "give the unit of numbers with time_unit=, "
        )
        raise ColumnError(
            f'most times of the column "{sample.name}" lie before 1970 or after 2100, such as '
            f"{outside[0]!r} (read in {unit}): {way_out}name another column with time=, or leave the "
            f"times out with time=False."
        )


def _check_other_epochs(given: pl.Series) -> None:
    """Raise a ColumnError for numbers that are most likely .NET ticks or the day numbers of Excel."""
    style = time_style(given)
    if style not in ("integer", "float") or not len(given):
        return
    values = given.cast(pl.Float64, strict=False)
    if int(values.is_between(*_TICKS).sum()) * 2 > len(given):
        raise ColumnError(
            f'the column "{given.name}" holds numbers such as {given[0]!r}, which look like .NET ticks (100 ns since '
            "the year 1). Turn them into seconds: (ticks - 621355968000000000) / 10000000. If they are nanoseconds of "
            "1990, give time_unit='ns'; time=False leaves them out."
        )
    days = values.is_between(*_EXCEL_DAYS, closed="left")
    fractions = style == "float" and bool((values != values.floor()).any())
    if bool(days.fill_null(True).all()) and days.any() and (fractions or _DATE_NAME.search(given.name)):
        raise ColumnError(
            f'the column "{given.name}" holds numbers such as {given[0]!r}, which look like day numbers of Excel. Turn '
            "them into seconds: (days - 25569) * 86400. If they are counts, give time_unit='s'; time=False leaves them "
            "out."
        )


def check_stated_time(sample: pl.Series, stated: Stated | None) -> None:
    """Raise a ColumnError if integers are stated for the times, and the sample holds something else."""
    if stated is not None and stated.integer and time_style(sample) != "integer":
        raise ColumnError(
            f'the column "time" begins with {sample[0]!r}; {stated.file} says that it holds integers '
            f'("{stated.dtype}"). Correct one of the two.'
        )


def time_style(sample: pl.Series) -> str | None:
    """Style of most times in a sample: "integer", "float", "native", a strptime format, or None."""
    dtype, given = sample.dtype, sample.drop_nulls()
    number = dtype.is_float() or dtype.is_decimal()
    if (dtype.is_integer() or number or dtype == pl.String) and (style := _digit_style(given)):
        return style
    if dtype.is_integer():
        return "integer"
    if number:
        return "float"
    if dtype == pl.Datetime or dtype == pl.Date:
        return "native"
    if dtype != pl.String:
        return None
    shares = {style: int(given.str.contains(pattern).sum()) for style, pattern in _STYLES.items()}
    if shares["float"]:
        shares["float"] += shares["integer"]
    best = max(shares, key=lambda style: shares[style])
    return best if shares[best] else _day_month_style(given)


def kind_of_times(sample: pl.Series) -> str | None:
    """Kind of the times in a sample: "dates"; "numbers", if nearly all can be moments of our time; None if none.

    Numbers can be ids as well, so they are only a hint.
    """
    style = time_style(sample)
    given = sample.drop_nulls()
    if style is None or not len(given):
        return None
    if style in ("native", _UNCERTAIN):
        return "dates"
    if style not in ("integer", "float"):
        # Six digits are more often an id than a month.
        return "dates" if style != "%Y%m" and _matching(given, style) * 2 > len(given) else None
    values = given.cast(pl.Float64, strict=False)
    scales = ((_OF_OUR_TIME * 10.0**power, _LATEST * 10.0**power) for power in (0, 3, 6, 9))
    inside = [int(values.is_between(low, high).sum()) for low, high in scales]
    return "numbers" if max(inside) >= 0.99 * len(given) else None


def _matching(given: pl.Series, style: str) -> int:
    """Number of values in the style of a date."""
    if style in _DIGITS:
        return _digit_count(_digit_text(given), style)
    pattern = _STYLES.get(style, _DAY_OR_MONTH)
    return int(given.str.contains(pattern).sum())


def _digit_style(given: pl.Series) -> str | None:
    """Style of dates written as digits, if most values are such dates."""
    text = _digit_text(given)
    return next((style for style in _DIGITS if _digit_count(text, style) * 2 > len(text)), None) if len(text) else None


def _digit_count(text: pl.Series, style: str) -> int:
    return int(text.str.contains(f"^{_DIGITS[style][0]}$").sum())


def _digit_text(given: pl.Series) -> pl.Series:
    return given.to_frame("#").select(_digits(pl.col("#"), given.dtype)).to_series()


def _digits(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Numbers as text without a fraction of zeros."""
    if dtype == pl.String:
        return column.str.replace(r"\.0*$", "")
    return pl.when(column == column.floor()).then(column).cast(pl.Int64, strict=False).cast(pl.String)


def _day_month_style(given: pl.Series) -> str | None:
    """Style of dates such as 12/31/2020 8:26: a number above 12 tells the day from the month."""
    alike = given.filter(given.str.contains(_DAY_OR_MONTH))
    if not len(alike):
        return None
    first, second = (int(alike.str.extract(_DAY_OR_MONTH, group).cast(pl.Int64).max()) for group in (1, 3))  # type: ignore[arg-type]
    if (first > 12) == (second > 12):
        return _UNCERTAIN
    mark = alike.str.extract(_DAY_OR_MONTH, 2)[0]
    clock = " %H:%M:%S" if alike[0].count(":") == 2 else " %H:%M" if ":" in alike[0] else ""
    return f"%d{mark}%m{mark}%Y{clock}" if first > 12 else f"%m{mark}%d{mark}%Y{clock}"


def _example(sample: pl.Series, style: str) -> str:
    given = sample.drop_nulls()
    if style in _DIGITS:
        text = _digit_text(given)
        return str(text.filter(text.str.contains(f"^{_DIGITS[style][0]}$"))[0])
    return str(given.filter(given.str.contains(_STYLES.get(style, _DAY_OR_MONTH)))[0])


def _unit(sample: pl.Series) -> str:
    """The unit whose range holds the middle value of the sample."""
    size = abs(_middle(sample))
    return next((unit for step, unit in enumerate(UNITS) if size < _TOP_OF_SECONDS * _STEP**step), "ns")


def _middle(sample: pl.Series) -> float:
    middle = sample.cast(pl.Float64, strict=False).median()
    return float(middle) if isinstance(middle, int | float) else 0.0


def _limits(sample: pl.Series, unit: str) -> tuple[float, float]:
    """Lowest and highest value of the unit's scale. Values beyond have another scale, or stand for "unknown"."""
    step = UNITS.index(unit)
    top = math.inf if unit == "ns" else _TOP_OF_SECONDS * _STEP**step
    if step:
        low = _TOP_OF_SECONDS * _STEP ** (step - 1)
        return (low, top) if _middle(sample) >= 0 else (-top, -low)
    middle = _middle(sample)
    if middle >= _OF_OUR_TIME:
        return _EARLIEST, top
    # Small numbers are steps or counts; a moment of our time among them has another scale.
    return -top, (_OF_OUR_TIME if abs(middle) < _EARLIEST else top)


def _within(value: pl.Expr, limits: tuple[float, float] | None) -> pl.Expr:
    if limits is None:
        return value
    low, high = limits
    inside = value >= low if high == math.inf else (value >= low) & (value < high)
    return pl.when(inside).then(value)


def _zone(sample: pl.Series) -> str | None:
    return getattr(sample.dtype, "time_zone", None)


def _microseconds(column: pl.Expr, sample: pl.Series) -> pl.Expr:
    return column.dt.convert_time_zone("UTC").dt.epoch("us") if _zone(sample) else column.dt.epoch("us")
