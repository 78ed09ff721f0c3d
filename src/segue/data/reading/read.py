"""A log of interactions from any common source: files in a dozen layouts, and frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl

from segue.arguments import checked
from segue.data.reading.checking import Table, check, sample_of
from segue.data.reading.columns import ROLES, Column
from segue.data.reading.files import Scratch, decompressed, find_files, plainly_named, with_line_ends
from segue.data.reading.formats.registry import detect
from segue.data.reading.frames import from_frame
from segue.data.reading.layout import MARK, ROW, FileFormat, Head, Layout, NoRowsError, Part
from segue.data.reading.notes import warn
from segue.data.reading.remote import fetch
from segue.data.reading.values import (
    UNITS,
    Reading,
    Stated,
    as_text_id,
    check_stated_time,
    read_id,
    read_rating,
    read_stated_id,
    read_time,
)
from segue.display import pairs_as_html
from segue.errors import ConfigError, SegueError
from segue.stores import is_url, name_of

SUSPECT = f"{MARK}suspect"  # true for a row that is bad, or shows that the first rows were misleading

_SAMPLED = 2_000
_PROBED = 1 << 20


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

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.read(pl.DataFrame({"user": [1, 2], "item": ["a", "b"], "time": ["2024-05-01", "2024-05-02"]}))
    >>> log.rows, log.time_unit
    (2, 'us')
    >>> log.collect().columns
    ['user', 'item', 'time']
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


@checked
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
    quote: str | None = None,
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
        all also gzipped. Or a frame: pandas, polars, Arrow, DuckDB. Files of an object store (`"s3://bucket/logs"`)
        are copied to the disk first, which needs `segue[s3]`.
    user, item, time, rating, session
        The column: its name, or its position from 0. False leaves time, rating or session out; None finds it.
    format
        The format; None finds it. "csv", "inter", "user-lines", "session-file", "json" (an array of objects), "jsonl",
        "python-dict" or "parquet".
    separator
        Separator of the fields, of any length; `r"\s+"` is any run of blanks.
    header
        True if the first line holds names.
    quote
        The quote mark around fields of delimited text, or "none" if quote marks are ordinary characters. None reads
        `"` as a quote mark where it stands around a field.
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

    Warns
    -----
    UserWarning
        No times are read, a file holds no interactions and is skipped, or an id looks like a missing value.

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.read(pl.DataFrame({"user": ["ann", "bob"], "sku": [7, 9], "date": ["2024-05-01", "2024-05-02"]}))
    >>> log.columns
    {'user': 'user', 'item': 'sku', 'time': 'date'}
    """
    options = ReadOptions(user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows)
    return open_source(source, options).check()


@dataclass(frozen=True)
class ReadOptions:
    """Options of `read`, checked; None finds a value."""

    user: Column = None
    item: Column = None
    time: Column = None
    rating: Column = None
    session: Column = None
    format: str | None = None
    separator: str | None = None
    header: bool | None = None
    quote: str | None = None
    time_unit: str | None = None
    bad_rows: str = "error"

    def __post_init__(self) -> None:
        for role in ROLES:
            choice = getattr(self, role)
            if not isinstance(choice, str | int | None):
                raise ConfigError(f"{role}={choice!r}: expected the name of a column, its position from 0, or False.")
        for name, expected in _TEXTS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"{name}={value!r}: expected {expected}.")
        if self.header is not None and not isinstance(self.header, bool):
            raise ConfigError(f"header={self.header!r}: expected True, False or None.")
        if self.separator is not None and (not self.separator or set(self.separator) & set("\r\n")):
            raise ConfigError(f"separator={self.separator!r}: expected at least one character, and no end of line.")
        if self.quote is not None and self.quote != "none" and (len(self.quote) != 1 or self.quote in "\r\n"):
            raise ConfigError(f'quote={self.quote!r}: expected one character, or "none".')
        if self.quote is not None and self.quote != "none" and not self.quote.isascii():
            raise ConfigError(f"quote={self.quote!r}: expected an ASCII character.")
        if self.time_unit is not None and self.time_unit not in UNITS:
            raise ConfigError(f'unknown time_unit "{self.time_unit}": one of {", ".join(UNITS)}.')
        if self.bad_rows not in ("error", "drop"):
            raise ConfigError(f'bad_rows is "error" or "drop", not {self.bad_rows!r}.')
        for role in ("user", "item"):
            if getattr(self, role) is False:
                raise ConfigError(f"{role}=False: a log needs users and items.")

    @property
    def columns(self) -> dict[str, Column]:
        """Role → the caller's choice of its column."""
        return {role: getattr(self, role) for role in ROLES}

    @property
    def given(self) -> list[str]:
        """Names of the options that differ from their defaults."""
        return [one.name for one in fields(self) if getattr(self, one.name) != one.default]


_TEXTS = {"format": "the name of a format", "separator": "text", "quote": "a character", "time_unit": "s, ms, us or ns"}


@dataclass(frozen=True)
class Opened:
    """A source whose first rows have been read, and nothing else; `lost` broken lines are left out already."""

    table: Table
    columns: dict[str, str]
    time_unit: str | None
    drop: bool
    lost: int = 0

    def check(self) -> Log:
        """The Log, after a pass over all rows."""
        return self.checked()[0]

    def checked(self) -> tuple[Log, Table, pl.Expr | None]:
        """The Log, its table, and the mask of the rows that can be used (None for all), after a pass over all rows."""
        table, rows, bad = check(self.table, drop=self.drop)
        usable = table.usable if bad else None
        chosen = table.raw if usable is None else table.raw.filter(usable)
        return self._log(chosen.select(**table.values), rows, bad + self.lost), table, usable

    def unchecked(self) -> Log:
        """The Log, to be checked while it is read: its column `SUSPECT` must be false in every row.

        `rows` is an estimate (0: unknown), and bad rows are not dropped.
        """
        frame = self.table.raw.select(**self.table.values, **{SUSPECT: self.table.suspect})
        first = self.table.layout.first.encode()
        size = sum(part.path.stat().st_size for part in self.table.parts if part.path is not None)
        return self._log(frame, size // (len(first) + 1) if first else 0, self.lost)

    def _log(self, frame: pl.LazyFrame, rows: int, dropped: int) -> Log:
        table = self.table
        return Log(frame, table.name, table.layout.name, self.columns, rows, dropped, self.time_unit, table.scratch)


def open_source(
    source: Any, options: ReadOptions | None = None, *, quiet: bool = False, scratch: Scratch | None = None
) -> Opened:
    """Open a source without the pass over all rows; errors are those of `read`, and so are warnings unless `quiet`.

    Temporary files are made in `scratch`, which is in the system's folder for them if it is None.
    """
    options = options or ReadOptions()
    scratch, given, lost = scratch or Scratch(), options.columns, 0
    if isinstance(source, str | Path):
        parts, layout, roles, lost = _open_files(source, options, scratch)
        stated = layout.stated_types(Path(parts[0].name))
    else:
        files_only = [name for name in ("format", "separator", "header", "quote") if getattr(options, name) is not None]
        if files_only:
            raise ConfigError("format, separator, header and quote are for files, not for frames.")
        parts, stated = (from_frame(source, scratch),), {}
        layout = Layout(tuple(column for column in parts[0].frame.collect_schema().names() if column != ROW))
        roles = layout.roles(given, parts[0].name, cache(lambda: sample_of(parts, _SAMPLED, layout)))
    parts = _alike(parts, roles)
    sample = sample_of(parts, _SAMPLED, layout)
    name = parts[0].name
    if isinstance(source, str | Path):
        name = name_of(str(source)) if is_url(source) else str(source)
    if "time" not in roles and given["time"] is None and not quiet:
        warn(
            f"{name}: no times are read, since no column looks like one. The order of the log counts as the order in "
            f"time. Name the column with the option time, or set it to false to accept this."
        )
    table = Table(name, parts, layout, {}, sample, scratch)
    readings, unit = _readings(table, roles, options.time_unit, stated)
    return Opened(replace(table, readings=readings), roles, unit, options.bad_rows == "drop", lost)


def _open_files(
    source: str | Path, options: ReadOptions, scratch: Scratch
) -> tuple[tuple[Part, ...], Layout, dict[str, str], int]:
    """The files, their layout, the roles of their columns, and the number of lines left out because they are broken."""
    given = options.columns
    requested = [choice for choice in given.values() if isinstance(choice, str)]
    local = [] if is_url(source) else find_files(Path(source))
    files = [(file, str(file)) for file in local] or fetch(str(source), scratch)
    heads = []
    for file, name in files:
        path = _plain_file(file, scratch).absolute()  # a worker may have another current folder
        heads.append(Head(path, name, options.separator, options.header, requested, options.quote))
    layout, heads = _detected(heads, options.format)
    first = heads[0]
    drop = options.bad_rows == "drop"
    paths = [layout.without_broken(head.path, scratch) if drop else (head.path, 0) for head in heads]

    @cache
    def sample() -> pl.DataFrame:
        return sample_of((layout.part(paths[0][0], first.name, scratch),), _SAMPLED, layout)

    roles = layout.roles(given, first.name, sample)
    columns = tuple(dict.fromkeys(roles.values()))
    ids = [roles[role] for role in ("user", "item", "session") if role in roles]
    for head, (path, _) in zip(heads, paths, strict=True):
        layout.check_ids(path, head.name, ids)
    parts = [
        layout.part(path, head.name, scratch, columns, number)
        for number, (head, (path, _)) in enumerate(zip(heads, paths, strict=True))
    ]
    return tuple(parts), layout, roles, sum(broken for _, broken in paths)


def _plain_file(file: Path, scratch: Scratch) -> Path:
    """The file as text that every format can read: unpacked, under a plain name, lines ending in line feeds."""
    path = plainly_named(decompressed(file, scratch), scratch)
    with path.open("rb") as stream:
        start = stream.read(_PROBED)
    is_text = not start.startswith(b"PAR1") and b"\0" not in start
    return with_line_ends(path, scratch) if is_text and start.count(b"\r") != start.count(b"\r\n") else path


def _detected(heads: list[Head], format: str | None) -> tuple[FileFormat, list[Head]]:
    """The layout of the files, and those of them that hold interactions; others are skipped with a warning."""
    layout: FileFormat | None = None
    kept: list[Head] = []
    for head in heads:
        try:
            if layout is None:
                layout = detect(head, format)
            else:
                layout.check_same(head, kept[0].name)
            kept.append(head)
        except NoRowsError as error:
            if len(heads) == 1:
                raise
            problem = error
    if layout is None:
        raise problem
    if len(kept) < len(heads):
        empty = [head.name for head in heads if head not in kept]
        more = f" and {len(empty) - 3} more files" if len(empty) > 3 else ""
        warn(f"{', '.join(empty[:3])}{more}: skipped, since no interactions are in there.")
    return layout, kept


def _alike(parts: tuple[Part, ...], roles: Mapping[str, str]) -> tuple[Part, ...]:
    """Parts whose ids have one type: as text, if the types of a column differ."""
    if len(parts) == 1:
        return parts
    schemas = [part.frame.collect_schema() for part in parts]
    ids = {column for role, column in roles.items() if role in ("user", "item", "session")}
    mixed = [column for column in ids if len({schema[column] for schema in schemas}) > 1]
    if not mixed:
        return parts
    return tuple(
        replace(part, frame=part.frame.with_columns(as_text_id(pl.col(c), schema[c]) for c in mixed))
        for part, schema in zip(parts, schemas, strict=True)
    )


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
