"""Quote marks in delimited text: how they must stand, and whether a file keeps to that."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from segue.data.reading.layout import LINE, ROW, quote
from segue.errors import DataError

QUOTE = '"'
WAY_OUT = "Correct the file, or pass quote='none' if quote marks are ordinary characters in it."

_END = "\ue000"  # follows a line that is parsed alone: if it becomes part of the row, a quote is open
_LONGEST_FIELD = 10_000  # lines of a field


@dataclass(frozen=True)
class Quoting:
    """Rules of quote marks: a field is in quotes as a whole, and a quote within it is doubled.

    Attributes
    ----------
    separator, mark
        Single characters: between fields, and around a field.
    """

    separator: str
    mark: str = QUOTE

    @property
    def _parts(self) -> tuple[str, str, str, str]:
        separator, mark = re.escape(self.separator), re.escape(self.mark)
        text = f"(?:[^{mark}]|{mark}{mark})*"
        field = f"(?:{mark}{text}{mark}|[^{mark}{separator}]*)"
        return separator, mark, text, field

    @property
    def whole(self) -> str:
        """Pattern of a line that is a row."""
        separator, _, _, field = self._parts
        return f"^{field}(?:{separator}{field})*$"

    @property
    def opening(self) -> str:
        """Pattern of a line that ends within a field."""
        separator, mark, text, field = self._parts
        return f"^(?:{field}{separator})*{mark}{text}$"

    @property
    def closing(self) -> str:
        """Pattern of a line that begins within a field and ends a row."""
        separator, mark, text, field = self._parts
        return f"^{text}{mark}(?:{separator}{field})*$"

    @property
    def reopening(self) -> str:
        """Pattern of a line that begins within one field and ends within another."""
        separator, mark, text, field = self._parts
        return f"^{text}{mark}(?:{separator}{field})*{separator}{mark}{text}$"

    @property
    def inner(self) -> str:
        """Pattern of a line that lies within a field."""
        return f"^{self._parts[2]}$"

    def fields(self, line: str) -> list[str] | None:
        """Fields of a line that is parsed alone, leniently; None if a quote stays open."""
        rows = list(self.reader([line, _END]))
        return rows[0] if len(rows) == 2 else None

    def reader(self, lines: Iterator[str] | Sequence[str]) -> Iterator[list[str]]:
        """Rows of lines; a quote within a field is taken as it stands."""
        return csv.reader(lines, delimiter=self.separator, quotechar=self.mark)

    def is_kept(self, lines: Sequence[str]) -> bool:
        """Whether lines keep to the rules; the last row may be cut off."""
        inside = False
        for line in lines:
            if self.mark not in line:
                continue
            if inside:
                if not self._inner.match(line) and not self._reopening.match(line):
                    if not self._closing.match(line):
                        return False
                    inside = False
            elif not self._whole.match(line):
                if not self._opening.match(line):
                    return False
                inside = True
        return True

    @cached_property
    def _inner(self) -> re.Pattern[str]:
        return re.compile(self.inner)

    @cached_property
    def _reopening(self) -> re.Pattern[str]:
        return re.compile(self.reopening)

    @cached_property
    def _closing(self) -> re.Pattern[str]:
        return re.compile(self.closing)

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(self.whole)

    @cached_property
    def _opening(self) -> re.Pattern[str]:
        return re.compile(self.opening)


@dataclass(frozen=True)
class Verdict:
    """Whether a file keeps to the rules of quotes.

    Attributes
    ----------
    is_kept
        True if it does.
    doubtful
        First and last line of a field over several lines each of which could be a row; None if there is none.
    """

    is_kept: bool
    doubtful: tuple[int, int] | None = None


def judged(path: Path, quoting: Quoting, header_line: int, n_fields: int) -> Verdict:
    """Verdict on a whole file. It is kept for the next call."""
    stat = path.stat()
    return _judged(path, quoting, header_line, n_fields, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _judged(path: Path, quoting: Quoting, header_line: int, n_fields: int, *version: int) -> Verdict:
    line = pl.col(LINE)
    lines = pl.scan_lines(path, name=LINE, glob=False, row_index_name=ROW, row_index_offset=1)
    # Only lines that are no rows of their own matter: few in an ordinary file.
    marked = lines.filter(
        (pl.col(ROW) > header_line) & line.str.contains(quoting.mark, literal=True) & ~line.str.contains(quoting.whole)
    ).select(
        ROW,
        opening=line.str.contains(quoting.opening),
        closing=line.str.contains(quoting.closing),
        staying=line.str.contains(quoting.inner) | line.str.contains(quoting.reopening),
        alike=(line.str.count_matches(quoting.separator, literal=True) == n_fields - 1)
        & ~line.str.contains(rf"^[^{re.escape(quoting.separator)}]*[\s{re.escape(quoting.mark)}]"),
    )
    begin, begin_alike, doubtful = 0, False, None
    spans: list[tuple[int, int]] = []
    for row, opening, closing, staying, alike in marked.collect(engine="streaming").iter_rows():
        if begin and not staying:
            if not closing:
                return Verdict(False)
            doubtful = (begin, row) if alike and begin_alike and doubtful is None else doubtful
            spans.append((begin, row))
            begin = 0
        elif not begin:
            if not opening:
                return Verdict(False)
            begin, begin_alike = row, alike
    if spans and not begin:
        # A row with quotes of its own, in the middle of a field over several lines: one of the quotes is a stray one.
        patterns = (quoting.inner, quoting.reopening, quoting.closing)
        foreign = lines.filter(
            (pl.col(ROW) > header_line)
            & line.str.contains(quoting.mark, literal=True)
            & line.str.contains(quoting.whole)
            & ~pl.any_horizontal(line.str.contains(pattern) for pattern in patterns)
        ).select(ROW)
        rows = foreign.collect(engine="streaming")[ROW].to_numpy()
        begins, ends = np.array(spans).T
        if (np.searchsorted(rows, begins, "right") < np.searchsorted(rows, ends)).any():
            return Verdict(False)
    return Verdict(not begin, doubtful if n_fields > 2 else None)


def lenient_rows(
    path: Path, name: str, quoting: Quoting, header_line: int, spaced: bool
) -> Iterator[tuple[int, list[str]]]:
    """Rows of a file that breaks the rules within lines, with the number of their first line.

    A field may span lines only if it keeps to the rules, so that no stray quote swallows rows.

    Raises
    ------
    DataError
        A quote is opened and not closed, or a line is not UTF-8.
    """
    with path.open(encoding="utf-8-sig", errors="strict", newline="\n") as stream, _long_fields():
        numbered = enumerate((line.removesuffix("\n").removesuffix("\r") for line in stream), 1)
        for number, line in numbered:
            if number <= header_line or not line.strip():
                continue
            if quoting.mark not in line:
                yield number, line.split(quoting.separator)
                continue
            row = quoting.fields(line.strip() if spaced else line)
            yield number, _continued(line, number, numbered, name, quoting) if row is None else row


def _continued(line: str, number: int, rest: Iterator[tuple[int, str]], name: str, quoting: Quoting) -> list[str]:
    """The row that begins with a line and goes on in those that follow."""
    record = [line + "\n"]
    if quoting._opening.match(line):
        for _, more in rest:
            record.append(more + "\n")
            if quoting._inner.match(more) or quoting._reopening.match(more):
                if len(record) <= _LONGEST_FIELD:
                    continue
                break
            if quoting._closing.match(more):
                return next(iter(quoting.reader(record)))
            break
    raise open_quote(name, number, line)


def open_quote(name: str, number: int, line: str) -> DataError:
    """The error for a quote that is opened and not closed."""
    return DataError(
        f"{name}, line {number}: a quote mark is opened and not closed: {quote(line)}. {WAY_OUT}{escapes(line)}"
    )


def escapes(line: str) -> str:
    """A sentence on backslashes before quote marks, if the line has one; else empty."""
    if '\\"' not in line:
        return ""
    return ' A backslash before a quote mark is no escape in this format: write the mark twice (sed \'s/\\\\"/""/g\').'


@contextmanager
def _long_fields() -> Iterator[None]:
    """Within, fields may have any length."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)
