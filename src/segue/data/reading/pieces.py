"""Pieces of a log that any process can read: ranges of lines of a text file, of rows of a Parquet file, or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import polars as pl

from segue.data.reading.checking import Table
from segue.data.reading.files import Scratch
from segue.data.reading.formats.csv_text import Csv
from segue.data.reading.formats.parquet import Parquet
from segue.data.reading.layout import Layout, Part

_BYTES = 1 << 26
"""Bytes of text in a piece, about."""

_ROWS = 1 << 21
"""Rows of a Parquet file in a piece."""

_BYTES_AT_ONCE, _ROWS_AT_ONCE = 1 << 24, 1 << 18
"""The same of a part that is read at once: polars may hold all of it, however small its batches are."""

_COPY = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A range of a log, in the order of the log. It can be pickled.

    Attributes
    ----------
    frame
        Lazy frame of the raw columns; None for a range of a text file.
    rows
        First row in the frame and the row behind the last one; None for all rows.
    file
        A text file, the layout of the range, and its first byte and the byte behind it.
    columns
        Columns of the file that are needed.
    values
        Expressions of the columns of the log; all columns as they are if there are none.
    usable
        True for a row that can be used; None if all rows are kept.
    """

    frame: pl.LazyFrame | None
    rows: tuple[int, int] | None = None
    file: tuple[Path, Csv, int, int] | None = None
    columns: tuple[str, ...] = ()
    values: Mapping[str, pl.Expr] | None = None
    usable: pl.Expr | None = None

    def open(self, folder: Path, scratch: Scratch) -> Iterator[pl.LazyFrame]:
        """The columns of the log, in parts that are read one after the other.

        Lines of a range of a text file are copied to `folder` first; each copy replaces the former one.
        """
        for raw in self._raw(folder, scratch):
            chosen = raw if self.usable is None else raw.filter(self.usable)
            yield chosen if self.values is None else chosen.select(**self.values)

    def _raw(self, folder: Path, scratch: Scratch) -> Iterator[pl.LazyFrame]:
        if self.file is not None:
            path, layout, first, last = self.file
            for start, stop in pairwise(_line_edges(path, _BYTES_AT_ONCE, first, last)):
                copy = folder / "lines.txt"
                copy.unlink(missing_ok=True)  # the former one may still be mapped
                _copy_range(path, copy, start, stop)
                yield _without_header(layout, start).scan(copy, path.name, scratch, self.columns)
            return
        assert self.frame is not None
        if self.rows is None:
            yield self.frame
            return
        first, last = self.rows
        for start in range(first, max(last, first + 1), _ROWS_AT_ONCE):
            yield self.frame.slice(start, min(_ROWS_AT_ONCE, last - start))


def pieces_of(table: Table, values: Mapping[str, pl.Expr], usable: pl.Expr | None) -> list[Piece]:
    """Pieces of a table of files, in its order.

    Parameters
    ----------
    table
        The files, none of them a frame.
    values, usable
        As in `Piece`.
    """
    columns = tuple(dict.fromkeys(reading.column for reading in table.readings.values()))
    cut = [piece for part in table.parts for piece in _pieces_of_file(part, table.layout)]
    return [replace(piece, columns=columns, values=values, usable=usable) for piece in cut]


def pieces_of_parquet(path: Path) -> list[Piece]:
    """Pieces of a Parquet file whose columns are those of a log."""
    return _ranges_of_rows(pl.scan_parquet(path, glob=False))


def _pieces_of_file(part: Part, layout: Layout) -> list[Piece]:
    if isinstance(layout, Parquet):
        return _ranges_of_rows(part.frame)
    if not (isinstance(layout, Csv) and layout.by_line) or part.path is None:
        return [Piece(part.frame)]
    size = part.path.stat().st_size
    if size <= _BYTES_AT_ONCE:
        return [Piece(part.frame)]
    edges = _line_edges(part.path, _BYTES, 0, size)
    return [Piece(None, file=(part.path, layout, start, stop)) for start, stop in pairwise(edges)]


def _ranges_of_rows(frame: pl.LazyFrame) -> list[Piece]:
    rows = int(frame.select(pl.len()).collect().item())
    return [Piece(frame, (start, min(start + _ROWS, rows))) for start in range(0, max(rows, 1), _ROWS)]


def _without_header(layout: Csv, start: int) -> Csv:
    """Layout of the lines from a byte on: only the first line of a file can be a header."""
    return replace(layout, named=False) if start else layout


def _line_edges(path: Path, size: int, first: int, last: int) -> list[int]:
    """Bytes at which lines begin, about `size` apart, from `first` to `last`, which are edges themselves."""
    edges = [first]
    with path.open("rb") as stream:
        while edges[-1] + size < last:
            stream.seek(edges[-1] + size - 1)
            stream.readline()
            edges.append(stream.tell())
    return edges if edges[-1] == last else [*edges, last]


def _copy_range(path: Path, target: Path, start: int, stop: int) -> None:
    with path.open("rb") as source, target.open("wb") as out:
        source.seek(start)
        while start < stop and (piece := source.read(min(_COPY, stop - start))):
            out.write(piece)
            start += len(piece)
