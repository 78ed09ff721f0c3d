"""What is measured after an epoch: the validation part, which chooses, and the test part where it is watched."""

from __future__ import annotations

from collections.abc import Callable

from segue.data.splits import Holdout
from segue.errors import ConfigError, nearest
from segue.evaluation.candidates import sample_candidates
from segue.evaluation.evaluate import evaluate
from segue.evaluation.metrics import NAMES, SESSION_NAMES
from segue.evaluation.sessions import evaluate_sessions
from segue.models.base import Model
from segue.training.config import Training
from segue.training.curves import TEST

Validate = Callable[[], dict[str, float]]


def check_validation(settings: Training, validation: Holdout | None, test: Holdout | None) -> None:
    """Find out before any time is spent whether validation can measure what the settings ask for.

    Parameters
    ----------
    settings
        Names the metric, and says whether the test part is watched.
    validation, test
        The parts of the split; None where there are none. Without validation the metric is of no importance.

    Raises
    ------
    ConfigError
        The metric is unknown, its list is longer than what is ranked, it is of sessions and the parts are not, or there
        is nothing to watch.
    """
    if settings.watch_test and (validation is None or test is None):
        raise ConfigError("watch_test=True needs a split: its test part is what is watched.")
    if validation is None:
        return
    k = _length_of(settings.metric)
    ranked, n_items = settings.validation_candidates, validation.dataset.n_items
    if not 1 <= k <= n_items:
        raise ConfigError(f"metric={settings.metric!r}: the catalogue has {n_items:,} items; look at so many at most.")
    if ranked is not None and k > ranked:
        raise ConfigError(
            f"metric={settings.metric!r}: validation_candidates={ranked} are ranked with each target; look at so many "
            "at most, or rank among more."
        )
    if _of_sessions(settings.metric) and not validation.whole_sessions:
        raise ConfigError(
            f"metric={settings.metric!r} is measured on whole sessions, and the {validation.name} part does not hold "
            "such: split by last-session-out (a Dataset with sessions), or choose a metric such as ndcg@10."
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
        Its metrics have their own names: all three of sessions, or HR, NDCG and the chosen one.
    test
        Its metrics have `TEST` before their names; not measured if None.
    """
    measure = _sessions if _of_sessions(settings.metric) else _next_items
    chosen = measure(model, settings, validation)
    watched = None if test is None else measure(model, settings, test)

    def validate() -> dict[str, float]:
        beside = {} if watched is None else {f"{TEST}{name}": value for name, value in watched().items()}
        return chosen() | beside

    return validate


def _next_items(model: Model, settings: Training, holdout: Holdout) -> Validate:
    asked, k, n = _asked(settings, holdout), _length_of(settings.metric), settings.validation_candidates
    candidates = None if n is None else sample_candidates(asked, n, seed=settings.seed)
    names = dict.fromkeys((f"hr@{k}", f"ndcg@{k}", settings.metric))

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
    asked, k, n = _asked(settings, holdout), _length_of(settings.metric), settings.validation_candidates
    candidates = None if n is None else sample_candidates(asked, n, seed=settings.seed, from_history=True)

    def measure() -> dict[str, float]:
        found = evaluate_sessions(model, asked, k=k, candidates=candidates, seed=settings.seed, resamples=0)
        return {f"{name}@{k}": found.metrics[f"{name}@{k}"] for name in SESSION_NAMES}

    return measure


def _asked(settings: Training, holdout: Holdout) -> Holdout:
    n = settings.validation_users
    return holdout if n is None else holdout.sample(n, settings.seed)


def _of_sessions(metric: str) -> bool:
    return metric.partition("@")[0] in SESSION_NAMES


def _length_of(metric: str) -> int:
    """The k of a metric such as "ndcg@10"."""
    _, _, length = metric.partition("@")
    k = int(length) if length.isdecimal() else 10
    known = [f"{name}@{k}" for name in (*NAMES, *SESSION_NAMES)]
    if metric not in known:
        raise ConfigError(f"metric={metric!r} is not measured in validation; {nearest(metric, known)}")
    return k
