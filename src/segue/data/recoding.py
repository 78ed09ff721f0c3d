"""Another log or Dataset in the codes of a Dataset, so that a model of the latter can be evaluated on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from segue.data.dataset import MANIFEST, Dataset
from segue.data.preparing.prepare import prepare
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.sessions import converted
from segue.data.shards import is_shards
from segue.data.sources import session_options


@dataclass(frozen=True, eq=False)
class Recoded:
    """Interactions of another log in the codes of a Dataset.

    Attributes
    ----------
    dataset
        The interactions. Its items are those of the Dataset. Its users are those of the Dataset, and behind them the
        users that are new.
    users
        Number of users in the other log.
    unknown_users, unknown_items
        Raw ids that are not in the Dataset.
    left_out
        Number of interactions with unknown items, which are not in `dataset`.
    """

    dataset: Dataset
    users: int
    unknown_users: pl.Series
    unknown_items: pl.Series
    left_out: int


def recode(base: Dataset, data: Any) -> Recoded:
    """Read another log or Dataset in the codes of a Dataset; ids are matched by raw id.

    Parameters
    ----------
    base
        Gives the codes, the unit of time, and for logs the rules of duplicates, ratings and sessions.
    data
        A Dataset or its folder, or a log: a file, a folder or a frame that `segue.prepare` reads.

    Raises
    ------
    DataError
        The log cannot be read, its ids are of another type than those of the Dataset, or none of its items is known.
    """
    other = _opened(base, data).compact()
    users = base.users.extended(other.users.ids)
    user_codes, item_codes = users.encode(other.users.ids), base.catalogue.encode(other.catalogue.ids)
    order = np.argsort(user_codes)
    starts, ends = other.starts[1:][order], other.ends[1:][order]
    every, row = positions(starts, ends), rows_of(starts, ends)
    items = np.concatenate([[0], item_codes])[other.items[every]]
    kept = items > 0
    if len(kept) and not kept.any():
        base.catalogue.require(other.catalogue.ids, "item")
    lengths = np.zeros(len(users) + 1, dtype=np.int64)
    lengths[user_codes[order]] = np.bincount(row[kept], minlength=len(order))
    at = every[kept]
    times = other.times
    if times is not None and base.times is not None:
        times = converted(times, other.time_unit or "s", base.time_unit or "s")
    dataset = Dataset(
        items=items[kept].astype(np.int32),
        offsets=offsets_of(lengths),
        users=users,
        catalogue=base.catalogue,
        times=None if times is None else times[at],
        ratings=None if other.ratings is None else other.ratings[at],
        time_unit=other.time_unit if base.times is None else base.time_unit,
        metadata=other.metadata,
        session_offsets=None if other.session_offsets is None else _sessions(other.session_offsets, row[kept], at),
        in_order=other.in_order,
        item_table=base.item_table,
    )
    return Recoded(
        dataset,
        other.n_users,
        other.users.ids.filter(pl.Series(user_codes > base.n_users, dtype=pl.Boolean)),
        other.catalogue.ids.filter(pl.Series(item_codes == 0, dtype=pl.Boolean)),
        int((~kept).sum()),
    )


def _opened(base: Dataset, data: Any) -> Dataset:
    """The other log as a Dataset in its own codes."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path) and ((Path(data) / MANIFEST).is_file() or is_shards(Path(data))):
        return Dataset.open(data)
    options = dict(base.metadata.get("options") or {})
    kept = {name: options[name] for name in ("duplicates", "min_rating") if options.get(name) is not None}
    return prepare(data, **kept, **session_options(base, data))


def _sessions(session_offsets: Int64, rows: Int64, kept: Int64) -> Int64:
    """Offsets of the sessions of the interactions `kept` (n,), whose users are `rows` (n,)."""
    session = np.searchsorted(session_offsets, kept, side="right")
    begins = np.ones(len(kept), dtype=np.bool_)
    begins[1:] = (session[1:] != session[:-1]) | (rows[1:] != rows[:-1])
    return np.append(np.flatnonzero(begins), len(kept)).astype(np.int64)
