"""What is measured after an epoch: the validation part, which chooses, and the test part where it is watched."""

from __future__ import annotations

from collections.abc import Callable

from segue.data.splits.by_user import Holdout
from segue.errors import ConfigError, nearest
from segue.evaluation.candidates import sample_candidates
from segue.evaluation.metrics import NAMES, OWN_NAMES, PER_QUESTION, SESSION_NAMES
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.ratings import KS, evaluate_ratings
from segue.evaluation.tasks.sessions import evaluate_sessions
from segue.models.base import Model
from segue.models.ratings import RatingModel
from segue.training.config import Training
from segue.training.curves import TEST

Validate = Callable[[], dict[str, float]]


def check_validation(model: Model, settings: Training, validation: Holdout | None, test: Holdout | None) -> None:
    """Find out before any time is spent whether validation can measure what the settings ask for.

    Parameters
    ----------
    model
        Is to be measured.
    settings
        Names the metric, and says whether the test part is watched.
    validation, test
        The parts of the split; None where there are none. Without validation the metric is of no importance.

    Raises
    ------
    ConfigError
        The metric is unknown, its list is longer than what is ranked, it is of sessions and the parts are not, it is of
        ratings and the model or the users are not, or there is nothing to watch.
    """
    if settings.watch_test and (validation is None or test is None):
        raise ConfigError("watch_test=True needs a split: its test part is what is watched.")
    if validation is None:
        return
    metric, k = _metric(settings), _length_of(_metric(settings))
    if _of_ratings(metric):
        _check_ratings(model, metric, k, _asked(settings, validation))
        return
    ranked, n_items = settings.validation_candidates, validation.dataset.n_items
    if not 1 <= k <= n_items:
        raise ConfigError(f"metric={metric!r}: the catalogue has {n_items:,} items; look at so many at most.")
    if ranked is not None and k > ranked:
        raise ConfigError(
            f"metric={metric!r}: validation_candidates={ranked} are ranked with each target; look at so many "
            "at most, or rank among more."
        )
    if _of_sessions(metric) and not validation.whole_sessions:
        raise ConfigError(
            f"metric={metric!r} is measured on whole sessions, and the {validation.name} part does not hold "
            "such: split by last-session-out (a Dataset with sessions), or choose a metric such as ndcg@10."
        )


def _check_ratings(model: Model, metric: str, k: int, asked: Holdout) -> None:
    if not isinstance(model, RatingModel):
        raise ConfigError(
            f"metric={metric!r} is of predicted ratings, and {model.config.name} predicts none: choose a metric such "
            "as ndcg@10."
        )
    if metric == "log_loss" and model.levels is None:
        raise ConfigError(
            f"metric='log_loss' is of probabilities, and {model.config.name} has none: it expects a number and no "
            "more. Choose rmse or mae."
        )
    most = int(asked.n_targets.max(initial=0))
    if "@" in metric and not 1 <= k <= most:
        raise ConfigError(
            f"metric={metric!r} is measured of users with {k} ratings in the {asked.name} part, and the most that one "
            f"has is {most}: look at so many at most, or choose rmse."
        )


def validation_of(model: Model, settings: Training, validation: Holdout, test: Holdout | None) -> Validate:
    """What to call after an epoch: the same users and candidates every time.

    Parameters
    ----------
    model
        Is measured as it is at the time of each call.
    settings
        Checked by `check_validation`.
    validation
        Its metrics have their own names: all of ratings, all three of sessions, or HR, NDCG and the chosen one.
    test
        Its metrics have `TEST` before their names; not measured if None.
    """
    metric = _metric(settings)
    measure = _sessions if _of_sessions(metric) else _ratings if _of_ratings(metric) else _next_items
    chosen = measure(model, settings, validation)
    watched = None if test is None else measure(model, settings, test)

    def validate() -> dict[str, float]:
        beside = {} if watched is None else {f"{TEST}{name}": value for name, value in watched().items()}
        return chosen() | beside

    return validate


def _next_items(model: Model, settings: Training, holdout: Holdout) -> Validate:
    metric, n = _metric(settings), settings.validation_candidates
    asked, k = _asked(settings, holdout), _length_of(metric)
    candidates = None if n is None else sample_candidates(asked, n, seed=settings.seed)
    names = dict.fromkeys((f"hr@{k}", f"ndcg@{k}", metric))

    def measure() -> dict[str, float]:
        """Ranks only."""
        found = evaluate(
            model,
            asked,
            k=k,
            candidates=candidates,
            exclude_seen=settings.validation_exclude_seen,
            lists=False,
            resamples=0,
        )
        return {name: found.metrics[name] for name in names}

    return measure


def _sessions(model: Model, settings: Training, holdout: Holdout) -> Validate:
    asked, k, n = _asked(settings, holdout), _length_of(_metric(settings)), settings.validation_candidates
    candidates = None if n is None else sample_candidates(asked, n, seed=settings.seed, from_history=True)

    def measure() -> dict[str, float]:
        found = evaluate_sessions(model, asked, k=k, candidates=candidates, seed=settings.seed, resamples=0)
        return {f"{name}@{k}": found.metrics[f"{name}@{k}"] for name in SESSION_NAMES}

    return measure


def _ratings(model: Model, settings: Training, holdout: Holdout) -> Validate:
    asked, metric = _asked(settings, holdout), _metric(settings)
    ks = sorted({*KS, *([_length_of(metric)] if "@" in metric else [])})

    def measure() -> dict[str, float]:
        """The log-loss among them is the validation loss."""
        found = evaluate_ratings(model, asked, k=ks, resamples=0).metrics
        if metric not in found:
            raise ConfigError(
                f"metric={metric!r}: no user of the {asked.name} part liked any of the items asked about."
            )
        return {name: value for name, value in found.items() if _of_ratings(name)}

    return measure


def _asked(settings: Training, holdout: Holdout) -> Holdout:
    n = settings.validation_users
    return holdout if n is None else holdout.sample(n, settings.seed)


def _metric(settings: Training) -> str:
    """The metric that chooses; `fit` has put the model's own where the options name none."""
    assert settings.metric is not None
    return settings.metric


def _of_sessions(metric: str) -> bool:
    return metric.partition("@")[0] in SESSION_NAMES


def _of_ratings(metric: str) -> bool:
    return metric.partition("@")[0] in (*PER_QUESTION, *OWN_NAMES)


def _length_of(metric: str) -> int:
    """The k of a metric such as "ndcg@10"; 10 of one that has none."""
    _, _, length = metric.partition("@")
    k = int(length) if length.isdecimal() else 10
    known = [*(f"{name}@{k}" for name in (*NAMES, *SESSION_NAMES, *OWN_NAMES)), *PER_QUESTION]
    if metric not in known:
        raise ConfigError(f"metric={metric!r} is not measured in validation; {nearest(metric, known)}")
    return k
