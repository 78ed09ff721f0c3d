"""Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.layout import ROW, UNREADABLE, FileFormat, Head, NoRowsError
from segue.errors import DataError


@dataclass(frozen=True)
class Parquet(FileFormat):
    """Parquet: columns with types of their own."""

    name: ClassVar[str] = "parquet"
    unit: ClassVar[str] = "row"
    magic: ClassVar[bytes] = b"PAR1"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        return head.start.startswith(cls.magic)

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The columns that the file names."""
        if not head.start:
            raise NoRowsError(f"{head.name} is empty: it holds no interactions (0 bytes).")
        if not cls.recognizes(head):
            raise DataError(f"{head.name} is not a Parquet file: it starts with {head.start[:8]!r}.")
        try:
            schema = pl.scan_parquet(head.path, glob=False).collect_schema()
        except UNREADABLE as error:
            raise DataError(f"{head.name} cannot be read: {error}") from error
        return cls(tuple(schema.names()))

    def check_same(self, head: Head, first: str) -> None:
        """Raise a DataError unless a further file has the same columns, in any order."""
        other = type(self).detect(head)
        if set(other.fields) != set(self.fields):
            super().check_same(head, first)

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`."""
        return pl.scan_parquet(path, glob=False, row_index_name=ROW, row_index_offset=1)

    def find_damage(self, path: Path, name: str) -> DataError | None:
        """None: a Parquet file has no lines, and the error of polars describes the damage."""
        return None
