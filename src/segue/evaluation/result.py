"""What an evaluation found, as an object that prints, saves and loads."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from segue.errors import EvaluationError, StorageError, nearest
from segue.files import atomic_file, read_json

FORMAT_VERSION = 1
_KIND = "evaluation"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of one model on one Holdout.

    Attributes
    ----------
    model
        The model's name.
    metrics
        Means over users, and figures of all lists together, by name ("ndcg@10").
    intervals
        95 % bootstrap interval (low, high) of each mean over users.
    per_user
        One row per user: `user` (raw id), `history` (its length), `rank` (of the best target), and a column per metric.
    by_history_length, by_popularity
        The same means for parts of the users, and of the targets.
    protocol
        What was asked: the split, how many users and targets, what the targets were ranked among, whether seen items
        were filtered, and a digest of the questions (equal digests: same users, histories, targets and candidates).
    """

    model: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_user: pl.DataFrame
    by_history_length: pl.DataFrame
    by_popularity: pl.DataFrame
    protocol: Mapping[str, Any]

    def __getitem__(self, name: str) -> float:
        """The metric of that name; an unknown one is an EvaluationError naming the nearest."""
        if name not in self.metrics:
            raise EvaluationError(f"{name!r} was not measured; {nearest(name, self.metrics)}")
        return self.metrics[name]

    def __str__(self) -> str:
        return f"{self.model} · {self.describe()}\n{as_text(self._grid())}"

    def describe(self) -> str:
        """One line on what was asked."""
        asked = self.protocol
        among = f"all {asked['items']:,} items"
        if asked["candidates"] != "all":
            among = f"{asked['candidates']:,} candidates drawn by {asked['drawn_by']}"
        seen = "seen items left out" if asked["exclude_seen"] else "seen items kept"
        return f"{asked['split']}: {asked['users']:,} users, {asked['targets']:,} targets among {among}, {seen}"

    def table(self) -> Table:
        """The metrics as a table for the terminal: a row per metric, a column per k."""
        table = self._grid()
        table.title, table.title_justify = f"{self.model} · {self.describe()}", "left"
        return table

    def to_dict(self) -> dict[str, Any]:
        """All but the rows per user, as plain data."""
        return {
            "kind": _KIND,
            "format_version": FORMAT_VERSION,
            "model": self.model,
            "metrics": dict(self.metrics),
            "intervals": {name: list(pair) for name, pair in self.intervals.items()},
            "protocol": dict(self.protocol),
            "by_history_length": self.by_history_length.to_dicts(),
            "by_popularity": self.by_popularity.to_dicts(),
        }

    def save(self, path: str | Path) -> Path:
        """Write a JSON file with everything, atomically, and return its path. A column of `per_user` takes one line."""
        head = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        columns = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(column.to_list(), ensure_ascii=False, allow_nan=False)}"
            for name, column in self.per_user.to_dict().items()
        )
        with atomic_file(Path(path)) as temporary:
            temporary.write_text(f'{head[:-2]},\n  "per_user": {{\n{columns}\n  }}\n}}\n', encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote.

        Raises
        ------
        StorageError
            The file is missing, damaged, something else, or of a newer version.
        """
        content = read_json(Path(path))
        if not isinstance(content, dict) or content.get("kind") != _KIND:
            raise StorageError(f"{path} is not an evaluation written by segue.")
        version = content.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise StorageError(
                f"{path} has format version {version}; this segue reads up to {FORMAT_VERSION}. "
                "Upgrade segue to open it."
            )
        try:
            return cls(
                model=content["model"],
                metrics=content["metrics"],
                intervals={name: (pair[0], pair[1]) for name, pair in content["intervals"].items()},
                per_user=pl.DataFrame(content["per_user"]),
                by_history_length=pl.DataFrame(content["by_history_length"]),
                by_popularity=pl.DataFrame(content["by_popularity"]),
                protocol=content["protocol"],
            )
        except KeyError as error:
            raise StorageError(f"{path} has no {error}: it was damaged or edited.") from None

    def _grid(self) -> Table:
        table = Table()
        names = list(dict.fromkeys(name.partition("@")[0] for name in self.metrics))
        ks = sorted({int(name.partition("@")[2]) for name in self.metrics})
        table.add_column("metric")
        for k in ks:
            table.add_column(f"@{k}", justify="right")
        for name in names:
            table.add_row(name, *(self._cell(f"{name}@{k}") for k in ks))
        return table

    def _cell(self, name: str) -> str:
        if name not in self.metrics:
            return ""
        if name not in self.intervals:
            return f"{self.metrics[name]:.4f}"
        low, high = self.intervals[name]
        return f"{self.metrics[name]:.4f}  [{low:.4f}, {high:.4f}]"


def as_text(table: Table) -> str:
    """A table as plain text."""
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(table, markup=False)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().rstrip()
