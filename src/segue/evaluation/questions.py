"""Questions of an evaluation: users, candidates and lengths of the lists, checked first, and a digest of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.splits.holdouts import Holdout
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.candidates import Candidates, Law, sample_candidates
from segue.inference.scorer import HasScorer, Scorer, scorer_of
from segue.inference.scoring.popular import check_k
from segue.models.base import Model


@dataclass(frozen=True, eq=False)
class Questions:
    """Users to evaluate, and the candidates that their targets are ranked among.

    Attributes
    ----------
    scorer
        The Scorer to evaluate.
    holdout
        The users, or a sample of them.
    candidates
        Candidates of these users, in their order; None if all items are ranked.
    ks
        Lengths of the lists, distinct and ascending.
    users_seed
        Seed of the sample of users; None if all are evaluated.
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
        k: int | Sequence[int] | None,
        candidates: int | Candidates | None,
        by: Law,
        users: int | None,
        seed: int,
        *,
        from_history: bool = False,
    ) -> Self:
        """Check the options of an evaluation, and draw users and candidates.

        Parameters
        ----------
        recommender, holdout, k, candidates, by, users, seed
            As in `evaluate`.
        from_history
            As in `sample_candidates`, if `candidates` is a number.

        Raises
        ------
        ConfigError
            An option is impossible.
        DataError
            There are fewer items than candidates.
        EvaluationError
            The Holdout is empty or belongs to another catalogue, or the candidates are another Holdout's.
        """
        scorer = scorer_of(recommender)
        if users is not None and users < 1:
            raise ConfigError(f"the number of users to evaluate is {users}: expected 1 or more, or None for all.")
        sample = holdout if users is None else holdout.sample(users, seed)
        if isinstance(candidates, int):
            candidates = sample_candidates(sample, candidates, by=by, seed=seed, from_history=from_history)
        own = None if candidates is None else candidates.of(sample.users)
        ks = lengths_of(k, scorer.n_items if own is None else own.n + 1, own is not None)
        _check(scorer, sample)
        return cls(scorer, sample, own, ks, None if users is None else seed)

    def protocol(self, targets: Histories, exclude_seen: bool) -> dict[str, Any]:
        """Setting of the evaluation, as plain data; `targets` are distinct within a row."""
        protocol = protocol_of(self.holdout, targets, exclude_seen, self.candidates, self.users_seed)
        protocol |= on_other_data(self.holdout)
        return {**protocol, **look_back_of(self.scorer.model)}


def protocol_of(
    holdout: Holdout,
    targets: Histories,
    exclude_seen: bool,
    candidates: Candidates | None = None,
    users_seed: int | None = None,
) -> dict[str, Any]:
    """Setting of an evaluation of rankings, as plain data; `targets` are distinct within a row."""
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
    """Digest of 16 hexadecimal digits of users, lengths of histories, targets, their order and candidates."""
    digest = hashlib.sha256()
    arrays: list[Int64] = [holdout.users, holdout.histories().lengths, targets.lengths]
    arrays.append(targets.items.astype(np.int64))
    if candidates is not None:
        arrays.append(candidates.codes)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def look_back_of(model: Model) -> dict[str, Any]:
    """Setting `look_back` of the model, for the protocol; empty for a model without it."""
    look_back = getattr(model.config, "look_back", None)
    return {} if look_back is None else {"look_back": look_back}


def on_other_data(holdout: Holdout) -> dict[str, Any]:
    """Setting of an evaluation on another log, for the protocol: targets of users that the model does not know."""
    if holdout.fitted_users is None:
        return {}
    return {"on_unknown_users": int(holdout.n_targets[holdout.histories().users == 0].sum())}


USUAL_LENGTH = 10
"""Length of the lists when none is given."""


def lengths_of(k: int | Sequence[int] | None, n_items: int, sampled: bool = False) -> list[int]:
    """Distinct lengths of lists, ascending, each checked against the number of ranked items.

    When None, 10, or all items of a smaller catalogue.
    """
    if k is None:
        k = USUAL_LENGTH if sampled else max(1, min(USUAL_LENGTH, n_items))
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


def require_users(holdout: Holdout) -> None:
    """Raise an EvaluationError if the Holdout is empty."""
    if not len(holdout):
        raise EvaluationError("the Holdout has no users: there is nothing to evaluate.")


def _check(scorer: Scorer, holdout: Holdout) -> None:
    require_users(holdout)
    if scorer.n_items != holdout.dataset.n_items:
        raise EvaluationError(
            f"the model knows {scorer.n_items:,} items and the Holdout's Dataset has {holdout.dataset.n_items:,}: the "
            "model was fitted on another Dataset."
        )
    require_same_ids(scorer.model, holdout, users=scorer.model.personal and holdout.known)


def require_same_ids(model: Model, holdout: Holdout, users: bool) -> None:
    """Raise an EvaluationError if the model was fitted with other items than the Holdout's, or with other users."""
    others = [name for name in model.other_vocabularies(holdout.dataset) if name == "items" or users]
    fitted = holdout.fitted_users
    if "users" in others and fitted is not None and model.vocabularies is not None:
        others = [name for name in others if name == "items" or fitted.fingerprint != model.vocabularies.users]
    if others:
        raise EvaluationError(
            f"the model was fitted with other {' and '.join(others)} than those of the Holdout's Dataset, even if "
            "their number is the same: split the Dataset that the model was fitted on, or fit the model again."
        )
