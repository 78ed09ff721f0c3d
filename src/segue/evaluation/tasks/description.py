"""Description of a task: its metrics, their direction and spelling, and the words and pictures for its figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import polars as pl

from segue.evaluation.charts import Chart
from segue.evaluation.metrics import Floats

T = TypeVar("T", float, Floats)


@dataclass(frozen=True)
class Metric:
    """One metric of a task."""

    name: str
    """Name in files and options, without the length of the list: "ndcg"."""

    title: str
    """Spelling in pictures; `{}` marks the place of the length of the list: "NDCG{}"."""

    meaning: str
    """One line on the metric."""

    at_k: bool = True
    """True if the metric looks at a list of length k; its full name is then "ndcg@10"."""

    better: Literal["higher", "lower"] | None = "higher"
    """Which values are better; None if neither is, as for novelty."""

    root: bool = False
    """True if the metric is the root of a mean, as rmse is."""

    validated: bool = True
    """True if validation can measure the metric after an epoch."""

    @property
    def lower_is_better(self) -> bool:
        """True if the metric is an error."""
        return self.better == "lower"

    def combined(self, total: T, weight: T) -> T:
        """The metric from the sum of its values and the sum of their weights: the ratio, or its root."""
        ratio = total / weight
        return np.sqrt(ratio) if self.root else ratio

    def at(self, k: int) -> str:
        """Full name with a list of length k: "ndcg@10"; the plain name of a metric without lists."""
        return f"{self.name}@{k}" if self.at_k else self.name


@dataclass(frozen=True)
class Picture:
    """Charts of a report, with their own section."""

    anchor: str
    """Name of the section in links."""

    label: str
    """Name of the section in the navigation."""

    title: str
    """Heading of the section."""

    charts: tuple[Chart, ...]
    """The panels, from left to right."""

    note: str
    """Explanation below the charts."""


@dataclass(frozen=True)
class Wording:
    """Words for a metric in a sentence about models."""

    predicate: str
    """Verb of a model and its object, with `{}` in place of the figure: "finds {} of 100 users' next item"."""

    per_100: bool = True
    """The figure is the metric times 100."""


_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def within(name: str) -> str:
    """Words for the list of a metric: "within its first ten" for "hr@10"."""
    k = int(name.partition("@")[2])
    return "as its first item" if k == 1 else f"within its first {number_word(k)}"


def number_word(number: int) -> str:
    """A number from 1 in words, or in digits above twelve."""
    return _NUMBERS[number - 1] if number <= len(_NUMBERS) else f"{number:,}"


class TaskDescription(ABC):
    """All that a task says about figures that were measured before.

    A description reads plain data (the protocol, the rows per user and the parts of an `Evaluation`), so it serves
    loaded evaluations as well as new ones. `Task` adds how a model is measured.
    """

    name: ClassVar[str]
    """Name of the task: "next-items"."""

    metrics: ClassVar[tuple[Metric, ...]]
    """Metrics of the task, the most usual first. A name means the same in all tasks: two share the same `Metric`."""

    headlines: ClassVar[tuple[str, ...]]
    """Names of the metrics that a report shows as bars, by importance; it takes the first two that were measured.

    The first one orders the models of a report, and stands in its first sentence.
    """

    unit: ClassVar[str] = "users"
    """The units of resampling and of comparisons, in the plural."""

    part_titles: ClassVar[Mapping[str, str]] = {}
    """Heading in a report of each of `Evaluation.parts` that it shows, in their order."""

    note: ClassVar[str] = "The lines across the ends of bars are 95 % bootstrap intervals over users."
    """Explanation below the bars of a report, true of every evaluation; each metric has a meaning of its own."""

    ranking_note: ClassVar[str] = "Items are ranked by their scores. Equal scores count against the target."
    """Explanation below the bars of the same model's ranking, if that was measured beside the task's own figures."""

    settings: ClassVar[tuple[str, ...]] = ()
    """Keys of the protocol that two comparable evaluations share, besides those that every task has."""

    def recognises(self, protocol: Mapping[str, Any]) -> bool:
        """True if an evaluation with this protocol is of this task."""
        return protocol.get("task") == self.name

    def metric(self, name: str) -> Metric | None:
        """The metric with this name, with or without a length ("ndcg@10"); None if the task has none."""
        kind = name.partition("@")[0]
        return next((metric for metric in self.metrics if metric.name == kind), None)

    def terms(self, name: str, per_user: pl.DataFrame) -> tuple[Floats, Floats | None] | None:
        """Values and weights per user that a metric is made of; see `Evaluation.terms`.

        Here the column of the metric's name; users with null have weight 0.
        """
        if name not in per_user.columns:
            return None
        values = per_user[name]
        measured = values.is_not_null().to_numpy().astype(np.float64) if values.null_count() else None
        return values.fill_null(0.0).to_numpy(), measured

    @abstractmethod
    def questions(self, protocol: Mapping[str, Any]) -> str:
        """Size of the evaluation in words: "60 users, 60 targets"."""

    @abstractmethod
    def candidates(self, protocol: Mapping[str, Any]) -> str:
        """Items that the targets were ranked among, in words: "all 1,682 items"."""

    def setting(self, protocol: Mapping[str, Any]) -> str:
        """One line on the setting of an evaluation; it is the same for every model."""
        return f"{protocol['split']}: {self.questions(protocol)} among {self.candidates(protocol)}"

    def wording(self, name: str, protocol: Mapping[str, Any]) -> Wording:
        """Words for a sentence about a metric of this task, by its full name."""
        metric = self.metric(name)
        at, k = name.partition("@")[1:]
        title = name if metric is None else metric.title.format(at + k)
        return Wording(f"has a value of {{}} in {title}", per_100=False)

    def pictures(self, parts: Mapping[str, Mapping[str, pl.DataFrame]]) -> list[Picture]:
        """Pictures for a report of the models whose `Evaluation.parts` are given by name."""
        return []
