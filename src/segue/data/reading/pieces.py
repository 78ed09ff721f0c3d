"""Pieces of a log that any process can read: ranges of lines of a text file, of rows of a Parquet file, or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from segue.data.reading.checking import Table
from segue.data.reading.files import Scratch
from segue.data.reading.formats.csv_text import Csv
from segue.data.reading.formats.parquet import Parquet
from segue.data.reading.layout import FileFormat, Layout, Part

_BYTES = 1 << 26
"""Bytes of text in a piece, about."""

_ROWS = 1 << 21
"""Rows of a Parquet file in a piece."""

_COPY = 1 << 20


@dataclass(frozen=True)
class Piece:
    """A range of a log, in the order of the log. It can be pickled.

    Attributes
    ----------
    frame
        Lazy frame of the raw columns; None for a range of a text file.
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
    file: tuple[Path, FileFormat, int, int] | None = None
    columns: tuple[str, ...] = ()
    values: Mapping[str, pl.Expr] | None = None
    usable: pl.Expr | None = None

    def open(self, folder: Path, scratch: Scratch) -> pl.LazyFrame:
        """The columns of the log. A range of a text file is copied to `folder` first."""
        raw = self.frame
        if self.file is not None:
            path, layout, start, stop = self.file
            copy = folder / "lines.txt"
            _copy_range(path, copy, start, stop)
            raw = layout.scan(copy, path.name, scratch, self.columns)
        assert raw is not None
        chosen = raw if self.usable is None else raw.filter(self.usable)
        return chosen if self.values is None else chosen.select(**self.values)


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
    if not (isinstance(layout, Csv) and layout.by_line) or part.path is None or part.path.stat().st_size <= _BYTES:
        return [Piece(part.frame)]
    edges = _line_edges(part.path)
    # Only the first range begins with the header.
    layouts = [layout, *[replace(layout, named=False)] * (len(edges) - 2)]
    ranges = zip(layouts, edges[:-1], edges[1:], strict=True)
    return [Piece(None, (part.path, of_range, start, stop)) for of_range, start, stop in ranges]


def _ranges_of_rows(frame: pl.LazyFrame) -> list[Piece]:
    rows = int(frame.select(pl.len()).collect().item())
    if rows <= _ROWS:
        return [Piece(frame)]
    return [Piece(frame.slice(start, _ROWS)) for start in range(0, rows, _ROWS)]


def _line_edges(path: Path) -> list[int]:
    """Bytes at which lines begin, about `_BYTES` apart; the size of the file is the last one."""
    size, edges = path.stat().st_size, [0]
    with path.open("rb") as stream:
        while edges[-1] + _BYTES < size:
            stream.seek(edges[-1] + _BYTES - 1)
            stream.readline()
            edges.append(stream.tell())
    return edges if edges[-1] == size else [*edges, size]


def _copy_range(path: Path, target: Path, start: int, stop: int) -> None:
    with path.open("rb") as source, target.open("wb") as out:
        source.seek(start)
        while start < stop and (piece := source.read(min(_COPY, stop - start))):
            out.write(piece)
            start += len(piece)
