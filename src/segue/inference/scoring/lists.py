"""Lists of the best items: from the model, or by popularity for users without history and basket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.ragged import Int64, positions
from segue.data.vocabulary import Vocabulary
from segue.inference.asking.ids import allowed_items
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.asking.users import RequestedUsers
from segue.inference.index import ItemIndex
from segue.inference.scorer import Scorer
from segue.inference.scoring.indexed import top_k_by_index
from segue.inference.scoring.ranking import Progress, check_k, top_k
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


def best_lists(
    scorer: Scorer, users: RequestedUsers, rules: Rules, shares: Scores, progress: Progress | None = None
) -> tuple[Int64, Scores]:
    """Rank the best items for each user.

    Parameters
    ----------
    scorer
        Ranks items for users with a history or a basket; for all users, if the model needs neither.
    users
        n users.
    rules
        Rules for the lists.
    shares
        (n_items + 1,) popularity: share of each item in all interactions. It ranks items for the other users.
    progress
        Called with the number of users that were answered.

    Returns
    -------
    codes
        (n, k) int64, best first; 0 if fewer than k items are left.
    scores
        (n, k) float32.
    """
    rules.check(scorer.n_items)
    if rules.reranking is not None:
        return _reranked(scorer, users, rules, rules.reranking, shares, progress)

    def ranked(part: RequestedUsers) -> tuple[Int64, Scores]:
        histories = part.histories
        hidden = histories if rules.exclude_seen else sessions_in_progress(histories)
        if rules.index is not None:
            return top_k_by_index(
                scorer,
                rules.index,
                histories,
                rules.k,
                seen=hidden,
                allowed=rules.allowed,
                offset=rules.offset,
                own_allowed=part.allowed,
                own_denied=part.denied,
                progress=progress,
            )
        return top_k(
            scorer,
            histories,
            rules.k,
            exclude_seen=hidden is not None,
            seen=hidden,
            allowed=rules.allowed,
            offset=rules.offset,
            own_allowed=part.allowed,
            own_denied=part.denied,
            progress=progress,
        )

    served = users.served_by(scorer)
    if len(users) and served.all():
        return ranked(users)
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    scores = np.zeros((len(users), rules.k), dtype=np.float32)
    codes[~served], scores[~served] = _popular_lists(users.select(np.flatnonzero(~served)), rules, shares)
    if served.any():
        codes[served], scores[served] = ranked(users.select(np.flatnonzero(served)))
    return codes, scores


def _reranked(
    scorer: Scorer,
    users: RequestedUsers,
    rules: Rules,
    reranking: Reranking,
    shares: Scores,
    progress: Progress | None,
) -> tuple[Int64, Scores]:
    """Lists chosen from the best candidates; from more of them for users whose list is not full."""
    pool = reranking.pool(rules.k, scorer.n_items)
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    scores = np.full((len(users), rules.k), -np.inf, dtype=np.float32)
    rows = np.arange(len(users))
    while len(rows):
        part = users if len(rows) == len(users) else users.select(rows)
        candidates = best_lists(scorer, part, replace(rules, k=pool, reranking=None), shares, progress)
        codes[rows], scores[rows] = reranking.choose(*candidates, rules.k)
        progress = None  # the users were counted
        if pool == scorer.n_items:
            break
        short = (codes[rows, -1] == 0) & (candidates[0][:, -1] > 0)
        rows, pool = rows[short], min(_GROWTH * pool, scorer.n_items)
    return codes, np.where(codes > 0, scores, 0).astype(np.float32)


def _popular_lists(users: RequestedUsers, rules: Rules, shares: Scores) -> tuple[Int64, Scores]:
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
    """Like the codes of `_popular_lists`, for users with items of their own in `allow` or `deny`."""
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


def list_frame(
    scorer: Scorer,
    users: RequestedUsers,
    catalogue: Vocabulary,
    codes: Int64,
    scores: Scores,
    rank_column: str = "rank",
    by_model: npt.NDArray[np.bool_] | None = None,
) -> pl.DataFrame:
    """Lists as a frame with raw ids: user, item, score, rank, model.

    Parameters
    ----------
    scorer, users, catalogue
        The model, n users, and the raw ids of the items.
    codes, scores
        (n, k) item codes, 0 = none, and their scores.
    rank_column
        Name of the column of ranks, counted from 1.
    by_model
        Mask (n, k) of the items from the model; those of the users that it serves, if it is None.
    """
    if len(users) == 1 and by_model is None and codes.all():  # a service asks for one user at a time
        k = codes.shape[1]
        ids, items, values = users.ids.new_from_index(0, k), catalogue.decode(codes[0]), scores[0]
        rank_and_model = _full_list(scorer.config.name, bool(users.served_by(scorer)[0]), k, rank_column)
    else:
        rows, columns = np.nonzero(codes)
        ids = users.ids.new_from_index(0, len(rows)) if len(users) == 1 else users.ids[rows]
        items, values = catalogue.decode(codes[rows, columns]), scores[rows, columns]
        from_model = users.served_by(scorer)[rows] if by_model is None else by_model[rows, columns]
        ranks = pl.Series(rank_column, (columns + 1).astype(np.int32))
        rank_and_model = [ranks, model_names(scorer, from_model).alias("model")]
    first = ids.alias("user").to_frame()
    # half the time of pl.DataFrame(…)
    return first.hstack([items.alias("item"), pl.Series("score", values), *rank_and_model])


def with_columns(frame: pl.DataFrame, catalogue: Vocabulary, columns: pl.DataFrame | None) -> pl.DataFrame:
    """A frame with a column `item` of raw ids, and columns (n_items,) of the item table behind it."""
    if columns is None:
        return frame
    rows = columns[catalogue.encode(frame["item"]) - 1]
    return pl.concat([frame, rows], how="horizontal")


def model_names(scorer: Scorer, by_model: npt.NDArray[np.bool_]) -> pl.Series:
    """Column `model` (n,): the name of the model where the mask `by_model` (n,) is true, else popularity."""
    names = _possible_names(scorer.config.name)
    if by_model.all():
        return names.new_from_index(0, len(by_model))
    return names[np.where(by_model, 0, len(names) - 1)]


@lru_cache(maxsize=256)
def _full_list(name: str, from_model: bool, k: int, rank_column: str) -> list[pl.Series]:
    """Columns of the ranks 1 … k and of the model, for a list of k items; columns are never changed in place."""
    names = _possible_names(name)
    source = names.new_from_index(0 if from_model else len(names) - 1, k)
    return [pl.Series(rank_column, np.arange(1, k + 1, dtype=np.int32)), source.alias("model")]


@cache
def _possible_names(name: str) -> pl.Series:
    """Names of the model and of popularity, as an enumeration."""
    names = list(dict.fromkeys([name, FALLBACK]))
    return pl.Series(names, dtype=pl.Enum(names))
