"""Tables of items or users, from files and frames: CSV, RecBole's .item and .user, JSON, Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from segue.data.reading.columns import known_role
from segue.data.reading.files import Scratch, decompressed, find_files, plainly_named, without_mark
from segue.data.reading.formats.csv_text import Csv, Inter
from segue.data.reading.frames import from_frame
from segue.data.reading.layout import BROKEN, ROW, UNREADABLE, Head, NoRowsError
from segue.data.tables.kinds import Kind
from segue.errors import DataError, nearest
from segue.plain_text import read_text, require_text

_TYPES: Mapping[str, Kind] = {
    "token": "category",
    "token_seq": "categories",
    "float": "number",
    "float_seq": "vector",
}
"""Kinds of the types that RecBole's files state."""

_TITLES = ("title", "name", "itemtitle", "itemname", "movietitle", "producttitle", "productname", "description")
_MAPPED = "attributes"
"""Name of the column of a JSON file {item: [attribute, …]}."""


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as it was read.

    Attributes
    ----------
    name
        Its name in messages.
    frame
        All columns, the key included.
    untyped
        True if every column is text because the file knows no other type.
    blanks
        True if blanks separate several values.
    kinds
        Kinds that the file states.
    """

    name: str
    frame: pl.DataFrame
    untyped: bool = False
    blanks: bool = False
    kinds: Mapping[str, Kind] = field(default_factory=dict)


def read_table(source: Any, role: str) -> RawTable:
    """Read a table of items or users.

    Parameters
    ----------
    source
        A path, or a frame of any library. Files are CSV with any separator, RecBole's .item and .user, Parquet, JSON
        lines, a JSON array of objects, or a JSON object {id: [attribute, …]} or {id: {column: value}}; also gzipped.
    role
        "item" or "user".

    Raises
    ------
    DataError
        The source cannot be read, holds no rows, or mixes types in a column.
    """
    scratch = Scratch()
    if not isinstance(source, str | Path):
        part = from_frame(source, scratch)
        return _filled(RawTable(part.name, part.frame.drop(ROW).collect()))
    files = find_files(Path(source))
    if len(files) > 1:
        raise DataError(f"{source} are {len(files)} files: expected one file with the table of the {role}s.")
    path = plainly_named(decompressed(files[0], scratch), scratch)
    try:
        return _filled(_read_file(path, str(files[0]), role, scratch))
    except NoRowsError:
        raise DataError(f"{source} holds no rows: expected a row for each {role}.") from None
    except UNREADABLE as error:
        raise DataError(f"{source} cannot be read: {error}") from None


def _filled(table: RawTable) -> RawTable:
    if not len(table.frame):
        raise DataError(f"{table.name} holds no rows: expected a table with a row for each id.")
    return table


def _read_file(path: Path, name: str, role: str, scratch: Scratch) -> RawTable:
    with path.open("rb") as stream:
        start = stream.read(4)
    if start == b"PAR1":
        return RawTable(name, pl.read_parquet(path, glob=False))
    path = without_mark(path, scratch)
    with path.open("rb") as stream:
        first = stream.read(4096).lstrip()[:1]
    if first in (b"{", b"["):
        return _read_json(path, name, role)
    return _read_text(path, name, scratch)


def _read_text(path: Path, name: str, scratch: Scratch) -> RawTable:
    head = Head(path, name, header=True)
    layout = (Inter if Inter.recognizes(head) else Csv).detect(head)
    try:
        frame = layout.part(path, name, scratch).frame.collect()
    except UNREADABLE:
        require_text(path, name)
        raise
    if BROKEN in frame.columns:
        rows = frame.filter(pl.col(BROKEN).fill_null(True))
        if len(rows):
            raise DataError(
                f"{name}, line {int(rows[ROW][0])}: expected {len(layout.fields)} fields, as in the header, separated "
                f"by {layout.separator!r}."
            )
    kinds: dict[str, Kind] = {}
    if isinstance(layout, Inter):
        typed = [one.strip().partition(":") for one in layout.first.split(layout.separator)]
        kinds = {column: _TYPES[kind] for column, _, kind in typed if kind in _TYPES}
    return RawTable(name, frame.select(layout.fields), untyped=True, blanks=bool(kinds), kinds=kinds)


def _read_json(path: Path, name: str, role: str) -> RawTable:
    text = read_text(path, name)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if "Extra data" not in error.msg:
            raise DataError(f"{name} is no JSON: {error}.") from None
        content = _json_lines(text, name)
    except RecursionError:
        raise DataError(f"{name} is nested too deeply.") from None
    if isinstance(content, dict):
        if not all(isinstance(value, list | dict) for value in content.values()):
            content = [content]
        elif any(isinstance(value, dict) for value in content.values()):
            content = [{role: key, **value} if isinstance(value, dict) else value for key, value in content.items()]
        else:
            return RawTable(name, _of_values(name, {role: list(content), _MAPPED: list(content.values())}))
    if not all(isinstance(row, dict) for row in content):
        raise DataError(
            f"{name}: expected JSON objects with a row each, {{id: [attribute, …]}}, or {{id: {{column: value}}}}."
        )
    columns = dict.fromkeys(column for row in content for column in row)
    return RawTable(name, _of_values(name, {column: [row.get(column) for row in content] for column in columns}))


def _json_lines(text: str, name: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{name}, line {number}: no JSON: {error}.") from None
    return rows


def _of_values(name: str, columns: Mapping[str, list[Any]]) -> pl.DataFrame:
    return pl.DataFrame([_column(name, column, values) for column, values in columns.items()])


def _column(table: str, column: str, values: list[Any]) -> pl.Series:
    """JSON values of one type as a Series.

    Raises
    ------
    DataError
        The values have several types.
    """
    types = {type(value) for value in values if value is not None}
    inner = {type(one) for value in values if isinstance(value, list) for one in value if one is not None}
    for found in (types, inner):
        if len({"number" if one in (int, float) else one.__name__ for one in found}) > 1:
            listed = ", ".join(sorted(one.__name__ for one in found))
            raise DataError(f'{table}: the column "{column}" mixes values of the types {listed}: give it one type.')
    if inner == {int, float}:
        values = [None if value is None else [None if x is None else float(x) for x in value] for value in values]
    try:
        return pl.Series(
            column, values, strict=False, dtype=pl.List(pl.String) if types == {list} and not inner else None
        )
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(f'{table}: the column "{column}" cannot be read: {error}.') from None


# ---- columns ---------------------------------------------------------------------------------------------------------


def key_of(table: RawTable, key: str | None, role: str, log_column: str | None, option: str) -> str:
    """Column of the raw ids: the one that is given, named as in the log, or named as such columns usually are.

    Raises
    ------
    DataError
        There is no such column, or several could be it.
    """
    columns = table.frame.columns
    listed = ", ".join(columns)
    if key is not None:
        if key not in columns:
            raise DataError(f'{table.name} has no column "{key}" ({option}): {nearest(key, columns)} It has {listed}.')
        return key
    if log_column in columns:
        return str(log_column)
    usual = [column for column in columns if known_role(column) == role]
    if len(usual) != 1:
        found = f"it could be {' or '.join(usual)}" if usual else "no column is named like one"
        raise DataError(
            f"{table.name}: which column holds the ids of the {role}s? In the log it is {log_column!r}, and here "
            f"{found} (columns: {listed}). Name it with {option}."
        )
    return usual[0]


def title_of(table: RawTable, title: str | None, key: str, option: str) -> str | None:
    """Column of the titles: the one that is given, or named as titles usually are; None if there is none.

    Raises
    ------
    DataError
        There is no such column.
    """
    columns = [column for column in table.frame.columns if column != key]
    if title is not None:
        if title not in table.frame.columns:
            raise DataError(f'{table.name} has no column "{title}" ({option}): {nearest(title, columns)}')
        return title
    plain = {"".join(filter(str.isalnum, column)).lower(): column for column in reversed(columns)}
    return next((plain[name] for name in _TITLES if name in plain and _is_text(table, plain[name])), None)


def _is_text(table: RawTable, column: str) -> bool:
    return table.frame[column].dtype in (pl.String, pl.Categorical) or isinstance(table.frame[column].dtype, pl.Enum)
