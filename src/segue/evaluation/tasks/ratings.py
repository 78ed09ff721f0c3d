"""Evaluation of predicted ratings, of any model of ratings on any Holdout whose Dataset has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from segue.data.splits.by_user import Holdout
from segue.errors import ConfigError
from segue.evaluation.breakdown import by_history_length, by_item_ratings
from segue.evaluation.metrics import PER_QUESTION, Floats, combined, summed
from segue.evaluation.questions import look_back_of
from segue.evaluation.resampling import bootstrap_figure, bootstrap_interval
from segue.evaluation.result import RATINGS, Evaluation
from segue.evaluation.tasks.rating_metrics import by_level, calibration, calibration_error, own_metrics
from segue.evaluation.tasks.rating_questions import Answers, RatingQuestions, answers, rating_model
from segue.inference.scorer import HasScorer
from segue.models.base import Model
from segue.models.ratings import RatingModel

KS = (3, 5, 7, 10)
"""The lengths of list of the ARERec paper."""


def evaluate_ratings(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: int | Sequence[int] = KS,
    cutoff: float | None = None,
    arg_max: bool = False,
    users: int | None = None,
    seed: int = 0,
    resamples: int = 1_000,
) -> Evaluation:
    """Predict the rating of every target of a Holdout, at the moment it was given, and say how well that went.

    - **rmse**, **mae**: root mean squared and mean absolute error of the expected ratings, over all questions;
    - **log_loss**: mean of -log of the probability of the true level (natural logarithm; a probability below 1e-7
      counts as 1e-7), of models that give probabilities;
    - **ece**: expected calibration error: by how much the mean of the true ratings misses the mean of the expected
      ones, in tenths of the questions by expected rating;
    - **own_hr@k**, **own_ndcg@k**: HR and NDCG among the items that a user rated in these questions, as ARERec
      publishes them, mean over the users of whom they can be measured (see `rating_metrics.own_metrics`); left out
      where there are none. Ties count what they are worth in random order.

    Parameters
    ----------
    recommender
        A Recommender, or a fitted model; of ratings.
    holdout
        The questions: `split.validation` or `split.test`.
    k
        Lengths of the lists.
    cutoff
        The lowest rating of an item that was liked; None for the middle of the Dataset's scale (3 of 1 … 5).
    arg_max
        Rank by the most probable level, as the published code does, and not by the expected rating. Nearly all items of
        a user tie then.
    users
        Ask about only that many users, drawn from `seed`; all when None.
    seed
        Draws users and bootstrap resamples.
    resamples
        Of users, for the 95 % intervals; 0 for none.

    Returns
    -------
    evaluation
        The figures, their intervals, per user, by length of history, by the number of ratings of the item that may be
        learnt from (at the test those of validation are among them), and how well calibrated the model is.

    Raises
    ------
    ConfigError
        The model predicts no ratings, gives no probabilities where `arg_max` needs them, or an option is impossible.
    DataError
        The Dataset has no ratings, or some are not finite numbers.
    EvaluationError
        The Holdout is empty or belongs to another Dataset, an expected rating is not finite, or a true rating is of a
        level that the model does not know.
    """
    model = rating_model(recommender)
    ks = sorted({k} if isinstance(k, int) else set(k))
    if not ks or ks[0] < 1:
        raise ConfigError(f"k={k}: expected one length of list or more, each 1 or more, such as k=(5, 10).")
    if arg_max and model.levels is None:
        raise ConfigError(
            f"arg_max=True ranks by the most probable level, and {model.config.name} has no probabilities: it expects "
            "a number and no more."
        )
    questions = RatingQuestions.of(model, holdout, users, seed)
    found = answers(model, questions)
    liked = sum(questions.scale) / 2 if cutoff is None else cutoff
    ranked = found.likeliest if arg_max and found.likeliest is not None else found.expected
    n_users = len(questions.holdout)
    own = own_metrics(questions.rows, n_users, questions.ratings, ranked, ks, liked)
    own = {name: values for name, values in own.items() if np.isfinite(values).any()}
    errors = _errors(questions, found)
    asked = questions.holdout.n_targets.astype(np.float64)
    sums = {name: summed(questions.rows, one, n_users) for name, one in errors.items()}
    parts = _parts(questions, found, errors, sums, own)
    overall = {name: combined(name, float(values.sum()), float(asked.sum())) for name, values in sums.items()}
    return Evaluation(
        model=model.config.name,
        metrics={
            **{name: float(value) for name, value in overall.items()},
            "ece": calibration_error(parts["calibration"]),
            **{name: float(np.nanmean(values)) for name, values in own.items()},
        },
        intervals=_intervals(sums, asked, own, resamples, seed) if resamples else {},
        per_user=_rows(questions, sums, own),
        parts=parts,
        protocol=_protocol(model, questions, liked, arg_max, None if users is None else seed),
    )


def _errors(questions: RatingQuestions, found: Answers) -> dict[str, Floats]:
    """(n,) what each of the metrics over questions sums."""
    missed = found.expected - questions.ratings
    errors = {"rmse": missed**2, "mae": np.abs(missed)}
    return errors if found.surprises is None else errors | {"log_loss": found.surprises}


def _intervals(
    sums: Mapping[str, Floats], asked: Floats, own: Mapping[str, Floats], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Users are resampled with all of their questions, which are not independent of each other."""
    found = {}
    for name, values in sums.items():

        def figure(total: Floats, weight: Floats, name: str = name) -> Floats:
            return combined(name, total, weight)

        found[name] = bootstrap_figure([values, asked], figure, resamples, seed)
    return found | {
        name: bootstrap_interval(values[np.isfinite(values)], resamples, seed) for name, values in own.items()
    }


def _rows(questions: RatingQuestions, sums: Mapping[str, Floats], own: Mapping[str, Floats]) -> pl.DataFrame:
    """A row per user: who, how much came before, how many questions, what their errors sum to, and the own metrics."""
    asked = questions.holdout
    about = {
        "user": asked.dataset.users.decode(asked.users),
        "history": asked.histories().lengths,
        "questions": asked.n_targets,
    }
    summed = {PER_QUESTION[name]: values for name, values in sums.items()}
    return pl.DataFrame(about | summed | dict(own)).with_columns(pl.col(name).fill_nan(None) for name in own)


def _parts(
    questions: RatingQuestions,
    found: Answers,
    errors: Mapping[str, Floats],
    sums: Mapping[str, Floats],
    own: Mapping[str, Floats],
) -> dict[str, pl.DataFrame]:
    asked = questions.holdout
    weights = dict.fromkeys(sums, asked.n_targets.astype(np.float64))
    weights |= {name: np.isfinite(values).astype(np.float64) for name, values in own.items()}
    values = dict(sums) | {name: np.nan_to_num(one) for name, one in own.items()}
    counts = asked.training_view().item_counts()
    parts = {
        "history_length": by_history_length(asked.histories().lengths, values, weights),
        "item_ratings": by_item_ratings(counts[questions.items], errors),
        "calibration": calibration(found.expected, questions.ratings),
    }
    if found.levels is not None and found.places is not None and found.predicted is not None:
        parts["level"] = by_level(found.levels, found.places, found.expected, found.predicted)
    return parts


def _protocol(
    model: RatingModel, questions: RatingQuestions, cutoff: float, arg_max: bool, drawn_from: int | None
) -> dict[str, Any]:
    """What was asked, as plain data."""
    asked = questions.holdout
    histories = asked.histories()
    unknown = (histories.users == 0) | (histories.lengths == 0)
    return {
        "task": RATINGS,
        "split": asked.name,
        "users": len(asked),
        "users_drawn_from_seed": drawn_from,
        "ratings": len(questions),
        "items": asked.dataset.n_items,
        "scale": list(questions.scale),
        "cutoff": cutoff,
        "arg_max": arg_max,
        "ties": "random order, in expectation",
        "on_unrated_items": int(model.unrated().cpu().numpy()[questions.items].sum()),
        "on_unknown_users": int(asked.n_targets[unknown].sum()),
        "questions": questions.digest,
        **look_back_of(model),
    }
