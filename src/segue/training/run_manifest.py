"""Content of `run.json`: all that is needed to repeat a run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any

from segue.data.dataset import Dataset
from segue.models.base import ModelConfig

_PACKAGES = ("segue", "torch", "accelerate", "numpy", "polars")


def run_manifest(config: ModelConfig, dataset: Dataset, split: dict[str, object] | None, refit: bool) -> dict[str, Any]:
    """Return the model, the data and the versions as plain data. `run.json` also has the options of the training.

    Parameters
    ----------
    config
        Settings of the model.
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
