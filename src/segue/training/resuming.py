"""Runs to go on with: their settings, as `run.json` tells them, and their Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segue.arguments import checked
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, StorageError
from segue.files import read_json
from segue.inference.checkpoint import LAST, history_of, read_note
from segue.inference.recommender import Recommender
from segue.inference.unfinished import RUN, dataset_of_run
from segue.models.base import ModelConfig
from segue.models.registry import config_from_dict
from segue.settings import Count
from segue.training.config import FORMERLY, Training
from segue.training.curves import NOT_METRICS
from segue.training.fit import fit
from segue.training.run_manifest import chosen_of


@dataclass(frozen=True)
class FormerRun:
    """Settings of a run that was begun.

    Attributes
    ----------
    config, training
        Settings of the model and of its training, with everything filled in.
    split
        The split as plain data; None if the model is trained on everything.
    refit
        True if the model is trained again on everything but the test part.
    processes
        Number of processes.
    chosen
        Names of the settings of the model that were left to the data.
    """

    config: ModelConfig
    training: Training
    split: Mapping[str, Any] | None
    refit: bool
    processes: int
    chosen: frozenset[str] = frozenset()

    @property
    def given(self) -> ModelConfig:
        """Settings of the model as they were given: without those that were left to the data."""
        return self.config.with_values(dict.fromkeys(self.chosen))


def former_run(run: Path) -> FormerRun:
    """Read the settings of a run.

    Raises
    ------
    StorageError
        The folder is no run, or its `run.json` was damaged.
    """
    file = run / RUN
    if not file.is_file():
        raise StorageError(f"{run} is not a run that can be resumed: it has no {RUN}.")
    content = read_json(file)
    if not isinstance(content, dict):
        raise StorageError(f"{file} does not describe a run: it was damaged or edited.")
    parts = {name: content.get(name) for name in ("model", "training")}
    if content.get("training") is None and isinstance(content.get("model"), dict):
        parts["training"] = {}  # a counting model
    if not all(isinstance(part, dict) for part in parts.values()):
        raise StorageError(f"{file} does not describe a model and its training: it was damaged or edited.")
    split, refit, processes = content.get("split"), content.get("refit", False), content.get("processes", 1)
    if not (split is None or isinstance(split, dict)) or not isinstance(refit, bool) or type(processes) is not int:
        raise StorageError(f"{file} has an impossible split, refit or processes: it was damaged or edited.")
    try:
        training = Training.from_dict({**FORMERLY, **(parts["training"] or {})})
        config = config_from_dict(parts["model"] or {})
        return FormerRun(config, training, split, refit, max(1, processes), chosen_of(content))
    except (ConfigError, TypeError, ValueError) as error:
        raise StorageError(f"{file} does not describe a run that segue knows here: {error}") from None


@checked
def resume(run: str | Path, *, from_epoch: Count | None = None, quiet: bool = False, **changes: Any) -> Recommender:
    """Continue a run with the settings, the split and the Dataset that it holds, as if it had never stopped.

    Parameters
    ----------
    run
        Folder of the run.
    from_epoch
        Go back to the state after this epoch, if `Training.keep_every` kept it.
    quiet
        Show no progress.
    changes
        Other values for options of the training that may change: `epochs=8`, `patience=None`, ….

    Returns
    -------
    recommender
        As from `segue.fit`.

    Raises
    ------
    StorageError
        The folder is no run, or another option of it would change.
    ConfigError
        An option of the training is unknown or impossible, or the run was trained with a validation part of its own.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> training = segue.Training(epochs=1, validation_exclude_seen=False, cpu=True)
    >>> _ = segue.fit(segue.SASRec(width=8, blocks=1), split, training=training, out="runs/resumed", quiet=True)
    >>> recommender = segue.resume("runs/resumed", epochs=2, quiet=True)
    >>> recommender.metadata["training"]["best_epoch"] in (1, 2)
    True
    """
    folder = Path(run)
    former = former_run(folder)
    dataset = dataset_of_run(folder)
    training = former.training.with_values(changes)
    if former.split is None and _was_validated(folder):
        raise ConfigError(
            f"{folder} was trained with a validation part of its own, which it does not hold: pass both again, as in "
            "segue.fit(config, data, validation, out=run, resume=True)."
        )
    data = dataset if former.split is None else split_by(dataset, former.split)
    return fit(
        former.config,
        data,
        training=training,
        out=folder,
        resume=True,
        from_epoch=from_epoch,
        refit=former.refit,
        quiet=quiet,
    )


def _was_validated(run: Path) -> bool:
    if not (run / LAST).is_file():
        return False
    return any(set(row) - set(NOT_METRICS) for row in history_of(read_note(run / LAST), run / LAST))
