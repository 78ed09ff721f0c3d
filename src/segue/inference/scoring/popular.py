"""Rules of lists, and the parts of lists that need no model: popularity, and items that are chosen together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, positions
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.asking.ids import allowed_items
from segue.inference.asking.users import RequestedUsers
from segue.inference.index import ItemIndex
from segue.inference.scoring.reranking import Reranking

Scores = npt.NDArray[np.float32]
_LIMITED_ROWS = 4_096
"""Users with items of their own in `allow` or `deny` whom popularity answers at once."""
_GROWTH = 8
"""Factor by which the candidates of a list grow if the rules leave too few of them."""
FALLBACK = "popularity"
"""Name in the column `model` of answers for users without history and basket."""


@dataclass(frozen=True)
class Rules:
    """Rules for the items of a list.

    Attributes
    ----------
    k
        Length of a list.
    exclude_seen
        Leave out the items of the history. The items of the basket are always left out.
    allowed
        Mask (n_items + 1,) of the item codes that may be recommended; all if it is None.
    cold
        Codes of items that are in no list, because the model cannot score them (`Model.cold`).
    offset
        (n_items + 1,) numbers to add to the scores; −inf for items that may not be recommended.
    reranking
        Rules for the items of a list together; None without.
    index
        Index that proposes candidates; None ranks the whole catalogue.
    """

    k: int
    exclude_seen: bool = True
    allowed: npt.NDArray[np.bool_] | None = None
    cold: Int64 | None = None
    offset: Scores | None = None
    reranking: Reranking | None = None
    index: ItemIndex | None = None

    def check(self, n_items: int) -> None:
        """Raise a ConfigError unless k is from 1 to the size of the catalogue."""
        check_k(self.k, n_items)


def make_rules(
    catalogue: Vocabulary,
    k: int,
    exclude_seen: bool | None,
    allow: Iterable[Any] | None,
    deny: Iterable[Any] | None,
    in_session: bool = False,
    cold: Int64 | None = None,
    offset: Scores | None = None,
    reranking: Reranking | None = None,
    index: ItemIndex | None = None,
) -> Rules:
    """Rules for all users, from arguments with raw ids. `exclude_seen` None leaves seen items out, except in a session.

    Mappings in `allow` and `deny` are rules of single users: they belong to `RequestedUsers`.

    Raises
    ------
    UnknownIdError
        None of the items of `allow` is known.
    """
    allow, deny = (None if isinstance(ids, Mapping) else ids for ids in (allow, deny))
    seen_out = not in_session if exclude_seen is None else exclude_seen
    return Rules(k, seen_out, allowed_items(catalogue, allow, deny), cold, offset, reranking, index)


def check_k(k: int, n_items: int) -> None:
    """Raise a ConfigError unless 1 ≤ k ≤ n_items."""
    if k < 1:
        raise ConfigError(f"k is the length of a list of items: expected 1 or more, found {k}.")
    if k > n_items:
        raise ConfigError(f"k is {k:,}, but the catalogue has only {n_items:,} items: ask for {n_items:,} or fewer.")


Ranking = Callable[[RequestedUsers, Rules], tuple[Int64, Scores]]
"""Codes and scores (n, k) of the best items for n users whom a model answers, by rules without `reranking`."""


def lists_by(
    ranked: Ranking, served: npt.NDArray[np.bool_], n_items: int, users: RequestedUsers, rules: Rules, shares: Scores
) -> tuple[Int64, Scores]:
    """Lists of users: from a model for those whom it serves, by popularity for the others.

    Parameters
    ----------
    ranked
        Lists of the model.
    served
        Mask (n,) of the users whom the model serves.
    n_items
        Number of items.
    users
        n users.
    rules
        Rules for the lists.
    shares
        (n_items + 1,) popularity: share of each item in all interactions.

    Returns
    -------
    codes
        (n, k) int64, best first; 0 if fewer than k items are left.
    scores
        (n, k) float32.
    """
    rules.check(n_items)
    if rules.reranking is not None:
        return _reranked(ranked, served, n_items, users, rules, rules.reranking, shares)
    if len(users) and served.all():
        return ranked(users, rules)
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    scores = np.zeros((len(users), rules.k), dtype=np.float32)
    codes[~served], scores[~served] = popular_lists(users.select(np.flatnonzero(~served)), rules, shares)
    if served.any():
        codes[served], scores[served] = ranked(users.select(np.flatnonzero(served)), rules)
    return codes, scores


def _reranked(
    ranked: Ranking,
    served: npt.NDArray[np.bool_],
    n_items: int,
    users: RequestedUsers,
    rules: Rules,
    reranking: Reranking,
    shares: Scores,
) -> tuple[Int64, Scores]:
    """Lists chosen from the best candidates; from more of them for users whose list is not full."""
    pool = reranking.pool(rules.k, n_items)
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    scores = np.full((len(users), rules.k), -np.inf, dtype=np.float32)
    rows = np.arange(len(users))
    while len(rows):
        part = users if len(rows) == len(users) else users.select(rows)
        candidates = lists_by(ranked, served[rows], n_items, part, replace(rules, k=pool, reranking=None), shares)
        codes[rows], scores[rows] = reranking.choose(*candidates, rules.k)
        if pool == n_items:
            break
        short = (codes[rows, -1] == 0) & (candidates[0][:, -1] > 0)
        rows, pool = rows[short], min(_GROWTH * pool, n_items)
    return codes, np.where(codes > 0, scores, 0).astype(np.float32)


def popular_lists(users: RequestedUsers, rules: Rules, shares: Scores) -> tuple[Int64, Scores]:
    """Codes and scores (n, k) of the most popular items for each user; 0 if fewer than k items are left."""
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    popular = most_popular(shares, rules)
    codes[:, : len(popular)] = popular
    limited = np.zeros(len(users), dtype=np.bool_)
    for lists in (users.allowed, users.denied):
        limited |= False if lists is None else lists.named
    rows = np.flatnonzero(limited)
    for first in range(0, len(rows), _LIMITED_ROWS):
        part = rows[first : first + _LIMITED_ROWS]
        codes[part] = _popular_of_limited(users.select(part), rules, shares)
    scores = shares if rules.offset is None else shares + rules.offset
    return codes, np.where(codes > 0, scores[codes], 0).astype(np.float32)


def _popular_of_limited(users: RequestedUsers, rules: Rules, shares: Scores) -> Int64:
    """Like the codes of `popular_lists`, for users with items of their own in `allow` or `deny`."""
    stride = len(shares)
    order = most_popular(shares, replace(rules, k=stride))
    ranks = np.full(stride, -1, dtype=np.int64)
    ranks[order] = np.arange(len(order))
    denied_rows, denied = (np.zeros(0, dtype=np.int64),) * 2 if users.denied is None else users.denied.pairs()
    # k items, and one more for each that is denied, are enough; a list of allowed items takes their place.
    enough = np.minimum(rules.k + np.bincount(denied_rows, minlength=len(users)), len(order))
    rows, items = np.zeros((2, 0), dtype=np.int64)
    if users.allowed is not None:
        enough[users.allowed.named] = 0
        rows, items = users.allowed.pairs()
    rows = np.concatenate([rows, np.repeat(np.arange(len(users)), enough)])
    items = np.concatenate([items, order[positions(np.zeros_like(enough), enough)]])
    kept = (ranks[items] >= 0) & ~np.isin(rows * stride + items, denied_rows * stride + denied)
    keys = np.unique(rows[kept] * stride + ranks[items[kept]])
    rows = keys // stride
    columns = np.arange(len(rows)) - np.searchsorted(rows, rows)
    listed = columns < rules.k
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    codes[rows[listed], columns[listed]] = order[keys[listed] % stride]
    return codes


def most_popular(shares: Scores, rules: Rules) -> Int64:
    """Codes (≤ k,) of the most popular allowed items; equal ones by code."""
    codes = np.arange(1, len(shares)) if rules.allowed is None else np.flatnonzero(rules.allowed[1:]) + 1
    if rules.cold is not None and len(rules.cold):
        codes = np.setdiff1d(codes, rules.cold, assume_unique=True)
    if rules.offset is not None:
        codes = codes[rules.offset[codes] > -np.inf]
        shares = shares + rules.offset
    order = np.argsort(-shares[codes], kind="stable")
    return codes[order[: rules.k]]
