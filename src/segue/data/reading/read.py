"""A log of interactions from any common source: files in a dozen layouts, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from segue.data.reading.checking import Table, check, sample_of
from segue.data.reading.columns import ROLES, Column
from segue.data.reading.files import Scratch, decompressed, find_files
from segue.data.reading.formats.registry import detect
from segue.data.reading.frames import from_frame
from segue.data.reading.layout import ROW, Head, Layout, Part
from segue.data.reading.values import (
    Reading,
    Stated,
    check_stated_time,
    read_id,
    read_rating,
    read_stated_id,
    read_time,
)
from segue.display import pairs_as_html
from segue.errors import ConfigError, SegueError

SUSPECT = "#suspect"  # true for a row that is bad, or shows that the first rows were misleading
NOTHING_GIVEN: Mapping[str, Column] = dict.fromkeys(ROLES)

_SAMPLED = 2_000


@dataclass(frozen=True, eq=False)
class Log:
    """Interactions as they were recorded, checked and in one shape. Made by `segue.read`.

    Attributes
    ----------
    frame
        Lazy polars frame in the order of the source. Columns: `user` and `item` (Int64 or String) and, if the source
        has them, `time` (Int64, in `time_unit`s since 1970), `rating` (Float32) and `session` (Int64 or String). Keep
        the Log while you use the frame: temporary files are removed together with the Log.
    source
        The path, or the kind of frame.
    format
        "csv" (any separator), "inter", "user-lines", "session-file", "json", "jsonl", "python-dict", "parquet" or
        "frame".
    columns
        Column → its name in the source.
    rows
        Number of interactions.
    dropped
        Number of bad rows left out.
    time_unit
        "s", "ms", "us" or "ns"; None without times.
    """

    frame: pl.LazyFrame
    source: str
    format: str
    columns: Mapping[str, str]
    rows: int
    dropped: int = 0
    time_unit: str | None = None
    _scratch: Scratch = field(default_factory=Scratch, repr=False)

    def collect(self) -> pl.DataFrame:
        """The whole log in memory."""
        return self.frame.collect(engine="streaming")

    def __repr__(self) -> str:
        dropped = f", {self.dropped:,} bad rows dropped" if self.dropped else ""
        columns = ", ".join(f"{role}={column}" for role, column in self.columns.items())
        return f"Log({self.source}: {self.format}, {self.rows:,} interactions, {columns}{dropped})"

    def _repr_html_(self) -> str:
        facts = {"source": self.source, "format": self.format, "interactions": f"{self.rows:,}"}
        facts |= {"bad rows dropped": f"{self.dropped:,}"} if self.dropped else {}
        return pairs_as_html("Log", facts | {f"column of {role}": column for role, column in self.columns.items()})


def read(
    source: Any,
    *,
    user: Column = None,
    item: Column = None,
    time: Column = None,
    rating: Column = None,
    session: Column = None,
    format: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    time_unit: str | None = None,
    bad_rows: Literal["error", "drop"] = "error",
) -> Log:
    r"""Read a log of interactions and check every row of it.

    Format, separator, header, columns and the unit of the times are found if the content makes them certain. Otherwise
    an error says what was found and which option to pass. The source is read once, in pieces, so it may be larger than
    memory.

    Parameters
    ----------
    source
        A file, a folder or a pattern (`"logs/*.csv"`): text with any separator, with or without a header
        (MovieLens, Amazon ratings), one line per user (`user item item …`), one line per session (PARSRec), RecBole
        `.inter`, JSON lines (Amazon reviews), a JSON array of objects, lines that are Python dicts (Steam), Parquet;
        all also gzipped. Or a frame: pandas, polars, Arrow, DuckDB.
    user, item, time, rating, session
        The column: its name, or its position from 0. False leaves time, rating or session out; None finds it.
    format
        The format; None finds it. "csv", "inter", "user-lines", "session-file", "json" (an array of objects), "jsonl",
        "python-dict" or "parquet".
    separator
        Separator of the fields, of any length; `r"\s+"` is any run of blanks.
    header
        True if the first line holds names.
    time_unit
        "s", "ms", "us" or "ns" for times that are numbers. None finds it by their size: below 10^11 seconds, below
        10^14 milliseconds, and so on; a value outside that range is then bad.
    bad_rows
        "error", or "drop" to leave out rows with a missing or unreadable value; `Log.dropped` is their number.

    Returns
    -------
    Log

    Raises
    ------
    ColumnError
        A column is missing, empty, or could be one of several.
    DataError
        The source is empty, damaged or ambiguous, or a row is bad; the message names file, line and value.
    ConfigError
        An option has an impossible value.

    Examples
    --------
    >>> import polars as pl
    >>> log = read(pl.DataFrame({"user": ["ann", "bob"], "sku": [7, 9], "date": ["2024-05-01", "2024-05-02"]}))
    >>> log.columns
    {'user': 'user', 'item': 'sku', 'time': 'date'}
    """
    if bad_rows not in ("error", "drop"):
        raise ConfigError(f'bad_rows is "error" or "drop", not {bad_rows!r}.')
    given: dict[str, Column] = {"user": user, "item": item, "time": time, "rating": rating, "session": session}
    for role in ("user", "item"):
        if given[role] is False:
            raise ConfigError(f"{role}=False: a log needs users and items.")
    return open_source(source, given, format, separator, header, time_unit, drop=bad_rows == "drop").check()


@dataclass(frozen=True)
class Opened:
    """A source whose first rows have been read, and nothing else."""

    table: Table
    columns: dict[str, str]
    time_unit: str | None
    drop: bool

    def check(self) -> Log:
        """The Log, after a pass over all rows."""
        table, rows, bad = check(self.table, drop=self.drop)
        chosen = table.raw.filter(table.usable) if bad else table.raw
        return self._log(chosen.select(**table.values), rows, bad)

    def unchecked(self) -> Log:
        """The Log, to be checked while it is read: its column `SUSPECT` must be false in every row.

        `rows` is an estimate (0: unknown), and bad rows are not dropped.
        """
        frame = self.table.raw.select(**self.table.values, **{SUSPECT: self.table.suspect})
        first = self.table.layout.first.encode()
        size = sum(part.path.stat().st_size for part in self.table.parts if part.path is not None)
        return self._log(frame, size // (len(first) + 1) if first else 0, 0)

    def _log(self, frame: pl.LazyFrame, rows: int, dropped: int) -> Log:
        table = self.table
        return Log(frame, table.name, table.layout.name, self.columns, rows, dropped, self.time_unit, table.scratch)


def open_source(
    source: Any,
    given: Mapping[str, Column] = NOTHING_GIVEN,
    format: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    time_unit: str | None = None,
    *,
    drop: bool = False,
) -> Opened:
    """Open a source without the pass over all rows; arguments and errors are those of `read`."""
    scratch = Scratch()
    if isinstance(source, str | Path):
        parts, layout, roles = _open_files(Path(source), given, format, separator, header, scratch)
        stated = layout.stated_types(Path(parts[0].name))
    else:
        if format is not None or separator is not None or header is not None:
            raise ConfigError("format, separator and header are for files, not for frames.")
        parts, stated = (from_frame(source, scratch),), {}
        layout = Layout(tuple(column for column in parts[0].frame.collect_schema().names() if column != ROW))
        roles = layout.roles(given, parts[0].name, pl.DataFrame)
    sample = sample_of(parts, _SAMPLED, layout)
    name = str(source) if isinstance(source, str | Path) else parts[0].name
    table = Table(name, parts, layout, {}, sample, scratch)
    readings, unit = _readings(table, roles, time_unit, stated)
    return Opened(replace(table, readings=readings), roles, unit, drop)


def _open_files(
    source: Path,
    given: Mapping[str, Column],
    format: str | None,
    separator: str | None,
    header: bool | None,
    scratch: Scratch,
) -> tuple[tuple[Part, ...], Layout, dict[str, str]]:
    names = find_files(source)
    paths = [decompressed(file, scratch) for file in names]
    requested = [choice for choice in given.values() if isinstance(choice, str)]
    first = str(names[0])
    layout = detect(Head(paths[0], first, separator, header, requested), format)

    def sample() -> pl.DataFrame:
        return sample_of((layout.part(paths[0], first, scratch),), _SAMPLED, layout)

    roles = layout.roles(given, first, sample)
    for name, path in zip(names[1:], paths[1:], strict=True):
        layout.check_same(Head(path, str(name)), first)
    columns = tuple(dict.fromkeys(roles.values()))
    parts = [
        layout.part(path, str(name), scratch, columns, number)
        for number, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    return tuple(parts), layout, roles


def _readings(
    table: Table, roles: Mapping[str, str], time_unit: str | None, stated_types: Mapping[str, Stated]
) -> tuple[dict[str, Reading], str | None]:
    """Reading of each column, from its first values and its stated type; and the unit of the times."""
    readings: dict[str, Reading] = {}
    unit = None
    for role, column in roles.items():
        values = table.first_values(role, column)
        try:
            stated = stated_types.get(column)
            if role == "time":
                check_stated_time(values, stated)
                readings[role], unit = read_time(values, time_unit)
            elif role == "rating":
                readings[role] = read_rating(values)
            else:
                readings[role] = read_id(values) if stated is None else read_stated_id(values, stated)
        except SegueError as error:
            raise type(error)(f"{table.name}: {error}") from None
    return readings, unit
