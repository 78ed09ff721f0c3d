"""Validation after an epoch, on the validation part and, if it is watched, the test part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from segue.data.splits.holdouts import Holdout
from segue.errors import ConfigError
from segue.evaluation.tasks.task import Measure, Task, ValidationPlan, leaves_seen_out, task_of, task_of_metric
from segue.models.base import Model, ModelConfig
from segue.training.config import Training
from segue.training.curves import TEST
from segue.training.run_manifest import read_run

Validate = Measure
"""Function that measures the model in training, and returns metrics by name."""


def with_task_defaults(
    settings: Training, config: ModelConfig, validation: Holdout | None, resumed: Path | None = None
) -> Training:
    """Return the settings with `metric` and `validation_exclude_seen` filled in.

    Parameters
    ----------
    settings
        Options of the training.
    config
        Config of the model; its task, and one that suits the validation part, have the defaults.
    validation
        Validation part, if there is one.
    resumed
        Folder of the run to continue, if any: options that are not given stay as they were.
    """
    task, former = task_of(config), _former_options(resumed)
    metric, exclude_seen = settings.metric, settings.validation_exclude_seen
    if metric is None:
        metric = former.get("metric") or task.suitable_metric(validation)
    if exclude_seen is None:
        exclude_seen = former.get("validation_exclude_seen")
    if exclude_seen is None:
        exclude_seen = leaves_seen_out(config, validation)
    return replace(settings, metric=metric, validation_exclude_seen=exclude_seen)


def check_validation(model: Model, settings: Training, validation: Holdout | None, test: Holdout | None) -> None:
    """Check before training that validation can measure the metric of the settings.

    Parameters
    ----------
    model
        The model in training.
    settings
        Options of the training, with a metric.
    validation, test
        Parts of the split, if there are any. Without a validation part the metric is not checked.

    Raises
    ------
    ConfigError
        The metric is unknown, its list is longer than the ranking, the model or the parts do not suit its task, or
        there is no test part to watch.
    """
    if settings.watch_test and test is None:
        raise ConfigError("watch_test=True needs a split with a test part to watch.")
    part = test if validation is None else validation
    if part is not None:
        task, plan = _plan(settings, part)
        task.check_validation(model, plan, _sampled(settings, part))


def validation_of(model: Model, settings: Training, validation: Holdout | None, test: Holdout | None) -> Validate:
    """Return the function to call after an epoch. It measures the same users and candidates every time.

    Parameters
    ----------
    model
        The model; each call measures its current weights.
    settings
        Options of the training, after `check_validation`.
    validation
        Validation part, if there is one; its metrics keep their names.
    test
        Test part to watch, if any; `TEST` stands before the names of its metrics.
    """
    task, plan = _plan(settings, test if validation is None else validation)
    measure, watch = (
        None if part is None else task.validation(model, plan, _sampled(settings, part)) for part in (validation, test)
    )

    def validate() -> dict[str, float]:
        watched = {} if watch is None else {f"{TEST}{name}": value for name, value in watch().items()}
        return ({} if measure is None else measure()) | watched

    return validate


def _plan(settings: Training, holdout: Holdout | None) -> tuple[Task, ValidationPlan]:
    assert settings.metric is not None and settings.validation_exclude_seen is not None, "with_task_defaults first"
    task, _, k = task_of_metric(settings.metric, holdout)
    plan = ValidationPlan(
        metric=settings.metric,
        k=k,
        candidates=settings.validation_candidates,
        exclude_seen=settings.validation_exclude_seen,
        seed=settings.seed,
    )
    return task, plan


def _sampled(settings: Training, holdout: Holdout) -> Holdout:
    n = settings.validation_users
    return holdout if n is None else holdout.sample(n, settings.seed)


def _former_options(folder: Path | None) -> Mapping[str, Any]:
    """Options of the run in a folder; empty if it has not begun."""
    return {} if folder is None else read_run(folder).get("training") or {}
