"""Text with a separator between the fields of each line."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, by_content, by_name, known_role
from segue.data.reading.files import Scratch
from segue.data.reading.layout import BROKEN, LINE, ROW, FileFormat, Head, plain_lines, quote
from segue.errors import DataError

WHITESPACE = r"\s+"

_SEPARATORS = ("\t", "::", ",", ";", "|")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d.*")
_TYPED_NAME = re.compile(r"[\w.]+:(token|float|token_seq|float_seq)")


@dataclass(frozen=True)
class Csv(FileFormat):
    """Text with any separator, with or without a header.

    Attributes
    ----------
    separator
        Between the fields of a line; `WHITESPACE` is any run of blanks.
    header_line
        Number of the line that holds the names; 0 if there is none.
    quoted
        True if fields may stand in double quotes.
    spaced
        True if fields have blanks around them, to be removed.
    """

    name: ClassVar[str] = "csv"

    separator: str = ""
    header_line: int = 0
    quoted: bool = False
    spaced: bool = False

    # ---- recognizing ------------------------------------------------------------------------------------------------

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True of every text: this format is tried last."""
        return bool(head.lines)

    @classmethod
    def detect(cls, head: Head) -> Self:
        """Separator, header and columns, found from the first lines."""
        lines, name = head.lines, head.name
        separator = head.separator or _known_separator(lines, name)
        quoted = len(separator) == 1 and any('"' in line for line in lines)
        rows = _split(lines, separator, quoted)
        if len(rows[0]) < 2 and head.separator is not None:
            raise DataError(f'{name}, line 1: the separator "{separator}" does not occur in {quote(lines[0])}.')
        named = _has_header(rows, name, lines[0], head.requested) if head.header is None else head.header
        first = [field.strip() for field in rows[0]]
        typed = named and any(_TYPED_NAME.fullmatch(field) for field in first)
        fields = [field.partition(":")[0] if typed else field for field in first]
        twice = [field for field, count in Counter(fields).items() if count > 1]
        if named and twice:
            raise DataError(f'{name}, line 1: the column name "{twice[0]}" occurs twice in {quote(lines[0])}.')
        if named and len(rows) == 1:
            raise DataError(f"{name} holds a header ({quote(lines[0])}) and no interactions.")
        return cls(
            fields=tuple(fields) if named else tuple(str(position) for position in range(len(first))),
            first=lines[0],
            separator=separator,
            header_line=head.blank_lines + 1 if named else 0,
            quoted=quoted,
            spaced=separator != WHITESPACE and any(field != field.strip() for row in rows for field in row),
        )

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column: by the names of the header, or without one by content."""
        if self.header_line:
            return by_name(self.fields, given, name)
        return by_content(sample(), given, name, quote(self.first))

    def check_same(self, head: Head, first: str) -> None:
        """Raise a DataError unless a further file has the same header; without a header, lines are checked later."""
        if self.header_line:
            super().check_same(replace(head, separator=self.separator, header=True), first)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`; also `LINE` and `BROKEN` if there are no quotes."""
        frame = self._scan_quoted(path) if self.quoted else self._scan_lines(path)
        return frame.with_columns(pl.col(self.fields).str.strip_chars()) if self.spaced else frame

    def _scan_lines(self, path: Path) -> pl.LazyFrame:
        """Lines split at the separator, with one field more than there are names, to see lines that are too long."""
        lines, line = plain_lines(path), pl.col(LINE)
        if self.header_line:
            lines = lines.filter(pl.col(ROW) > self.header_line)
        separator = self.separator
        if separator == WHITESPACE:
            line, separator = line.str.strip_chars().str.replace_all(WHITESPACE, " "), " "
        names = [*self.fields, "#extra"]
        parts = line.str.split_exact(separator, len(self.fields)).struct.rename_fields(names).alias("#parts")
        too_long = pl.col("#extra").is_not_null()
        too_short = pl.col(self.fields[-1]).is_null()
        return lines.with_columns(parts).unnest("#parts").with_columns((too_long | too_short).alias(BROKEN))

    def _scan_quoted(self, path: Path) -> pl.LazyFrame:
        """Text whose fields may stand in quotes, and may then hold separators and even line ends."""
        frame = pl.scan_csv(
            path,
            glob=False,
            separator=self.separator,
            has_header=False,
            skip_lines=self.header_line,
            schema=dict.fromkeys(self.fields, pl.String),
            row_index_name=ROW,
            row_index_offset=1 + self.header_line,
        )
        return frame.filter(pl.any_horizontal(pl.col(self.fields).is_not_null()))

    # ---- damage -----------------------------------------------------------------------------------------------------

    @property
    def by_line(self) -> bool:
        """True if lines are split here, which is so without quotes."""
        return not self.quoted

    @property
    def misread(self) -> pl.Expr | None:
        """True for a line with a quote, if the first lines have none."""
        return None if self.quoted else pl.col(LINE).str.contains('"', literal=True)

    @property
    def incomplete(self) -> pl.Expr | None:
        """True for a row without its last field; in quoted text this may be a broken line."""
        return pl.col(self.fields[-1]).is_null() if self.quoted else None

    def corrected(self) -> FileFormat | None:
        """The same layout with quotes; None if the separator is too long for them."""
        return replace(self, quoted=True) if len(self.separator) == 1 else None

    def line_of(self, path: Path, row: int) -> int:
        """Line in the file of a row number; a quoted field may span lines."""
        if not self.quoted:
            return row
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.separator)
            next(itertools.islice(reader, row - 1, None), None)
            return reader.line_num

    def broken_line(self, name: str, number: int, line: str, count: int) -> DataError:
        """The error for a line with a wrong number of fields."""
        fields = len(_split([line], self.separator, False)[0])
        return self._wrong_number_of_fields(name, number, fields, line, count)

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """The error for the first line that is not UTF-8 or, in quoted text, has a wrong number of fields."""
        damage = super().find_damage(path, name)
        if damage is not None or not self.quoted:
            return damage
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.separator)
            try:
                bad = next((row for row in reader if row and len(row) != len(self.fields)), None)
            except csv.Error as error:
                return DataError(f"{name}, line {reader.line_num}: {error}.")
            if bad is None:
                return None
            return self._wrong_number_of_fields(name, reader.line_num, len(bad), self.separator.join(bad), 1)

    def _wrong_number_of_fields(self, name: str, number: int, fields: int, line: str, count: int) -> DataError:
        more = f" {count} lines are like this." if count > 1 else ""
        way_out = "" if self.quoted else ", or leave such lines out with bad_rows='drop'"
        return DataError(
            f"{name}, line {number} has {fields} fields, expected {len(self.fields)}: {quote(line)}.{more} "
            f"Correct the file{way_out}."
        )


@dataclass(frozen=True)
class Inter(Csv):
    """RecBole's atomic file: text whose header holds types, such as `user_id:token`."""

    name: ClassVar[str] = "inter"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        separator = head.separator or find_separator(head.lines)
        if separator is None or head.header is False:
            return False
        first = _split(head.lines[:1], separator, False)[0]
        return any(_TYPED_NAME.fullmatch(field.strip()) for field in first)


# ---- separators and headers ------------------------------------------------------------------------------------------


def find_separator(lines: Sequence[str]) -> str | None:
    """The separator that gives all (or most) lines the same number of fields; None if there is none."""
    best = None
    for candidate in (*_SEPARATORS, WHITESPACE):
        quoted = len(candidate) == 1 and any('"' in line for line in lines)
        rows = _split(lines, candidate, quoted)
        size, count = Counter(len(row) for row in rows).most_common(1)[0]
        if size >= 2 and count == len(rows):
            single = candidate == WHITESPACE and all(line == " ".join(line.split()) for line in lines)
            return " " if single else candidate
        if size >= 2 and count > 0.6 * len(rows):
            best = best or candidate
    if best is None:
        # A quote that is never closed swallows the rest of the file; the names in the first line still tell.
        named = {mark: [known_role(field.strip()) for field in lines[0].split(mark)] for mark in _SEPARATORS}
        best = next((mark for mark, roles in named.items() if "user" in roles and "item" in roles), None)
    return best


def _known_separator(lines: Sequence[str], name: str) -> str:
    separator = find_separator(lines)
    if separator is None:
        raise DataError(
            f"{name}: no separator found (tried tab, ::, comma, semicolon, | and blanks). "
            f"The first line is {quote(lines[0])}. Pass separator=, or format='user-lines' for one line per user."
        )
    return separator


def _split(lines: Sequence[str], separator: str, quoted: bool) -> list[list[str]]:
    """The fields of each line."""
    if separator == WHITESPACE:
        return [line.split() for line in lines]
    if quoted:
        return [row for row in csv.reader(lines, delimiter=separator) if row]
    return [line.split(separator) for line in lines]


def _has_header(rows: list[list[str]], name: str, line: str, requested: Sequence[str]) -> bool:
    first, rest = [field.strip() for field in rows[0]], rows[1:]
    if set(first) & set(requested) or any(_TYPED_NAME.fullmatch(field) or known_role(field) for field in first):
        return True
    if any(_NUMBER.fullmatch(field) or _DATE.fullmatch(field) for field in first):
        return False
    below = [[row[column].strip() for row in rest if column < len(row)] for column in range(len(first))]
    if any(values and all(_NUMBER.fullmatch(v) or _DATE.fullmatch(v) for v in values) for values in below):
        return True
    if any(field in values for field, values in zip(first, below, strict=True)):
        return False
    raise DataError(
        f"{name}, line 1: {quote(line)} may be a header or the first interaction. Pass header=True and the names of "
        f"the columns (user=, item=, time=), or header=False."
    )
