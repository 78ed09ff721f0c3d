"""The arguments of a question, resolved: users, histories and baskets to `RequestedUsers`, and pairs to explain."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.sources import HistorySource, is_frame
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, DataError
from segue.inference.asking.baskets import Basket, add_baskets, is_single
from segue.inference.asking.everyone import EVERYONE
from segue.inference.asking.ids import FloatIdWarning, is_scalar, known_codes, requested_ids, warn_cold
from segue.inference.asking.own_items import OwnItems
from segue.inference.asking.users import (
    GivenHistories,
    RequestedUsers,
    Unknown,
    handle_unknown,
    one_known_user,
    users_by_history,
    users_by_id,
)
from segue.inference.scorer import Scorer


def resolve_users(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    histories: GivenHistories | None,
    basket: Basket | None,
    unknown: Unknown,
    as_of: int | None = None,
) -> RequestedUsers:
    """The users of a question: known ones, or ones with given histories, or ones with a basket only.

    Parameters
    ----------
    dataset
        The Dataset of the fit: its users may have vectors in the model.
    source
        Histories of known users.
    users, histories
        Raw ids, `EVERYONE` or given histories; None if not given. With neither, all users; or, if there is a basket,
        the users that it names, or one unknown user for each of its lists.
    basket
        Items of the sessions in progress; None if no user has one.
    unknown
        As for `handle_unknown`; "skip" keeps users with a basket.
    as_of
        Time of the question in the unit of the source; None means now.

    Raises
    ------
    ConfigError
        A basket does not fit the users.
    DataError
        Users are no ids, or histories or baskets are not lists.
    UnknownIdError
        All users are unknown and have no basket, or some are unknown and `unknown` is "error".
    """
    if basket is None:
        if histories is None:
            one = one_known_user(source, users)
            if one is not None:
                return one.at(as_of)
            users = EVERYONE if users is None else users
            return handle_unknown(source, users_by_id(source, users), unknown).at(as_of)
        return users_by_history(dataset, source, histories, as_of)
    if is_frame(basket):
        raise DataError("basket is a frame: expected a list of items, such as frame['item'], or lists by user.")
    if not isinstance(basket, Mapping) and not is_scalar(basket):
        basket = list(basket)
    if users is None and histories is None:
        if isinstance(basket, Mapping):
            users = list(basket)
        else:
            histories = [[]] * (1 if is_single(basket) else len(basket))
    if histories is not None:
        return add_baskets(users_by_history(dataset, source, histories, as_of), basket, source.catalogue)[0]
    requested, has_basket = add_baskets(users_by_id(source, users).at(as_of), basket, source.catalogue)
    return handle_unknown(source, requested, unknown, has_basket)


def resolve_pairs(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    items: Any,
    histories: GivenHistories | None,
    basket: Basket | None,
    as_of: int | None = None,
) -> tuple[RequestedUsers, Int64]:
    """The p pairs to explain: users, repeats kept, and item codes (p,).

    Pairs with an unknown id are left out, with a warning.

    Raises
    ------
    ConfigError
        Neither users nor histories nor a basket, or a basket that does not fit the users.
    DataError
        The numbers of users and items differ, and neither is one.
    UnknownIdError
        None of the users or none of the items is known.
    """
    ids = source.catalogue.ids if items is None else requested_ids(items, "items")
    codes = source.catalogue.encode(ids)
    known_codes(source.catalogue, ids, "items", "left out")
    requested, rows = resolve_repeated_users(dataset, source, users, histories, basket, as_of)
    n, m = len(rows), len(codes)
    if n != m and 1 not in (n, m):
        raise DataError(
            f"{n:,} users and {m:,} items make no pairs: give as many of one as of the other, or one of either."
        )
    pairs = np.arange(max(n, m) if min(n, m) else 0)
    user_rows, pair_items = rows[pairs * (n > 1)], codes[pairs * (m > 1)]
    kept = (user_rows >= 0) & (pair_items > 0)
    return requested.select(user_rows[kept]), pair_items[kept]


def without_cold(
    scorer: Scorer, catalogue: Vocabulary, pairs: RequestedUsers, codes: Int64
) -> tuple[RequestedUsers, Int64]:
    """The pairs without items that the model cannot score, with a warning about these."""
    if scorer.cold is None:
        return pairs, codes
    warn_cold(scorer, catalogue, codes, "have no reasons")
    kept = np.flatnonzero(~np.isin(codes, scorer.cold.cpu().numpy()))
    return pairs.select(kept), codes[kept]


def resolve_repeated_users(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    histories: GivenHistories | None,
    basket: Basket | None,
    as_of: int | None = None,
) -> tuple[RequestedUsers, Int64]:
    """Distinct users, and the row (n,) of each id in `users` among them; -1 for an unknown id."""
    if users is None and histories is None and basket is None:
        raise ConfigError("an explanation needs users: give users, histories or a basket.")
    requested = resolve_users(dataset, source, users, histories, basket, "skip", as_of)
    if users is None or users is EVERYONE or not len(requested):
        return requested, np.arange(len(requested), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FloatIdWarning)  # it was given when the users were looked up
        ids = requested_ids(users, "users")
    return requested, Vocabulary.in_order(requested.ids).encode(ids) - 1


def limit_items(users: RequestedUsers, source: HistorySource, allow: Any = None, deny: Any = None) -> RequestedUsers:
    """The same users with the items that `allow` and `deny` list for each of them, if these are mappings."""
    allowed, denied = (
        OwnItems.of(lists, argument, users.ids, source.users, source.catalogue) if isinstance(lists, Mapping) else None
        for argument, lists in (("allow", allow), ("deny", deny))
    )
    return users if allowed is None and denied is None else replace(users, allowed=allowed, denied=denied)
