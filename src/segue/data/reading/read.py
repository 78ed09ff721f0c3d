"""A log of interactions from any common source: files in a dozen layouts, and frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from segue.data.reading.checking import Table, check, sample_of
from segue.data.reading.columns import ROLES, Column, by_content, by_name
from segue.data.reading.formats import Layout, detect, quote
from segue.data.reading.frames import from_frame
from segue.data.reading.scanning import ROW, Part, Scratch, decompressed, find_files, scan
from segue.data.reading.session_types import Stated, read_stated, stated_time, stated_types
from segue.data.reading.values import Reading, read_id, read_rating, read_time
from segue.errors import ColumnError, ConfigError, DataError, SegueError

SUSPECT = "#suspect"  # whether a row is bad, or shows that the sample misled
NOTHING_GIVEN: Mapping[str, Column] = dict.fromkeys(ROLES)

_SAMPLED = 2_000


@dataclass(frozen=True, eq=False)
class Log:
    """Interactions as they were recorded, checked and in one shape. Made by `segue.read`.

    Attributes
    ----------
    frame
        Lazy polars frame with the columns `user` and `item` (Int64 or String), and where the source has them `time`
        (Int64, in `time_unit`s since 1970), `rating` (Float32) and `session` (Int64 or String); in the order of the
        source. Keep the Log while you use it: temporary files go with the Log.
    source
        The path, or what kind of frame it was.
    format
        "csv" (any separator), "inter", "user-lines", "session-file", "jsonl", "python-dict", "parquet" or "frame".
    columns
        Which column of the source each column is.
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

    What the content makes certain is found out: format, separator, header, which column is what, the unit of the
    times. What it leaves open is an error that says what was seen and what to pass. The source is passed over once,
    in pieces, so it may be larger than memory.

    Parameters
    ----------
    source
        A file, a folder or a pattern (`"logs/*.csv"`): text with any separator, with or without a header
        (MovieLens, Amazon ratings), one line per user (`user item item …`), one line per session (PARSRec), RecBole
        `.inter`, JSON lines (Amazon reviews), lines that are Python dicts (Steam), Parquet; all also gzipped. Or a
        frame: pandas, polars, Arrow, DuckDB.
    user, item, time, rating, session
        Which column it is: its name, or its position from 0; False leaves time, rating or session out; None finds it.
    format
        "csv", "inter", "user-lines", "session-file", "jsonl", "python-dict" or "parquet".
    separator
        Between fields, of any length; `r"\s+"` is any run of blanks.
    header
        Whether the first line holds names.
    time_unit
        "s", "ms", "us" or "ns" for times that are numbers. Found by their size: below 10^11 seconds, below 10^14
        milliseconds, and so on; then a value outside that range is bad.
    bad_rows
        "error", or "drop" to leave out rows with a missing or unreadable value; `Log.dropped` says how many.

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
    """A source whose shape is known from its first rows, and of which nothing else has been read."""

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
        """The Log, for a caller who checks while reading: its column `SUSPECT` must be false in every row.

        `rows` is an estimate (0: unknown), and bad rows are not dropped.
        """
        frame = self.table.raw.select(**self.table.values, **{SUSPECT: self.table.suspect})
        first = self.table.layout.first.encode()
        size = sum(part.path.stat().st_size for part in self.table.parts if part.path is not None)
        return self._log(frame, size // (len(first) + 1) if first else 0, 0)

    def _log(self, frame: pl.LazyFrame, rows: int, dropped: int) -> Log:
        table = self.table
        return Log(frame, table.name, table.layout.format, self.columns, rows, dropped, self.time_unit, table.scratch)


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
    """All of `read` but the pass over all rows; the same arguments and errors."""
    scratch = Scratch()
    if isinstance(source, str | Path):
        parts, layout, roles = _open_files(Path(source), given, format, separator, header, scratch)
        declared = stated_types(Path(parts[0].name)) if layout.format == "session-file" else {}
    else:
        if format is not None or separator is not None or header is not None:
            raise ConfigError("format, separator and header are for files, not for frames.")
        parts, layout, declared = (from_frame(source, scratch),), Layout("frame"), {}
        roles = _roles_of_frame(parts[0], given)
    sample = sample_of(parts, _SAMPLED, layout)
    name = str(source) if isinstance(source, str | Path) else parts[0].name
    table = Table(name, parts, layout, {}, sample, scratch)
    readings, unit = _readings(table, roles, time_unit, declared)
    return Opened(replace(table, readings=readings), roles, unit, drop)


def _open_files(
    source: Path,
    given: Mapping[str, Column],
    format: str | None,
    separator: str | None,
    header: bool | None,
    scratch: Scratch,
) -> tuple[tuple[Part, ...], Layout, dict[str, str]]:
    files = find_files(source)
    plain = [decompressed(file, scratch) for file in files]
    wanted = [choice for choice in given.values() if isinstance(choice, str)]
    first = str(files[0])
    layout = detect(plain[0], first, format=format, separator=separator, header=header, wanted=wanted)
    roles = _roles(plain[0], first, layout, given, scratch)
    for role, column in roles.items():
        if column in layout.nested:
            raise ColumnError(f'{first}: the column "{column}" ({role}) holds lists or objects, not single values.')
    fields = tuple(dict.fromkeys(roles.values())) if layout.format in ("jsonl", "python-dict") else None
    for file, path in zip(files[1:], plain[1:], strict=True):
        _same_layout(path, str(file), layout, first)
    found = [scan(path, str(file), layout, scratch, fields) for file, path in zip(files, plain, strict=True)]
    if layout.format == "session-file":  # a line is a session of its own, in each file
        found = [
            replace(part, frame=part.frame.with_columns(pl.col("line") + (number << 40)))
            for number, part in enumerate(found)
        ]
    return tuple(found), layout, roles


def _roles(path: Path, first: str, layout: Layout, given: Mapping[str, Column], scratch: Scratch) -> dict[str, str]:
    """Role → column, of the first file."""
    if layout.format == "user-lines":
        other = ("time", "rating", "session")
        _nothing_given(given, other, f"{first} holds one line per user, which has no column for")
        return {"user": "user", "item": "item"}
    if layout.format == "session-file":
        _nothing_given(given, ROLES, f"{first} is a session file, whose columns are known: leave out")
        known = {"user": "user_id", "item": "session_items", "time": "time", "session": "line"}
        return {role: column for role, column in known.items() if given[role] is not False}
    if layout.format == "parquet":
        return _roles_of_frame(scan(path, first, layout, scratch), given)
    if not layout.header and layout.format not in ("jsonl", "python-dict"):
        parts = (scan(path, first, layout, scratch),)
        return by_content(sample_of(parts, _SAMPLED, layout), given, first, quote(layout.first))
    roles = by_name(layout.fields, given, first, layout.complete or None)
    if given["session"] is None and roles.get("session") in layout.nested:
        del roles["session"]
    return roles


def _nothing_given(given: Mapping[str, Column], roles: Sequence[str], why: str) -> None:
    for role in roles:
        if given[role] not in (None, False):
            raise ConfigError(f"{why} {role}.")


def _roles_of_frame(part: Part, given: Mapping[str, Column]) -> dict[str, str]:
    try:
        columns = [column for column in part.frame.collect_schema().names() if column != ROW]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{part.name} cannot be read: {error}") from error
    return by_name(columns, given, part.name)


def _same_layout(path: Path, name: str, layout: Layout, first: str) -> None:
    """Text files of one log must agree in their header, and Parquet files be Parquet."""
    if not layout.header and layout.format != "parquet":
        return
    options = (layout.format, layout.separator or None, layout.header or None)
    other = detect(path, name, format=options[0], separator=options[1], header=options[2], wanted=())
    if other.fields != layout.fields:
        raise DataError(
            f"{name} has the columns {', '.join(other.fields)}, but {first} has {', '.join(layout.fields)}: "
            f"files of one log have the same columns."
        )


def _readings(
    table: Table, roles: Mapping[str, str], time_unit: str | None, declared: Mapping[str, Stated]
) -> tuple[dict[str, Reading], str | None]:
    """How each column is read, from its first values and from what is stated of it."""
    readings: dict[str, Reading] = {}
    unit = None
    for role, column in roles.items():
        values = table.first_values(role, column)
        try:
            stated = declared.get(column)
            if role == "time":
                readings[role], unit = read_time(stated_time(values, stated), time_unit)
            elif role == "rating":
                readings[role] = read_rating(values)
            else:
                readings[role] = read_id(values) if stated is None else read_stated(values, stated)
        except SegueError as error:
            raise type(error)(f"{table.name}: {error}") from None
    return readings, unit
