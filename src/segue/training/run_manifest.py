"""The folder of a run: `run.json`, with all that is needed to repeat it, and the rule of overwriting a run."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segue.data.dataset import Dataset
from segue.errors import ConfigError, StorageError
from segue.files import KINDS, check_not_inside, contents, exclusive, read_json, real, refuse_foreign
from segue.inference.checkpoint import BEST, LAST, NEXT_BEST
from segue.locks import LOCK, is_temporary, locked, put, temporary_folder
from segue.models.base import ModelConfig

RUN = "run.json"
RECOMMENDER = "recommender"
_OWN = re.compile(
    rf"(refit/)?({RUN}|{re.escape(LAST)}|{re.escape(BEST)}|{re.escape(NEXT_BEST)}|metrics\.csv|curves\.png"
    r"|MODEL_CARD\.md|trackers\.json"
    r"|epochs/(state-)?\d+\.safetensors|(epochs/)?parts/\d+of\d+/[\w-]+\.safetensors|segue/.*)|recommender/(recommender\.json|(weights|extra)\.safetensors"
    r"|data/[a-z_]+\.(npy|parquet|json))|unfinished/[a-z_]+\.(npy|parquet|json)"
)
"""Files of a run. Trackers write theirs into `segue/`."""
_PACKAGES = ("segue", "torch", "accelerate", "numpy", "polars")


def run_manifest(
    config: ModelConfig, chosen: frozenset[str], dataset: Dataset, split: dict[str, object] | None, refit: bool
) -> dict[str, Any]:
    """Return the model, the data and the versions as plain data. `run.json` also has the options of the training.

    Parameters
    ----------
    config
        Settings of the model, resolved for its data.
    chosen
        Names of the settings that were left to the data.
    dataset
        The whole Dataset, before the split.
    split
        The split as `Split.spec`; None if the model is trained on everything.
    refit
        True if the model is trained again on everything but the test part.
    """
    sessions = None if dataset.session_offsets is None else len(dataset.sessions)
    return {
        "model": config.to_dict(),
        "chosen": sorted(chosen),
        "split": split,
        "refit": refit,
        "dataset": {
            "source": dataset.metadata.get("source"),
            "fingerprint": dataset.fingerprint,
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": dataset.n_interactions,
            "sessions": sessions,
        },
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def with_choices_of(former: Mapping[str, Any], config: ModelConfig, left_open: frozenset[str]) -> ModelConfig:
    """Return the settings with former ones in place of those that are left to the data.

    An older version of segue may have chosen another value than this one, or had no such setting, and other data may
    lead to another choice: a run that is resumed and a model that learns on keep theirs.

    Parameters
    ----------
    former
        Resolved settings of the run or of the model. If they are of another model, the settings stay as they are.
    config
        Settings of the model.
    left_open
        Names of the settings to take from there.
    """
    former = {**config.formerly, **former}
    if former.get("name") != config.name:
        return config
    chosen = {name: former[name] for name in left_open if former.get(name) is not None}
    return config.with_values(chosen) if chosen else config


def left_to_data(config: ModelConfig, resolved: ModelConfig) -> frozenset[str]:
    """Names of the settings that are not given, and that the data has decided.

    Parameters
    ----------
    config
        Settings of the model.
    resolved
        The same, resolved for the data.
    """
    decided = resolved.to_dict()
    given = config.to_dict()
    return frozenset(name for name, value in given.items() if value is None and decided.get(name) is not None)


def read_run(folder: Path) -> dict[str, Any]:
    """Read `run.json`; empty if there is none.

    Raises
    ------
    StorageError
        The file is damaged, or is no description of a run.
    """
    file = folder / RUN
    if not file.is_file():
        return {}
    content = read_json(file)
    wrong = not isinstance(content, dict) or not isinstance(content.get("model"), dict)
    if wrong or not all(isinstance(content.get(part), dict | None) for part in ("split", "training", "dataset")):
        raise StorageError(f"{file} is not the description of a run by segue: it was damaged or edited.")
    return dict(content)


def chosen_of(run: Mapping[str, Any]) -> frozenset[str]:
    """Names of the settings of a run that were left to the data; none for runs that do not tell.

    Parameters
    ----------
    run
        Content of `run.json`.

    Raises
    ------
    StorageError
        These are no names of settings.
    """
    chosen, model = run.get("chosen", []), run.get("model") or {}
    if not isinstance(chosen, list) or not all(isinstance(name, str) and name in model for name in chosen):
        raise StorageError(f"{RUN} tells impossible settings that were left to the data: it was damaged or edited.")
    return frozenset(chosen)


def check_run(folder: Path, resume: bool, overwrite: bool | None) -> None:
    """Raise an error if a training may not write to this folder.

    Parameters
    ----------
    folder
        Folder of the run; it may be missing or empty.
    resume
        The training continues the run in the folder.
    overwrite
        The training may replace a run in the folder.

    Raises
    ------
    ConfigError
        `resume` and `overwrite` are given both.
    StorageError
        The folder holds something else, or a run that is neither continued nor replaced.
    """
    if resume and overwrite:
        raise ConfigError("resume=True continues the run, and overwrite=True replaces it: give one of them.")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file, and a run is a folder: choose another place.")
    there = _contents(folder)
    if not there:
        return
    kind = next((kind for kind in KINDS if f"{kind}.json" in there), None)
    # A process that was killed before it wrote `run.json` leaves the Dataset of an unfinished run, or nothing.
    marks = (LAST, f"{RECOMMENDER}/{RECOMMENDER}.json")
    is_run = bool(read_run(folder)) or any(name in marks or name.startswith("unfinished/") for name in there)
    if kind is not None or not is_run:
        what = f"holds a {kind}" if kind else f"holds {there[0]}, and no run"
        raise StorageError(f"{folder} {what}: a run would mix with it. Choose another folder.")
    has_begun = LAST in there or f"{RECOMMENDER}/{RECOMMENDER}.json" in there
    if has_begun and not (resume or overwrite):
        raise StorageError(
            f"{folder} already holds a run: resume it (resume=True, --resume), replace it (overwrite=True, "
            "--overwrite), or choose another folder."
        )
    if overwrite:
        foreign = [name for name in there if not _OWN.fullmatch(name)]
        if foreign:
            refuse_foreign(folder, "a run", foreign)
        check_not_inside(folder)


@contextmanager
def run_folder(folder: Path | None, resume: bool, overwrite: bool | None) -> Iterator[None]:
    """Check the folder of a run, and hold its lock. None stands for no folder.

    Raises
    ------
    StorageError
        As in `check_run`, or another process trains into the folder.
    """
    if folder is None:
        yield
        return
    check_run(folder, resume, overwrite)
    target = real(folder)
    # Beside the folder, since a run is replaced together with all that is in it.
    beside = not target.parent.exists() or os.access(target.parent, os.W_OK)
    with exclusive(folder) if beside else locked(target / LOCK, folder):
        check_run(folder, resume, overwrite)  # another process may have trained here before the lock was free
        yield


def begin_run(folder: Path, resume: bool) -> None:
    """Remove a former run, in one step, unless it is continued; also the parts of one that was killed early."""
    target = real(folder)
    target.mkdir(parents=True, exist_ok=True)
    own = [name for name in _contents(target) if _OWN.fullmatch(name)]
    if (resume and ((target / LAST).is_file() or (target / RECOMMENDER).is_dir())) or not own:
        return
    if len(own) == len(_contents(target)) and os.access(target.parent, os.W_OK):
        with temporary_folder(target.parent, target.name) as empty:
            empty.chmod(target.stat().st_mode & 0o7777)
            put(empty, target)
        return
    for name in sorted(own, key=lambda name: name == RUN):  # what marks the folder as a run goes last
        (target / name).unlink(missing_ok=True)
    for name in ("epochs", "parts", "refit", RECOMMENDER, "unfinished"):
        if (target / name).is_dir() and not contents(target / name):
            shutil.rmtree(target / name)


def checkpoints(folder: Path) -> list[str]:
    """Paths, relative to the folder of a run, of all files with weights or states beside its Recommender."""
    return [name for name in _contents(folder) if name.endswith(".safetensors") and not name.startswith(RECOMMENDER)]


def _contents(folder: Path) -> list[str]:
    """Files in a folder, without temporary ones."""
    return sorted(name for name in contents(folder) if not is_temporary(name))
