"""Evaluation of given lists, such as those of another library."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.histories import Histories
from segue.data.ragged import Int64, positions, rows_of
from segue.data.reading.frames import to_polars
from segue.data.splits.holdouts import Holdout
from segue.data.vocabulary import as_ids
from segue.errors import ColumnError, EvaluationError, UnknownIdError
from segue.evaluation.questions import lengths_of, protocol_of, require_users
from segue.evaluation.tasks.next_items import evaluation_of
from segue.evaluation.tasks.result import Evaluation
from segue.inference.scoring.ranking import distinct
from segue.settings import Count, Resamples, Seed

COLUMNS = ("user", "item", "rank")
"""Columns of the lists."""


@checked
def evaluate_lists(
    lists: Any,
    holdout: Holdout,
    *,
    k: Count | Sequence[Count] | None = None,
    name: str = "lists",
    exclude_seen: bool = True,
    seed: Seed = 0,
    resamples: Resamples = 1_000,
) -> Evaluation:
    """Measure given lists on a Holdout, whatever made them.

    The figures are those of `evaluate`, and are comparable with those of other lists on the same Holdout. The lists
    decide ties. A user without a list, or with a target outside of it, counts as missed.

    Parameters
    ----------
    lists
        A frame (pandas, polars, Arrow) with columns `user` and `item` (raw ids) and `rank` (from 1), such as
        `Recommender.recommend` returns. Users outside the Holdout and ranks beyond the largest k do not count.
    holdout
        The questions: `split.validation` or `split.test`.
    k
        Lengths of the lists, each from 1 to the size of the catalogue. When None, 10, or all of a
        smaller catalogue.
    name
        Name of the lists, in place of a model's.
    exclude_seen
        Refuse lists with items of the user's history, which other models would have left out.
    seed, resamples
        As in `evaluate`.

    Returns
    -------
    evaluation
        Metrics, intervals, values per user and values of parts, as in `evaluate`.

    Raises
    ------
    ColumnError
        A column is missing.
    UnknownIdError
        An item is not in the catalogue of the Holdout's Dataset; or no user of the lists is in that Dataset, or some
        are not and the types of the ids differ ('01' in the log, 1 in the lists).
    ConfigError
        A k is impossible.
    EvaluationError
        The Holdout is empty, no user of the lists is in it, a rank is not a whole number from 1, a user has two items
        at one rank or one item twice, or an item of the history is listed although `exclude_seen`.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.Markov(), split)
    >>> theirs = recommender.without(split.test).recommend(segue.EVERYONE, k=10, exclude_seen=False)
    >>> evaluation = segue.evaluate_lists(theirs, split.test, k=10, name="theirs", exclude_seen=False)
    >>> evaluation.model, len(evaluation.per_user)
    ('theirs', 40)
    """
    require_users(holdout)
    ks = lengths_of(k, holdout.dataset.n_items)
    histories, targets = holdout.histories(), distinct(holdout.targets())[0]
    rows, items, ranks = _read(lists, holdout)
    if exclude_seen:
        _require_unseen(histories, rows, items, holdout)
    codes = np.zeros((len(holdout), max(ks)), dtype=np.int64)
    within = ranks <= max(ks)
    codes[rows[within], ranks[within] - 1] = items[within]
    target_ranks = _ranks(_keys(rows, items, holdout), ranks, targets, holdout)
    protocol = protocol_of(holdout, targets, exclude_seen) | {"ties": "as listed"}
    return evaluation_of(name, holdout, targets, target_ranks, codes, ks, protocol, resamples, seed)


def _read(lists: Any, holdout: Holdout) -> tuple[Int64, Int64, Int64]:
    """Row in the Holdout, item code and rank (m each) of every listed item of its users, checked."""
    try:
        frame = to_polars(nw.from_native(lists, eager_only=True))
    except TypeError:
        raise ColumnError(
            f"lists are a {type(lists).__name__}: expected a frame (pandas, polars, Arrow) with columns "
            f"{', '.join(COLUMNS)}, such as Recommender.recommend returns."
        ) from None
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise ColumnError(f'lists have no column "{missing[0]}": expected {", ".join(COLUMNS)}, found {frame.columns}.')
    ranks = frame["rank"]
    if not ranks.dtype.is_integer() or ranks.null_count() or bool((ranks < 1).any()):
        raise EvaluationError(f"ranks are whole numbers from 1, one in every row; found {ranks.dtype}: {ranks.head(5)}")
    users = _known_users(frame["user"], holdout)
    row_of = np.minimum(np.searchsorted(holdout.users, users), len(holdout) - 1)
    in_holdout = holdout.users[row_of] == users
    items = holdout.dataset.catalogue.require(frame["item"], "item")[in_holdout]
    rows, numbers = row_of[in_holdout].astype(np.int64), ranks.to_numpy().astype(np.int64)[in_holdout]
    order = np.lexsort((numbers, rows))
    _require_once(rows, numbers, order, "two items at rank", holdout)
    _require_once(rows, items, np.lexsort((items, rows)), "twice the item of code", holdout)
    return rows[order], items[order], numbers[order]


def _known_users(listed: pl.Series, holdout: Holdout) -> Int64:
    """User codes (n,) of the lists, 0 for users that the Dataset does not have.

    Raises
    ------
    UnknownIdError
        None of the users is in the Dataset, or some are not and the types of the ids differ.
    EvaluationError
        None of the users is in the Holdout.
    """
    vocabulary = holdout.dataset.users
    ids = as_ids(listed)
    codes = vocabulary.encode(ids)
    unknown = ids.filter(pl.Series(codes == 0, dtype=pl.Boolean)).unique(maintain_order=True)
    if not len(ids):
        return codes
    if len(unknown) and (not codes.any() or ids.dtype != vocabulary.ids.dtype):
        examples = ", ".join(map(repr, unknown.head(3)))
        own = ", ".join(map(repr, vocabulary.ids.head(3)))
        raise UnknownIdError(
            f"{len(unknown):,} users of the lists are not in the Dataset, such as {examples} ({ids.dtype}). Those of "
            f"the Dataset look like {own} ({vocabulary.ids.dtype}): write the ids of the lists in the same way."
        )
    if not np.isin(codes, holdout.users).any():
        raise EvaluationError(
            f"none of the users of the lists is in the Holdout, whose users look like "
            f"{', '.join(map(repr, vocabulary.decode(holdout.users[:3])))}: pass lists for these users."
        )
    if len(unknown):
        warnings.warn(
            f"users of the lists that are not in the Dataset do not count: {len(unknown):,}, such as {unknown[0]!r}.",
            stacklevel=4,
        )
    return codes


def _require_once(rows: Int64, values: Int64, order: Int64, fault: str, holdout: Holdout) -> None:
    rows, values = rows[order], values[order]
    twice = np.flatnonzero((rows[1:] == rows[:-1]) & (values[1:] == values[:-1]))
    if len(twice):
        user = _user(holdout, rows[twice[0]])
        raise EvaluationError(f"the list of user {user!r} has {fault} {values[twice[0]]}: expected one list per user.")


def _require_unseen(histories: Histories, rows: Int64, items: Int64, holdout: Holdout) -> None:
    seen = histories.items[positions(histories.starts, histories.ends)].astype(np.int64)
    listed = np.isin(
        _keys(rows, items, holdout), _keys(rows_of(histories.starts, histories.ends), seen, holdout)
    ).nonzero()[0]
    if len(listed):
        item = holdout.dataset.catalogue.decode(items[listed[:1]])[0]
        raise EvaluationError(
            f"{len(listed):,} listed items stand in the histories of their users, such as {item!r} of user "
            f"{_user(holdout, rows[listed[0]])!r}: leave seen items out of the lists, or set exclude_seen=False."
        )


def _ranks(listed: Int64, ranks: Int64, targets: Histories, holdout: Holdout) -> Int64:
    """Rank (m,) of each target in its user's list; one more than the number of items if it is not listed."""
    wanted = _keys(np.repeat(np.arange(len(targets)), targets.lengths), targets.items.astype(np.int64), holdout)
    missed = np.full(len(wanted), holdout.dataset.n_items + 1, dtype=np.int64)
    if not len(listed):
        return missed
    order = np.argsort(listed)
    nearest = order[np.minimum(np.searchsorted(listed, wanted, sorter=order), len(listed) - 1)]
    return np.where(listed[nearest] == wanted, ranks[nearest], missed)


def _keys(rows: Int64, items: Int64, holdout: Holdout) -> Int64:
    """Key (m,) of each pair of a row and an item code: one whole number."""
    return rows * (holdout.dataset.n_items + 1) + items


def _user(holdout: Holdout, row: np.int64) -> Any:
    return holdout.dataset.users.decode(holdout.users[row : row + 1])[0]
