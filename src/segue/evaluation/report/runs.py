"""The report of a run, or of several on one Dataset: gathers all that the page shows."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segue.data.statistics.describe import describe
from segue.evaluation.compare import Comparison
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
        The fitted Recommenders by the name shown.
    evaluations
        What was measured, under the same names.
    title
        What the page is about.
    folders
        Folders of runs, under the same names; the `curves.png` of those that have one is shown.
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
    pictures = {name: Path(folder) / "curves.png" for name, folder in (folders or {}).items()}
    with tempfile.TemporaryDirectory(prefix="segue-") as scratch:
        return write_report(
            path,
            title=title,
            evaluations=evaluations,
            comparisons=comparisons,
            data=description.facts(),
            data_picture=description.picture(Path(scratch) / "data.png"),
            curves={name: picture for name, picture in pictures.items() if picture.is_file()},
            examples=examples,
            settings={name: _settings(recommender) for name, recommender in runs.items()},
            versions={"segue": version("segue"), "torch": version("torch"), "Python": platform.python_version()},
        )


def _settings(recommender: Recommender) -> dict[str, Any]:
    """The settings of the model, its split and its training, and how the training went."""
    noted = recommender.metadata
    outcome = noted.get("training", {})
    learnt = "epochs" in outcome  # a model that only counts has no use for the options of the training
    found = {
        "split": noted.get("split"),
        "refit": noted.get("refit"),
        "training": noted.get("options") if learnt else None,
        "outcome": outcome,
    }
    return recommender.model.config.to_dict() | {name: value for name, value in found.items() if value is not None}
