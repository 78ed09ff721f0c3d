"""Items that were put into the catalogue through the API: in the vocabulary and the table of a Dataset."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.data.tables.table import Table
from segue.data.times import utc_time
from segue.errors import ConfigError, SegueError, nearest
from segue.serving.store.base import Store

log = logging.getLogger("segue.serving")


class Document(NamedTuple):
    """An item as it was put: its title, and columns of the item table by name."""

    title: str | None
    columns: Mapping[str, Any]

    def over(self, earlier: Document | None) -> Document:
        """The document with what it does not name from an earlier one."""
        if earlier is None:
            return self
        title = earlier.title if self.title is None else self.title
        return Document(title, {**earlier.columns, **self.columns})


def documents_of(store: Store) -> tuple[dict[str, Document], int]:
    """All items that were put, by raw id, and the number of the last one in the store."""
    rows = store.items(0)
    return {item: Document(*json.loads(text)) for _, item, text in rows}, rows[-1][0] if rows else 0


def with_documents(dataset: Dataset, documents: Mapping[str, Document], strict: bool = True) -> Dataset:
    """The same Dataset with more items and newer columns.

    Parameters
    ----------
    dataset
        A Dataset, whose table names the columns.
    documents
        Items by raw id as text. Columns that a document does not name keep their values.
    strict
        Refuse ids and columns that do not fit; else they are left out, and the log says so.

    Raises
    ------
    ConfigError
        There is no item table, no such column, or a value does not fit its column.
    DataError
        An id is of another type than those of the catalogue.
    """
    if not documents:
        return dataset
    if strict:
        larger = dataset.with_items(pl.Series(list(documents), dtype=pl.String))
    else:
        larger, documents = _fitting(dataset, documents)
    rows = larger.catalogue.encode(pl.Series(list(documents), dtype=pl.String)) - 1
    values: list[dict[str, Any]] = []
    for name, document in documents.items():
        try:
            values.append(_values(larger.item_table, name, document))
        except SegueError as error:
            if strict:
                raise
            log.warning("the columns of an item are left out: %s", error)
            values.append({})
    table = larger.item_table
    if table is None or not any(values):
        return larger
    vectors = dict(table.vectors)
    for column in vectors:
        given = {row: one[column] for row, one in zip(rows.tolist(), values, strict=True) if one.get(column)}
        if given:
            matrix = np.array(vectors[column])
            matrix[list(given)] = np.array(list(given.values()), dtype=np.float32)
            vectors[column] = matrix
    frame = table.frame
    if frame.width:
        schema = {"_row": pl.Int64(), **frame.schema}
        plain = [
            {"_row": row, **{name: one.get(name) for name in frame.columns}}
            for row, one in zip(rows.tolist(), values, strict=True)
        ]
        newer = pl.DataFrame(plain, schema=schema, orient="row")
        numbered = frame.with_columns(pl.Series("_row", np.arange(len(frame)), dtype=pl.Int64))
        frame = numbered.update(newer, on="_row", how="left").select(frame.columns)
    return replace(larger, item_table=replace(table, frame=frame, vectors=vectors))


def _fitting(dataset: Dataset, documents: Mapping[str, Document]) -> tuple[Dataset, dict[str, Document]]:
    """The Dataset with the items whose ids fit its catalogue, and their documents."""
    ids = pl.Series(list(documents), dtype=pl.String)
    fits = dataset.catalogue.convert(ids).is_not_null().to_list()
    kept = {name: document for (name, document), fit in zip(documents.items(), fits, strict=True) if fit}
    if len(kept) < len(documents):
        log.warning("%d items are left out: the ids of the catalogue are of another type", len(documents) - len(kept))
    return dataset.with_items(pl.Series(list(kept), dtype=pl.String)), kept


def _values(table: Table | None, item: str, document: Document) -> dict[str, Any]:
    """Checked values of a document by column; missing ones are left out."""
    given = {name: value for name, value in document.columns.items() if value is not None}
    if table is None:
        if given or document.title is not None:
            raise ConfigError(
                f"the item {item!r} has a title or columns, and the Dataset has no table of items: prepare it with "
                "items= (segue prepare --items), or put the id alone."
            )
        return {}
    if document.title is not None:
        if table.title is None:
            raise ConfigError(f"the item {item!r} has a title, and the table has no column of titles.")
        given[table.title] = document.title
    for name in given:
        if name not in table.kinds:
            raise ConfigError(f"the item table has no column {name!r}: {nearest(name, table.columns)}")
    return {name: _value(table, name, value) for name, value in given.items()}


def _value(table: Table, column: str, value: Any) -> Any:
    kind = table.kinds[column]
    dtype = None if kind == "vector" else table.frame.schema[column]
    expected = ""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if kind == "vector":
        width = table.vectors[column].shape[1]
        expected = f"a list of {width} numbers"
        numbers = isinstance(value, list) and all(isinstance(one, int | float) for one in value)
        fits = numbers and len(value) == width and bool(np.isfinite(np.array(value, dtype=np.float32)).all())
    elif kind == "categories":
        expected, fits = "a list of texts", isinstance(value, list) and all(isinstance(one, str) for one in value)
    elif dtype == pl.String:
        expected, fits = "a text", isinstance(value, str)
    elif dtype == pl.Boolean:
        expected, fits = "true or false", isinstance(value, bool)
    elif dtype == pl.Float64:
        expected, fits = "a number", is_number
    elif dtype == pl.Int64:
        expected, fits = "an integer", is_number and value == int(value) and abs(value) < 2**63
        value = int(value) if fits else value
    else:
        expected, fits = "a time in ISO form", isinstance(value, str)
        try:
            value = utc_time(value).replace(tzinfo=None) if fits else value
        except ValueError:
            fits = False
    if not fits:
        raise ConfigError(f"{value!r} does not fit the column {column!r}: expected {expected}.")
    return value
