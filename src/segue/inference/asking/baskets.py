"""Given baskets: each is matched with its user, encoded and appended to the user's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, rows_of
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, DataError
from segue.inference.asking.ids import encode_lists, format_ids, is_scalar, requested_ids, warn_unknown
from segue.inference.asking.in_progress import append_baskets
from segue.inference.asking.users import RequestedUsers

Basket = Sequence[Any] | Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]] | Any
"""Raw item ids in the order of adding: a list for one user, a list per user, or lists by user id."""


def add_baskets(
    users: RequestedUsers, basket: Basket, catalogue: Vocabulary
) -> tuple[RequestedUsers, npt.NDArray[np.bool_]]:
    """Give the users a session in progress.

    Items that are not in the catalogue are left out, with a warning. A repeated item counts once, at its first place.

    Parameters
    ----------
    users
        n users.
    basket
        A list for the only user, a list per user in their order, or lists by user id.
    catalogue
        The known items.

    Returns
    -------
    users
        The n users, with baskets appended to their histories.
    has_basket
        Mask (n,) of the users with a given basket, be it empty. The basket of a user that a mapping omits is empty.

    Raises
    ------
    ConfigError
        One list for several users, a number of lists that differs from the number of users, or a mapping with users
        that are not in the question.
    DataError
        A basket is not a list of items.
    """
    rows, lists = _match(basket, users.ids)
    items, offsets, unknown = encode_lists(catalogue, lists, "baskets")
    if len(unknown):
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        emptied = int(((lengths > 0) & (np.diff(offsets) == 0)).sum())
        warn_unknown("items", unknown, _consequence(len(lists), emptied))
    items, offsets = _without_repeats(items, offsets)
    starts, ends = np.zeros((2, len(users)), dtype=np.int64)
    starts[rows], ends[rows] = offsets[:-1], offsets[1:]
    has_basket = np.zeros(len(users), dtype=np.bool_)
    has_basket[rows] = True
    baskets = Histories(users.histories.users, items, starts, ends)
    return replace(users, histories=append_baskets(users.histories, baskets)), has_basket


def is_single(basket: Any) -> bool:
    """True for the basket of one user: no list within it."""
    return is_scalar(basket) or all(map(is_scalar, basket))


def _match(basket: Basket, ids: pl.Series) -> tuple[Int64, list[Any]]:
    """Rows (m,) of the users `ids` (n,), and the list of each of these users."""
    if is_scalar(basket):
        raise DataError(f"basket={basket!r} is one value: a basket is a list of items, such as [{basket!r}].")
    if isinstance(basket, Mapping):
        return _rows_by_id(requested_ids(list(basket), "the users of basket"), ids), list(basket.values())
    lists = list(basket)
    if is_single(lists) and (lists or len(ids)):
        if len(ids) != 1:
            raise ConfigError(
                f"basket is one list of items, and the question has {len(ids):,} users: give a list for each of them, "
                "in their order, or a mapping from user to list."
            )
        return np.zeros(1, dtype=np.int64), [lists]
    if any(map(is_scalar, lists)):
        raise DataError("basket mixes items and lists: give a list of items for one user, or a list for each.")
    if len(lists) != len(ids):
        raise ConfigError(
            f"{len(lists):,} baskets and {len(ids):,} users (each counted once): give one for each, in their order, "
            "or a mapping from user to list."
        )
    return np.arange(len(ids), dtype=np.int64), lists


def _rows_by_id(basket_ids: pl.Series, ids: pl.Series) -> Int64:
    """Row (m,) of each of the users `basket_ids` (m,) among `ids` (n,)."""
    codes = Vocabulary.in_order(ids).encode(basket_ids)
    others = basket_ids.filter(pl.Series(codes == 0)).to_list()
    if others:
        raise ConfigError(f"basket names users that are not in the question: {format_ids(others)}. Add them to users.")
    return codes - 1


def _consequence(baskets: int, emptied: int) -> str:
    """Consequence of unknown items, for the warning."""
    if baskets == 1:
        return "left out of the basket" + ", which now counts as empty" * emptied
    verb = "counts" if emptied == 1 else "count"
    return "left out of the baskets" + (f" ({emptied:,} of them now {verb} as empty)" if emptied else "")


def _without_repeats(items: npt.NDArray[np.int32], offsets: Int64) -> tuple[npt.NDArray[np.int32], Int64]:
    """Items (any,) and offsets (n + 1,) of n lists without their repeats."""
    rows = rows_of(offsets[:-1], offsets[1:])
    _, first = np.unique(rows * (int(items.max(initial=0)) + 1) + items, return_index=True)
    kept = np.sort(first)
    return items[kept], offsets_of(np.bincount(rows[kept], minlength=len(offsets) - 1))
