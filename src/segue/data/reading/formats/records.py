"""Files with one record per line: JSON objects, or Python dicts."""

from __future__ import annotations

import ast
import itertools
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, by_name
from segue.data.reading.files import Scratch, linked, without_mark
from segue.data.reading.formats.batches import scan_batches
from segue.data.reading.layout import LINE, ROW, UNREADABLE, FileFormat, Head, quote
from segue.data.reading.values import EXACT
from segue.errors import ColumnError, DataError

Record = dict[str, Any]
SAMPLED_RECORDS = 200

NOT_JSON = re.compile(r"[:\[,]\s*-?(NaN|Infinity|nan|inf)\s*[,\]}]")
"""A number that JSON does not have."""

_DEEPEST = 200  # brackets of a line that is not said to be nested too deeply


@dataclass(frozen=True)
class Records(FileFormat):
    """Base class of the formats whose rows are records with named values.

    Attributes
    ----------
    complete
        The fields that no sampled record lacks.
    nested
        The fields that hold lists or objects: no ids, times or ratings.
    sampled
        The first records.
    """

    complete: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()
    sampled: tuple[Record, ...] = ()

    @classmethod
    def of(cls, records: Sequence[Record], first: str) -> Self:
        """The layout of the sampled records, with the fields in the order of their first appearance."""
        counts = Counter(key for record in records for key, value in record.items() if value is not None)
        fields = dict.fromkeys(key for record in records for key in record)
        complete = frozenset(key for key, count in counts.items() if count == len(records))
        nested = frozenset(key for record in records for key, value in record.items() if isinstance(value, list | dict))
        return cls(tuple(fields), first, complete, nested, tuple(records))

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column. Of two fields that could have a role, one that all sampled records have is preferred."""
        if self.nested.issuperset(self.fields) and len(self.sampled) == 1:
            raise DataError(
                f"{name} holds one object, whose fields are lists or objects ({', '.join(self.fields)}). Expected one "
                f"object per interaction: an array of objects, or one object per line (in pandas "
                f"frame.to_json(path, orient='records', lines=True))."
            )
        roles = by_name(self.fields, given, name, self._table, self.complete or None)
        if given["session"] is None and roles.get("session") in self.nested:
            del roles["session"]
        for role, column in roles.items():
            if column in self.nested:
                raise ColumnError(f'{name}: the column "{column}" ({role}) holds lists or objects, not single values.')
            values = [record.get(column) for record in self.sampled] if role in ("user", "item", "session") else []
            if any(isinstance(value, float) and abs(value) >= EXACT for value in values):
                raise ColumnError(
                    f'{name}: the column "{column}" ({role}) holds floats from 2^53 on, which have lost digits. Write '
                    f"such ids as integers or as text."
                )
        return roles

    def _table(self) -> pl.DataFrame:
        """The first records as text; `sample` of `roles` would read a whole file of some formats."""
        flat = [field for field in self.fields if field not in self.nested]
        values = {field: [_as_text(record.get(field)) for record in self.sampled] for field in flat}
        return pl.DataFrame(values, schema=dict.fromkeys(flat, pl.String))

    def check_same(self, head: Head, first: str) -> None:
        """Accept any further file that is not empty: a record may lack fields."""
        type(self).detect(head)


class RecordLines(Records):
    """Base class of the formats with one record per line."""

    expected: ClassVar[str]
    """Noun for the content of a line, in messages."""

    @classmethod
    @abstractmethod
    def parse(cls, line: str) -> Record | None:
        """One line as a dict; None if it is not one."""

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The fields of the first lines; broken lines are found later."""
        parsed = (cls.parse(line) for line in head.lines[:SAMPLED_RECORDS])
        records = [record for record in parsed if record is not None]
        if not records:
            problem = cls.problem(head.lines[0]).replace(cls.expected, f"{cls.expected} per line")
            raise DataError(f"{head.name}, line {head.blank_lines + 1}: {problem}.{_hint(head.lines)}")
        return cls.of(records, head.lines[0])

    def without_broken(self, path: Path, scratch: Scratch) -> tuple[Path, int]:
        """As in `FileFormat`: the lines that are records, and blank ones."""
        copy, broken = scratch.path("whole.jsonl"), 0
        with path.open("rb") as lines, copy.open("wb") as kept:
            for line in lines:
                if self._is_whole(line):
                    kept.write(line)
                else:
                    broken += 1
        return (copy, broken) if broken else (path, 0)

    @classmethod
    def _is_whole(cls, line: bytes) -> bool:
        try:
            text = line.decode("utf-8-sig")
        except UnicodeDecodeError:
            return False
        return not text.strip() or cls.parse(text) is not None

    @classmethod
    def problem(cls, line: str) -> str:
        """Description of a line that is no record."""
        line = line.strip()
        if NOT_JSON.search(line):
            return (
                f"NaN and Infinity are not JSON, found {quote(line)}. Write null for a missing value (in Python "
                f"json.dumps(record, allow_nan=False) finds such values)"
            )
        if max(map(line.count, "[{(-")) > _DEEPEST:
            return f"the line is nested too deeply: {quote(line)}"
        return f"expected {cls.expected}, found {quote(line)}"


def _hint(lines: Sequence[str]) -> str:
    """The way out, if the first lines show the reason that none of them is a record."""
    first = lines[0].strip()
    if first in ("{", "{{") or (len(lines) > 1 and not first.endswith(("}", "},"))):
        return " Objects over several lines are read only in an array ([…]); jq -c . FILE writes one object per line."
    if first.endswith("},"):
        return " Remove the commas between the lines, or write [ before the first and ] behind the last object."
    if re.search(r"\}\s*\{", first):
        return " Write each object on its own line."
    return ""


@dataclass(frozen=True)
class JsonLines(RecordLines):
    """One JSON object per line (Amazon reviews)."""

    name: ClassVar[str] = "jsonl"
    expected: ClassVar[str] = "a JSON object"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format: objects, unless they are Python's alone."""
        first = head.lines[:SAMPLED_RECORDS]
        if not first[0].lstrip().startswith("{"):
            return False
        return any(map(cls.parse, first)) or not any(map(PythonDicts.parse, first))

    @classmethod
    def parse(cls, line: str) -> Record | None:
        """One line as a dict; None if it is not a JSON object. Integers of any length are kept as they stand."""
        try:
            value = json.loads(line, parse_int=as_integer, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def check_ids(self, path: Path, name: str, columns: Sequence[str]) -> None:
        """Raise a ColumnError for an id that is a float of 2^53 or more: as text it looks like an integer."""
        names = "|".join(re.escape(json.dumps(column)[1:-1]) for column in columns)
        pattern = rf'"(?:{names})"\s*:\s*-?(?:[0-9]{{16,}}\.|[0-9]+(?:\.[0-9]+)?[eE])'
        lines = pl.scan_lines(path, name=LINE, glob=False, row_index_name=ROW, row_index_offset=1)
        try:
            found = lines.filter(pl.col(LINE).str.contains(pattern)).collect(engine="streaming")
        except UNREADABLE:  # `find_damage` says what is wrong
            return
        for number, line in found.iter_rows():
            record = self.parse(line) or {}
            for column in columns:
                value = record.get(column)
                if isinstance(value, float) and abs(value) >= EXACT:
                    raise ColumnError(
                        f'{name}, line {number}: the column "{column}" holds {value!r}, a float from 2^53 on, which '
                        "has lost digits. Write such ids as integers or as text."
                    )

    def without_broken(self, path: Path, scratch: Scratch) -> tuple[Path, int]:
        """As in `FileFormat`; a file that polars can read has no such lines."""
        try:
            self.scan(path, str(path), scratch).select(pl.all().is_null().sum()).collect(engine="streaming")
        except UNREADABLE:
            return super().without_broken(path, scratch)
        return path, 0

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`."""
        # A pattern is what the scanner of JSON lines would take such a name for.
        plain = linked(path, scratch) if set(str(path)) & set("*?[") else path
        return scan_json_lines(without_mark(plain, scratch), columns or self.fields)

    def line_of(self, path: Path, row: int) -> int:
        """Line in the file of a row number, which does not count blank lines."""
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            full = (number for number, line in enumerate(stream, 1) if line.strip())
            return next(itertools.islice(full, row - 1, None), row)

    def problem_of(self, line: str) -> str | None:
        """Description of a line that is not a JSON object; None if it is one, or blank."""
        if not line.strip() or self.parse(line) is not None:
            return None
        return f"{self.problem(line)}."


def as_integer(digits: str) -> int | str:
    """An integer of JSON; text if it is so long that it can only be an id."""
    return int(digits) if len(digits) < 20 else digits


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def scan_json_lines(path: Path, columns: Sequence[str]) -> pl.LazyFrame:
    """One JSON object per line as a lazy frame of text, and `ROW`."""
    return pl.scan_ndjson(path, schema=dict.fromkeys(columns, pl.String), row_index_name=ROW, row_index_offset=1)


@dataclass(frozen=True)
class PythonDicts(RecordLines):
    """One Python dict per line (Steam)."""

    name: ClassVar[str] = "python-dict"
    expected: ClassVar[str] = "a Python dict"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        first = head.lines[:SAMPLED_RECORDS]
        return first[0].lstrip().startswith("{") and any(map(cls.parse, first))

    @classmethod
    def parse(cls, line: str) -> Record | None:
        """One line as a dict; None if it is not one. Nothing in the line is ever run."""
        try:
            value = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        return {str(key): one for key, one in value.items()} if isinstance(value, dict) else None

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`. Python parses the lines one by one."""
        try:
            with path.open(encoding="utf-8-sig", newline="\n") as stream:
                numbered = ((row, self._parsed(line, row, name)) for row, line in enumerate(stream, 1) if line.strip())
                return _scan_records(numbered, columns or self.fields, scratch)
        except UnicodeDecodeError:
            raise super().find_damage(path, name) or DataError(f"{name} is not UTF-8.") from None

    def _parsed(self, line: str, number: int, name: str) -> Record:
        record = self.parse(line)
        if record is None:
            raise DataError(f"{name}, line {number}: {self.problem(line)}.")
        return record

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """None: `scan` has read every line."""
        return None


def _scan_records(numbered: Iterable[tuple[int, Record]], columns: Sequence[str], scratch: Scratch) -> pl.LazyFrame:
    """Records with their row numbers as a lazy frame of text."""
    rows = ((row, [_as_text(record.get(column)) for column in columns]) for row, record in numbered)
    return scan_batches(rows, columns, scratch)


def _as_text(value: Any) -> str | None:
    """A single value as text; None for a list or a dict, which is no id, time or rating."""
    return None if value is None or isinstance(value, list | dict | tuple | set) else str(value)
