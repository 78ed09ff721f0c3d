"""Result of an evaluation, as an object that prints, saves and loads."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table

from segue.display import as_html, as_text
from segue.errors import EvaluationError, StorageError, nearest
from segue.evaluation.charts import Span
from segue.evaluation.metrics import Floats
from segue.evaluation.tasks.description import TaskDescription
from segue.evaluation.tasks.registry import description_of
from segue.files import FileKind, atomic_file, read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT_VERSION = 1
_KIND = "evaluation"
_FILE = FileKind("an evaluation", (b'"kind": "evaluation"',))
_PART = "by_"
LEAK = "looked back as published: histories held the test ratings"
"""Warning about a model whose setting `look_back` is "reference"."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Figures of one model on one Holdout. Printed and in a notebook it is a table.

    Attributes
    ----------
    model
        The model's name.
    metrics
        Figures by name ("ndcg@10"): means over users, steps or ratings, and figures of all lists together.
    intervals
        95 % bootstrap interval (low, high) of each mean.
    per_user
        One row per user: `user` (raw id) and `history` (its length), then the columns of the task. Next items: `rank`
        (of the best target) and a column per metric. Baskets: the same, `repeats` (the share that the user had before),
        and null in the metrics of a part that the basket lacks. Sessions: `length` (number of steps) and, for each k,
        `hits@k` and `gain@k`, summed over the steps. Ratings: `questions`, the summed errors, and a column per metric
        of own items, null if it cannot be measured.
    parts
        The same metrics for parts of the users, targets, steps or ratings: a table by "history_length", and by
        "popularity", by "step" or by "item_ratings". Baskets have "kind", bought before and new. Ratings also have
        "calibration" and, if levels have probabilities, "level". The first column names the part, the second counts its
        members.
    protocol
        The setting: the split, how many users and targets, the candidates, whether seen items were left out, and a
        digest of the questions. Equal digests mean the same users, histories, targets and candidates.
    sessions
        Evaluations of the same users session by session, if there are any: one for each way of ranking.
    ranking
        Evaluation of the same rating model as a ranking of items, if that was measured too.
    """

    model: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_user: pl.DataFrame
    parts: Mapping[str, pl.DataFrame]
    protocol: Mapping[str, Any]
    sessions: Mapping[str, Evaluation] = field(default_factory=dict)
    ranking: Evaluation | None = None

    def __getitem__(self, name: str) -> float:
        """The metric of that name; an unknown one is an EvaluationError that names the nearest."""
        if name not in self.metrics:
            raise EvaluationError(f"{name!r} was not measured; {nearest(name, self.metrics)}")
        return self.metrics[name]

    def __str__(self) -> str:
        return f"{self.caption}\n{as_text(self._grid())}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self._grid(), caption=self.caption)

    def plot(self, metrics: Sequence[str] | None = None) -> Figure:
        """Draw the metrics with their intervals and, if users were divided, the first one by part.

        Parameters
        ----------
        metrics
            Full names, such as ["hr@10", "ndcg@10"]; when None, those of the task with an interval, at the longest
            list, at most eight.

        Returns
        -------
        figure
            A figure of matplotlib. A notebook shows it, and `figure.savefig("figure.svg")` writes it.

        Raises
        ------
        EvaluationError
            A metric was not measured; the message names the nearest.
        """
        from segue.evaluation.plots import PartBars, plot_metrics

        names = self._drawn() if metrics is None else list(metrics)
        spans = [Span(name, self[name], *self.intervals.get(name, (self[name], self[name]))) for name in names]
        parts = []
        for part, title in self.task.part_titles.items():
            table = self.parts.get(part)
            if table is None or not names or names[0] not in table.columns:
                continue
            table = table.filter(pl.col(names[0]).is_not_null())
            label, count = table.columns[:2]
            members = [f"{one} ({n:,})" for one, n in zip(table[label], table[count], strict=True)]
            parts.append(PartBars(f"{names[0]} {title[0].lower()}{title[1:]}", members, table[names[0]].to_list()))
        return plot_metrics(self.model, spans, [part for part in parts if part.names])

    def _drawn(self) -> list[str]:
        """Metrics of a figure: the headlines of the task first, at the longest list, with an interval if possible."""
        order = dict.fromkeys([*self.task.headlines, *(one.name for one in self.task.metrics if one.better)])
        longest = {}
        for name in self.metrics:
            longest[name.partition("@")[0]] = name  # lengths ascend
        names = [longest[kind] for kind in order if kind in longest]
        return ([name for name in names if name in self.intervals] or names)[:8]

    @property
    def by_history_length(self) -> pl.DataFrame:
        """The part of that name."""
        return self._part("history_length")

    @property
    def by_popularity(self) -> pl.DataFrame:
        """The part of that name; an EvaluationError for sessions, which do not have it."""
        return self._part("popularity")

    @property
    def by_step(self) -> pl.DataFrame:
        """The part of that name; an EvaluationError for all but sessions."""
        return self._part("step")

    def _part(self, name: str) -> pl.DataFrame:
        if name not in self.parts:
            raise EvaluationError(f"this evaluation was not divided by {name}, only by {', '.join(self.parts)}.")
        return self.parts[name]

    @property
    def task(self) -> TaskDescription:
        """The task that was measured."""
        return description_of(self.protocol)

    def terms(self, name: str) -> tuple[Floats, Floats | None] | None:
        """Values per user that a metric is the mean of, in the order of `per_user` (n rows).

        Returns
        -------
        terms
            (n,) values and None: the metric is their mean. (n,) values and (n,) weights: the metric is the sum of the
            values over the sum of the weights, or its root (see `Metric.root`); users of weight 0 were not measured.
            None: the metric belongs to no user, as coverage, or was not measured.
        """
        known = name in self.metrics and self.task.metric(name) is not None
        return self.task.terms(name, self.per_user) if known else None

    @property
    def warning(self) -> str | None:
        """Reason to mistrust the figures; None if there is none."""
        return warning_of(self.protocol)

    @property
    def candidates(self) -> str:
        """Items that the targets were ranked among, in words."""
        return self.task.candidates(self.protocol)

    @property
    def setting(self) -> str:
        """One line on the setting: the same for every model."""
        return self.task.setting(self.protocol)

    @property
    def remarks(self) -> str:
        """`setting`, and behind it how little the model could know, and the warning."""
        unrated, unknown = (self.protocol.get(name, 0) for name in ("on_unrated_items", "on_unknown_users"))
        parts = [
            f"{unrated:,} on items without ratings in training" if unrated else None,
            f"{unknown:,} on unknown users" if unknown else None,
            self.warning,
        ]
        return "; ".join([self.setting, *filter(None, parts)])

    @property
    def caption(self) -> str:
        """The model's name and `remarks`, as one line."""
        return f"{self.model} · {self.remarks}"

    def table(self) -> Table:
        """The metrics as a table for the terminal: a row per metric, a column per k, and one for metrics without k."""
        table = self._grid()
        table.title, table.title_justify = self.caption, "left"
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain data: all but the rows per user."""
        sessions = {name: evaluation.to_dict() for name, evaluation in self.sessions.items()}
        ranking = {} if self.ranking is None else {"ranking": self.ranking.to_dict()}
        return self._head() | ({"sessions": sessions} if sessions else {}) | ranking

    def save(self, path: str | Path) -> Path:
        """Write a JSON file with everything, atomically, and return its path. Each column of `per_user` is one line."""
        with atomic_file(Path(path), _FILE) as temporary:
            temporary.write_text(self._json() + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises
        ------
        StorageError
            The file is missing or damaged, is no evaluation, or is of a newer version.
        """
        return _read(read_json(Path(path)), Path(path))

    def _head(self) -> dict[str, Any]:
        return {
            "kind": _KIND,
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "protocol": dict(self.protocol),
            **{f"{_PART}{name}": table.to_dicts() for name, table in self.parts.items()},
        }

    def _json(self) -> str:
        head = json.dumps(self._head(), indent=2, ensure_ascii=False, allow_nan=False)
        columns = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(column.to_list(), ensure_ascii=False, allow_nan=False)}"
            for name, column in self.per_user.to_dict().items()
        )
        parts = {"per_user": columns}
        if self.sessions:
            parts["sessions"] = ",\n".join(f'"{name}": {way._json()}' for name, way in self.sessions.items())
        texts = [f'  "{name}": {{\n{textwrap.indent(text, "    ")}\n  }}' for name, text in parts.items()]
        if self.ranking is not None:
            texts.append(textwrap.indent(f'"ranking": {self.ranking._json()}', "  "))
        return ",\n".join([head[:-2], *texts]) + "\n}"

    def _grid(self) -> Table:
        table = Table()
        names = list(dict.fromkeys(name.partition("@")[0] for name in self.metrics))
        lengths = {name.partition("@")[2] for name in self.metrics}
        ends = [f"@{k}" for k in sorted(int(length) for length in lengths if length)]
        columns = [*([""] if "" in lengths else []), *ends]
        table.add_column("metric")
        for end in columns:
            table.add_column(end or "value", justify="right")
        for name in names:
            table.add_row(name, *(self._cell(name + end) for end in columns))
        return table

    def _cell(self, name: str) -> str:
        if name not in self.metrics:
            return ""
        if name not in self.intervals:
            return f"{self.metrics[name]:.4f}"
        low, high = self.intervals[name]
        return f"{self.metrics[name]:.4f}  [{low:.4f}, {high:.4f}]"


def _read(content: Any, path: Path) -> Evaluation:
    """The evaluation in `content`, which was read from `path`."""
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise StorageError(f"{path} is not an evaluation written by segue.")
    version = content.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise StorageError(
            f"{path} has format version {version}; this segue reads up to {FORMAT_VERSION}. Upgrade segue to open it."
        )
    parts = [name for name in content if name.startswith(_PART)]
    try:
        return Evaluation(
            model=content["model"],
            metrics=content["metrics"],
            intervals={name: (pair[0], pair[1]) for name, pair in content["intervals"].items()},
            per_user=pl.DataFrame(content["per_user"]),
            parts={name.removeprefix(_PART): pl.DataFrame(content[name]) for name in parts},
            protocol=content["protocol"],
            sessions={name: _read(way, path) for name, way in content.get("sessions", {}).items()},
            ranking=_read(content["ranking"], path) if "ranking" in content else None,
        )
    except KeyError as error:
        raise StorageError(f"{path} has no {error}: it was damaged or edited.") from None


def warning_of(protocol: Mapping[str, Any]) -> str | None:
    """Reason to mistrust figures with this protocol; None if there is none."""
    return LEAK if protocol.get("look_back") == "reference" else None


def side_by_side(evaluations: Mapping[str, Evaluation]) -> Table:
    """Several evaluations as a table for the terminal: a row per metric that all have, a column for each."""
    warnings = [f"{name}: {evaluation.warning}" for name, evaluation in evaluations.items() if evaluation.warning]
    table = Table(caption="\n".join(warnings) or None, caption_justify="left")
    table.add_column("metric")
    for name in evaluations:
        table.add_column(name, justify="right")
    first, *others = evaluations.values()
    for metric in first.metrics:
        if all(metric in other.metrics for other in others):
            table.add_row(metric, *(evaluation._cell(metric) for evaluation in evaluations.values()))
    return table
