"""One pass over a log that finds everything in it that cannot be used, and says where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from segue.data.reading.damage import broken_line, broken_session, find_damage, line_of
from segue.data.reading.formats import Layout, split
from segue.data.reading.scanning import BROKEN, LINE, ROW, Part, Scratch, scan
from segue.data.reading.values import Reading, read_id
from segue.errors import ColumnError, DataError


@dataclass(frozen=True)
class Table:
    """A log before it is a log: raw columns, and how each is read.

    Attributes
    ----------
    name
        What to call the source in messages.
    parts
        Its files, or its one frame.
    layout
        How the files are read.
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
        """Role → the expression of its values; null where they cannot be used."""
        return {role: reading.value.alias(role) for role, reading in self.readings.items()}

    @property
    def usable(self) -> pl.Expr:
        """Whether a row can be used."""
        return pl.all_horizontal(value.is_not_null() for value in self.values.values()) & ~self.broken

    @property
    def broken(self) -> pl.Expr:
        """Whether a line is not made as it should be, where that is known line by line."""
        return pl.col(BROKEN) if self.by_line else pl.lit(False)

    @property
    def suspect(self) -> pl.Expr:
        """Whether a row, once seen, calls for `check`: it is bad, or shows that the sample misled."""
        if not self.split_here:
            return ~self.usable
        return ~self.usable | pl.col(LINE).str.contains('"', literal=True)

    @property
    def split_here(self) -> bool:
        """Whether the parts hold whole lines, split by us."""
        return self.layout.format in ("csv", "inter") and not self.layout.quoted

    @property
    def by_line(self) -> bool:
        """Whether each row knows its whole line, and whether it is broken."""
        return self.split_here or self.layout.format == "session-file"

    def first_values(self, role: str, column: str) -> pl.Series:
        """The first values of a column, searched beyond the sample when it has none.

        Raises
        ------
        ColumnError
            There are none at all.
        """
        sampled = self.sample[column]
        text = sampled.dtype == pl.String
        known = sampled.drop_nulls()
        known = known.filter(known != "") if text else known
        if not len(known):
            chosen = pl.col(column).is_not_null() & (pl.col(column) != "" if text else True)
            known = collect(self, self.raw.filter(chosen).select(column).head(100))[column]
        if not len(known):
            rows = collect(self, self.raw.select(pl.len())).item()
            if not rows:
                raise DataError(f"{self.name} is empty: it holds no interactions.")
            raise ColumnError(f'{self.name}: the column "{column}" ({role}) has no values at all, in {rows:,} rows.')
        return known


def check(table: Table, *, drop: bool) -> tuple[Table, int, int]:
    """Check every row.

    Parameters
    ----------
    table
        What was made from a sample. Where a later row shows that the sample misled (an id that is no integer, a
        field in quotes), the table is corrected.
    drop
        Bad rows are counted rather than raised.

    Returns
    -------
    The table, the number of usable rows and the number of the others.

    Raises
    ------
    DataError
        There are no usable rows, or bad ones and not `drop`; ColumnError when a whole column is bad.
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
    if table.layout.quoted and counts["short"]:
        _raise_damage(table)
    return table, rows - counts["bad"], counts["bad"]


def _count(table: Table) -> dict[str, int]:
    """The numbers of rows, and of those that cannot be used, for each reason."""
    wanted = [pl.len().alias("rows"), (~table.usable).sum().alias("bad"), table.broken.sum().alias("broken")]
    for role, value in table.values.items():
        empty = _empty(table, role)
        wanted.append(empty.sum().alias(f"missing {role}"))
        wanted.append((value.is_null() & ~empty & ~table.broken).sum().alias(f"unreadable {role}"))
    if table.split_here:
        wanted.append(pl.col(LINE).str.contains('"', literal=True).any().alias("quotes"))
    if table.layout.quoted:
        wanted.append(pl.col(table.layout.fields[-1]).null_count().alias("short"))
    return collect(table, table.raw.select(wanted)).row(0, named=True)


def _empty(table: Table, role: str) -> pl.Expr:
    column = pl.col(table.readings[role].column)
    text = table.sample.schema[table.readings[role].column] == pl.String
    return (column.is_null() | (column == "")) if text else column.is_null()


def _corrected(table: Table, counts: dict[str, int]) -> Table | None:
    """The table read in another way, where all rows together tell more than the sample did."""
    if counts.get("quotes") and len(table.layout.separator) == 1:
        layout = replace(table.layout, quoted=True)
        parts = [scan(part.path, part.name, layout, table.scratch) for part in table.parts if part.path is not None]
        return replace(table, layout=layout, parts=tuple(parts))
    misread = [
        role for role in ("user", "item") if counts[f"unreadable {role}"] and table.readings[role].kind == "integer"
    ]
    if not misread:
        return None
    as_text = {role: read_id(table.sample[table.readings[role].column], as_text=True) for role in misread}
    return replace(table, readings={**table.readings, **as_text})


def collect(table: Table, frame: pl.LazyFrame) -> pl.DataFrame:
    """Run a query over a table; what polars cannot read becomes a DataError that names the line."""
    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        _raise_damage(table)
        raise DataError(f"{table.name} cannot be read as {table.layout.format}: {error}") from error


def _raise_damage(table: Table) -> None:
    for part in table.parts:
        damage = find_damage(part, table.layout)
        if damage is not None:
            raise damage


def _first_bad(table: Table, counts: dict[str, int]) -> DataError:
    """The error that names the first row that cannot be used."""
    columns = [reading.column for reading in table.readings.values()]
    reasons = [value.is_null().alias(f"#{role}") for role, value in table.values.items()]
    kept = [ROW, *dict.fromkeys(columns), *([LINE] if table.by_line else [])]
    for part in table.parts:
        bad = part.frame.filter(~table.usable).select(*kept, *reasons, table.broken.alias("#bad")).head(1)
        found = collect(table, bad)
        if len(found):
            return _explained(table, part, found.row(0, named=True), counts)
    raise AssertionError("unreachable: bad rows were counted")


def _explained(table: Table, part: Part, row: dict[str, object], counts: dict[str, int]) -> DataError:
    number = line_of(part, table.layout, int(str(row[ROW])))
    where = f"{part.name}, {part.rows} {number}"
    if row["#bad"]:
        line, layout = str(row[LINE]), table.layout
        if layout.format == "session-file":
            return broken_session(part.name, number, line, count=counts["broken"])
        found = len(split([line], layout.separator, False)[0])
        return broken_line(part.name, number, found, len(layout.fields), line, count=counts["broken"])
    role = next(role for role in table.readings if row[f"#{role}"])
    reading, value = table.readings[role], row[table.readings[role].column]
    missing, unreadable = counts[f"missing {role}"], counts[f"unreadable {role}"]
    named = f'the {role} (column "{reading.column}")'
    if value is None or value == "":
        return DataError(
            f"{where}: {named} is missing. {_rows(missing)} no {role}. Fill them in, or leave such rows out with "
            f"bad_rows='drop'{'' if role in ('user', 'item') else f', or the column with {role}=False'}."
        )
    hint = "Values in several units? Give the unit with time_unit=, or l" if role == "time" else "L"
    return DataError(
        f"{where}: {named} is {value!r}; expected {reading.expected}. {_rows(unreadable)} such a "
        f"value. {hint}eave such rows out with bad_rows='drop'."
    )


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count:,} rows have"


def sample_of(parts: tuple[Part, ...], rows: int, layout: Layout) -> pl.DataFrame:
    """The first rows, without the lines that are broken."""
    frame = parts[0].frame.head(rows)
    probe = Table(parts[0].name, parts, layout, {}, pl.DataFrame(), Scratch())
    table = collect(probe, frame)
    return table.filter(~pl.col(BROKEN)).drop(BROKEN) if BROKEN in table.columns else table
