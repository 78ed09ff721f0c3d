"""The pass over a log that finds every row that cannot be used, and names the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.layout import BROKEN, LINE, ROW, Layout, Part
from segue.data.reading.values import Reading, read_id
from segue.errors import ColumnError, DataError


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
        frames = [part.frame for part in self.parts]
        return frames[0] if len(frames) == 1 else pl.concat(frames, how="vertical_relaxed")

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
        values = values.filter(values != "") if text else values
        if not len(values):
            filled = pl.col(column).is_not_null() & (pl.col(column) != "" if text else True)
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
    return table, rows - counts["bad"], counts["bad"]


def _count(table: Table) -> dict[str, int]:
    """The numbers of rows, and of those that cannot be used, for each reason."""
    counts = [pl.len().alias("rows"), (~table.usable).sum().alias("bad"), table.broken.sum().alias("broken")]
    for role, value in table.values.items():
        empty = _empty(table, role)
        counts.append(empty.sum().alias(f"missing {role}"))
        counts.append((value.is_null() & ~empty & ~table.broken).sum().alias(f"unreadable {role}"))
    for reason, expression in (("misread", table.layout.misread), ("incomplete", table.layout.incomplete)):
        counts.append((pl.lit(0) if expression is None else expression.sum()).alias(reason))
    return collect(table, table.raw.select(counts)).row(0, named=True)


def _empty(table: Table, role: str) -> pl.Expr:
    column = pl.col(table.readings[role].column)
    text = table.sample.schema[table.readings[role].column] == pl.String
    return (column.is_null() | (column == "")) if text else column.is_null()


def _corrected(table: Table, counts: dict[str, int]) -> Table | None:
    """The table read in another way, if all rows together tell more than the sample did."""
    layout = table.layout.corrected() if counts["misread"] else None
    if layout is not None:
        parts = [
            layout.part(part.path, part.name, table.scratch, number=number)
            for number, part in enumerate(table.parts)
            if part.path is not None
        ]
        return replace(table, layout=layout, parts=tuple(parts))
    misread = [
        role for role in ("user", "item") if counts[f"unreadable {role}"] and table.readings[role].id_type == "integer"
    ]
    if not misread:
        return None
    as_text = {role: read_id(table.sample[table.readings[role].column], as_text=True) for role in misread}
    return replace(table, readings={**table.readings, **as_text})


def collect(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query over a table; a file that polars cannot read becomes a DataError that names the line."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        _raise_damage(table)
        raise DataError(f"{table.name} cannot be read as {table.layout.name}: {error}") from error


def _raise_damage(table: Table) -> None:
    for part in table.parts:
        damage = None if part.path is None else table.layout.find_damage(part.path, part.name)
        if damage is not None:
            raise damage


def _first_bad(table: Table, counts: dict[str, int]) -> DataError:
    """The error that names the first row that cannot be used."""
    columns = [reading.column for reading in table.readings.values()]
    reasons = [value.is_null().alias(f"#{role}") for role, value in table.values.items()]
    kept = [ROW, *dict.fromkeys(columns), *([LINE] if table.layout.by_line else [])]
    for part in table.parts:
        bad = part.frame.filter(~table.usable).select(*kept, *reasons, table.broken.alias("#bad")).head(1)
        first = collect(table, bad)
        if len(first):
            return _explained(table, part, first.row(0, named=True), counts)
    raise AssertionError("unreachable: bad rows were counted")


def _explained(table: Table, part: Part, row: dict[str, object], counts: dict[str, int]) -> DataError:
    number = int(str(row[ROW]))
    number = number if part.path is None else table.layout.line_of(part.path, number)
    if row["#bad"]:
        return table.layout.broken_line(part.name, number, str(row[LINE]), counts["broken"])
    role = next(role for role in table.readings if row[f"#{role}"])
    reading, value = table.readings[role], row[table.readings[role].column]
    missing, unreadable = counts[f"missing {role}"], counts[f"unreadable {role}"]
    named = f'{part.name}, {table.layout.unit} {number}: the {role} (column "{reading.column}")'
    if value is None or value == "":
        return DataError(
            f"{named} is missing. {_rows(missing)} no {role}. Fill them in, or leave such rows out with "
            f"bad_rows='drop'{'' if role in ('user', 'item') else f', or the column with {role}=False'}."
        )
    hint = "Values in several units? Give the unit with time_unit=, or l" if role == "time" else "L"
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
