"""What an evaluation found, as an object that prints, saves and loads."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from segue.errors import EvaluationError, StorageError, nearest
from segue.evaluation.metrics import PER_QUESTION, Floats, session_terms
from segue.files import atomic_file, read_json

FORMAT_VERSION = 1
_KIND = "evaluation"
_PART = "by_"
RATINGS = "ratings"
"""The task of evaluations of predicted ratings, as their protocol names it."""
LEAK = "looked back as published: histories held the test ratings"
"""What is said of a model whose setting `look_back` is "reference"."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one model on one Holdout.

    Attributes
    ----------
    model
        The model's name.
    metrics
        Means over users (of sessions: over sessions or over steps), and figures of all lists together, by name
        ("ndcg@10").
    intervals
        95 % bootstrap interval (low, high) of each mean.
    per_user
        One row per user: `user` (raw id) and `history` (its length), then `rank` (of the best target) and a column per
        metric; of sessions `length` (its steps) and, for each k, `hits@k` and `gain@k`, summed over the steps; of
        ratings `questions`, the sums of what is measured in them, and a column per metric that is measured per user,
        null where it cannot be.
    parts
        The same metrics for parts of the users, targets, steps or questions: a table by "history_length", and by
        "popularity", by "step" or by "item_ratings"; of ratings also "calibration" and, where levels have
        probabilities, "level". The first column names the part, the second counts what is in it.
    protocol
        What was asked: the split, how many users and targets, what the targets were ranked among, whether seen items
        were filtered, and a digest of the questions (equal digests: same users, histories, targets and candidates).
    sessions
        The same users asked session by session, where that was done: an evaluation for each way of ranking.
    ranking
        Of ratings: how the model ranks the same users' targets among other items, where that was asked for too.
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
        """The metric of that name; an unknown one is an EvaluationError naming the nearest."""
        if name not in self.metrics:
            raise EvaluationError(f"{name!r} was not measured; {nearest(name, self.metrics)}")
        return self.metrics[name]

    def __str__(self) -> str:
        return f"{self.model} · {self.describe()}\n{as_text(self._grid())}"

    @property
    def by_history_length(self) -> pl.DataFrame:
        """The part of that name."""
        return self._part("history_length")

    @property
    def by_popularity(self) -> pl.DataFrame:
        """The part of that name; of sessions an EvaluationError, since they have none."""
        return self._part("popularity")

    @property
    def by_step(self) -> pl.DataFrame:
        """The part of that name; an EvaluationError but of sessions, since only they have it."""
        return self._part("step")

    def _part(self, name: str) -> pl.DataFrame:
        if name not in self.parts:
            raise EvaluationError(f"this evaluation was not divided by {name}, only by {', '.join(self.parts)}.")
        return self.parts[name]

    def terms(self, name: str) -> tuple[Floats, Floats | None] | None:
        """What a metric is the mean of, in the order of `per_user` (n rows).

        Returns
        -------
        terms
            (n,) values and None: the metric is their mean. (n,) values and (n,) weights: it is the sum of the first
            over the sum of the second (of rmse the root of it); a user of weight 0 was not measured. None: it belongs
            to no user, as coverage, or was not measured.
        """
        if name not in self.metrics:
            return None
        if PER_QUESTION.get(name) in self.per_user.columns:
            summed, questions = self.per_user[PER_QUESTION[name]], self.per_user["questions"]
            return summed.to_numpy(), questions.to_numpy().astype(np.float64)
        if name in self.per_user.columns:
            values = self.per_user[name]
            measured = None if not values.null_count() else values.is_not_null().to_numpy().astype(np.float64)
            return values.fill_null(0.0).to_numpy(), measured
        kind, _, k = name.partition("@")
        sums = [column for column in (f"hits@{k}", f"gain@{k}", "length") if column in self.per_user.columns]
        if len(sums) < 3:
            return None
        return session_terms(*(self.per_user[column].to_numpy().astype(float) for column in sums)).get(kind)

    @property
    def of_ratings(self) -> bool:
        """Whether predicted ratings were measured, and not ranks."""
        return self.protocol.get("task") == RATINGS

    @property
    def caution(self) -> str | None:
        """What a reader must know before believing the figures; None if there is nothing."""
        if self.protocol.get("look_back") == "reference":
            return LEAK
        return None

    @property
    def among(self) -> str:
        """What the targets were ranked among, in words."""
        asked = self.protocol
        if self.of_ratings:
            return "the items that each user rated"
        if asked["candidates"] == "all":
            return f"all {asked['items']:,} items"
        if asked["drawn_by"] == "uniform":
            return f"{asked['candidates']:,} sampled items"
        return f"{asked['candidates']:,} items sampled by {asked['drawn_by']}"

    @property
    def asked(self) -> str:
        """One line on what was asked: the same for every model."""
        asked = self.protocol
        if self.of_ratings:
            likeliest = ", ranked by the likeliest level" if asked["arg_max"] else ""
            return (
                f"{asked['split']}: {asked['users']:,} users, {asked['ratings']:,} ratings, liked from "
                f"{asked['cutoff']:g}{likeliest}"
            )
        seen = "seen items left out" if asked["exclude_seen"] else "seen items kept"
        if "basket_k" in asked:
            what = f"{asked['users']:,} sessions completed step by step, {asked['targets']:,} steps"
        else:
            what = f"{asked['users']:,} users, {asked['targets']:,} targets"
        return f"{asked['split']}: {what} among {self.among}, {seen}"

    def describe(self) -> str:
        """One line on what was asked, what the model could know little of, and what to know before believing it."""
        unrated, unknown = (self.protocol.get(name, 0) for name in ("on_unrated_items", "on_unknown_users"))
        remarks = [
            f"{unrated:,} on items without ratings in training" if unrated else None,
            f"{unknown:,} on unknown users" if unknown else None,
            self.caution,
        ]
        return "; ".join([self.asked, *filter(None, remarks)])

    def table(self) -> Table:
        """The metrics as a table for the terminal: a row per metric, a column for each k and one for what has none."""
        table = self._grid()
        table.title, table.title_justify = f"{self.model} · {self.describe()}", "left"
        return table

    def to_dict(self) -> dict[str, Any]:
        """All but the rows per user, as plain data."""
        sessions = {name: found.to_dict() for name, found in self.sessions.items()}
        ranking = {} if self.ranking is None else {"ranking": self.ranking.to_dict()}
        return self._head() | ({"sessions": sessions} if sessions else {}) | ranking

    def save(self, path: str | Path) -> Path:
        """Write a JSON file with everything, atomically, and return its path. A column of `per_user` takes one line."""
        with atomic_file(Path(path)) as temporary:
            temporary.write_text(self._json() + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises
        ------
        StorageError
            The file is missing, damaged, something else, or of a newer version.
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
            parts["sessions"] = ",\n".join(f'"{name}": {found._json()}' for name, found in self.sessions.items())
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
    """The evaluation that `content`, read from `path`, describes."""
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
            sessions={name: _read(found, path) for name, found in content.get("sessions", {}).items()},
            ranking=_read(content["ranking"], path) if "ranking" in content else None,
        )
    except KeyError as error:
        raise StorageError(f"{path} has no {error}: it was damaged or edited.") from None


def side_by_side(evaluations: Mapping[str, Evaluation]) -> Table:
    """Several evaluations as a table for the terminal: a row per metric that all have, a column for each."""
    cautions = [f"{name}: {found.caution}" for name, found in evaluations.items() if found.caution]
    table = Table(caption="\n".join(cautions) or None, caption_justify="left")
    table.add_column("metric")
    for name in evaluations:
        table.add_column(name, justify="right")
    first, *others = evaluations.values()
    for metric in first.metrics:
        if all(metric in other.metrics for other in others):
            table.add_row(metric, *(found._cell(metric) for found in evaluations.values()))
    return table


def as_text(table: Table) -> str:
    """A table as plain text."""
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(table, markup=False)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().rstrip()
