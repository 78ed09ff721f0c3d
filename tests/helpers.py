"""Small Datasets made straight from lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.models.base import Model, TrainableModel

Lists = Mapping[Any, Sequence[Any]] | Sequence[Sequence[Any]]


def make_dataset(
    histories: Lists,
    times: Lists | None = None,
    ratings: Lists | None = None,
    catalogue: Iterable[Any] | None = None,
) -> Dataset:
    """A Dataset of raw ids, each history oldest first; users given without names are called 1, 2, 3, …

    With `catalogue=range(1, n + 1)` raw item ids are their own codes.
    """
    users = Vocabulary(_named(histories))
    rows = _ordered(histories, users)
    flat = [item for row in rows for item in row]
    items = Vocabulary(sorted(set(flat)) if catalogue is None else catalogue)

    def column(values: Lists | None, dtype: type) -> Any:
        return None if values is None else np.array([value for row in _ordered(values, users) for value in row], dtype)

    return Dataset(
        items=items.require(flat, "item").astype(np.int32),
        offsets=offsets_of(np.array([0, *map(len, rows)])),
        users=users,
        catalogue=items,
        times=column(times, np.int64),
        ratings=column(ratings, np.float32),
        time_unit=None if times is None else "s",
    )


def cycle_dataset(n_users: int = 12, n_items: int = 8, length: int = 6) -> Dataset:
    """Every user walks round the catalogue, each from another item: 1 is followed by 2, the last by 1."""
    walks = (np.arange(n_users)[:, None] + np.arange(length)) % n_items + 1
    return make_dataset(walks.tolist(), catalogue=range(1, n_items + 1))


def visible(dataset: Dataset) -> dict[Any, list[Any]]:
    """The raw visible history of every user, empty ones too."""
    return {
        user: dataset.catalogue.decode(dataset.items[dataset.starts[code] : dataset.ends[code]]).to_list()
        for code, user in enumerate(dataset.users.ids, 1)
    }


def queries_of(model: Model, histories: Histories) -> Tensor:
    """Queries of histories, as the model's weights and mode are now."""
    queries: Tensor = model.encode(model.inputs(histories))
    return queries


def prepared(model: TrainableModel, dataset: Dataset) -> Any:
    """The model's examples, after it was prepared."""
    model.prepare(dataset)
    return model.examples(dataset)


def alter(path: Path, place: int) -> None:
    """Flip all bits of the byte at `place` (from the end when negative)."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path, by: int = 1) -> None:
    """Cut `by` bytes off the end."""
    path.write_bytes(path.read_bytes()[:-by])


def _ordered(values: Lists, users: Vocabulary) -> list[Sequence[Any]]:
    named = _named(values)
    return [named[user] for user in users.ids]


def _named(values: Lists) -> Mapping[Any, Sequence[Any]]:
    return values if isinstance(values, Mapping) else dict(enumerate(values, 1))
