"""Frames of pandas, polars, Arrow, DuckDB and others as lazy polars frames; none of them is required."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import narwhals as nw
import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.layout import ROW, Part
from segue.data.reading.values import EXACT
from segue.errors import DataError


def from_frame(source: Any, scratch: Scratch) -> Part:
    """A frame as a Part: its columns with their own types, and `ROW` counted from 1.

    Parameters
    ----------
    source
        A polars DataFrame or LazyFrame, pandas DataFrame, Arrow Table, DuckDB relation, or any other frame that
        narwhals knows. A lazy frame of another library is written to a temporary Parquet file, in batches.
    scratch
        Place for that file.

    Raises
    ------
    DataError
        The source is not a frame, or a column mixes types.
    """
    try:
        frame: Any = nw.from_native(source)
    except TypeError:
        source_type = f"{type(source).__module__}.{type(source).__qualname__}"
        raise DataError(
            f"cannot read a log from {source_type}: expected a path, or a pandas, polars, Arrow or DuckDB frame."
        ) from None
    name = f"{frame.implementation.value} frame"
    if isinstance(source, pl.LazyFrame):
        native = source
    elif isinstance(frame, nw.LazyFrame):
        path = scratch.path("frame.parquet")
        # Types that narwhals has no name for, UUID above all, would arrive as bytes.
        unknown = [column for column, dtype in frame.collect_schema().items() if dtype == nw.Unknown]
        frame.with_columns(nw.col(column).cast(nw.String) for column in unknown).sink_parquet(path)
        native = pl.scan_parquet(path, glob=False)
    else:
        native = _eager(source, frame, name).lazy()
    return Part(name, _plain(native, name).with_row_index(ROW, offset=1))


def _eager(source: Any, frame: nw.DataFrame[Any], name: str) -> pl.DataFrame:
    if isinstance(source, pl.DataFrame):
        return source
    repeated = sorted({str(column) for column in frame.columns if frame.columns.count(column) > 1})
    if repeated:
        raise DataError(f'{name}: the column "{repeated[0]}" occurs more than once.')
    objects = [column for column, dtype in frame.schema.items() if dtype == nw.Object]
    rest = frame.drop(objects).to_polars() if len(objects) < len(frame.columns) else pl.DataFrame()
    converted = [_of_objects(frame[column].to_list(), column, name) for column in objects]
    return rest.with_columns(converted) if len(rest.columns) else pl.DataFrame(converted)


def _plain(frame: pl.LazyFrame, name: str) -> pl.LazyFrame:
    """The same frame with columns of Python objects turned into strings."""
    schema = frame.collect_schema()
    objects = [column for column, dtype in schema.items() if dtype == pl.Object]
    if not objects:
        return frame
    table = frame.collect()
    return table.with_columns(_of_objects(table[column].to_list(), column, name) for column in objects).lazy()


def _is_missing(value: Any) -> bool:
    """Whether an object stands for a missing value: None, NaN, or pandas' NA, which equals nothing."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value


def _of_objects(values: list[Any], column: str, name: str) -> pl.Series:
    """Python objects of one type as a Series: UUIDs become strings, integers stay, a mixture is an error."""
    values = [None if _is_missing(value) else value for value in values]
    if {type(value) for value in values} - {type(None)} == {int, float}:
        values = [
            int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value
            for value in values
        ]
        if any(isinstance(value, float) for value in values) and any(
            isinstance(v, int) and abs(v) >= EXACT for v in values
        ):
            raise DataError(f'{name}: the column "{column}" mixes floats with integers that no float can hold.')
    types = {type(value) for value in values} - {type(None)}
    if types <= {int, float} or len(types) <= 1:
        if types == {uuid.UUID}:
            return pl.Series(column, [None if value is None else str(value) for value in values], dtype=pl.String)
        with contextlib.suppress(TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            series = pl.Series(column, values, strict=False)
            if series.dtype != pl.Object:
                return series
    listed = ", ".join(sorted(one.__name__ for one in types))
    raise DataError(
        f'{name}: the column "{column}" holds Python objects of the types {listed}. '
        f'Make it one type first, for example frame["{column}"].astype(str).'
    )
