"""Rules for the items of a list together, and columns to show, from the arguments of a question."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.errors import ConfigError, nearest
from segue.inference.asking.preferences import Preferences
from segue.inference.scoring.reranking import Reranking, Scores

_OWN = ("user", "item", "score", "rank", "step", "model")
"""Columns of answers, which a column of the item table may not have as its name there."""


def make_reranking(
    preferences: Preferences,
    item_vectors: Callable[[], Scores],
    at_most: Mapping[str, int] | None,
    diversity: float,
    diversity_by: str | None,
) -> Reranking | None:
    """Rules for the items of a list together; None without any.

    Parameters
    ----------
    preferences
        The item table.
    item_vectors
        Vectors (n_items + 1, width) of the model, for diversity without `diversity_by`.
    at_most, diversity, diversity_by
        As in `Recommender.recommend`.

    Raises
    ------
    ConfigError
        A number is out of its range, a column is unknown or holds no categories, or there are no vectors.
    """
    is_number = isinstance(diversity, int | float | np.number) and not isinstance(diversity, bool)
    if not is_number or not math.isfinite(diversity) or not 0 <= diversity <= 1:
        raise ConfigError(f"diversity={diversity!r} is a weight: expected a number from 0 (none) to 1.")
    if diversity_by is not None and not diversity:
        raise ConfigError("diversity_by= names a column for diversity=: give diversity a weight above 0, such as 0.3.")
    if at_most is not None and not isinstance(at_most, Mapping):
        raise ConfigError('at_most: expected numbers by column, as in {"category": 2}.')
    if not at_most and not diversity:
        return None
    limits = {}
    for column, limit in (at_most or {}).items():
        if isinstance(limit, bool) or not isinstance(limit, int | np.integer) or limit < 1:
            raise ConfigError(f'at_most["{column}"] is {limit!r}: expected a number of items, 1 or more.')
        limits[column] = (preferences.values(column, "at_most"), int(limit))
    vectors = categories = None
    if diversity:
        table = preferences.table
        if diversity_by is None:
            vectors = preferences.vectors("", item_vectors)
        elif table is not None and diversity_by in table.vectors:
            given = table.vectors[diversity_by]
            vectors = preferences.vectors(diversity_by, lambda: np.concatenate([np.zeros_like(given[:1]), given]))
        else:
            categories = preferences.values(diversity_by, "diversity_by")
    label = repr((sorted((name, limit) for name, (_, limit) in limits.items()), float(diversity), diversity_by))
    return Reranking(limits, float(diversity), vectors, categories, label)


def shown_columns(dataset: Dataset, show: Any) -> pl.DataFrame | None:
    """Columns (n_items,) of the item table to add to an answer; None without any.

    Parameters
    ----------
    dataset
        The Dataset with the item table.
    show
        One name or several; "title" is the column of the titles, if no column has that name. A column that has the name
        of one of the answer's own is called "item <name>".

    Raises
    ------
    ConfigError
        There is no such column.
    """
    if show is None:
        return None
    names = [show] if isinstance(show, str) else list(show) if isinstance(show, Sequence) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"show={show!r}: expected names of columns of the item table.")
    if not names:
        return None
    table = dataset.item_table
    if table is None:
        raise ConfigError("show= needs a table of items: prepare the Dataset with items= (segue prepare --items).")
    chosen = {}
    for name in names:
        column = table.title if name == "title" and name not in table.kinds else name
        if column is None or column not in table.kinds:
            reason = "the item table has no column of titles" if name == "title" else f'show: no column "{name}"'
            raise ConfigError(f"{reason}: {nearest(name, table.columns)}")
        chosen[column] = f"item {column}" if column in _OWN else column
    frame = dataset.items_frame if table.kinds.keys() & chosen.keys() & table.vectors.keys() else table.frame
    return frame.select(pl.col(column).alias(name) for column, name in chosen.items())
