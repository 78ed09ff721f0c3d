"""Questions to a rating model in an evaluation, and its predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from segue.data.histories import NOW
from segue.data.ragged import Int64, positions, rows_of
from segue.data.splits.holdouts import Holdout
from segue.engines.engine import Engine
from segue.engines.workers import holding, run_parts
from segue.errors import ConfigError, DataError, EvaluationError
from segue.evaluation.metrics import Floats
from segue.evaluation.questions import require_same_ids
from segue.inference.scorer import HasScorer, scorer_of
from segue.inference.scoring.batches import to_device
from segue.models.base import Model
from segue.models.ratings import RatingModel

_PAIRS = 1 << 16
_LEAST = 1e-7
"""Smallest probability of a level, so that one question cannot make the log-loss infinite."""


@dataclass(frozen=True, eq=False)
class RatingQuestions:
    """Every target of a Holdout as a question: the rating of this user for this item, at that moment.

    Attributes
    ----------
    holdout
        The users of the questions.
    rows
        (n,) int64 row of each question's user in the Holdout, ascending.
    users, items
        (n,) int64 codes for the model; 0 = a user that it does not know.
    ratings
        (n,) float64 true ratings.
    moments
        (n,) int64 time of each rating; `NOW` without times.
    """

    holdout: Holdout
    rows: Int64
    users: Int64
    items: Int64
    ratings: Floats
    moments: Int64

    @classmethod
    def of(cls, model: RatingModel, holdout: Holdout, users: int | None = None, seed: int = 0) -> RatingQuestions:
        """The questions of a Holdout, or of a sample of its users drawn from `seed`.

        Raises
        ------
        ConfigError
            `users` is not positive.
        DataError
            The Dataset has no ratings, or a rating to predict is not a finite number.
        EvaluationError
            The Holdout is empty or belongs to another catalogue.
        """
        if users is not None and users < 1:
            raise ConfigError(f"the number of users to evaluate is {users}: expected 1 or more, or None for all.")
        sample = holdout if users is None else holdout.sample(users, seed)
        data = sample.dataset
        if data.ratings is None:
            raise DataError("this Dataset has no ratings to compare predictions with: prepare it from a log with them.")
        if not len(sample):
            raise EvaluationError("the Holdout has no users: there is nothing to evaluate.")
        n_users = data.n_users if sample.fitted_users is None else len(sample.fitted_users)
        if (model.n_items, model.n_users) != (data.n_items, n_users):
            raise EvaluationError(
                f"the model knows {model.n_users:,} users and {model.n_items:,} items, and the Holdout's Dataset has "
                f"{n_users:,} and {data.n_items:,}: the model was fitted on another Dataset."
            )
        require_same_ids(model, sample, users=True)
        targets = positions(sample.history_ends, sample.target_ends)
        rows = rows_of(sample.history_ends, sample.target_ends)
        ratings = data.ratings[targets].astype(np.float64)
        broken = int((~np.isfinite(ratings)).sum())
        if broken:
            raise DataError(f"{broken:,} of {len(ratings):,} ratings to predict are missing or not finite numbers.")
        return cls(
            sample,
            rows,
            sample.histories().users[rows],
            data.items[targets].astype(np.int64),
            ratings,
            np.full(len(rows), NOW) if data.times is None else data.times[targets].astype(np.int64),
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
        """Digest of 16 hexadecimal digits of users, lengths of histories, items, ratings, their order and moments."""
        digest = hashlib.sha256()
        holdout = self.holdout
        about_users = (holdout.users, holdout.histories().lengths, holdout.n_targets)
        for array in (*about_users, self.items, self.ratings, self.moments):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a rating model for n questions.

    Attributes
    ----------
    expected
        (n,) float64 expected ratings.
    levels
        The scale, if the model has a probability for each level; else None, as all of the following.
    true_levels
        (n,) int64 index of the level of the true rating.
    surprises
        (n,) float64 -log of the probability of that level.
    likeliest
        (n,) float64 most probable level; the lower one of two with equal probability.
    frequencies
        (levels,) float64 probability of each level, summed over all questions.
    """

    expected: Floats
    levels: tuple[float, ...] | None = None
    true_levels: Int64 | None = None
    surprises: Floats | None = None
    likeliest: Floats | None = None
    frequencies: Floats | None = None


def rating_model(recommender: HasScorer | Model) -> RatingModel:
    """The rating model of a Recommender.

    Raises
    ------
    ConfigError
        The model predicts no ratings.
    """
    model = scorer_of(recommender).model
    if not isinstance(model, RatingModel):
        raise ConfigError(
            f"the model {model.config.name} predicts no ratings: evaluate says how well it ranks, and a model of "
            "ratings can be measured here."
        )
    return model


def predict(model: RatingModel, questions: RatingQuestions, engine: Engine | None = None) -> Predictions:
    """Predict the ratings of all questions, by the workers of an engine; by this process when it is None.

    Raises
    ------
    EvaluationError
        An expected rating is not finite, or the model does not know the level of a true rating.
    """
    levels, n = model.levels, len(questions)
    expected = np.empty(n)
    true_levels = None if levels is None else _level_of(levels, questions.ratings)
    surprises, likeliest = np.empty(n), np.empty(n)
    slices = [slice(low, low + _PAIRS) for low in range(0, n, _PAIRS)]
    parts = (
        _Pairs(
            questions.users[part],
            questions.items[part],
            questions.moments[part],
            None if true_levels is None else true_levels[part],
        )
        for part in slices
    )
    shares: dict[int, Floats] = {}
    for number, rated in run_parts(_rated, parts, engine or Engine(), holding(model)):
        part = slices[number]
        expected[part] = rated.expected
        if rated.surprises is not None and rated.likeliest is not None and rated.frequencies is not None:
            surprises[part], likeliest[part] = rated.surprises, rated.likeliest
            shares[number] = rated.frequencies
    _require_finite(expected, expected if true_levels is None else surprises)
    if levels is None or true_levels is None:
        return Predictions(expected)
    frequencies = np.zeros(len(levels))
    for _, share in sorted(shares.items()):  # always in the same order, for the same rounding
        frequencies += share
    return Predictions(expected, levels, true_levels, surprises, likeliest, frequencies)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Pairs (m,) of users and items to rate, their moments, and the levels of the true ratings."""

    users: Int64
    items: Int64
    moments: Int64
    true_levels: Int64 | None


def _rated(model: RatingModel, pairs: _Pairs) -> Predictions:
    """Predictions of a part of the questions."""
    with torch.inference_mode():
        arrays = (pairs.users, pairs.items, pairs.moments)
        rated = model.rate(*(to_device(array, model.device) for array in arrays))
        expected = rated.expected.double().cpu().numpy()
        if model.levels is None or pairs.true_levels is None:
            return Predictions(expected)
        assert rated.probabilities is not None, "a model with levels has their probabilities"
        shares = rated.probabilities.double().cpu().numpy()
    of_true = shares[np.arange(len(shares)), pairs.true_levels]
    return Predictions(
        expected,
        surprises=-np.log(np.maximum(of_true, _LEAST)),
        likeliest=np.asarray(model.levels, dtype=np.float64)[shares.argmax(axis=1)],
        frequencies=shares.sum(axis=0),
    )


def _level_of(levels: Sequence[float], ratings: Floats) -> Int64:
    """Index (n,) of the level of each rating."""
    scale, values = np.asarray(levels, dtype=np.float32), ratings.astype(np.float32)
    index = np.minimum(np.searchsorted(scale, values), len(scale) - 1)
    unknown = scale[index] != values
    if unknown.any():
        listed = ", ".join(f"{level:g}" for level in np.unique(values[unknown])[:5])
        raise EvaluationError(
            f"{int(unknown.sum()):,} of {len(ratings):,} ratings to predict are of levels that the model does not know "
            f"({listed}); it was fitted on {', '.join(f'{level:g}' for level in levels)}. Evaluate it on ratings of "
            "the same scale, or hold out less, so that every level occurs in training."
        )
    return index.astype(np.int64)


def _require_finite(*figures: npt.NDArray[np.float64]) -> None:
    broken = ~np.logical_and.reduce([np.isfinite(one) for one in figures])
    if broken.any():
        raise EvaluationError(
            f"the model's answers are not finite (NaN or infinite) for {int(broken.sum()):,} of {len(broken):,} "
            "questions. The model has probably diverged: train it again with a lower learning rate, or use an earlier "
            "checkpoint."
        )
