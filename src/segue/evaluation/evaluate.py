"""Evaluation of any model or Recommender on any Holdout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.splits import Holdout
from segue.errors import ConfigError, EvaluationError
from segue.evaluation import metrics as measure
from segue.evaluation.breakdown import by_history_length, by_popularity
from segue.evaluation.candidates import Candidates, Law, sample_candidates
from segue.evaluation.resampling import bootstrap_interval
from segue.evaluation.result import Evaluation
from segue.inference.ranking import check_k, distinct, target_ranks, top_k
from segue.models.base import Model

__all__ = ["Evaluation", "HasModel", "evaluate"]


class HasModel(Protocol):
    """Anything that carries a fitted model, as a Recommender does."""

    @property
    def model(self) -> Model:
        """The fitted model."""
        ...


def evaluate(
    recommender: HasModel | Model,
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
    model = recommender if isinstance(recommender, Model) else recommender.model
    if users is not None and users < 1:
        raise ConfigError(f"the number of users to ask is {users}: expected 1 or more, or None for all.")
    asked = holdout if users is None else holdout.sample(users, seed)
    drawn = sample_candidates(asked, candidates, by=by, seed=seed) if isinstance(candidates, int) else candidates
    drawn = None if drawn is None else drawn.of(asked.users)
    ks = _lengths(k, model.n_items if drawn is None else drawn.n + 1, drawn is not None)
    _check(model, asked)
    questions = _Questions(asked, asked.histories(), distinct(asked.targets())[0], drawn)
    ranks = target_ranks(
        model,
        questions.histories,
        questions.targets,
        exclude_seen=exclude_seen,
        candidates=None if drawn is None else drawn.codes,
    )
    found = measure.user_metrics(ranks, questions.targets.lengths, ks)
    counts = asked.training_view().item_counts()
    overall: dict[str, float] = {}
    if lists and drawn is None:
        codes, _ = top_k(model, questions.histories, max(ks), exclude_seen=exclude_seen)
        found |= {f"novelty@{k}": measure.novelty(codes[:, :k], counts) for k in ks}
        overall |= {f"coverage@{k}": measure.coverage(codes[:, :k], model.n_items) for k in ks}
        overall |= {f"gini@{k}": measure.gini(codes[:, :k], model.n_items) for k in ks}
    best = np.minimum.reduceat(ranks, questions.targets.starts)
    frame = {"user": asked.dataset.users.decode(asked.users), "history": questions.histories.lengths, "rank": best}
    return Evaluation(
        model=model.config.name,
        metrics={name: float(values.mean()) for name, values in found.items()} | overall,
        intervals={name: bootstrap_interval(values, resamples, seed) for name, values in found.items() if resamples},
        per_user=pl.DataFrame(frame | found),
        by_history_length=by_history_length(questions.histories.lengths, found),
        by_popularity=by_popularity(questions.targets.items.astype(np.int64), ranks, counts, ks),
        protocol=questions.protocol(exclude_seen, None if users is None else seed),
    )


@dataclass(frozen=True)
class _Questions:
    """What is asked: histories, distinct targets, and candidates unless all items are ranked."""

    holdout: Holdout
    histories: Histories
    targets: Histories
    candidates: Candidates | None

    def protocol(self, exclude_seen: bool, users_seed: int | None) -> dict[str, Any]:
        """What was asked, as plain data."""
        drawn = self.candidates
        return {
            "split": self.holdout.name,
            "users": len(self.holdout),
            "users_drawn_from_seed": users_seed,
            "targets": len(self.targets.items),
            "items": self.holdout.dataset.n_items,
            "candidates": "all" if drawn is None else drawn.n,
            "drawn_by": None if drawn is None else drawn.by,
            "drawn_from_seed": None if drawn is None else drawn.seed,
            "exclude_seen": exclude_seen,
            "ties": "against the target",
            "questions": self.digest(),
        }

    def digest(self) -> str:
        """16 hexadecimal digits that differ when users, lengths of histories, targets or candidates do."""
        digest = hashlib.sha256()
        arrays: list[Int64] = [self.holdout.users, self.histories.lengths, self.targets.lengths]
        arrays.append(self.targets.items.astype(np.int64))
        if self.candidates is not None:
            arrays.append(self.candidates.codes)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


def _lengths(k: int | Sequence[int], n_items: int, sampled: bool) -> list[int]:
    """The distinct lengths of lists, ascending, each checked."""
    ks = sorted({k} if isinstance(k, int) else set(k))
    if not ks:
        raise ConfigError("no length of list was given: expected one k or more, such as k=(5, 10).")
    for length in ks:
        if sampled and length > n_items:
            raise ConfigError(
                f"k is {length:,}, but each target is ranked among {n_items - 1:,} candidates: all would be hits."
            )
        check_k(length, n_items)
    return ks


def _check(model: Model, holdout: Holdout) -> None:
    if not len(holdout):
        raise EvaluationError("the Holdout has no users: there is nothing to evaluate.")
    if model.n_items != holdout.dataset.n_items:
        raise EvaluationError(
            f"the model knows {model.n_items:,} items and the Holdout's Dataset has {holdout.dataset.n_items:,}: the "
            "model was fitted on another Dataset."
        )
