"""Files as lazy frames of raw columns, a row number beside them; nothing is loaded, whatever the size."""

from __future__ import annotations

import gzip
import itertools
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from segue.data.reading.formats import WHITESPACE, Layout, parse_record, quote
from segue.errors import DataError

ROW = "#row"  # 1-based number of the line or row
LINE = "#line"  # the whole line, in formats that are split here
BROKEN = "#broken"  # whether the line has another number of fields than the first

_BATCH = 50_000
_COPY = 1 << 20


class Scratch:
    """A temporary folder, made when first asked for, removed when nobody holds this object any more."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._count = itertools.count(1)

    def path(self, name: str) -> Path:
        """A place in the folder for a new file, whose name ends in `name`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="segue-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"{next(self._count):06d}-{name}"


@dataclass(frozen=True)
class Part:
    """One file (or frame) of a log.

    Attributes
    ----------
    name
        What to call it in messages.
    frame
        Lazy; its columns, and `ROW`.
    path
        The decompressed file; None for frames.
    rows
        "line" or "row": what `ROW` counts.
    """

    name: str
    frame: pl.LazyFrame
    path: Path | None = None
    rows: str = "line"


def find_files(source: Path) -> list[Path]:
    """The files that a path means: itself, those of a folder, or those that match a pattern, in order of name.

    Raises
    ------
    DataError
        There is none, or a folder holds several kinds.
    """
    if source.is_file():
        return [source]
    if source.is_dir():
        files = sorted(f for f in source.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))
        kinds = sorted({"".join(f.suffixes[-2:] if f.suffix == ".gz" else f.suffixes[-1:]) for f in files})
        if len(kinds) > 1:
            raise DataError(f"{source} holds files of several kinds ({', '.join(kinds)}): pass a pattern like *.csv.")
        if not files:
            raise DataError(f"{source} is a folder without files in it.")
    else:
        files = _matching(source)
    if not files:
        near = ", ".join(sorted(f.name for f in source.parent.iterdir())[:10]) if source.parent.is_dir() else ""
        raise DataError(f"{source}: no such file{f'; {source.parent} holds: {near}' if near else ''}.")
    return files


def _matching(pattern: Path) -> list[Path]:
    """Files that match a path with wildcards in any of its parts."""
    wild = next((n for n, part in enumerate(pattern.parts) if any(mark in part for mark in "*?[")), None)
    if wild is None:
        return []
    return sorted(f for f in Path(*pattern.parts[:wild]).glob("/".join(pattern.parts[wild:])) if f.is_file())


def decompressed(path: Path, scratch: Scratch) -> Path:
    """The file itself, or what a gzip file holds, copied piece by piece to a temporary file.

    Raises
    ------
    DataError
        The gzip data is damaged or truncated.
    """
    with path.open("rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return path
    target = scratch.path(path.stem)
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _COPY)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or truncated gzip: {error}. Fetch or copy it again.") from None
    return target


def scan(path: Path, name: str, layout: Layout, scratch: Scratch, fields: tuple[str, ...] | None = None) -> Part:
    """A file as a Part; `fields` narrows records (JSON, Python dicts) to those columns.

    Every column is text, except in Parquet.
    """
    columns = fields or layout.fields
    if layout.format == "parquet":
        frame = pl.scan_parquet(path, glob=False, row_index_name=ROW, row_index_offset=1)
        return Part(name, frame, path, "row")
    if layout.format == "jsonl":
        schema = dict.fromkeys(columns, pl.String)
        frame = pl.scan_ndjson(_without_wildcards(path, scratch), schema=schema, row_index_name=ROW, row_index_offset=1)
    elif layout.format == "python-dict":
        frame = pl.scan_parquet(_literals(path, name, columns, scratch), glob=False)
    elif layout.format == "user-lines":
        frame = _user_lines(path, layout)
    elif layout.format == "session-file":
        frame = _session_lines(path, layout)
    elif layout.quoted:
        frame = _quoted(path, layout)
    else:
        frame = _split(path, layout)
    if layout.spaced:
        frame = frame.with_columns(pl.col(layout.fields).str.strip_chars())
    return Part(name, frame, path)


def _without_wildcards(path: Path, scratch: Scratch) -> Path:
    """The file under a name without `*?[`, which the scanner of JSON lines would take for a pattern."""
    if not set(str(path)) & set("*?["):
        return path
    target = scratch.path("lines.jsonl")
    try:
        target.symlink_to(path.absolute())
    except OSError:
        shutil.copyfile(path, target)
    return target


def _plain_lines(path: Path) -> pl.LazyFrame:
    """The lines that are not blank."""
    lines = pl.scan_lines(path, name=LINE, glob=False, row_index_name=ROW, row_index_offset=1)
    marked = lines.with_columns(pl.col(LINE).str.strip_prefix("\ufeff")) if _has_mark(path) else lines
    return marked.filter(pl.col(LINE).str.strip_chars() != "")


def _has_mark(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(3) == b"\xef\xbb\xbf"


def _split(path: Path, layout: Layout) -> pl.LazyFrame:
    """Lines split at the separator. One field more is asked for than there are, to see lines that are too long."""
    lines, line = _plain_lines(path), pl.col(LINE)
    if layout.header:
        lines = lines.filter(pl.col(ROW) > layout.header_line)
    separator = layout.separator
    if separator == WHITESPACE:
        line, separator = line.str.strip_chars().str.replace_all(WHITESPACE, " "), " "
    count = len(layout.fields)
    names = [*layout.fields, "#extra"]
    parts = line.str.split_exact(separator, count).struct.rename_fields(names).alias("#parts")
    too_long = pl.col("#extra").is_not_null()
    too_short = pl.col(layout.fields[-1]).is_null()
    return lines.with_columns(parts).unnest("#parts").with_columns((too_long | too_short).alias(BROKEN))


def _quoted(path: Path, layout: Layout) -> pl.LazyFrame:
    """Text in which fields stand in quotes, and may hold separators and even line ends."""
    schema = dict.fromkeys(layout.fields, pl.String)
    frame = pl.scan_csv(
        path,
        glob=False,
        separator=layout.separator,
        has_header=False,
        skip_lines=layout.header_line,
        schema=schema,
        row_index_name=ROW,
        row_index_offset=1 + layout.header_line,
    )
    return frame.filter(pl.any_horizontal(pl.col(layout.fields).is_not_null()))


def _user_lines(path: Path, layout: Layout) -> pl.LazyFrame:
    """`user item item item …`, one line per user, as one row per interaction."""
    line = pl.col(LINE).str.strip_chars()
    if layout.separator == WHITESPACE:
        words = line.str.replace_all(WHITESPACE, " ").str.split(" ")
    else:
        words = line.str.split(layout.separator)
    listed = _plain_lines(path).select(ROW, words.alias("item"))
    taken = listed.filter(pl.col("item").list.len() > 1)
    return taken.select(ROW, user=pl.col("item").list.first(), item=pl.col("item").list.slice(1)).explode("item")


def _session_lines(path: Path, layout: Layout) -> pl.LazyFrame:
    """`user,time,n,item,item,…`, one line per session, as one row per interaction; `BROKEN` where it is none."""
    fields = pl.col(LINE).str.replace_all(" ", "", literal=True).str.split(",")
    user, time, stated = (fields.list.get(place, null_on_oob=True) for place in range(3))
    listed = _plain_lines(path).filter(pl.col(ROW) > layout.header_line).select(
        ROW,
        LINE,
        pl.col(ROW).cast(pl.Int64).alias("line"),
        user.alias("user_id"),
        time.alias("time"),
        stated.alias("#stated"),
        fields.list.slice(3).alias("session_items"),
    )  # fmt: skip
    items = pl.col("session_items").list
    whole = (pl.col("#stated").cast(pl.Int64, strict=False) == items.len()) & (items.len() > 0)
    reserved = items.contains("0") | items.contains("1")
    marked = listed.with_columns((~whole.fill_null(False) | reserved).alias(BROKEN)).drop("#stated")
    return marked.explode("session_items", empty_as_null=True)


def _literals(path: Path, name: str, columns: tuple[str, ...], scratch: Scratch) -> list[Path]:
    """Lines that are Python dicts, rewritten as Parquet files. Python itself must parse them: one by one."""
    written: list[Path] = []
    with path.open(encoding="utf-8", errors="replace") as stream:
        numbered: Iterator[tuple[int, str]] = ((n, line) for n, line in enumerate(stream, 1) if line.strip())
        while batch := list(itertools.islice(numbered, _BATCH)):
            rows = [_literal_row(line, number, name, columns) for number, line in batch]
            data = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            table = pl.DataFrame(data, schema=dict.fromkeys(columns, pl.String))
            target = scratch.path("batch.parquet")
            table.with_columns(pl.Series(ROW, [number for number, _ in batch])).write_parquet(target)
            written.append(target)
    return written


def _literal_row(line: str, number: int, name: str, columns: tuple[str, ...]) -> list[str | None]:
    record = parse_record("python-dict", line)
    if record is None:
        raise DataError(f"{name}, line {number}: expected a Python dict, found {quote(line.strip())}.")
    return [None if record.get(column) is None else str(record[column]) for column in columns]
