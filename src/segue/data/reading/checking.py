"""The pass over a log that finds every row that cannot be used, and names the first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.layout import BROKEN, LINE, MARK, ROW, UNREADABLE, Layout, Part
from segue.data.reading.notes import warn
from segue.data.reading.values import EXACT, FRACTION, MISSING, SCIENTIFIC, WHOLE, Reading, read_id
from segue.errors import ColumnError, DataError

_IDS = ("user", "item", "session")
_AS_TEXT = ("text", "words")  # levels of `read_id` at which an id may be any word
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


@dataclass(frozen=True)
class Table:
    """A source before it is a log: raw columns, and how each is read.

    Attributes
    ----------
    name
        The source in messages.
    parts
        Its files, or its one frame.
    layout
        The format of the files.
    readings
        Role → how its column becomes ids, times or ratings.
    sample
        The first rows, raw.
    scratch
        Keeps temporary files alive.
    """

    name: str
    parts: tuple[Part, ...]
    layout: Layout
    readings: Mapping[str, Reading]
    sample: pl.DataFrame
    scratch: Scratch

    @property
    def raw(self) -> pl.LazyFrame:
        """All parts, one after the other."""
        if len(self.parts) == 1:
            return self.parts[0].frame
        # Parts may have their columns in another order, and columns that nobody needs.
        names = self.parts[0].frame.collect_schema().names()
        return pl.concat([part.frame.select(names) for part in self.parts], how="vertical_relaxed")

    @property
    def values(self) -> dict[str, pl.Expr]:
        """Role → the expression of its values; null if they cannot be used."""
        return {role: reading.value.alias(role) for role, reading in self.readings.items()}

    @property
    def usable(self) -> pl.Expr:
        """True for a row that can be used."""
        return pl.all_horizontal(value.is_not_null() for value in self.values.values()) & ~self.broken

    @property
    def broken(self) -> pl.Expr:
        """True for a line without the right form, in formats that tell line by line."""
        return pl.col(BROKEN) if self.layout.by_line else pl.lit(False)

    @property
    def suspect(self) -> pl.Expr:
        """True for a row that calls for `check`: it is bad, or shows that the first rows were misleading."""
        misread = self.layout.misread
        return ~self.usable if misread is None else ~self.usable | misread

    def first_values(self, role: str, column: str) -> pl.Series:
        """The first values of a column, searched beyond the sample if it has none.

        Raises
        ------
        ColumnError
            The column has no values at all.
        """
        sampled = self.sample[column]
        text = sampled.dtype == pl.String
        values = sampled.drop_nulls()
        values = values.filter((values != "") & ~values.is_in(MISSING)) if text else values
        if not len(values):
            named = (pl.col(column) != "") & ~pl.col(column).is_in(MISSING) if text else True
            filled = pl.col(column).is_not_null() & named
            values = collect(self, self.raw.filter(filled).select(column).head(100))[column]
        if not len(values):
            rows = collect(self, self.raw.select(pl.len())).item()
            if not rows:
                raise DataError(f"{self.name} is empty: it holds no interactions.")
            raise ColumnError(f'{self.name}: the column "{column}" ({role}) has no values at all, in {rows:,} rows.')
        return values


def check(table: Table, *, drop: bool) -> tuple[Table, int, int]:
    """Check every row.

    Parameters
    ----------
    table
        Made from a sample. If a later row shows that the sample was misleading (an id that is no integer, a field in
        quotes), the table is corrected.
    drop
        Count bad rows rather than raise an error.

    Returns
    -------
    The table, the number of usable rows and the number of the others.

    Raises
    ------
    DataError
        There are no usable rows, or bad ones and not `drop`; ColumnError if a whole column is bad.
    """
    counts = _count(table)
    corrected = _corrected(table, counts)
    if corrected is not None:
        return check(corrected, drop=drop)
    rows = counts["rows"]
    if not rows:
        raise DataError(f"{table.name} is empty: it holds no interactions.")
    if counts["bad"] and not drop:
        raise _first_bad(table, counts)
    if counts["bad"] == rows:
        raise DataError(f"{table.name}: none of its {rows:,} rows can be used. The first: {_first_bad(table, counts)}")
    if counts["incomplete"]:
        _raise_damage(table)
    for role, reading in table.readings.items():
        if counts[f"named {role}"]:
            n = counts[f"named {role}"]
            warn_of_words(table.name, role, reading.column, "1 row" if n == 1 else f"{n:,} rows")
    return table, rows - counts["bad"], counts["bad"]


def warn_of_words(name: str, role: str, column: str, rows: str) -> None:
    """Warn of ids that other programs write for a missing value."""
    warn(
        f'{name}: the column "{column}" ({role}) holds a word such as NULL or NA ({rows}). It is read as an id, '
        f"since other ids are words too. Leave such rows out if it stands for a missing value."
    )


def _count(table: Table) -> Counter[str]:
    """The numbers of rows, and of those that cannot be used, for each reason."""
    counts = [pl.len().alias("rows"), (~table.usable).sum().alias("bad"), table.broken.sum().alias("broken")]
    texts = [pl.col(table.readings[role].column) for role in _IDS if _is_words(table, role)]
    doubtful = [doubtful_id(column) | column.is_in(MISSING) for column in texts]
    counts.append((pl.any_horizontal(doubtful).sum() if doubtful else pl.lit(0)).alias("doubtful"))
    for reason, expression in (("misread", table.layout.misread), ("incomplete", table.layout.incomplete)):
        counts.append((pl.lit(0) if expression is None else expression.sum()).alias(reason))
    total = Counter(collect(table, table.raw.select(counts)).row(0, named=True))
    if not (total["bad"] or total["doubtful"]) or total["misread"]:
        return total
    reasons = [count for role in table.readings for count in _reasons(table, role)]
    return total + Counter(collect(table, table.raw.select(reasons)).row(0, named=True))


def _reasons(table: Table, role: str) -> list[pl.Expr]:
    """The numbers of rows whose value for the role is missing or unreadable, and facts about ids given as text."""
    value, empty, level = table.values[role], _empty(table, role), table.readings[role].id_type
    unreadable = value.is_null() & ~empty & ~table.broken
    counts = {"missing": empty & ~table.broken, "unreadable": unreadable}
    if role in _IDS and _is_text(table, role):
        column = pl.col(table.readings[role].column)
        whole, lost = column.str.contains(WHOLE), column.str.contains(SCIENTIFIC)
        if level == "whole":
            number = column.str.replace(r"\.0*$", "").cast(pl.Int64, strict=False)
            lost = lost | (whole & ~number.is_between(1 - EXACT, EXACT - 1).fill_null(False))
        counts |= {
            "lost": unreadable & lost,
            "whole": whole if level in _AS_TEXT else unreadable & whole & ~lost,
            "fraction": column.str.contains(FRACTION),
            "spaced": column.str.strip_chars() != column,
            "named": column.is_in(MISSING) if level in _AS_TEXT else pl.lit(False),
        }
    return [fact.sum().alias(f"{name} {role}") for name, fact in counts.items()]


def doubtful_id(column: pl.Expr) -> pl.Expr:
    """True for text that another column or row may write in another way: 13085.0, or with blanks around it."""
    ends = column.str.ends_with(".0") | column.str.ends_with(" ")
    return (ends | column.str.starts_with(" ") | column.str.ends_with("\t")).fill_null(False)


def _is_words(table: Table, role: str) -> bool:
    return role in table.readings and _is_text(table, role) and table.readings[role].id_type in _AS_TEXT


def _is_text(table: Table, role: str) -> bool:
    return table.sample.schema[table.readings[role].column] == pl.String


def _empty(table: Table, role: str) -> pl.Expr:
    """True for a missing value. Among ids that are words, NULL and the like are words too."""
    column = pl.col(table.readings[role].column)
    if not _is_text(table, role):
        return column.is_null()
    empty = column.is_null() | (column.str.strip_chars() == "")
    is_word = role in _IDS and table.readings[role].id_type not in _AS_TEXT
    return empty | column.is_in(MISSING) if is_word else empty


def _corrected(table: Table, counts: Counter[str]) -> Table | None:
    """The table read in another way, if all rows together tell more than the sample did."""
    layout = table.layout.corrected() if counts["misread"] else None
    if layout is None and any(counts[f"spaced {role}"] for role in table.readings):
        layout = table.layout.without_blanks()
    if layout is not None:
        columns = tuple(dict.fromkeys(reading.column for reading in table.readings.values()))
        parts = [
            layout.part(part.path, part.name, table.scratch, columns, number)
            for number, part in enumerate(table.parts)
            if part.path is not None
        ]
        return replace(table, layout=layout, parts=tuple(parts))
    better = {role: level for role in table.readings if (level := _better_level(table, counts, role))}
    if not better:
        return None
    readings = {role: read_id(table.sample[table.readings[role].column], level) for role, level in better.items()}
    return replace(table, readings={**table.readings, **readings})


def _better_level(table: Table, counts: Counter[str], role: str) -> str | None:
    """The level of `read_id` that suits all ids of a column; None if the present one does."""
    level, unreadable = table.readings[role].id_type, counts[f"unreadable {role}"]
    if not _is_text(table, role):
        return "text" if level == "integer" and unreadable else None
    if level == "text":
        return "words" if counts[f"whole {role}"] and not counts[f"fraction {role}"] else None
    if level not in ("integer", "whole") or unreadable == counts[f"lost {role}"]:
        return None
    if level == "integer" and unreadable == counts[f"lost {role}"] + counts[f"whole {role}"]:
        return "whole"
    return "text" if counts[f"fraction {role}"] else "words"


def collect(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query over a table; a file that polars cannot read becomes a DataError that names the line."""
    try:
        return frame.collect(engine="streaming")
    except UNREADABLE as error:
        _raise_damage(table)
        raise DataError(f"{table.name} cannot be read as {table.layout.name}: {error}") from error


def _raise_damage(table: Table) -> None:
    for part in table.parts:
        damage = None if part.path is None else table.layout.find_damage(part.path, part.name)
        if damage is not None:
            raise damage


def _first_bad(table: Table, counts: Counter[str]) -> DataError:
    """The error that names the first row that cannot be used."""
    columns = [reading.column for reading in table.readings.values()]
    reasons = [value.is_null().alias(MARK + role) for role, value in table.values.items()]
    kept = [ROW, *dict.fromkeys(columns), *([LINE] if table.layout.by_line else [])]
    for part in table.parts:
        bad = part.frame.filter(~table.usable).select(*kept, *reasons, table.broken.alias(BROKEN)).head(1)
        first = collect(table, bad)
        if len(first):
            return _explained(table, part, first.row(0, named=True), counts)
    raise AssertionError("unreachable: bad rows were counted")


def _explained(table: Table, part: Part, row: dict[str, object], counts: Counter[str]) -> DataError:
    number = int(str(row[ROW]))
    number = number if part.path is None else table.layout.line_of(part.path, number)
    if row[BROKEN]:
        return table.layout.broken_line(part.name, number, str(row[LINE]), counts["broken"])
    role = next(role for role in table.readings if row[MARK + role])
    reading, value = table.readings[role], row[table.readings[role].column]
    missing, unreadable = counts[f"missing {role}"], counts[f"unreadable {role}"]
    named = f'{part.name}, {table.layout.unit} {number}: the {role} (column "{reading.column}")'
    is_word = role in _IDS and reading.id_type not in _AS_TEXT and value in MISSING
    if value is None or (isinstance(value, str) and not value.strip()) or is_word:
        problem = f"missing ({value!r})" if value else "missing"
        return DataError(
            f"{named} is {problem}. {_rows(missing)} no {role}. Fill them in, or leave such rows out with "
            f"bad_rows='drop'{'' if role in ('user', 'item') else f', or the column with {role}=False'}."
        )
    hint = "L"
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        hint = "Write a point for the comma, or l"
    elif role == "time":
        hint = "Values in several units? Give the unit with time_unit=, or l"
    return DataError(
        f"{named} is {value!r}; expected {reading.expected}. {_rows(unreadable)} such a "
        f"value. {hint}eave such rows out with bad_rows='drop'."
    )


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def sample_of(parts: tuple[Part, ...], rows: int, layout: Layout) -> pl.DataFrame:
    """The first rows, without the lines that are broken."""
    probe = Table(parts[0].name, parts, layout, {}, pl.DataFrame(), Scratch())
    table = collect(probe, parts[0].frame.head(rows))
    return table.filter(~pl.col(BROKEN)).drop(BROKEN) if BROKEN in table.columns else table
