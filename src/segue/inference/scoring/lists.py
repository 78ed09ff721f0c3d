"""Lists of the best items: from the model, or by popularity for users without history and basket."""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.asking.users import RequestedUsers
from segue.inference.scorer import Scorer
from segue.inference.scoring.indexed import top_k_by_index
from segue.inference.scoring.popular import FALLBACK, Rules, Scores, lists_by
from segue.inference.scoring.ranking import Progress, top_k


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
    counted = progress

    def ranked(part: RequestedUsers, rules: Rules) -> tuple[Int64, Scores]:
        nonlocal counted
        progress, counted = counted, None if rules.k > k else counted  # users of a larger pool are counted once
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

    k = rules.k
    return lists_by(ranked, users.served_by(scorer), scorer.n_items, users, rules, shares)


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
