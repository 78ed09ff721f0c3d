"""The task of ratings: predict the rating of every target of a Holdout, with any rating model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.splits.holdouts import Holdout
from segue.engines.engine import Engine
from segue.errors import ConfigError
from segue.evaluation.breakdown import by_history_length, by_item_ratings
from segue.evaluation.metrics import Floats, summed
from segue.evaluation.questions import look_back_of
from segue.evaluation.resampling import bootstrap_figure, bootstrap_interval
from segue.evaluation.tasks.calibration import calibration_charts
from segue.evaluation.tasks.description import Metric, Picture, Wording
from segue.evaluation.tasks.rating_metrics import by_level, calibration, calibration_error, own_metrics
from segue.evaluation.tasks.rating_questions import Predictions, RatingQuestions, predict, rating_model
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.sessions import Sessions
from segue.evaluation.tasks.task import EvaluationOptions, Measure, Task, ValidationPlan
from segue.inference.scorer import HasScorer
from segue.models.base import Model
from segue.models.ratings import RatingModel
from segue.settings import Count, Resamples, Seed

KS = (3, 5, 7, 10)
"""The lengths of the lists in the ARERec paper."""

_SUMS = {"rmse": "squared_errors", "mae": "absolute_errors", "log_loss": "surprises"}
"""Metrics that are means over ratings, and the column per user with their sums."""


class Ratings(Task):
    """Predict the rating that each user gives each target."""

    name: ClassVar[str] = "ratings"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rmse", "RMSE", "root mean squared error of the expected ratings", False, "lower", root=True),
        Metric("mae", "Mean absolute error", "mean absolute error of the expected ratings", False, "lower"),
        Metric("log_loss", "Log-loss", "mean of -log of the probability of the true level", False, "lower"),
        Metric(
            "ece",
            "Expected calibration error",
            "distance between the mean true rating and the mean expected one, in tenths of the ratings",
            False,
            "lower",
            validated=False,
        ),
        Metric(
            "own_hr",
            "Hit rate{} among own ratings",
            "share of a user's best-liked own items in the list; a list of all that a user rated holds every hit",
        ),
        Metric(
            "own_ndcg", "NDCG{} among own ratings", "gain of a user's own items in the list, over the best possible"
        ),
    )
    headlines: ClassVar[tuple[str, ...]] = ("rmse", "own_ndcg", "mae")
    part_titles: ClassVar[Mapping[str, str]] = {
        "history_length": "By length of history",
        "item_ratings": "By number of ratings of the item",
    }
    note: ClassVar[str] = (
        "Lines across the ends of bars are 95 % bootstrap intervals over users. Metrics of own ratings rank the items "
        "that a user rated, and ties stand in random order, in expectation."
    )
    ranking_note: ClassVar[str] = "Items are ranked by the rating expected. Equal scores count against the target."
    settings: ClassVar[tuple[str, ...]] = ("cutoff", "arg_max", "published_gains")
    usual_metric: ClassVar[str] = "rmse"
    ranks: ClassVar[bool] = False

    def questions(self, protocol: Mapping[str, Any]) -> str:
        """Number of users and ratings, and the meaning of a liked item, in words."""
        size = f"{protocol['users']:,} users, {protocol['ratings']:,} ratings, liked from {protocol['cutoff']:g}"
        ranked = ", ranked by the likeliest level" if protocol["arg_max"] else ""
        return size + ranked + (", gains as published" if protocol.get("published_gains") else "")

    def candidates(self, protocol: Mapping[str, Any]) -> str:
        """Items that the own metrics rank, in words."""
        return "the items that each user rated"

    def setting(self, protocol: Mapping[str, Any]) -> str:
        """One line on the setting of an evaluation."""
        return f"{protocol['split']}: {self.questions(protocol)}"

    def terms(self, name: str, per_user: pl.DataFrame) -> tuple[Floats, Floats | None] | None:
        """Values and weights per user: the errors weigh as many times as the user has ratings."""
        if _SUMS.get(name) in per_user.columns:
            return per_user[_SUMS[name]].to_numpy(), per_user["questions"].to_numpy().astype(np.float64)
        return super().terms(name, per_user)

    def wording(self, name: str, protocol: Mapping[str, Any]) -> Wording:
        """Words for the root mean squared error: the typical error of an expected rating."""
        if name != "rmse":
            return super().wording(name, protocol)
        low, high = min(protocol["scale"]), max(protocol["scale"])
        scale = f"a scale from {low:g} to {high:g}"
        return Wording(f"expects ratings with a typical error of {{}} on {scale}", per_100=False)

    def pictures(self, parts: Mapping[str, Mapping[str, pl.DataFrame]]) -> list[Picture]:
        """The calibration of the models."""
        return [
            Picture(
                anchor="calibration",
                label="Calibration",
                title="Are the ratings what they are expected to be?",
                charts=calibration_charts(parts),
                note="Each dot is a tenth of the questions, by the rating expected. Above the line users liked items "
                "better than expected. ece is the mean distance from the line.",
            )
        ]

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check whether the model predicts ratings, and whether any user has enough of them."""
        if not isinstance(model, RatingModel):
            raise ConfigError(
                f"metric={plan.metric!r} is of predicted ratings, and {model.config.name} predicts none: choose a "
                "metric such as ndcg@10."
            )
        if plan.metric == "log_loss" and model.levels is None:
            raise ConfigError(
                f"metric='log_loss' is of probabilities, and {model.config.name} has none: it expects a number and no "
                "more. Choose rmse or mae."
            )
        most = int(holdout.n_targets.max(initial=0))
        if "@" in plan.metric and not 1 <= plan.k <= most:
            raise ConfigError(
                f"metric={plan.metric!r} is measured of users with {plan.k} ratings in the {holdout.name} part, and "
                f"the most that one has is {most}: look at so many at most, or choose rmse."
            )

    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        """Measure all that `evaluate_ratings` does, except the calibration; the log-loss is the validation loss."""
        ks = sorted({*KS, *([plan.k] if "@" in plan.metric else [])})
        names = {metric.name for metric in self.metrics if metric.validated}

        def measured_now() -> dict[str, float]:
            metrics = evaluate_ratings(model, holdout, k=ks, resamples=0).metrics
            if plan.metric not in metrics:
                raise ConfigError(f"metric={plan.metric!r}: no user of the {holdout.name} part liked any of the items.")
            return {name: value for name, value in metrics.items() if name.partition("@")[0] in names}

        return measured_now

    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        """Evaluate the ratings and, if the options say so, the ranking of all items beside them."""
        evaluation = evaluate_ratings(
            recommender,
            holdout,
            k=KS if options.k is None else options.k,
            cutoff=options.cutoff,
            arg_max=options.arg_max,
            published_gains=options.published_gains,
            users=options.users,
            seed=options.seed,
            engine=options.engine,
        )
        ranking = Sessions().measure(recommender, holdout, options) if options.ranking else None
        return replace(evaluation, ranking=ranking)


_ROOTS = [metric.name for metric in Ratings.metrics if metric.root]


@checked
def evaluate_ratings(
    recommender: HasScorer | Model,
    holdout: Holdout,
    *,
    k: Count | Sequence[Count] = KS,
    cutoff: float | None = None,
    arg_max: bool = False,
    published_gains: bool = False,
    users: Count | None = None,
    seed: Seed = 0,
    resamples: Resamples = 1_000,
    engine: Engine | None = None,
) -> Evaluation:
    """Predict the rating of every target of a Holdout at its moment, and measure the predictions.

    - **rmse**, **mae**: root mean squared and mean absolute error of the expected ratings, over all questions;
    - **log_loss**: mean of -log of the probability of the true level, for models with probabilities (natural logarithm;
      a probability below 1e-7 counts as 1e-7);
    - **ece**: expected calibration error: distance between the mean true rating and the mean expected one, in tenths of
      the questions by expected rating;
    - **own_hr@k**, **own_ndcg@k**: HR and NDCG among the items that a user rated in these questions, as ARERec
      publishes them. They are means over the users with enough ratings (see `rating_metrics.own_metrics`), and missing
      if there are no such users. Ties count as in random order, in expectation.

    Parameters
    ----------
    recommender
        A Recommender of ratings, or a fitted rating model.
    holdout
        The questions: `split.validation` or `split.test`.
    k
        Lengths of the lists.
    cutoff
        Lowest rating of a liked item; None for the middle of the Dataset's scale (3 of 1 … 5).
    arg_max
        Rank by the most probable level, as the published code does, instead of the expected rating. Nearly all items of
        a user tie then.
    published_gains
        Compute `own_ndcg` as the published code does. There an item at place p of the list has the gain of the p-th
        highest true rating, and the discount of the rank of its own (see `rating_metrics.own_metrics`).
    users
        Number of users to evaluate, drawn from `seed`; all when None.
    seed
        Seed of users and bootstrap resamples.
    resamples
        Number of resamples of users for the 95 % intervals; 0 for none.
    engine
        Workers that predict, as in `evaluate`.

    Returns
    -------
    evaluation
        Metrics, intervals, values per user, by length of history and by number of training ratings of the item (at the
        test those of validation count too), and the calibration of the model.

    Raises
    ------
    ConfigError
        The model predicts no ratings, lacks the probabilities for `arg_max`, or an option is impossible.
    DataError
        The Dataset has no ratings, or some are not finite numbers.
    EvaluationError
        The Holdout is empty or belongs to another Dataset, an expected rating is not finite, or the model does not know
        the level of a true rating.

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.simulate(40, 6).log().select("user", "item", rating=pl.col("item") % 5 + 1)
    >>> split = segue.random_rows(segue.prepare(log, time=False, duplicates="first"))
    >>> evaluation = segue.evaluate_ratings(segue.fit(segue.RatingBias(), split), split.test, k=2)
    >>> list(evaluation.metrics)[:2]
    ['rmse', 'mae']
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
    predictions = predict(model, questions, engine)
    liked = sum(questions.scale) / 2 if cutoff is None else cutoff
    likeliest = predictions.likeliest if arg_max else None
    ranked = predictions.expected if likeliest is None else likeliest
    n_users = len(questions.holdout)
    own = own_metrics(questions.rows, n_users, questions.ratings, ranked, ks, liked, published_gains)
    own = {name: values for name, values in own.items() if np.isfinite(values).any()}
    errors = _errors(questions, predictions)
    n_ratings = questions.holdout.n_targets.astype(np.float64)
    sums = {name: summed(questions.rows, values, n_users) for name, values in errors.items()}
    parts = _parts(questions, predictions, errors, sums, own)
    total = float(n_ratings.sum())
    overall = {name: _metric(name).combined(float(values.sum()), total) for name, values in sums.items()}
    return Evaluation(
        model=model.config.name,
        metrics={
            **{name: float(value) for name, value in overall.items()},
            "ece": calibration_error(parts["calibration"]),
            **{name: float(np.nanmean(values)) for name, values in own.items()},
        },
        intervals=_intervals(sums, n_ratings, own, resamples, seed) if resamples else {},
        per_user=_rows(questions, sums, own),
        parts=parts,
        protocol=_protocol(model, questions, liked, arg_max, published_gains, None if users is None else seed),
    )


def _metric(name: str) -> Metric:
    return next(metric for metric in Ratings.metrics if metric.name == name)


def _errors(questions: RatingQuestions, predictions: Predictions) -> dict[str, Floats]:
    """Error (n,) of each question, for each metric that is a mean over them."""
    residuals = predictions.expected - questions.ratings
    errors = {"rmse": residuals**2, "mae": np.abs(residuals)}
    return errors if predictions.surprises is None else errors | {"log_loss": predictions.surprises}


def _intervals(
    sums: Mapping[str, Floats], n_ratings: Floats, own: Mapping[str, Floats], resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Intervals by resampling users with all of their ratings, which are not independent of each other."""
    intervals = {}
    for name, values in sums.items():

        def figure(total: Floats, weight: Floats, name: str = name) -> Floats:
            return _metric(name).combined(total, weight)

        intervals[name] = bootstrap_figure([values, n_ratings], figure, resamples, seed)
    return intervals | {
        name: bootstrap_interval(values[np.isfinite(values)], resamples, seed) for name, values in own.items()
    }


def _rows(questions: RatingQuestions, sums: Mapping[str, Floats], own: Mapping[str, Floats]) -> pl.DataFrame:
    """A row per user: user, length of the history, number of questions, summed errors, and the own metrics."""
    holdout = questions.holdout
    basic = {
        "user": holdout.dataset.users.decode(holdout.users),
        "history": holdout.histories().lengths,
        "questions": holdout.n_targets,
    }
    summed_errors = {_SUMS[name]: values for name, values in sums.items()}
    return pl.DataFrame(basic | summed_errors | dict(own)).with_columns(pl.col(name).fill_nan(None) for name in own)


def _parts(
    questions: RatingQuestions,
    predictions: Predictions,
    errors: Mapping[str, Floats],
    sums: Mapping[str, Floats],
    own: Mapping[str, Floats],
) -> dict[str, pl.DataFrame]:
    holdout = questions.holdout
    weights = dict.fromkeys(sums, holdout.n_targets.astype(np.float64))
    weights |= {name: np.isfinite(values).astype(np.float64) for name, values in own.items()}
    values = dict(sums) | {name: np.nan_to_num(per_user) for name, per_user in own.items()}
    counts = holdout.training_view().item_counts()
    parts = {
        "history_length": by_history_length(holdout.histories().lengths, values, weights, _ROOTS),
        "item_ratings": by_item_ratings(counts[questions.items], errors, _ROOTS),
        "calibration": calibration(predictions.expected, questions.ratings),
    }
    levels, true_levels, frequencies = predictions.levels, predictions.true_levels, predictions.frequencies
    if levels is not None and true_levels is not None and frequencies is not None:
        parts["level"] = by_level(levels, true_levels, predictions.expected, frequencies)
    return parts


def _protocol(
    model: RatingModel,
    questions: RatingQuestions,
    cutoff: float,
    arg_max: bool,
    published_gains: bool,
    users_seed: int | None,
) -> dict[str, Any]:
    """Setting of the evaluation, as plain data."""
    holdout = questions.holdout
    histories = holdout.histories()
    unknown = (histories.users == 0) | (histories.lengths == 0)
    return {
        "task": Ratings.name,
        "split": holdout.name,
        "users": len(holdout),
        "users_drawn_from_seed": users_seed,
        "ratings": len(questions),
        "items": holdout.dataset.n_items,
        "scale": list(questions.scale),
        "cutoff": cutoff,
        "arg_max": arg_max,
        **({"published_gains": True} if published_gains else {}),
        "ties": "random order, in expectation",
        "on_unrated_items": int(model.unrated().cpu().numpy()[questions.items].sum()),
        "on_unknown_users": int(holdout.n_targets[unknown].sum()),
        "questions": questions.digest,
        **look_back_of(model),
    }
