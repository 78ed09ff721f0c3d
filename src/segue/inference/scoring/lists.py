"""Lists of the best items: from the model, or by popularity for users without history and basket."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.inference.asking.ids import allowed_items
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.asking.users import RequestedUsers
from segue.inference.scorer import Scorer
from segue.inference.scoring.ranking import check_k, top_k

Scores = npt.NDArray[np.float32]
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
    """

    k: int
    exclude_seen: bool = True
    allowed: npt.NDArray[np.bool_] | None = None

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
) -> Rules:
    """Rules from arguments with raw ids. `exclude_seen` None leaves seen items out, except in a session.

    Raises
    ------
    UnknownIdError
        None of the items of `allow` is known.
    """
    return Rules(k, not in_session if exclude_seen is None else exclude_seen, allowed_items(catalogue, allow, deny))


def best_lists(scorer: Scorer, users: RequestedUsers, rules: Rules, shares: Scores) -> tuple[Int64, Scores]:
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

    Returns
    -------
    codes
        (n, k) int64, best first; 0 if fewer than k items are left.
    scores
        (n, k) float32.
    """
    rules.check(scorer.n_items)

    def ranked(histories: Histories) -> tuple[Int64, Scores]:
        hidden = histories if rules.exclude_seen else sessions_in_progress(histories)
        return top_k(scorer, histories, rules.k, exclude_seen=hidden is not None, seen=hidden, allowed=rules.allowed)

    served = users.served_by(scorer)
    if len(users) and served.all():
        return ranked(users.histories)
    codes = np.zeros((len(users), rules.k), dtype=np.int64)
    scores = np.zeros((len(users), rules.k), dtype=np.float32)
    popular = most_popular(shares, rules)
    codes[:, : len(popular)], scores[:, : len(popular)] = popular, shares[popular]
    if served.any():
        codes[served], scores[served] = ranked(users.histories.select(np.flatnonzero(served)))
    return codes, scores


def most_popular(shares: Scores, rules: Rules) -> Int64:
    """Codes (≤ k,) of the most popular allowed items; equal ones by code."""
    codes = np.arange(1, len(shares)) if rules.allowed is None else np.flatnonzero(rules.allowed[1:]) + 1
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
    rows, columns = np.nonzero(codes)
    from_model = users.served_by(scorer)[rows] if by_model is None else by_model[rows, columns]
    return pl.DataFrame(
        [
            (users.ids.new_from_index(0, len(rows)) if len(users) == 1 else users.ids[rows]).alias("user"),
            catalogue.decode(codes[rows, columns]).alias("item"),
            pl.Series("score", scores[rows, columns]),
            pl.Series(rank_column, (columns + 1).astype(np.int32)),
            model_names(scorer, from_model).alias("model"),
        ]
    )


def model_names(scorer: Scorer, by_model: npt.NDArray[np.bool_]) -> pl.Series:
    """Column `model` (n,): the name of the model where the mask `by_model` (n,) is true, else popularity."""
    names = _possible_names(scorer.config.name)
    if by_model.all():
        return names.new_from_index(0, len(by_model))
    return names[np.where(by_model, 0, len(names) - 1)]


@cache
def _possible_names(name: str) -> pl.Series:
    """Names of the model and of popularity, as an enumeration."""
    names = list(dict.fromkeys([name, FALLBACK]))
    return pl.Series(names, dtype=pl.Enum(names))
