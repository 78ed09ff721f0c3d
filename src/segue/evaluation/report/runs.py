"""Report of one run, or of several on one Dataset, with everything that the page shows."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segue.data.statistics.describe import describe
from segue.evaluation.charts import Chart
from segue.evaluation.compare import Comparison
from segue.evaluation.report.curves import curve_charts
from segue.evaluation.report.data import data_charts
from segue.evaluation.report.examples import Example
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks.result import Evaluation
from segue.inference.recommender import Recommender


def report_runs(
    path: str | Path,
    runs: Mapping[str, Recommender],
    evaluations: Mapping[str, Evaluation],
    *,
    title: str,
    folders: Mapping[str, str | Path] | None = None,
    comparisons: Sequence[Comparison] = (),
    examples: Sequence[Example] = (),
) -> Path:
    """Write one HTML page about runs on the same Dataset: figures, examples, curves, data and settings.

    Parameters
    ----------
    path
        The file.
    runs
        The fitted Recommenders, by the name to show.
    evaluations
        Their evaluations, under the same names.
    title
        Title of the page.
    folders
        Folders of the runs, under the same names; the page draws the `metrics.csv` of those that have one.
    comparisons
        Tests of pairs of them.
    examples
        Recommendations for some users (see `examples_of`).

    Raises
    ------
    ConfigError
        The evaluations are of different questions, or there is none.
    """
    description = describe(next(iter(runs.values())).dataset)
    tables = {name: Path(folder) / "metrics.csv" for name, folder in (folders or {}).items()}
    return write_report(
        path,
        title=title,
        evaluations=evaluations,
        comparisons=comparisons,
        data=description.facts(),
        data_charts=data_charts(description),
        curves={name: _curves(table, runs[name]) for name, table in tables.items() if table.is_file()},
        examples=examples,
        settings={name: _settings(recommender) for name, recommender in runs.items()},
        versions={"segue": version("segue"), "torch": version("torch"), "Python": platform.python_version()},
    )


def _curves(table: Path, recommender: Recommender) -> tuple[Chart, ...]:
    """Charts of the run's training, with the metric that chose its best epoch first."""
    options, outcome = (recommender.metadata.get(name, {}) for name in ("options", "training"))
    return curve_charts(table, options.get("metric"), outcome.get("best_epoch", 0))


def _settings(recommender: Recommender) -> dict[str, Any]:
    """Settings of the model, its split and its training, and the outcome of the training."""
    metadata = recommender.metadata
    outcome = metadata.get("training", {})
    was_trained = "epochs" in outcome  # counting models ignore the options of the training
    settings = {
        "split": metadata.get("split"),
        "refit": metadata.get("refit"),
        "training": metadata.get("options") if was_trained else None,
        "outcome": outcome,
    }
    return recommender.model.config.to_dict() | {name: value for name, value in settings.items() if value is not None}
