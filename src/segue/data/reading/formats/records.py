"""Files with one record per line: JSON objects, or Python dicts."""

from __future__ import annotations

import ast
import itertools
import json
import shutil
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, by_name
from segue.data.reading.files import Scratch
from segue.data.reading.layout import ROW, FileFormat, Head, quote
from segue.errors import ColumnError, DataError

Record = dict[str, Any]
SAMPLED_RECORDS = 200

_BATCH = 50_000


@dataclass(frozen=True)
class Records(FileFormat):
    """Base class of the formats whose rows are records with named values.

    Attributes
    ----------
    complete
        The fields that no sampled record lacks.
    nested
        The fields that hold lists or objects: no ids, times or ratings.
    """

    complete: frozenset[str] = frozenset()
    nested: frozenset[str] = frozenset()

    @classmethod
    def of(cls, records: Sequence[Record], first: str) -> Self:
        """The layout of the sampled records, with the fields in the order of their first appearance."""
        counts = Counter(key for record in records for key, value in record.items() if value is not None)
        fields = dict.fromkeys(key for record in records for key in record)
        complete = frozenset(key for key, count in counts.items() if count == len(records))
        nested = frozenset(key for record in records for key, value in record.items() if isinstance(value, list | dict))
        return cls(tuple(fields), first, complete, nested)

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column. Of two fields that could have a role, one that all sampled records have is preferred."""
        roles = by_name(self.fields, given, name, self.complete or None)
        if given["session"] is None and roles.get("session") in self.nested:
            del roles["session"]
        for role, column in roles.items():
            if column in self.nested:
                raise ColumnError(f'{name}: the column "{column}" ({role}) holds lists or objects, not single values.')
        return roles

    def check_same(self, head: Head, first: str) -> None:
        """Accept any further file: a record may lack fields."""


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
            raise DataError(f"{head.name}, line 1: expected {cls.expected} per line, found {quote(head.lines[0])}.")
        return cls.of(records, head.lines[0])


@dataclass(frozen=True)
class JsonLines(RecordLines):
    """One JSON object per line (Amazon reviews)."""

    name: ClassVar[str] = "jsonl"
    expected: ClassVar[str] = "a JSON object"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        return cls.parse(head.lines[0]) is not None

    @classmethod
    def parse(cls, line: str) -> Record | None:
        """One line as a dict; None if it is not a JSON object."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`."""
        return scan_json_lines(_without_wildcards(path, scratch), columns or self.fields)

    def line_of(self, path: Path, row: int) -> int:
        """Line in the file of a row number, which does not count blank lines."""
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            full = (number for number, line in enumerate(stream, 1) if line.strip())
            return next(itertools.islice(full, row - 1, None), row)

    def problem_of(self, line: str) -> str | None:
        """Description of a line that is not a JSON object; None if it is one, or blank."""
        if not line.strip() or self.parse(line) is not None:
            return None
        return f"expected {self.expected}, found {quote(line.strip())}."


def scan_json_lines(path: Path, columns: Sequence[str]) -> pl.LazyFrame:
    """One JSON object per line as a lazy frame of text, and `ROW`."""
    return pl.scan_ndjson(path, schema=dict.fromkeys(columns, pl.String), row_index_name=ROW, row_index_offset=1)


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


@dataclass(frozen=True)
class PythonDicts(RecordLines):
    """One Python dict per line (Steam)."""

    name: ClassVar[str] = "python-dict"
    expected: ClassVar[str] = "a Python dict"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        return head.lines[0].lstrip().startswith("{")

    @classmethod
    def parse(cls, line: str) -> Record | None:
        """One line as a dict; None if it is not one. Nothing in the line is ever run."""
        try:
            value = ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`. Python parses the lines one by one."""
        with path.open(encoding="utf-8", errors="replace") as stream:
            numbered = ((row, self._parsed(line, row, name)) for row, line in enumerate(stream, 1) if line.strip())
            return _scan_records(numbered, columns or self.fields, scratch)

    def _parsed(self, line: str, number: int, name: str) -> Record:
        record = self.parse(line)
        if record is None:
            raise DataError(f"{name}, line {number}: expected {self.expected}, found {quote(line.strip())}.")
        return record

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """None: `scan` has read every line."""
        return None


def _scan_records(numbered: Iterable[tuple[int, Record]], columns: Sequence[str], scratch: Scratch) -> pl.LazyFrame:
    """Records with their row numbers, written to temporary Parquet files batch by batch, as a lazy frame of text."""
    remaining, written = iter(numbered), list[Path]()
    while (batch := list(itertools.islice(remaining, _BATCH))) or not written:
        values = {column: [_as_text(record.get(column)) for _, record in batch] for column in columns}
        table = pl.DataFrame(values, schema=dict.fromkeys(columns, pl.String))
        target = scratch.path("batch.parquet")
        table.with_columns(pl.Series(ROW, [row for row, _ in batch], dtype=pl.UInt32)).write_parquet(target)
        written.append(target)
    return pl.scan_parquet(written, glob=False)


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)
