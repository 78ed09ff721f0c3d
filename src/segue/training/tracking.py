"""Trackers of a training: the settings, the metrics of each epoch, the final figures, and the files of the run.

accelerate starts the trackers and passes values on. This module gives each tracker names that it takes, the names of
the project and the run, tags, and at the end the files.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from segue.errors import ConfigError, StorageError
from segue.files import read_json, write_json
from segue.training.config import Training

FOLDER, NOTE = "segue", "trackers.json"
"""Names in the folder of a run: local files of the trackers, and the ids of the run in each tracker."""

_FILES = ("run.json", "metrics.csv", "curves.png", "recommender")
"""Files of a run that a tracker keeps: all that the other commands need, without the states for resuming."""
_MLFLOW_TAG = 5_000
"""Most characters of a tag."""


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise a ConfigError if a tracker is unknown or not installed."""
    installed = [str(tracker) for tracker in get_available_trackers()]
    for tracker in trackers:
        if tracker not in installed:
            names = ", ".join(installed) or "none"
            raise ConfigError(f"trackers: {tracker!r} is unknown or not installed; installed: {names}.")


class Tracking:
    """The trackers of one training, in its main process.

    Parameters
    ----------
    settings
        Options of the training; they name the trackers, the project and the run.
    folder
        Folder of the run; None for a training in memory.
    facts
        Settings of the model and description of the data, as in `run.json`.
    resumed
        The training continues the run in the folder: so do its runs in MLflow and W&B.
    """

    def __init__(self, settings: Training, folder: Path | None, facts: Mapping[str, Any], resumed: bool) -> None:
        self.folder = folder
        self._trackers: dict[str, Any] = {}
        self._ids = _former_ids(folder) if resumed else {}
        self._run = settings.tracker_run or (folder.resolve().name if folder else str(facts["model"].get("name")))
        self._tags = _tags(facts)
        values = dict(_flat({**facts, "training": settings.to_dict()}))
        try:
            for name in dict.fromkeys(settings.trackers):
                self._start(name, settings.tracker_project, values)
        except BaseException:
            self.close()
            raise
        if folder is not None and self._ids:
            write_json(folder / NOTE, self._ids)

    def _start(self, name: str, project: str, values: Mapping[str, Any]) -> None:
        kind = LOGGER_TYPE_TO_CLASS[name]
        place = (self.folder or Path("runs")) / FOLDER
        options: dict[str, Any] = {"logging_dir": place.parent} if kind.requires_logging_directory else {}
        if name == "wandb":
            place.mkdir(parents=True, exist_ok=True)
            where = {} if "WANDB_DIR" in os.environ else {"dir": str(place)}
            resume = {"id": self._ids["wandb"], "resume": "allow"} if "wandb" in self._ids else {}
            options |= {"name": self._run, "tags": list(self._tags.values()), **where, **resume}
        elif name == "mlflow":
            same = {"run_id": self._ids["mlflow"]} if "mlflow" in self._ids else {}
            options |= {
                "run_name": self._run,
                "tags": {key: one[:_MLFLOW_TAG] for key, one in self._tags.items()},
                **same,
            }
        elif name == "trackio":
            options |= {"name": self._run}
        # TensorBoard has no projects: its files belong to the run, whose folder names them.
        title = FOLDER if name == "tensorboard" else project
        try:
            tracker = kind(title, **options)
            tracker.start()
            self._trackers[name] = tracker
            tracker.store_init_configuration({_named(name, key): value for key, value in values.items()})
        except Exception as error:  # each package has errors of its own
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"trackers: {name} could not be started: {type(error).__name__}: {reason}") from error
        if name == "mlflow":
            self._ids[name] = str(tracker.tracker.info.run_id)
        elif name == "wandb":
            self._ids[name] = str(tracker.tracker.id)
        elif name == "tensorboard":
            tracker.tracker.add_text("tags", "  \n".join(f"{key}: {one}" for key, one in self._tags.items()))

    def log(self, row: Mapping[str, float]) -> None:
        """Log the loss, the seconds and the metrics of an epoch."""
        values = {name: value for name, value in row.items() if name != "epoch"}
        self._log(values, int(row["epoch"]))

    def _log(self, values: Mapping[str, float], step: int) -> None:
        for name, tracker in self._trackers.items():
            tracker.log({_named(name, key): value for key, value in values.items()}, step=step)

    def end(self, notes: Mapping[str, Any]) -> None:
        """Log the figures of the best epoch, keep the files of the run, and close the trackers.

        Parameters
        ----------
        notes
            What is known of the training: epochs, best_epoch and the validation metrics of the best epoch.
        """
        try:
            figures = {f"best/{name}": value for name, value in notes["validation"].items()}
            self._log({**figures, "best/epoch": float(notes["best_epoch"])}, int(notes["epochs"]))
            if self.folder is not None and {"mlflow", "wandb"} & self._trackers.keys():
                with _gathered(self.folder) as files:
                    self._keep(files)
        finally:
            self.close()

    def _keep(self, files: Path) -> None:
        """Keep the files of the run as an artefact."""
        if "mlflow" in self._trackers:
            importlib.import_module("mlflow").log_artifacts(str(files), artifact_path="run")
        if "wandb" in self._trackers:
            wandb, run = importlib.import_module("wandb"), self._trackers["wandb"].tracker
            artifact = wandb.Artifact(re.sub(r"[^\w.\-]", "-", f"run-{run.id}"), type="run", metadata=dict(self._tags))
            artifact.add_dir(str(files))
            run.log_artifact(artifact)

    def close(self) -> None:
        """Close the trackers, also after an error; MLflow would take the next training for the same run."""
        while self._trackers:
            _, tracker = self._trackers.popitem()
            tracker.finish()


def _named(tracker: str, name: str) -> str:
    """A name that the tracker takes: "ndcg_at_10" for "ndcg@10" in MLflow.

    >>> _named("mlflow", "test ndcg@10"), _named("wandb", "ndcg@10")
    ('test ndcg_at_10', 'ndcg@10')
    """
    return re.sub(r"[^\w\-. /:]", "_", name.replace("@", "_at_")) if tracker == "mlflow" else name


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    split, data = facts.get("split") or {}, facts.get("dataset") or {}
    tags = {"model": facts["model"].get("name"), "split": split.get("name"), "data": data.get("source")}
    return {name: str(value)[-60:] for name, value in tags.items() if value is not None}


def _flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of all settings; lists and None as text."""
    for name, value in values.items():
        key = f"{above}.{name}" if above else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, key)
        else:
            yield key, value if isinstance(value, bool | int | float | str) else "null" if value is None else str(value)


def _former_ids(folder: Path | None) -> dict[str, str]:
    """Ids of the run in its trackers."""
    if folder is None or not (folder / NOTE).is_file():
        return {}
    ids = read_json(folder / NOTE)
    if not isinstance(ids, dict) or not all(isinstance(one, str) for one in ids.values()):
        raise StorageError(f"{folder / NOTE} does not name the runs of trackers: it was damaged or edited.")
    return ids


@contextmanager
def _gathered(run: Path) -> Iterator[Path]:
    """A folder with links to (or copies of) the files of a run that are kept."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in _FILES:
            source = run / name
            if source.is_dir():
                shutil.copytree(source, Path(temporary) / name)
            elif source.is_file():
                shutil.copy2(source, Path(temporary) / name)
        yield Path(temporary)
