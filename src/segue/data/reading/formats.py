"""What kind of file is this? Decided from its first lines; where they leave a doubt, an error says what to pass."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segue.data.reading.columns import known_role
from segue.errors import ConfigError, DataError, nearest

FORMATS = ("csv", "inter", "user-lines", "session-file", "jsonl", "python-dict", "parquet")
SESSION_HEADER = "user_id,time,session_length,session_items"
WHITESPACE = r"\s+"

_SEPARATORS = ("\t", "::", ",", ";", "|")
_SNIFFED_BYTES = 1 << 20
_SNIFFED_LINES = 2_000
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DATE = re.compile(r"\s*\d{4}-\d\d-\d\d.*")
_ATOMIC = re.compile(r"[\w.]+:(token|float|token_seq|float_seq)")
_BINARY = {
    b"PK\x03\x04": "a zip archive (or an Excel file): unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it first",
    b"BZh": "compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "compressed with xz: unpack it first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
    b"ARROW1": "an Arrow IPC file: read it with polars and pass the frame",
}


@dataclass(frozen=True)
class Layout:
    """How a file is to be read.

    Attributes
    ----------
    format
        One of `FORMATS`.
    fields
        Names of the columns; positions as text ("0", "1", …) where there is no header.
    separator
        Between the fields of a line; `WHITESPACE` is any run of blanks.
    header_line
        The number of the line that holds the names; 0 where there is none.
    quoted
        Whether fields may stand in double quotes.
    spaced
        Whether fields have blanks around them, to be removed.
    complete
        The fields that no sampled line lacks.
    nested
        The fields that hold lists or objects: no ids, times or ratings.
    first
        The first line, for messages.
    """

    format: str
    fields: tuple[str, ...] = ()
    separator: str = ""
    header_line: int = 0
    quoted: bool = False
    spaced: bool = False
    complete: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()
    first: str = ""

    @property
    def header(self) -> bool:
        """Whether there is a line of names."""
        return self.header_line > 0


def detect(
    path: Path, name: str, *, format: str | None, separator: str | None, header: bool | None, wanted: Sequence[str]
) -> Layout:
    """The layout of a decompressed file, from its first megabyte.

    Parameters
    ----------
    path, name
        The file, and what to call it in messages.
    format, separator, header
        What the caller knows already; None is to be found out.
    wanted
        Column names that the caller asks for: where the first line holds one, it is a header.

    Raises
    ------
    DataError
        The file is empty or binary, or more than one reading is possible.
    ConfigError
        An unknown format.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f'unknown format "{format}": {nearest(format, FORMATS)}.')
    with path.open("rb") as stream:
        start = stream.read(_SNIFFED_BYTES)
    if start[:4] == b"PAR1":
        return Layout("parquet")
    if format == "parquet":
        raise DataError(f"{name} is not a Parquet file: it starts with {start[:8]!r}.")
    lines, blank = _lines(start, name, path)
    kind = format or _kind_of_line(lines[0], name)
    if kind == "session-file":
        return _sessions(lines, blank, name)
    if kind in ("jsonl", "python-dict"):
        return _records(kind, lines, name)
    if kind == "user-lines":
        return Layout(kind, ("user", "item"), separator or _blank_or(lines), first=lines[0])
    table = _table(kind, lines, name, separator, header, wanted)
    return replace(table, header_line=blank + 1) if table.header else table


def _lines(start: bytes, name: str, path: Path) -> tuple[list[str], int]:
    """The first lines that are not blank, and how many blank ones stand before them."""
    for magic, what in _BINARY.items():
        if start.startswith(magic):
            raise DataError(f"{name} is {what}.")
    if b"\0" in start:
        raise DataError(f"{name} is a binary file of an unknown kind: expected text, JSON lines or Parquet.")
    whole = start if len(start) < _SNIFFED_BYTES or b"\n" not in start else start[: start.rindex(b"\n")]
    # Bytes that are not UTF-8 are reported by the reader, which knows their line.
    text = whole.decode("utf-8", errors="replace").removeprefix("\ufeff")
    every = text.splitlines()[:_SNIFFED_LINES]
    lines = [line for line in every if line.strip()]
    if not lines:
        raise DataError(f"{name} is empty: it holds no interactions ({path.stat().st_size} bytes).")
    return lines, every.index(lines[0])


def _kind_of_line(line: str, name: str) -> str:
    stripped = line.strip()
    if stripped.startswith("["):
        raise DataError(f"{name} is one JSON array; expected one JSON object per line. It begins: {quote(line)}.")
    if not stripped.startswith("{"):
        return "session-file" if stripped.replace(" ", "").lower() == SESSION_HEADER else "csv"
    return "jsonl" if _json_object(stripped) is not None else "python-dict"


def _sessions(lines: list[str], blank: int, name: str) -> Layout:
    """One line per session, as PARSRec reads it: `user,time,n,item1,…,itemn`, below a line of names."""
    if lines[0].replace(" ", "").lower() != SESSION_HEADER:
        raise DataError(f"{name}, line {blank + 1}: expected {SESSION_HEADER}, found {quote(lines[0])}.")
    if len(lines) == 1:
        raise DataError(f"{name} holds a header ({quote(lines[0])}) and no sessions.")
    fields = ("user_id", "time", "session_items", "line")
    return Layout("session-file", fields, ",", header_line=blank + 1, first=lines[1])


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _records(kind: str, lines: list[str], name: str) -> Layout:
    """The keys of the sampled lines, in the order of their first appearance. Broken lines are found later."""
    records = [record for record in (parse_record(kind, line) for line in lines[:200]) if record is not None]
    if not records:
        expected = "a JSON object" if kind == "jsonl" else "a Python dict"
        raise DataError(f"{name}, line 1: expected {expected} per line, found {quote(lines[0])}.")
    keys = Counter(key for record in records for key, value in record.items() if value is not None)
    fields = dict.fromkeys(key for record in records for key in record)
    complete = frozenset(key for key, count in keys.items() if count == len(records))
    nested = frozenset(key for record in records for key, value in record.items() if isinstance(value, list | dict))
    return Layout(kind, tuple(fields), complete=complete, nested=nested, first=lines[0])


def parse_record(kind: str, line: str) -> dict[str, Any] | None:
    """One line as a dict, or None where it is not one. Nothing in the line is ever run."""
    if kind == "jsonl":
        return _json_object(line)
    try:
        value = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _table(
    kind: str, lines: list[str], name: str, separator: str | None, header: bool | None, wanted: Sequence[str]
) -> Layout:
    found = separator or _separator(lines, name)
    if found is None:
        return Layout("user-lines", ("user", "item"), _blank_or(lines), first=lines[0])
    quoted = len(found) == 1 and any('"' in line for line in lines)
    rows = split(lines, found, quoted)
    if len(rows[0]) < 2 and separator is not None:
        raise DataError(f'{name}, line 1: the separator "{separator}" does not occur in {quote(lines[0])}.')
    named = _has_header(rows, name, lines[0], wanted) if header is None else header
    first = [field.strip() for field in rows[0]]
    atomic = named and any(_ATOMIC.fullmatch(field) for field in first)
    fields = [field.partition(":")[0] if atomic else field for field in first]
    twice = [field for field, count in Counter(fields).items() if count > 1]
    if named and twice:
        raise DataError(f'{name}, line 1: the column name "{twice[0]}" occurs twice in {quote(lines[0])}.')
    if named and len(rows) == 1:
        raise DataError(f"{name} holds a header ({quote(lines[0])}) and no interactions.")
    return Layout(
        format="inter" if atomic or kind == "inter" else "csv",
        fields=tuple(fields) if named else tuple(str(place) for place in range(len(first))),
        separator=found,
        header_line=1 if named else 0,
        quoted=quoted,
        spaced=found != WHITESPACE and any(field != field.strip() for row in rows for field in row),
        first=lines[0],
    )


def split(lines: Sequence[str], separator: str, quoted: bool) -> list[list[str]]:
    """The fields of each line."""
    if separator == WHITESPACE:
        return [line.split() for line in lines]
    if quoted:
        return [row for row in csv.reader(lines, delimiter=separator) if row]
    return [line.split(separator) for line in lines]


def _separator(lines: list[str], name: str) -> str | None:
    """The separator under which all (or most) lines have the same number of fields; None for one line per user."""
    mostly = None
    for candidate in (*_SEPARATORS, WHITESPACE):
        quoted = len(candidate) == 1 and any('"' in line for line in lines)
        rows = split(lines, candidate, quoted)
        size, count = Counter(len(row) for row in rows).most_common(1)[0]
        if size >= 2 and count == len(rows):
            plain = candidate == WHITESPACE and all(line == " ".join(line.split()) for line in lines)
            return " " if plain else candidate
        if size >= 2 and count > 0.6 * len(rows):
            mostly = mostly or candidate
    if mostly is None:
        # A quote that is never closed swallows the rest of the file; the names in the first line still tell.
        named = {mark: [known_role(field.strip()) for field in lines[0].split(mark)] for mark in _SEPARATORS}
        mostly = next((mark for mark, roles in named.items() if "user" in roles and "item" in roles), None)
    if mostly:
        return mostly
    rows = split(lines, _blank_or(lines), False)
    if len({len(row) for row in rows}) > 1 and not any(known_role(token) for token in rows[0]):
        return None
    raise DataError(
        f"{name}: no separator found (tried tab, ::, comma, semicolon, | and blanks). "
        f"The first line is {quote(lines[0])}. Pass separator=, or format= one of {', '.join(FORMATS)}."
    )


def _blank_or(lines: list[str]) -> str:
    """What separates the items of one user: the separator that occurs in most lines, else blanks."""
    counts = {mark: sum(mark in line for line in lines) for mark in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] > len(lines) / 2 else WHITESPACE


def _has_header(rows: list[list[str]], name: str, line: str, wanted: Sequence[str]) -> bool:
    first, rest = [field.strip() for field in rows[0]], rows[1:]
    if set(first) & set(wanted) or any(_ATOMIC.fullmatch(field) or known_role(field) for field in first):
        return True
    if any(_NUMBER.fullmatch(field) or _DATE.fullmatch(field) for field in first):
        return False
    below = [[row[place].strip() for row in rest if place < len(row)] for place in range(len(first))]
    if any(values and all(_NUMBER.fullmatch(v) or _DATE.fullmatch(v) for v in values) for values in below):
        return True
    if any(field in values for field, values in zip(first, below, strict=True)):
        return False
    raise DataError(
        f"{name}, line 1: {quote(line)} may be a header or the first interaction. Pass header=True and the names of "
        f"the columns (user=, item=, time=), or header=False."
    )


def quote(line: str, limit: int = 120) -> str:
    """A line for a message: in quotes, shortened."""
    return f'"{line[:limit]}…"' if len(line) > limit else f'"{line}"'
