"""Evaluation of any model or Recommender on any Holdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.splits.by_user import Holdout
from segue.evaluation import metrics as measure
from segue.evaluation.breakdown import by_history_length, by_popularity
from segue.evaluation.candidates import Candidates, Law
from segue.evaluation.questions import Questions
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.result import Evaluation
from segue.inference.scorer import HasScorer
from segue.inference.scoring.ranking import distinct, target_ranks, top_k
from segue.models.base import Model

__all__ = ["Evaluation", "HasScorer", "evaluate"]


def evaluate(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: int | Sequence[int] = (10,),
    candidates: int | Candidates | None = None,
    by: Law = "uniform",
    exclude_seen: bool = True,
    users: int | None = None,
    seed: int = 0,
    lists: bool = True,
    resamples: int = 1_000,
) -> Evaluation:
    """Rank what each user of a Holdout did next, and say how well that went.

    Targets rank behind every other candidate with the same score, so a model gains nothing from ties; a score that is
    not finite is an error.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model.
    holdout
        The questions: `split.validation` or `split.test`.
    k
        Lengths of the lists, each from 1 to the size of the catalogue.
    candidates
        None ranks the targets among all items; a number draws that many items for each user (see `sample_candidates`);
        or `Candidates` drawn before.
    by
        How candidates are drawn, if a number is given: "uniform" or "popularity".
    exclude_seen
        Leave the items of a user's history out of the ranking. A target that the user had before cannot be recommended
        then, and counts as missed: where people repeat themselves, set it to False.
    users
        Ask only that many users, drawn from `seed`; all when None.
    seed
        Draws users, candidates and bootstrap resamples.
    lists
        Also measure the lists themselves (coverage, novelty, Gini), which needs a second pass; only where all items are
        ranked.
    resamples
        Bootstrap resamples for the 95 % intervals; 0 for none.

    Returns
    -------
    evaluation
        The figures, their intervals, per user, and broken down.

    Raises
    ------
    ConfigError
        An option is impossible, such as a k above the catalogue.
    DataError
        There are fewer items than candidates asked for, or a history is empty.
    EvaluationError
        The Holdout is empty, belongs to another catalogue, or scores are not finite.
    """
    questions = Questions.of(recommender, holdout, k, candidates, by, users, seed)
    scorer, asked, drawn, ks = questions.scorer, questions.holdout, questions.candidates, questions.ks
    histories, targets = asked.histories(), distinct(asked.targets())[0]
    ranks = target_ranks(
        scorer, histories, targets, exclude_seen=exclude_seen, candidates=None if drawn is None else drawn.codes
    )
    codes = top_k(scorer, histories, max(ks), exclude_seen=exclude_seen)[0] if lists and drawn is None else None
    protocol = questions.protocol(targets, exclude_seen)
    return measured(scorer.config.name, asked, targets, ranks, codes, ks, protocol, resamples, seed)


def measured(
    name: str,
    asked: Holdout,
    targets: Histories,
    ranks: Int64,
    lists: Int64 | None,
    ks: list[int],
    protocol: dict[str, Any],
    resamples: int,
    seed: int,
) -> Evaluation:
    """The Evaluation of given ranks and lists.

    Parameters
    ----------
    name
        Who answered.
    asked
        n users.
    targets
        Of these users, distinct within a row, end to end (m).
    ranks
        (m,) int64 rank of each target, `n_items + 1` where it cannot be recommended.
    lists
        (n, largest of `ks`) int64 recommended item codes, 0 = none; not measured when None.
    ks
        Lengths of the lists, ascending.
    protocol
        What was asked.
    resamples, seed
        As in `evaluate`.
    """
    found = measure.user_metrics(ranks, targets.lengths, ks)
    counts = asked.training_view().item_counts()
    overall: dict[str, float] = {}
    if lists is not None:
        n_items = asked.dataset.n_items
        found |= {f"novelty@{k}": measure.novelty(lists[:, :k], counts) for k in ks}
        overall |= {f"coverage@{k}": measure.coverage(lists[:, :k], n_items) for k in ks}
        overall |= {f"gini@{k}": measure.gini(lists[:, :k], n_items) for k in ks}
    best, lengths = np.minimum.reduceat(ranks, targets.starts), asked.histories().lengths
    frame = {"user": asked.dataset.users.decode(asked.users), "history": lengths, "rank": best}
    return Evaluation(
        model=name,
        metrics={metric: float(values.mean()) for metric, values in found.items()} | overall,
        intervals={
            metric: bootstrap_interval(values, resamples, seed) for metric, values in found.items() if resamples
        },
        per_user=pl.DataFrame(frame | found),
        parts={
            "history_length": by_history_length(lengths, found),
            "popularity": by_popularity(targets.items.astype(np.int64), ranks, counts, ks),
        },
        protocol=protocol,
    )
