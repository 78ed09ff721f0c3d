"""Tables of items and users, joined to a Dataset: rows in the order of the codes, new items behind the others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.tables.kinds import Kind, Vectors, converted, read_kinds, recognized
from segue.data.tables.reading import RawTable, key_of, read_table, title_of
from segue.data.tables.table import Table
from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import DataError

_FEW = 0.5
"""Share of the log's ids with a row, below which a warning says so."""


@dataclass(frozen=True, eq=False)
class TableSource:
    """A table that was read, before the log is known: its key, its columns and their kinds are checked.

    Attributes
    ----------
    role
        "item" or "user".
    name
        Name of the source in messages.
    key, title
        Columns of the ids and of the titles.
    ids
        (n,) raw ids, unique.
    columns
        (n,) values, or (n, width) vectors, by column.
    kinds
        Kind of each column.
    """

    role: str
    name: str
    key: str
    title: str | None
    ids: pl.Series
    columns: Mapping[str, pl.Series | Vectors] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)


def open_table(
    source: Any,
    role: str,
    *,
    key: str | None = None,
    title: str | None = None,
    kinds: Mapping[str, str] | None = None,
    log_column: str | None = None,
) -> TableSource:
    """Read a table of items or users, and recognize the kinds of its columns.

    Parameters
    ----------
    source
        As for `read_table`.
    role
        "item" or "user".
    key, title
        Columns of the ids and of the titles; found by their names if they are None.
    kinds
        Kinds of columns that should not be recognized.
    log_column
        Column of the ids in the log.

    Raises
    ------
    DataError
        The table cannot be read, has no key, or an id is missing or occurs twice; or a column fits no kind.
    """
    raw = read_table(source, role)
    key = key_of(raw, key, role, log_column, f"{role}_key (--{role}-key)")
    title = title_of(raw, title, key, "title (--title)")
    stated = dict(raw.kinds) | read_kinds(kinds or {}, raw.frame.columns, raw.name, f"{role}_kinds (--{role}-kinds)")
    ids = _keys(raw, key)
    columns: dict[str, pl.Series | Vectors] = {}
    found: dict[str, Kind] = {}
    for name in raw.frame.columns:
        if name == key and name != title:
            continue
        if name == role:
            raise DataError(
                f'{raw.name}: the column "{role}" is not the key ("{key}"), and ids are called so: rename the column.'
            )
        column = raw.frame[name]
        untyped = raw.untyped and column.dtype == pl.String
        found[name] = recognized(column, stated.get(name), untyped=untyped, is_title=name == title, table=raw.name)
        columns[name] = converted(column, found[name], untyped=untyped, blanks=raw.blanks, table=raw.name)
    if not found:
        raise DataError(f'{raw.name} has no column beside the key "{key}": there is nothing to join.')
    return TableSource(role, raw.name, key, title, ids, columns, found)


def _keys(raw: RawTable, key: str) -> pl.Series:
    column = raw.frame[key]
    try:
        ids = as_ids(column)
    except DataError as error:
        raise DataError(f'{raw.name}: the key "{key}": {error}') from None
    missing = int(ids.null_count())
    if missing:
        row = int(ids.is_null().arg_true()[0]) + 1
        raise DataError(f'{raw.name}: the key "{key}" is missing in {missing:,} rows, first in row {row:,}.')
    twice = ids.filter(ids.is_duplicated())
    if len(twice):
        raise DataError(
            f'{raw.name}: the key "{key}" is not unique: {twice.n_unique():,} ids occur in several rows, such as '
            f"{twice[0]!r}. Keep one row for each id."
        )
    return ids


def attach(dataset: Dataset, source: TableSource, keep: Literal["all", "known"] = "all") -> Dataset:
    """Join a table to a Dataset.

    Parameters
    ----------
    dataset
        The Dataset. A table of the same role that it has is replaced.
    source
        The table.
    keep
        "all" appends items of the table that the log lacks to the catalogue, in the order of the table: codes of other
        items never change. "known" leaves them out. Users whom the log lacks are always left out.

    Returns
    -------
    Dataset
        The same interactions. Its metadata says how many ids matched.

    Raises
    ------
    DataError
        No id of the table is in the log, or the ids have other types.
    """
    vocabulary = dataset.catalogue if source.role == "item" else dataset.users
    result, note = joined(dataset, source, keep)
    check_matches(source, note, len(vocabulary), vocabulary.ids)
    return result


def joined(
    dataset: Dataset, source: TableSource, keep: Literal["all", "known"] = "all"
) -> tuple[Dataset, dict[str, Any]]:
    """Join a table to a Dataset as `attach` does, even if no id matches; also return the entry of the metadata."""
    is_item = source.role == "item"
    vocabulary = dataset.catalogue if is_item else dataset.users
    ids = same_type(source, vocabulary)
    codes = vocabulary.encode(ids)
    matched, known = int((codes > 0).sum()), len(vocabulary)
    if matched and is_item and keep == "all":
        vocabulary = vocabulary.extended(ids)
        codes = vocabulary.encode(ids)
    table = _aligned(source, codes, len(vocabulary))
    note = {
        "source": source.name,
        "key": source.key,
        "rows": len(ids),
        "matched": matched,
        "without_row": known - matched,
        "left_out": int((codes == 0).sum()),
        "cold": len(vocabulary) - known,
    }
    metadata = {**dataset.metadata, f"{source.role}_table": note}
    if not is_item:
        return replace(dataset, user_table=table, metadata=metadata), note
    return replace(dataset, catalogue=vocabulary, item_table=table, metadata=metadata), note


def check_matches(source: TableSource, note: Mapping[str, Any], known: int, known_ids: pl.Series) -> None:
    """Check the share of ids with a row in a table, and warn if it is small.

    Parameters
    ----------
    source, note
        The table, and its entry of the metadata.
    known
        Number of ids of the log.
    known_ids
        Some of them, for messages.

    Raises
    ------
    DataError
        No id of the table is in the log.
    """
    matched = note["matched"]
    if not matched:
        raise DataError(
            f"{source.name}: none of its {note['rows']:,} keys is {_article(source.role)} of the log. Keys "
            f'("{source.key}") look like {_examples(_as_type(source.ids, known_ids))}, ids of the log like '
            f"{_examples(known_ids)}. Name the column of the ids with {source.role}_key "
            f"(--{source.role.replace('_', '-')}-key)."
        )
    if matched < _FEW * known:
        warnings.warn(
            f"{source.name} has a row for {matched:,} of {known:,} {source.role}s of the log ({matched / known:.1%}).",
            stacklevel=5,
        )


def _as_type(ids: pl.Series, known: pl.Series) -> pl.Series:
    """Ids in the type of others, if that is text."""
    return ids.cast(pl.String) if known.dtype == pl.String else ids


def _aligned(source: TableSource, codes: Int64, n: int) -> Table:
    """The table with a row for each of n codes."""
    rows = np.flatnonzero(codes)
    index = np.full(n, -1, dtype=np.int64)
    index[codes[rows] - 1] = rows
    gather = pl.Series(index).set(pl.Series(index < 0), None)
    columns, vectors = [], {}
    for name, values in source.columns.items():
        if isinstance(values, pl.Series):
            columns.append(values.gather(gather).alias(name))
        else:
            vectors[name] = np.zeros((n, values.shape[1]), dtype=np.float32)
            vectors[name][codes[rows] - 1] = values[rows]
    return Table(pl.DataFrame(columns), source.kinds, source.key, source.title, vectors)


def same_type(source: TableSource, vocabulary: Vocabulary) -> pl.Series:
    """Ids of the table in the type of those of the log."""
    ids = vocabulary.convert(source.ids)
    if ids.null_count() == len(ids):
        return source.ids.cast(pl.String) if vocabulary.ids.dtype == pl.String else ids
    if ids.null_count():
        odd = source.ids.filter(ids.is_null())
        raise DataError(
            f'{source.name}: the key "{source.key}" holds {odd[0]!r} ({len(odd):,} of {len(ids):,} keys), and the ids '
            "of the log are integers. Correct these keys, or leave their rows out."
        )
    return ids


def _examples(ids: pl.Series) -> str:
    return ", ".join(repr(one) for one in ids.drop_nulls().head(3)) or "nothing"


def _article(role: str) -> str:
    return "an item" if role == "item" else "a user"
