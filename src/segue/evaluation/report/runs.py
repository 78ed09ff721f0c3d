"""Report of one run, or of several on one Dataset, with everything that the page shows."""

from __future__ import annotations

import platform
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
from segue.locks import temporary_folder


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
        Folders of the runs, under the same names; the page shows the `curves.png` of those that have one.
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
    with temporary_folder(None, "report") as scratch:
        return write_report(
            path,
            title=title,
            evaluations=evaluations,
            comparisons=comparisons,
            data=description.facts(),
            data_picture=description.picture(scratch / "data.png"),
            curves={name: picture for name, picture in pictures.items() if picture.is_file()},
            examples=examples,
            settings={name: _settings(recommender) for name, recommender in runs.items()},
            versions={"segue": version("segue"), "torch": version("torch"), "Python": platform.python_version()},
        )


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
