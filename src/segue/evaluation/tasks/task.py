"""Base of the tasks, and functions that find and apply the task of a model or of a metric.

To add a task, write one file with a `Task` and name it in `registry.py`. Validation, curves, the command line, reports
and comparisons then serve it. A model names its task in `ModelConfig.task`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from segue.data.dataset import Dataset
from segue.data.splits.holdouts import Holdout
from segue.engines.engine import Engine
from segue.errors import ConfigError, nearest
from segue.evaluation.candidates import Law
from segue.evaluation.tasks.description import Metric, TaskDescription
from segue.evaluation.tasks.registry import description_named, descriptions
from segue.evaluation.tasks.result import Evaluation
from segue.inference.scorer import HasScorer
from segue.models.base import Model, ModelConfig

Measure = Callable[[], dict[str, float]]
"""Function that measures a model as it is when called, and returns metrics by name."""

_USUAL_K = 10


class ValidationPlan(NamedTuple):
    """Choices of a validation, the same after every epoch."""

    metric: str
    """Full name of the metric that chooses the epoch: "ndcg@10"."""

    k: int
    """Length of the lists."""

    candidates: int | None
    """Number of sampled items that each target is ranked among; None for all items."""

    exclude_seen: bool
    """True to leave the items of a user's history out of the ranking."""

    seed: int
    """Seed of the candidates."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `measure`; a task ignores those that it has no use for."""

    k: Sequence[int] | None = None
    """Lengths of the lists; the task's usual ones when None, or all items of a smaller catalogue."""

    candidates: int | None = None
    """Number of sampled items that each target is ranked among; all items when None."""

    by: Law = "uniform"
    """Law of the sampled candidates."""

    exclude_seen: bool | None = None
    """True to leave the items of a user's history out of the ranking; as `leaves_seen_out` says when None."""

    users: int | None = None
    """Number of users to evaluate, drawn from the seed; all when None."""

    seed: int = 0
    """Seed of users, candidates and resamples."""

    split: str | None = None
    """Name of the split that made the Holdout."""

    cutoff: float | None = None
    """Lowest rating of a liked item; the middle of the scale when None."""

    arg_max: bool = False
    """True to rank a user's items by their most probable level instead of the expected rating."""

    published_gains: bool = False
    """True to compute the NDCG among own ratings as the published code of ARERec does."""

    ranking: bool = False
    """True to measure the ranking of a rating model, too."""

    engine: Engine | None = None
    """Workers that rank and predict; this process when None."""


class Task(TaskDescription):
    """A task: its description, its defaults, and how a model is validated and measured."""

    usual_metric: ClassVar[str]
    """Full name of the metric that chooses the best epoch when the options of the training name none."""

    exclude_seen: ClassVar[bool] = True
    """Default of `exclude_seen`: True leaves the items of a user's history out of the ranking."""

    ranks: ClassVar[bool] = True
    """True if `measure` evaluates a ranking of items. All models have one, so they can be compared by it."""

    splits: ClassVar[tuple[str, ...]] = ()
    """Names of the splits that are made for this task: other models of rankings are then measured by it, too."""

    def suits(self, holdout: Holdout) -> bool:
        """True if the task is made for the questions of this Holdout: other models are then measured by it, too."""
        return False

    def leaves_seen_out(self, holdout: Holdout | None) -> bool:
        """Default of `exclude_seen` on a Holdout; None if there is none yet."""
        return self.exclude_seen

    def suitable_split(self, dataset: Dataset) -> dict[str, Any]:
        """The split of a Dataset that suits the task, as `Split.spec`.

        Raises
        ------
        DataError
            The Dataset lacks what the task needs; the message says how to prepare it.
        """
        return {"name": "leave-last-out" if dataset.parts is None else "given"}

    def suitable_metric(self, validation: Holdout | None) -> str:
        """The metric that chooses the best epoch on this validation part, when the options name none."""
        return self.usual_metric

    @abstractmethod
    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        """Check that `validation` can measure the metric of the plan.

        Raises
        ------
        ConfigError
            It cannot; the message says what to choose instead.
        """

    @abstractmethod
    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        """A function that measures the model on the same users and candidates at every call."""

    @abstractmethod
    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        """The Evaluation of a Recommender with these options; `exclude_seen` is given."""


def tasks() -> list[Task]:
    """All tasks, in the order of the registry."""
    return [_task(one) for one in descriptions()]


def task_named(name: str) -> Task:
    """The task of that name; an unknown one is a ConfigError that names the nearest."""
    return _task(description_named(name))


def task_of(config: ModelConfig) -> Task:
    """The task that a model is made for."""
    return task_named(config.task)


def leaves_seen_out(config: ModelConfig, holdout: Holdout | None) -> bool:
    """Default of `exclude_seen` for a model on a Holdout.

    Seen items are kept if the task of the model keeps them, or if a task that suits the Holdout does.
    """
    own = task_of(config)
    suited = [] if holdout is None or not own.exclude_seen else [task for task in tasks() if task.suits(holdout)]
    return own.exclude_seen and all(task.leaves_seen_out(holdout) for task in suited)


def task_of_metric(name: str, holdout: Holdout | None = None) -> tuple[Task, Metric, int]:
    """The task that validates by a metric such as "ndcg@10", the metric, and its k (10 for a metric without k).

    Parameters
    ----------
    name
        Full name of the metric.
    holdout
        The questions. Of several tasks with the metric, one that suits them measures it.

    Raises
    ------
    ConfigError
        No task measures the metric in validation; the message names the nearest one.
    """
    _, _, length = name.partition("@")
    k = int(length) if length.isdecimal() else _USUAL_K
    known: dict[str, list[tuple[Task, Metric]]] = {}
    for task in tasks():
        for metric in task.metrics:
            if metric.validated:
                known.setdefault(metric.at(k), []).append((task, metric))
    if name not in known:
        raise ConfigError(f"metric={name!r} is not measured in validation; {nearest(name, known)}")
    suited = [] if holdout is None else [pair for pair in known[name] if pair[0].suits(holdout)]
    return (*(suited or known[name])[0], k)


def measure(recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
    """Evaluate a Recommender by the task of its model, or by that of the split if rankings are measured.

    Parameters
    ----------
    recommender
        A Recommender, or anything else that carries a Scorer.
    holdout
        The questions: `split.validation` or `split.test`.
    options
        The choices.

    Raises
    ------
    ConfigError, DataError, EvaluationError
        As the task's own function: `evaluate`, `evaluate_sessions` or `evaluate_ratings`.
    """
    own = task_of(recommender.scorer.config)
    chosen = next((task for task in tasks() if options.split in task.splits), own) if own.ranks else own
    exclude_seen = options.exclude_seen
    if exclude_seen is None:
        exclude_seen = leaves_seen_out(recommender.scorer.config, holdout)
    return chosen.measure(recommender, holdout, replace(options, exclude_seen=exclude_seen))


def _task(description: TaskDescription) -> Task:
    if not isinstance(description, Task):
        raise TypeError(f"{type(description).__name__} of the registry of tasks is no Task.")
    return description
