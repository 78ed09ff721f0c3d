"""Search of users and items by the beginning of their ids, or by their titles."""

from __future__ import annotations

import numpy as np
import polars as pl

from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.serving.schemas import FindItems, FindUsers, ItemAnswer, ItemsAnswer, UserEntry, UsersAnswer, id_text
from segue.serving.served import Served


def find_users(served: Served, request: FindUsers) -> UsersAnswer:
    """Users whose id begins with the query: the id itself first, then in the order of the codes.

    Users without a history, such as forgotten ones, are left out.
    """
    live = served.live
    codes = _beginning(live.users.base, request.query)
    arrived = pl.Series(list(live.users.arrived), dtype=pl.String)
    later = np.flatnonzero(arrived.str.starts_with(request.query).to_numpy())
    codes = np.concatenate([codes, later + len(live.users.base) + 1])
    exact = live.users.encode(pl.Series([request.query], dtype=pl.String)) if request.query else codes[:0]
    codes = _exact_first(codes, exact)
    found: list[UserEntry] = []
    for first in range(0, len(codes), 1_000):
        part = codes[first : first + 1_000]
        lengths = live.histories(part).lengths
        for row in np.flatnonzero(lengths)[: request.limit - len(found)].tolist():
            found.append(UserEntry(_user_id(served, int(part[row]), arrived), int(lengths[row])))
        if len(found) == request.limit:
            break
    return UsersAnswer(found)


def find_items(served: Served, request: FindItems) -> ItemsAnswer:
    """Items with given ids, in that order, or those that a query finds, the most taken ones first.

    A query finds ids that begin with it and titles that contain it, in any case of the letters.
    """
    if request.id:
        codes = served.catalogue.encode(pl.Series(list(map(id_text, request.id)), dtype=pl.String))
        return ItemsAnswer(item_entries(served, codes[codes > 0]))
    found = np.zeros(len(served.catalogue), dtype=np.bool_)
    found[_beginning(served.catalogue, request.query) - 1] = True
    titles = titles_of(served)
    if titles is not None and request.query:
        named = titles.str.to_lowercase().str.contains(request.query.lower(), literal=True).fill_null(False)
        found |= named.to_numpy()
    codes = np.flatnonzero(found) + 1
    codes = codes[np.argsort(-served.item_counts[codes], kind="stable")]
    exact = served.catalogue.encode(pl.Series([request.query], dtype=pl.String)) if request.query else codes[:0]
    return ItemsAnswer(item_entries(served, _exact_first(codes, exact)[: request.limit]))


def item_entries(served: Served, codes: Int64) -> list[ItemAnswer]:
    """Entries (n,) of item codes (n,)."""
    titles = titles_of(served)
    names = [None] * len(codes) if titles is None else titles.gather(codes - 1).to_list()
    counts = served.item_counts[codes].tolist()
    return [
        ItemAnswer(item, count, title)
        for item, count, title in zip(served.catalogue.decode(codes), counts, names, strict=True)
    ]


def titles_of(served: Served) -> pl.Series | None:
    """Titles (n_items,) of the items in the order of the codes; None if the Dataset has no titles."""
    titles: pl.Series | None = getattr(served.dataset, "titles", None)
    return titles


def _beginning(vocabulary: Vocabulary, query: str) -> Int64:
    """Codes (m,) of the ids that begin with a query, in any case of the letters."""
    if not query:
        return np.arange(1, len(vocabulary) + 1, dtype=np.int64)
    ids = vocabulary.ids.cast(pl.String)
    if vocabulary.ids.dtype == pl.String:
        ids, query = ids.str.to_lowercase(), query.lower()
    return np.flatnonzero(ids.str.starts_with(query).to_numpy()).astype(np.int64) + 1


def _exact_first(codes: Int64, exact: Int64) -> Int64:
    """The same codes, with `exact` (0 or 1 code; the code 0 is unknown) in front."""
    exact = exact[exact > 0]
    return np.concatenate([exact, codes[~np.isin(codes, exact)]])


def _user_id(served: Served, code: int, arrived: pl.Series) -> int | str:
    base = served.live.users.base
    user: int | str = base.decode([code])[0] if code <= len(base) else arrived[code - len(base) - 1]
    return user
