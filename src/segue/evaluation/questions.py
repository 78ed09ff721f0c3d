"""What a model is asked in an evaluation, checked before anything is computed, and how two of them are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.splits.by_user import Holdout
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.candidates import Candidates, Law, sample_candidates
from segue.inference.scorer import HasScorer, Scorer, scorer_of
from segue.inference.scoring.ranking import check_k
from segue.models.base import Model


@dataclass(frozen=True, eq=False)
class Questions:
    """Who is asked, and among what the answers are ranked.

    Attributes
    ----------
    scorer
        The Scorer that is asked.
    holdout
        The users, or those drawn from them.
    candidates
        Of these users, in their order; None if all items are ranked.
    ks
        Lengths of the lists, distinct and ascending.
    users_seed
        What the users were drawn from; None if all are asked.
    """

    scorer: Scorer
    holdout: Holdout
    candidates: Candidates | None
    ks: list[int]
    users_seed: int | None

    @classmethod
    def of(
        cls,
        recommender: HasScorer | Model,
        holdout: Holdout,
        k: int | Sequence[int],
        candidates: int | Candidates | None,
        by: Law,
        users: int | None,
        seed: int,
        *,
        from_history: bool = False,
    ) -> Self:
        """Check the options of an evaluation and draw what is to be drawn.

        Parameters
        ----------
        recommender, holdout, k, candidates, by, users, seed
            As in `evaluate`.
        from_history
            As in `sample_candidates`, where a number of candidates is given.

        Raises
        ------
        ConfigError
            An option is impossible.
        DataError
            There are fewer items than candidates asked for.
        EvaluationError
            The Holdout is empty or belongs to another catalogue, or the candidates are another Holdout's.
        """
        scorer = scorer_of(recommender)
        if users is not None and users < 1:
            raise ConfigError(f"the number of users to ask is {users}: expected 1 or more, or None for all.")
        asked = holdout if users is None else holdout.sample(users, seed)
        drawn = candidates
        if isinstance(drawn, int):
            drawn = sample_candidates(asked, drawn, by=by, seed=seed, from_history=from_history)
        drawn = None if drawn is None else drawn.of(asked.users)
        ks = lengths_of(k, scorer.n_items if drawn is None else drawn.n + 1, drawn is not None)
        _check(scorer, asked)
        return cls(scorer, asked, drawn, ks, None if users is None else seed)

    def protocol(self, targets: Histories, exclude_seen: bool) -> dict[str, Any]:
        """What was asked, as plain data; `targets` are distinct within a row."""
        asked = protocol_of(self.holdout, targets, exclude_seen, self.candidates, self.users_seed)
        return {**asked, **look_back_of(self.scorer.model)}


def protocol_of(
    holdout: Holdout,
    targets: Histories,
    exclude_seen: bool,
    candidates: Candidates | None = None,
    users_seed: int | None = None,
) -> dict[str, Any]:
    """What is asked of whoever answers, as plain data: `targets` are distinct within a row."""
    return {
        "split": holdout.name,
        "users": len(holdout),
        "users_drawn_from_seed": users_seed,
        "targets": len(targets.items),
        "items": holdout.dataset.n_items,
        "candidates": "all" if candidates is None else candidates.n,
        "drawn_by": None if candidates is None else candidates.by,
        "drawn_from_seed": None if candidates is None else candidates.seed,
        "exclude_seen": exclude_seen,
        "ties": "against the target",
        "questions": _digest(holdout, targets, candidates),
    }


def _digest(holdout: Holdout, targets: Histories, candidates: Candidates | None) -> str:
    """16 hexadecimal digits that differ when users, lengths of histories, targets, their order or candidates do."""
    digest = hashlib.sha256()
    arrays: list[Int64] = [holdout.users, holdout.histories().lengths, targets.lengths]
    arrays.append(targets.items.astype(np.int64))
    if candidates is not None:
        arrays.append(candidates.codes)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def look_back_of(model: Model) -> dict[str, Any]:
    """How the model looked back at the histories of items, for the protocol; nothing where there is no such choice."""
    look_back = getattr(model.config, "look_back", None)
    return {} if look_back is None else {"look_back": look_back}


def lengths_of(k: int | Sequence[int], n_items: int, sampled: bool = False) -> list[int]:
    """The distinct lengths of lists, ascending, each checked against the number of items that are ranked."""
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


def check_asked(holdout: Holdout) -> None:
    """Raise an EvaluationError if there is nobody to ask."""
    if not len(holdout):
        raise EvaluationError("the Holdout has no users: there is nothing to evaluate.")


def _check(scorer: Scorer, holdout: Holdout) -> None:
    check_asked(holdout)
    if scorer.n_items != holdout.dataset.n_items:
        raise EvaluationError(
            f"the model knows {scorer.n_items:,} items and the Holdout's Dataset has {holdout.dataset.n_items:,}: the "
            "model was fitted on another Dataset."
        )
