"""Lists and scores for people: the model's where there is a history or a basket, popularity where there is neither."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError
from segue.inference.asking.baskets import in_progress
from segue.inference.asking.users import People, allowed_items, warn_unrated
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS, Sweep, batches, require_finite, to_device
from segue.inference.scoring.ranking import check_k, top_k

Scores = npt.NDArray[np.float32]
FALLBACK = "popularity"
"""The name under which answers for people with neither history nor basket stand in the column `model`."""

_FEW = 16
"""Fewer than one in so many of the catalogue's items are scored pair by pair, more by whole chunks."""


@dataclass(frozen=True)
class Rules:
    """What a list may hold.

    Attributes
    ----------
    k
        Length of a list.
    exclude_seen
        Leave out what stands in the history. What is in the basket is always left out.
    allowed
        (n_items + 1,) which item codes may be recommended; all when None.
    """

    k: int
    exclude_seen: bool = True
    allowed: npt.NDArray[np.bool_] | None = None

    def check(self, n_items: int) -> None:
        """Raise a ConfigError unless k is from 1 to the size of the catalogue."""
        check_k(self.k, n_items)


def rules_of(
    catalogue: Vocabulary,
    k: int,
    exclude_seen: bool | None,
    allow: Iterable[Any] | None,
    deny: Iterable[Any] | None,
    in_session: bool = False,
) -> Rules:
    """Rules from what a person says, in raw ids; `exclude_seen` None means: leave seen items out, but not in a session.

    Raises
    ------
    UnknownIdError
        None of the items of `allow` is known.
    """
    return Rules(k, not in_session if exclude_seen is None else exclude_seen, allowed_items(catalogue, allow, deny))


def best_lists(scorer: Scorer, people: People, rules: Rules, shares: Scores) -> tuple[Int64, Scores]:
    """The best items for each person.

    Parameters
    ----------
    scorer
        Answers for people with a history or a basket; for all, if it needs neither.
    people
        n people.
    rules
        What the lists may hold.
    shares
        (n_items + 1,) popularity, which answers for people with neither.

    Returns
    -------
    codes
        (n, k) int64, best first; 0 where fewer than k items are left.
    scores
        (n, k) float32.
    """
    rules.check(scorer.n_items)
    met = np.flatnonzero(people.met_by(scorer))
    codes = np.zeros((len(people), rules.k), dtype=np.int64)
    scores = np.zeros((len(people), rules.k), dtype=np.float32)
    if len(met) < len(people):
        popular = most_popular(shares, rules)
        codes[:, : len(popular)], scores[:, : len(popular)] = popular, shares[popular]
    if len(met):
        histories = people.histories.select(met)
        hidden = histories if rules.exclude_seen else in_progress(histories)
        codes[met], scores[met] = top_k(
            scorer, histories, rules.k, exclude_seen=hidden is not None, seen=hidden, allowed=rules.allowed
        )
    return codes, scores


def most_popular(shares: Scores, rules: Rules) -> Int64:
    """(≤ k,) the most popular allowed item codes, equal ones by code."""
    codes = np.arange(1, len(shares)) if rules.allowed is None else np.flatnonzero(rules.allowed[1:]) + 1
    order = np.argsort(-shares[codes], kind="stable")
    return codes[order[: rules.k]]


def list_frame(
    scorer: Scorer,
    people: People,
    catalogue: Vocabulary,
    codes: Int64,
    scores: Scores,
    place: str = "rank",
    met: npt.NDArray[np.bool_] | None = None,
) -> pl.DataFrame:
    """Lists as a frame with raw ids: user, item, score, rank, model.

    Parameters
    ----------
    scorer, people, catalogue
        Who answers, n people, and the raw ids of the items.
    codes, scores
        (n, k) item codes, 0 = none, and their scores.
    place
        What the place in a list, from 1, is called.
    met
        (n, k) whether it was the model that answered; as the people are met when None.
    """
    rows, columns = np.nonzero(codes)
    return pl.DataFrame(
        {
            "user": people.ids[rows],
            "item": catalogue.decode(codes[rows, columns]),
            "score": scores[rows, columns],
            place: (columns + 1).astype(np.int32),
            "model": answered_by(scorer, people.met_by(scorer)[rows] if met is None else met[rows, columns]),
        }
    )


def answered_by(scorer: Scorer, met: npt.NDArray[np.bool_]) -> pl.Series:
    """(n,) who answered: the model where `met` (n,), else popularity."""
    names = _answerers(scorer.config.name)
    return names[np.where(met, 0, len(names) - 1)]


@cache
def _answerers(name: str) -> pl.Series:
    """Names of the model and of popularity, as an enumeration."""
    names = list(dict.fromkeys([name, FALLBACK]))
    return pl.Series(names, dtype=pl.Enum(names))


def scores_of(
    scorer: Scorer, people: People, items: Int64, shares: Scores, catalogue: Vocabulary, long: bool
) -> pl.DataFrame:
    """Scores of the item codes `items` (m,) for n people as a frame with raw ids.

    Long: a row per person and item: user, item, score, model. Else a row per person: user, then a column per item.

    Raises
    ------
    DataError
        Not long, and an item has the id "user".
    EvaluationError
        A score is NaN or infinite.
    """
    warn_unrated(scorer, catalogue, items)
    matrix = score_matrix(scorer, people, items, shares)
    names = catalogue.decode(items)
    return long_scores(scorer, people, names, matrix) if long else wide_scores(people, names, matrix)


def wide_scores(people: People, items: pl.Series, matrix: Scores) -> pl.DataFrame:
    """Scores (n, m) as a row per person: user, then a column per item.

    Raises
    ------
    DataError
        An item has the id "user".
    """
    columns = items.cast(pl.String).to_list()
    if "user" in columns:
        raise DataError('an item has the id "user", which is a column of its own in the wide form: use long=True.')
    return pl.DataFrame(matrix, schema=columns).insert_column(0, people.ids.alias("user"))


def long_scores(scorer: Scorer, people: People, items: pl.Series, matrix: Scores) -> pl.DataFrame:
    """Scores (n, m) as a row per person and item: user, item, score, model."""
    rows = np.repeat(np.arange(len(people)), len(items))
    return pl.DataFrame(
        {
            "user": people.ids[rows],
            "item": items[np.tile(np.arange(len(items)), len(people))],
            "score": matrix.reshape(-1),
            "model": answered_by(scorer, people.met_by(scorer)[rows]),
        }
    )


def score_matrix(scorer: Scorer, people: People, items: Int64, shares: Scores) -> Scores:
    """Scores (n, m) of the item codes `items` (m,) for n people.

    Raises
    ------
    EvaluationError
        A score is NaN or infinite.
    """
    met = np.flatnonzero(people.met_by(scorer))
    scores = np.empty((len(people), len(items)), dtype=np.float32)
    if len(met) < len(people):
        scores[:] = shares[items]
    if len(met):
        histories = people.histories.select(met)
        by_pair = len(items) * _FEW < scorer.n_items
        scores[met] = (_by_pair if by_pair else _by_chunk)(scorer, histories, items)
    return scores


def _by_pair(scorer: Scorer, histories: Histories, items: Int64) -> Scores:
    scores = np.empty((len(histories), len(items)), dtype=np.float32)
    rows = max(1, min(LIMITS.histories, LIMITS.pairs // len(items)))
    with torch.inference_mode():
        asked = to_device(items, scorer.device)
        for index, queries in batches(scorer, histories, rows, LIMITS):
            found: Tensor = scorer.score_items(queries, asked.expand(len(queries), -1))
            require_finite(found)
            scores[index] = found.cpu().numpy()
    return scores


def _by_chunk(scorer: Scorer, histories: Histories, items: Int64) -> Scores:
    scores = np.empty((len(histories), len(items)), dtype=np.float32)
    with torch.inference_mode():
        sweep = Sweep(scorer, LIMITS, len(histories))
        for index, queries in batches(scorer, histories, sweep.rows, LIMITS):
            for chunk in sweep.chunks(queries):
                inside = np.flatnonzero((items >= chunk.start) & (items < chunk.stop))
                columns = torch.from_numpy(items[inside] - chunk.start).to(scorer.device)
                scores[index[:, None], inside] = chunk.scores[:, columns].cpu().numpy()
    return scores
