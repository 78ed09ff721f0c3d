"""The tasks by name. A new task is one new file and one line here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from segue.errors import ConfigError, nearest
from segue.evaluation.tasks.description import Metric, TaskDescription

_HOMES = {
    "next-items": "segue.evaluation.tasks.next_items:NextItems",
    "baskets": "segue.evaluation.tasks.baskets:Baskets",
    "sessions": "segue.evaluation.tasks.sessions:Sessions",
    "ratings": "segue.evaluation.tasks.ratings:Ratings",
}
_UNNAMED = "next-items"
"""The task of an evaluation that no task recognises: files name it only if it is another one."""


@cache
def _made(home: str) -> TaskDescription:
    module, _, attribute = home.partition(":")
    task: TaskDescription = getattr(importlib.import_module(module), attribute)()
    return task


def descriptions() -> list[TaskDescription]:
    """All tasks, in the order of the registry."""
    return [_made(home) for home in _HOMES.values()]


def description_named(name: str) -> TaskDescription:
    """The task of that name; an unknown one is a ConfigError that names the nearest."""
    if name not in _HOMES:
        raise ConfigError(f"there is no task {name!r}; {nearest(name, _HOMES)}")
    return _made(_HOMES[name])


def description_of(protocol: Mapping[str, Any]) -> TaskDescription:
    """The task of an evaluation, by its protocol."""
    matching = (task for task in descriptions() if task.recognises(protocol))
    return next(matching, None) or description_named(str(protocol.get("task", _UNNAMED)))


def metric_named(name: str) -> Metric | None:
    """The metric of that name ("ndcg@10" or "ndcg") of any task; None if no task has it."""
    return next(filter(None, (task.metric(name) for task in descriptions())), None)


def lower_is_better(name: str) -> bool:
    """True if the metric is an error; more of any other metric is better."""
    metric = metric_named(name)
    return metric is not None and metric.lower_is_better


def title_of(name: str) -> str:
    """A metric as papers write it: "NDCG@10" for "ndcg@10"."""
    kind, at, k = name.partition("@")
    metric = metric_named(kind)
    return (f"{kind}{{}}" if metric is None else metric.title).format(at + k)
