"""The base classes of all formats: recognizing a format, scanning its files, and naming damaged lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, by_name
from segue.data.reading.files import Scratch
from segue.data.reading.values import Stated
from segue.errors import DataError
from segue.plain_text import not_text, require_lines

MARK = "\u241f"  # begins the names of columns that are made here: no column of a log is called like this
ROW = f"{MARK}row"  # number of the line, row or object, from 1
LINE = f"{MARK}line"  # the whole line, in formats that are split here
BROKEN = f"{MARK}broken"  # true for a line that does not have the form it should have

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""Errors of polars for a damaged file; some damage makes it panic."""

_SNIFFED_BYTES = 1 << 20
_MOST_SNIFFED_BYTES = 1 << 28
_SNIFFED_LINES = 2_000
_BINARY = {
    b"PK\x03\x04": "a zip archive (or an Excel file): unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"ARROW1": "an Arrow IPC file: read it with polars and pass the frame",
}


class NoRowsError(DataError):
    """A file holds no interactions. Among other files of a log it can be skipped."""


@dataclass(frozen=True)
class Head:
    """The beginning of a decompressed file, and what the caller says of its layout.

    Attributes
    ----------
    path, name
        The file, and its name in messages.
    separator, header, quote
        Given by the caller; None if they are to be found. A quote of "none" makes quote marks ordinary characters.
    requested
        Column names that the caller asks for: if the first line holds one, it is a header.
    """

    path: Path
    name: str
    separator: str | None = None
    header: bool | None = None
    requested: Sequence[str] = ()
    quote: str | None = None

    @cached_property
    def start(self) -> bytes:
        """The first megabyte, or more until there are two whole lines."""
        with self.path.open("rb") as stream:
            start = stream.read(_SNIFFED_BYTES)
            while start.count(b"\n") < 2 and len(start) < _MOST_SNIFFED_BYTES and (more := stream.read(len(start))):
                start += more
            return start

    @property
    def is_whole(self) -> bool:
        """True if `start` is the whole file."""
        return len(self.start) == self.path.stat().st_size

    @property
    def lines(self) -> list[str]:
        """The first lines that are not blank.

        Raises
        ------
        DataError
            The file is empty or binary.
        """
        return self._lines_after_blank_ones[0]

    def require_text(self) -> None:
        """Raise a DataError if the first lines are not UTF-8. Later ones are reported by the reader."""
        lines = self.start.split(b"\n", _SNIFFED_LINES)[:_SNIFFED_LINES]
        require_lines(lines if self.is_whole else lines[:-1], self.name)

    @property
    def blank_lines(self) -> int:
        """Number of blank lines before the first other one."""
        return self._lines_after_blank_ones[1]

    @cached_property
    def _lines_after_blank_ones(self) -> tuple[list[str], int]:
        start = self.start
        for magic, description in _BINARY.items():
            if start.startswith(magic):
                raise DataError(f"{self.name} is {description}.")
        if b"\0" in start:
            raise DataError(f"{self.name} is a binary file of an unknown kind: expected text, JSON lines or Parquet.")
        whole = start if self.is_whole or b"\n" not in start else start[: start.rindex(b"\n")]
        # Bytes that are not UTF-8 are reported by the reader, which knows their line.
        text = whole.decode("utf-8", errors="replace").lstrip("\ufeff")
        every = [line.removesuffix("\r") for line in text.split("\n", _SNIFFED_LINES)[:_SNIFFED_LINES]]
        lines = [line for line in every if line.strip()]
        if not lines:
            raise NoRowsError(f"{self.name} is empty: it holds no interactions ({self.path.stat().st_size} bytes).")
        return lines, every.index(lines[0])


def first_line(path: Path) -> int:
    """Number, from 1, of the first line of a text file that is not blank; 0 if all are."""
    with path.open("rb") as stream:
        lines = (line.decode("utf-8", errors="replace").lstrip("\ufeff") for line in stream)
        return next((number for number, line in enumerate(lines, 1) if line.strip()), 0)


@dataclass(frozen=True)
class Part:
    """One file (or frame) of a log.

    Attributes
    ----------
    name
        Its name in messages.
    frame
        Lazy; its columns, and `ROW`.
    path
        The decompressed file; None for frames.
    """

    name: str
    frame: pl.LazyFrame
    path: Path | None = None


@dataclass(frozen=True)
class Layout:
    """Layout of a frame, and the base class of all formats of files.

    Attributes
    ----------
    fields
        Names of the columns; positions as text ("0", "1", …) if there is no header.
    first
        The first line, for messages.
    """

    name: ClassVar[str] = "frame"
    unit: ClassVar[str] = "row"
    """Noun for the rows that `ROW` counts, in messages."""

    fields: tuple[str, ...] = ()
    first: str = ""

    @property
    def by_line(self) -> bool:
        """True if each row has the columns `LINE` and `BROKEN`."""
        return False

    @property
    def misread(self) -> pl.Expr | None:
        """True for a row showing that the first lines were misleading, and that `corrected` layout is needed."""
        return None

    @property
    def incomplete(self) -> pl.Expr | None:
        """True for a row that may belong to a damaged file; `find_damage` then decides."""
        return None

    def corrected(self) -> FileFormat | None:
        """The layout to read the files with if rows are misread; None if there is no other."""
        return None

    def without_blanks(self) -> FileFormat | None:
        """The layout to read the files with if blanks stand around ids; None if there is no other."""
        return None

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column.

        Parameters
        ----------
        given
            The caller's choice for each role.
        name
            The source in messages.
        sample
            Returns the first rows.

        Raises
        ------
        ColumnError
            A column is missing, or more than one could be meant.
        """
        return by_name(self.fields, given, name, sample)

    def stated_types(self, path: Path) -> Mapping[str, Stated]:
        """Column → its type as stated beside the file at `path`; empty if nothing is stated."""
        return {}

    def line_of(self, path: Path, row: int) -> int:
        """Line in the file of a row number. The two differ if fields span lines or lines are blank."""
        return row

    def broken_line(self, name: str, number: int, line: str, count: int) -> DataError:
        """The error for a line without the right form; `count` rows have such a line."""
        return DataError(f"{name}, line {number} cannot be read: {quote(line)}.")

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """The error for the first line that cannot be read at all; None if there is none."""
        return None


class FileFormat(Layout, ABC):
    """Base class of the formats of files.

    To add a format, write a frozen dataclass with a name and the methods below, and list it in `formats/registry.py`.
    Values are text, unless the format has types of its own.
    """

    unit: ClassVar[str] = "line"
    magic: ClassVar[bytes] = b""
    """First bytes of a binary format: a file that begins with them has this format, whatever the caller says."""

    @classmethod
    @abstractmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format; the formats are tried in the order of the registry."""

    @classmethod
    @abstractmethod
    def detect(cls, head: Head) -> Self:
        """The layout of a file of this format.

        Raises
        ------
        DataError
            The file does not have this format, or its layout is ambiguous.
        """

    @classmethod
    def check_guess(cls, head: Head) -> None:
        """Raise a DataError if the format was found, not given, and the content leaves doubts."""

    @abstractmethod
    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`.

        Parameters
        ----------
        path, name
            The decompressed file, and its name in messages.
        scratch
            Place for temporary files.
        columns
            The columns that are needed; all if empty. A format may return more.
        number
            Position of the file among those of the log, from 0.
        """

    def check_same(self, head: Head, first: str) -> None:
        """Raise a DataError unless a further file has the same columns as the file named `first`."""
        other = type(self).detect(head)
        if other.fields != self.fields:
            raise DataError(
                f"{head.name} has the columns {', '.join(other.fields)}, but {first} has {', '.join(self.fields)}: "
                f"files of one log have the same columns."
            )

    def part(self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0) -> Part:
        """A file as a Part; the arguments are those of `scan`."""
        return Part(name, self.scan(path, name, scratch, columns, number), path)

    def check_ids(self, path: Path, name: str, columns: Sequence[str]) -> None:
        """Raise a ColumnError for ids that polars would read without the digits that they have lost, if it would."""

    def without_broken(self, path: Path, scratch: Scratch) -> tuple[Path, int]:
        """A copy of the file without the lines that cannot be read at all, and their number.

        The file itself if it has none, or if the format tells line by line.
        """
        return path, 0

    def problem_of(self, line: str) -> str | None:
        """Description of a line that cannot be read at all; None if it can."""
        return None

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """The error for the first line that is not UTF-8 or has a problem; None if there is none."""
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                problem = not_text(line) or self.problem_of(line.decode("utf-8"))
                if problem is not None:
                    return DataError(f"{name}, line {number}: {problem}")
        return None


def plain_lines(path: Path) -> pl.LazyFrame:
    """The lines that are not blank: columns `LINE` and `ROW`."""
    lines = pl.scan_lines(path, name=LINE, glob=False, row_index_name=ROW, row_index_offset=1)
    with path.open("rb") as stream:
        has_mark = stream.read(3) == b"\xef\xbb\xbf"
    marked = lines.with_columns(pl.col(LINE).str.strip_chars_start("\ufeff")) if has_mark else lines
    return marked.filter(pl.col(LINE).str.strip_chars() != "")


def quote(line: str, limit: int = 120) -> str:
    """A line in quotes, shortened for a message; characters that cannot be printed are escaped."""
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line[:limit])
    return f'"{shown}…"' if len(line) > limit else f'"{shown}"'
