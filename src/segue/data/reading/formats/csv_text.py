"""Text with a separator between the fields of each line."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import polars as pl

from segue.data.reading.columns import Column, by_content, by_name, known_role
from segue.data.reading.files import Scratch, with_line_ends
from segue.data.reading.formats.batches import scan_batches
from segue.data.reading.formats.quoting import QUOTE, WAY_OUT, Quoting, escapes, judged, lenient_rows, open_quote
from segue.data.reading.layout import (
    BROKEN,
    LINE,
    MARK,
    ROW,
    UNREADABLE,
    FileFormat,
    Head,
    NoRowsError,
    first_line,
    plain_lines,
    quote,
)
from segue.errors import ColumnError, ConfigError, DataError

WHITESPACE = r"\s+"

_SEPARATORS = ("\t", "::", ",", ";", "|")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d.*")
_TYPED_NAME = re.compile(r"[\w.]+:(token|float|token_seq|float_seq)")
_EXTRA, _PARTS = f"{MARK}extra", f"{MARK}parts"

Quotes = Literal["none", "fields", "text"]


@dataclass(frozen=True)
class Csv(FileFormat):
    """Text with any separator, with or without a header.

    Attributes
    ----------
    separator
        Between the fields of a line; `WHITESPACE` is any run of blanks.
    named
        True if the first line that is not blank holds names.
    quotes
        "none": quote marks are ordinary characters, or there are none. "fields": each line is a row, and quotes around
        a field are removed. "text": fields in quotes may hold separators and line ends.
    mark
        The quote mark; empty if the caller says that there is none.
    doubled
        True if fields in quotes may hold the quote mark, doubled.
    asserted
        True if the caller named the quote mark.
    spaced
        True if fields have blanks around them, to be removed.
    careful
        True if lines hold characters that need care: lone carriage returns or NUL.
    sequences
        Columns that hold several values, as a typed header says.
    """

    name: ClassVar[str] = "csv"

    separator: str = ""
    named: bool = False
    quotes: Quotes = "none"
    mark: str = QUOTE
    doubled: bool = False
    asserted: bool = False
    spaced: bool = False
    careful: bool = False
    sequences: frozenset[str] = frozenset()

    # ---- recognizing ------------------------------------------------------------------------------------------------

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True of every text: this format is tried last."""
        return bool(head.lines)

    @classmethod
    def detect(cls, head: Head) -> Self:
        """Separator, header, quotes and columns, found from the first lines."""
        lines, name, mark = head.lines, head.name, mark_of(head.quote)
        head.require_text()
        separator = head.separator or _known_separator(lines, name, mark)
        _check_marks(separator, mark, name)
        rows, quotes = _rows(lines, separator, mark, asserted=head.quote is not None)
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
            raise NoRowsError(f"{name} holds a header ({quote(lines[0])}) and no interactions.")
        return cls(
            fields=tuple(fields) if named else tuple(str(position) for position in range(len(first))),
            first=lines[0],
            separator=separator,
            named=named,
            quotes=quotes,
            mark=mark,
            doubled=bool(mark) and any(mark * 2 in line for line in lines),
            asserted=head.quote is not None,
            spaced=separator != WHITESPACE and any(field != field.strip() for row in rows for field in row),
            sequences=frozenset(f.partition(":")[0] for f in first if typed and f.endswith("_seq")),
        )

    @classmethod
    def check_guess(cls, head: Head) -> None:
        """Raise a DataError for a comment, and for blocks of lines below a line such as `1:`."""
        first = head.lines[0]
        if any(re.fullmatch(r"\w+:", line.strip()) for line in head.lines):
            refuse_blocks(head)
        if first.startswith(("#", "%", "//")) and not any(map(known_role, re.split(r"[\s,;|]+|::", first))):
            raise DataError(
                f"{head.name}, line {head.blank_lines + 1}: {quote(first)} looks like a comment. Remove such lines, or "
                f"pass format= and header= if it belongs to the log."
            )

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column: by the names of the header, or without one by content."""
        if not self.named:
            return by_content(sample(), given, name, quote(self.first))
        roles = by_name(self.fields, given, name, sample)
        for role, column in roles.items():
            if column in self.sequences:
                raise ColumnError(
                    f'{name}: the column "{column}" ({role}) holds several values per row, as its type says. Expected '
                    f"one interaction per row: name another column with {role}=…, or write each value on its own row."
                )
        return roles

    def check_same(self, head: Head, first: str) -> None:
        """Raise a DataError unless a further file has the same header; without a header, lines are checked later."""
        lines = head.lines  # raises an error if there are none
        head.require_text()
        if not self.named:
            return
        row = _rows(lines[:1], self.separator, self.mark)[0][0]
        if not {field.strip().partition(":")[0] for field in row} & set(self.fields):
            raise DataError(
                f"{head.name} begins with {quote(lines[0])}, and {first} with the header {', '.join(self.fields)}: "
                f"files of one log have the same header, or none has one."
            )
        super().check_same(replace(head, separator=self.separator, header=True), first)

    # ---- reading ----------------------------------------------------------------------------------------------------

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`; also `LINE` and `BROKEN` if lines are rows."""
        path = with_line_ends(path, scratch) if self.careful else path
        frame = self._scan_text(path, name, scratch) if self.quotes == "text" else self._scan_lines(path, columns)
        return frame.with_columns(pl.col(self.fields).str.strip_chars()) if self.spaced else frame

    def _scan_lines(self, path: Path, columns: Sequence[str]) -> pl.LazyFrame:
        """Lines split at the separator, with one field more than there are names, to see lines that are too long."""
        lines, line = plain_lines(path), pl.col(LINE)
        if self.named:
            lines = lines.filter(pl.col(ROW) > first_line(path))
        separator = self.separator
        if separator == WHITESPACE:
            line, separator = line.str.strip_chars().str.replace_all(WHITESPACE, " "), " "
        names = [*self.fields, _EXTRA]
        parts = line.str.split_exact(separator, len(self.fields)).struct.rename_fields(names).alias(_PARTS)
        broken = pl.col(_EXTRA).is_not_null() | pl.col(self.fields[-1]).is_null()
        if self.careful:
            broken = broken | pl.col(LINE).str.contains("\0", literal=True)
        frame = lines.with_columns(parts).unnest(_PARTS)
        if self.quotes != "fields":
            return frame.with_columns(broken.alias(BROKEN))
        opened, closed = ([one(field) for field in self.fields] for one in (self._is_open, self._is_closed))
        for column in columns:
            broken = broken | opened[self.fields.index(column)]
        # Both on one line: a field in quotes holds the separator.
        held = pl.any_horizontal(opened) & pl.any_horizontal(closed)
        frame = frame.with_columns((broken | held).fill_null(True).alias(BROKEN))
        return frame.with_columns(self._unquoted(field) for field in self.fields)

    def _is_open(self, field: str) -> pl.Expr:
        """True for a field with a quote before it and none behind it: nobody knows whether the quote is part of it."""
        column = pl.col(field).str.strip_chars() if self.spaced else pl.col(field)
        return (column.str.starts_with(self.mark) & ~column.str.ends_with(self.mark)).fill_null(False)

    def _is_closed(self, field: str) -> pl.Expr:
        """True for a field with a quote behind it and none before it."""
        column = pl.col(field).str.strip_chars() if self.spaced else pl.col(field)
        return (column.str.ends_with(self.mark) & ~column.str.starts_with(self.mark)).fill_null(False)

    def _unquoted(self, field: str) -> pl.Expr:
        """A field without the quotes around it."""
        column = pl.col(field).str.strip_chars() if self.spaced else pl.col(field)
        enclosed = column.str.starts_with(self.mark) & column.str.ends_with(self.mark) & (column.str.len_bytes() > 1)
        if not self.doubled:
            return pl.when(enclosed).then(column.str.strip_chars(self.mark)).otherwise(column)
        inner = column.str.strip_prefix(self.mark).str.strip_suffix(self.mark)
        return pl.when(enclosed).then(inner.str.replace_all(self.mark * 2, self.mark, literal=True)).otherwise(column)

    def _scan_text(self, path: Path, name: str, scratch: Scratch) -> pl.LazyFrame:
        """Text whose fields may stand in quotes, and may then hold separators and even line ends."""
        quoting = Quoting(self.separator, self.mark)
        header_line = self._header_line(path)
        try:
            verdict = judged(path, quoting, header_line, len(self.fields))
        except UNREADABLE as error:
            raise FileFormat.find_damage(self, path, name) or DataError(f"{name} cannot be read: {error}") from None
        if verdict.doubtful is not None and not self.asserted:
            begin, end = verdict.doubtful
            raise DataError(
                f"{name}, lines {begin} to {end}: a quote mark is opened in the first and closed in the last, and each "
                f"of these lines could be a row. Pass quote={self.mark!r} to read them as one row, or quote='none'."
            )
        if not verdict.is_kept:
            damage = FileFormat.find_damage(self, path, name)
            if damage is not None:
                raise damage
            rows = lenient_rows(path, name, quoting, header_line, self.spaced)
            return scan_batches(self._checked(rows, name), self.fields, scratch)
        frame = pl.scan_csv(
            path,
            glob=False,
            separator=self.separator,
            quote_char=self.mark,
            has_header=False,
            skip_lines=header_line,
            schema=dict.fromkeys(self.fields, pl.String),
            row_index_name=ROW,
            row_index_offset=1 + header_line,
        )
        return frame.filter(pl.any_horizontal(pl.col(self.fields).is_not_null()))

    def _header_line(self, path: Path) -> int:
        """Number of the line with the header of a file, 0 without one. Files may begin with blank lines."""
        return first_line(path) if self.named else 0

    def _checked(self, rows: Iterable[tuple[int, list[str]]], name: str) -> Iterable[tuple[int, Sequence[str]]]:
        for number, row in rows:
            if len(row) != len(self.fields):
                raise self._wrong_number_of_fields(name, number, len(row), self.separator.join(row), 1)
            yield number, row

    # ---- damage -----------------------------------------------------------------------------------------------------

    @property
    def by_line(self) -> bool:
        """True if each line is a row."""
        return self.quotes != "text"

    @property
    def misread(self) -> pl.Expr | None:
        """True for a line with characters that the first lines do not have, or whose quotes hold separators."""
        line = pl.col(LINE)
        if self.quotes == "text":
            return None
        if self.quotes == "none":
            return None if self.careful else line.str.contains(f"[\r\0{re.escape(self.mark)}]")
        broken = pl.col(BROKEN) & line.str.contains(self.mark, literal=True)
        more = [] if self.careful else [line.str.contains("[\r\0]")]
        more += [] if self.doubled else [line.str.contains(self.mark * 2, literal=True)]
        more += [broken] if self._may_be_text else []
        return pl.any_horizontal(more) if more else None

    @property
    def incomplete(self) -> pl.Expr | None:
        """True for a row without its last field; in quoted text this may be a broken line."""
        return pl.col(self.fields[-1]).is_null() if self.quotes == "text" else None

    @property
    def _may_be_text(self) -> bool:
        return bool(self.mark) and _is_single(self.separator)

    def corrected(self) -> FileFormat | None:
        """The same layout with more care; None if there is no other."""
        if not self.careful or (self.quotes == "fields" and not self.doubled):
            quotes: Quotes = "fields" if self.mark and self.quotes == "none" else self.quotes
            return replace(self, careful=True, doubled=True, quotes=quotes)
        return replace(self, quotes="text") if self.quotes == "fields" and self._may_be_text else None

    def without_blanks(self) -> FileFormat | None:
        """The same layout without the blanks around fields; None if they are removed already."""
        return None if self.spaced or self.separator == WHITESPACE else replace(self, spaced=True)

    def line_of(self, path: Path, row: int) -> int:
        """Line in the file of a row number; a quoted field may span lines."""
        if self.by_line:
            return row
        quoting = Quoting(self.separator, self.mark)
        if not judged(path, quoting, self._header_line(path), len(self.fields)).is_kept:
            return row
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.separator, quotechar=self.mark)
            next(itertools.islice(reader, row - 1, None), None)
            return reader.line_num

    def broken_line(self, name: str, number: int, line: str, count: int) -> DataError:
        """The error for a line with a wrong number of fields."""
        if "\0" in line:
            return DataError(f"{name}, line {number} holds a NUL character: {quote(line)}. The file is damaged.")
        fields = len(_split([line], self.separator)[0])
        if fields == len(self.fields):
            return open_quote(name, number, line)
        return self._wrong_number_of_fields(name, number, fields, line, count)

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """The error for the first line that is not UTF-8 or, in quoted text, has a wrong number of fields."""
        damage = super().find_damage(path, name)
        if damage is not None or self.by_line:
            return damage
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.separator, quotechar=self.mark)
            try:
                bad = next((row for row in reader if row and len(row) != len(self.fields)), None)
            except csv.Error as error:
                return DataError(f"{name}, line {reader.line_num}: {error}. {WAY_OUT}")
            if bad is None:
                return None
            return self._wrong_number_of_fields(name, reader.line_num, len(bad), self.separator.join(bad), 1)

    def _wrong_number_of_fields(self, name: str, number: int, fields: int, line: str, count: int) -> DataError:
        more = f" {count} lines are like this." if count > 1 else ""
        way_out = "leave such lines out with bad_rows='drop'" if self.by_line else WAY_OUT.partition(", or ")[2][:-1]
        return DataError(
            f"{name}, line {number} has {fields} fields, expected {len(self.fields)}: {quote(line)}.{more} "
            f"Correct the file, or {way_out}.{escapes(line)}"
        )


@dataclass(frozen=True)
class Inter(Csv):
    """RecBole's atomic file: text whose header holds types, such as `user_id:token`."""

    name: ClassVar[str] = "inter"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        separator = head.separator or find_separator(head.lines, mark_of(head.quote))
        if separator is None or head.header is False:
            return False
        first = _split(head.lines[:1], separator)[0]
        return any(_TYPED_NAME.fullmatch(field.strip()) for field in first)


# ---- separators and headers ------------------------------------------------------------------------------------------


def find_separator(lines: Sequence[str], mark: str = QUOTE) -> str | None:
    """The separator that gives all (or most) lines the same number of fields; None if there is none."""
    best = None
    for candidate in (*_SEPARATORS, WHITESPACE):
        rows = _rows(lines, candidate, mark)[0]
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


def refuse_blocks(head: Head) -> None:
    """Raise a DataError that describes blocks of lines below a line such as `1:`."""
    line = next(line for line in head.lines if line.strip().endswith(":"))
    raise DataError(
        f"{head.name} has lines such as {quote(line.strip())}, which seem to name the item (or user) of the lines "
        f"below them, as in the Netflix prize. Expected one interaction per line: write that id on each of its lines, "
        f"or give format='csv' or format='user-lines' if the file is one of these."
    )


def _known_separator(lines: Sequence[str], name: str, mark: str) -> str:
    separator = find_separator(lines, mark)
    if separator is None:
        raise DataError(
            f"{name}: no separator found (tried tab, ::, comma, semicolon, | and blanks). "
            f"The first line is {quote(lines[0])}. Pass separator=, or format='user-lines' for one line per user."
        )
    return separator


def mark_of(quote_option: str | None) -> str:
    """The quote mark that the option means; empty for none."""
    return QUOTE if quote_option is None else "" if quote_option == "none" else quote_option


def _check_marks(separator: str, mark: str, name: str) -> None:
    if mark and mark in separator:
        raise ConfigError(f"{name}: the separator {separator!r} cannot hold the quote mark {mark!r}.")


def _is_single(separator: str) -> bool:
    """Whether a separator is one ASCII character, as quoted text needs."""
    return len(separator) == 1 and separator.isascii()


def _rows(lines: Sequence[str], separator: str, mark: str, *, asserted: bool = False) -> tuple[list[list[str]], Quotes]:
    """The fields of lines, and the part that quotes play."""
    plain = _split(lines, separator)
    if not mark or not any(mark in line for line in lines):
        return plain, "none"
    unquoted = [[_without_quotes(field, mark) for field in row] for row in plain]
    if not _is_single(separator):
        return unquoted, "fields"
    quoting = Quoting(separator, mark)
    try:
        quoted = [row for row in quoting.reader(lines) if row]
    except csv.Error:
        return unquoted, "fields"
    if asserted and len(quoted) < len(lines):
        return quoted, "text"
    is_kept = quoting.is_kept(lines)
    if len(set(map(len, plain))) == 1:
        other = is_kept and len(quoted) == len(lines) and {len(row) for row in quoted} not in ({len(plain[0])}, {1})
        return (quoted, "text") if other and len(set(map(len, quoted))) == 1 else (unquoted, "fields")
    # Rows as they most often are; lines within a field have one field of their own.
    of_plain, of_quoted = (
        max((count for size, count in Counter(map(len, rows)).items() if size > 1), default=0)
        for rows in (plain, quoted)
    )
    is_text = of_quoted > of_plain or (is_kept and of_quoted == of_plain)
    return (quoted, "text") if is_text else (unquoted, "fields")


def _without_quotes(field: str, mark: str) -> str:
    bare = field.strip()
    if len(bare) > 1 and bare.startswith(mark) and bare.endswith(mark):
        return bare[1:-1].replace(mark * 2, mark)
    return field


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    """The fields of each line, quotes and all."""
    if separator == WHITESPACE:
        return [line.split() for line in lines]
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
