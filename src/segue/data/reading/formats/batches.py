"""Rows that Python has parsed, as a lazy frame: written to temporary Parquet files, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.layout import ROW

_BATCH = 50_000


def scan_batches(
    numbered: Iterable[tuple[int, Sequence[str | None]]], columns: Sequence[str], scratch: Scratch
) -> pl.LazyFrame:
    """Rows with their numbers as a lazy frame of text, and `ROW`.

    Parameters
    ----------
    numbered
        Number and values of each row, in the order of the columns.
    columns
        Names of the columns.
    scratch
        Place for the temporary files.
    """
    remaining, written = iter(numbered), list[Path]()
    schema = {ROW: pl.UInt32, **dict.fromkeys(columns, pl.String)}
    while (batch := list(itertools.islice(remaining, _BATCH))) or not written:
        numbers = [number for number, _ in batch]
        values = zip(*(row for _, row in batch), strict=True) if batch else [()] * len(columns)
        table = pl.DataFrame([numbers, *map(list, values)], schema=schema, orient="col")
        target = scratch.path("batch.parquet")
        table.write_parquet(target)
        written.append(target)
    return pl.scan_parquet(written, glob=False)
