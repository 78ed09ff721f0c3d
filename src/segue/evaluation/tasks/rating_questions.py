"""What a model of ratings is asked in an evaluation, and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from segue.data.histories import NOW
from segue.data.ragged import Int64, positions, rows_of
from segue.data.splits.by_user import Holdout
from segue.errors import ConfigError, DataError, EvaluationError
from segue.evaluation.metrics import Floats
from segue.inference.scorer import HasScorer, scorer_of
from segue.inference.scoring.batches import to_device
from segue.models.base import Model
from segue.models.ratings import RatingModel

_PAIRS = 1 << 16
_LEAST = 1e-7
"""A level of less probability counts as if it had this one, so that one question cannot make a log-loss infinite."""


@dataclass(frozen=True, eq=False)
class RatingQuestions:
    """Every target of a Holdout as a question: what did this user give this item, at that moment?

    Attributes
    ----------
    holdout
        The users who are asked about.
    rows
        (n,) int64 the number of the Holdout's user, ascending.
    users, items
        (n,) int64 codes as the model is asked with them; 0 = a user it does not know.
    ratings
        (n,) float64 the true ones.
    moments
        (n,) int64 the time of each rating; `NOW` without times.
    """

    holdout: Holdout
    rows: Int64
    users: Int64
    items: Int64
    ratings: Floats
    moments: Int64

    @classmethod
    def of(cls, model: RatingModel, holdout: Holdout, users: int | None = None, seed: int = 0) -> RatingQuestions:
        """The questions of a Holdout, or of so many users drawn from `seed`.

        Raises
        ------
        ConfigError
            `users` is not positive.
        DataError
            The Dataset has no ratings, or one that is asked about is not a finite number.
        EvaluationError
            The Holdout is empty or belongs to another catalogue.
        """
        if users is not None and users < 1:
            raise ConfigError(f"the number of users to ask is {users}: expected 1 or more, or None for all.")
        asked = holdout if users is None else holdout.sample(users, seed)
        data = asked.dataset
        if data.ratings is None:
            raise DataError("this Dataset has no ratings to compare predictions with: prepare it from a log with them.")
        if not len(asked):
            raise EvaluationError("the Holdout has no users: there is nothing to evaluate.")
        if (model.n_items, model.n_users) != (data.n_items, data.n_users):
            raise EvaluationError(
                f"the model knows {model.n_users:,} users and {model.n_items:,} items, and the Holdout's Dataset has "
                f"{data.n_users:,} and {data.n_items:,}: the model was fitted on another Dataset."
            )
        where = positions(asked.history_ends, asked.target_ends)
        rows = rows_of(asked.history_ends, asked.target_ends)
        ratings = data.ratings[where].astype(np.float64)
        broken = int((~np.isfinite(ratings)).sum())
        if broken:
            raise DataError(f"{broken:,} of {len(ratings):,} ratings to predict are missing or not finite numbers.")
        return cls(
            asked,
            rows,
            asked.histories().users[rows],
            data.items[where].astype(np.int64),
            ratings,
            np.full(len(rows), NOW) if data.times is None else data.times[where].astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest rating of the Dataset."""
        ratings = self.holdout.dataset.ratings
        assert ratings is not None
        return float(np.nanmin(ratings)), float(np.nanmax(ratings))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that differ when users, histories' lengths, items, ratings, order or moments do."""
        digest = hashlib.sha256()
        asked = self.holdout
        for array in (asked.users, asked.histories().lengths, asked.n_targets, self.items, self.ratings, self.moments):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model expects.

    Attributes
    ----------
    expected
        (n,) float64 ratings.
    levels
        The scale, where the model has a probability for each level of it; else None, and so is all that follows.
    places
        (n,) int64 which level was given.
    surprises
        (n,) float64 -log of the probability of that level.
    likeliest
        (n,) float64 the most probable level, the lower of two that are equally so.
    predicted
        (levels,) float64 probability of each level, summed over all questions.
    """

    expected: Floats
    levels: tuple[float, ...] | None = None
    places: Int64 | None = None
    surprises: Floats | None = None
    likeliest: Floats | None = None
    predicted: Floats | None = None


def rating_model(recommender: HasScorer | Model) -> RatingModel:
    """The model of ratings that was given.

    Raises
    ------
    ConfigError
        It predicts no ratings.
    """
    model = scorer_of(recommender).model
    if not isinstance(model, RatingModel):
        raise ConfigError(
            f"the model {model.config.name} predicts no ratings: evaluate says how well it ranks, and a model of "
            "ratings can be measured here."
        )
    return model


def answers(model: RatingModel, questions: RatingQuestions) -> Answers:
    """Ask a model all questions.

    Raises
    ------
    EvaluationError
        An expected rating is not finite, or a true rating is of a level that the model does not know.
    """
    levels, n = model.levels, len(questions)
    expected = np.empty(n)
    scale = None if levels is None else np.asarray(levels, dtype=np.float64)
    places = None if levels is None else _places(levels, questions.ratings)
    surprises, likeliest = np.empty(n), np.empty(n)
    predicted = np.zeros(0 if levels is None else len(levels))
    with torch.inference_mode():
        for low in range(0, n, _PAIRS):
            part = slice(low, low + _PAIRS)
            pairs = (questions.users[part], questions.items[part], questions.moments[part])
            rated = model.rate(*(to_device(one, model.device) for one in pairs))
            expected[part] = rated.expected.double().cpu().numpy()
            if scale is None or places is None:
                continue
            assert rated.probabilities is not None, "a model that knows its levels knows their probabilities"
            shares = rated.probabilities.double().cpu().numpy()
            given = shares[np.arange(len(shares)), places[part]]
            surprises[part] = -np.log(np.maximum(given, _LEAST))
            likeliest[part] = scale[shares.argmax(axis=1)]
            predicted += shares.sum(axis=0)
    _require_finite(expected, surprises if places is not None else expected)
    if places is None:
        return Answers(expected)
    return Answers(expected, levels, places, surprises, likeliest, predicted)


def _places(levels: Sequence[float], ratings: Floats) -> Int64:
    """(n,) which of the levels each rating is."""
    scale, given = np.asarray(levels, dtype=np.float32), ratings.astype(np.float32)
    places = np.minimum(np.searchsorted(scale, given), len(scale) - 1)
    unknown = scale[places] != given
    if unknown.any():
        found = ", ".join(f"{level:g}" for level in np.unique(given[unknown])[:5])
        raise EvaluationError(
            f"{int(unknown.sum()):,} of {len(ratings):,} ratings to predict are of levels that the model does not know "
            f"({found}); it was fitted on {', '.join(f'{level:g}' for level in levels)}. Evaluate it on ratings of the "
            "same scale, or hold out less, so that every level occurs in training."
        )
    return places.astype(np.int64)


def _require_finite(*figures: npt.NDArray[np.float64]) -> None:
    broken = ~np.logical_and.reduce([np.isfinite(one) for one in figures])
    if broken.any():
        raise EvaluationError(
            f"the model's answers are not finite (NaN or infinite) for {int(broken.sum()):,} of {len(broken):,} "
            "questions. The model has probably diverged: train it again with a lower learning rate, or use an earlier "
            "checkpoint."
        )
