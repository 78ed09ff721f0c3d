"""Runs that were stopped before their end: they open with the best weights so far.

A run keeps a copy of its Dataset in `unfinished/` from its start until it is finished; then `recommender/` has it.
"""

from __future__ import annotations

import shlex
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from segue.data.dataset import Dataset
from segue.errors import ConfigError, StorageError
from segue.files import read_json
from segue.inference.checkpoint import LAST, best_epoch_of, read_best, read_note
from segue.inference.storage import MANIFEST, build_for, load_weights
from segue.models.base import Model
from segue.models.registry import config_from_dict

UNFINISHED = "unfinished"
"""Folder in a run with its Dataset, until the run is finished."""
RUN = "run.json"
_TRIES, _PAUSE = 5, 0.2
_NOT_METRICS = ("epoch", "loss", "seconds")


class UnfinishedRunWarning(UserWarning):
    """The run was not finished: its best weights so far are used."""


def is_unfinished(run: Path) -> bool:
    """Check that a folder is a run without a `recommender`."""
    finished = (run / MANIFEST).is_file() or (run / "recommender" / MANIFEST).is_file()
    return not finished and (run / RUN).is_file()


def keep_dataset(run: Path, dataset: Dataset) -> None:
    """Store the Dataset of a run that begins, or goes on without a `recommender`."""
    folder = run / UNFINISHED
    if (run / "recommender" / MANIFEST).is_file():
        return
    try:
        if Dataset.open(folder, verify=False).fingerprint == dataset.fingerprint:
            return
    except StorageError:  # there is none yet, or it was damaged
        pass
    dataset.save(folder)


def drop_dataset(run: Path) -> None:
    """Remove the stored Dataset of a run that is finished."""
    shutil.rmtree(run / UNFINISHED, ignore_errors=True)


def dataset_of_run(run: Path) -> Dataset:
    """Open the whole Dataset that a run holds, finished or not.

    Raises
    ------
    StorageError
        The run holds none, because an older segue began it and it was not finished.
    """
    inner = run / "recommender" / "data"
    if inner.is_dir():
        return Dataset.open(inner)
    if not (run / UNFINISHED).is_dir():
        raise StorageError(f"{run} does not hold its Dataset: name it, as in {_command(run, 'DATASET')}.")
    return Dataset.open(run / UNFINISHED)


def load_unfinished(run: Path, *, verify: bool = True) -> tuple[Model, Dataset, dict[str, Any]]:
    """Read the best weights so far, the Dataset and the metadata of a run that is not finished, with a warning.

    Raises
    ------
    StorageError
        The run has no weights yet, or it does not hold its Dataset.
    """
    if not (run / LAST).is_file():
        raise StorageError(
            f"{run} has no weights yet: its training was stopped before the end of its first epoch. Train it again."
        )
    if not (run / UNFINISHED).is_dir():
        raise StorageError(
            f"{run} was not finished, and it does not hold its Dataset: finish it with {_command(run, 'DATASET')}."
        )
    if not best_epoch_of(read_note(run / LAST)):
        raise StorageError(f"{run} has no best epoch yet: resume it, and let it reach its first validation.")
    tensors, note = _best(run)
    state, manifest = note["state"], read_json(run / RUN)
    dataset = Dataset.open(run / UNFINISHED, verify=verify)
    model = model_of_note(run / LAST, tensors, note, dataset.n_users, dataset.n_items)
    warnings.warn(
        f"{run} was not finished: these are its best weights so far, of epoch {state['best_epoch']} (the last saved "
        f"one is {state['epoch']}). `segue train --resume {shlex.quote(str(run))}` goes on.",
        UnfinishedRunWarning,
        stacklevel=3,
    )
    best: dict[str, Any] = next((row for row in state["history"] if row.get("epoch") == state["best_epoch"]), {})
    metrics = {name: one for name, one in best.items() if name not in _NOT_METRICS and not name.startswith("test ")}
    metadata = {
        "split": manifest.get("split"),
        "refit": False,
        "options": manifest.get("training"),
        "training": {"epochs": state["epoch"], "best_epoch": state["best_epoch"], "validation": metrics},
        "unfinished": True,
    }
    return model, dataset, metadata


def model_of_note(file: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any], users: int, items: int) -> Model:
    """Build the model that the note of a checkpoint describes, with its weights.

    Raises
    ------
    StorageError
        The note describes no model that is known here, or the weights do not fit it.
    """
    identity = note.get("identity")
    settings = identity.get("model") if isinstance(identity, dict) else None
    try:
        config = config_from_dict(settings if isinstance(settings, dict) else {})
    except (ConfigError, TypeError, ValueError) as error:
        raise StorageError(f"{file} does not describe a model that segue knows here: {error}") from None
    model = build_for(config, users, items, tensors, file)
    load_weights(model, tensors, file)
    return model.eval()


def _best(run: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The best weights and the note of the last state. A training in progress may replace both while they are read."""
    for attempt in range(_TRIES):
        try:
            return read_best(run)
        except StorageError:
            if attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE)
    raise AssertionError("the last attempt returns or raises")


def _command(run: Path, dataset: str) -> str:
    return f"`segue train {dataset} --out {shlex.quote(str(run))} --resume`"
