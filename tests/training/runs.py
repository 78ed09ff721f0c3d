"""Tiny run that tests start in separate processes: `python runs.py FOLDER [--resume] [--die-at STEP]`."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.splits.by_user import Split, leave_last_out
from segue.data.vocabulary import Vocabulary
from segue.models.sasrec import SASRec
from segue.training.checkpoint import load_checkpoint
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.trainer import Interrupted, Trainer


def small_split(n_users: int = 60, n_items: int = 20, seed: int = 1) -> Split:
    """Users who walk through the items in steps of one or two."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 12, n_users)
    offsets = np.concatenate([[0, 0], np.cumsum(lengths)])
    steps = generator.integers(1, 3, offsets[-1])
    first = np.repeat(generator.integers(0, n_items, n_users), lengths)
    items = (first + np.cumsum(steps)) % n_items + 1
    users, catalogue = (Vocabulary(range(n)) for n in (n_users, n_items))
    return leave_last_out(Dataset(items.astype(np.int32), offsets, users, catalogue))


def small_model(**changes: object) -> SASRec:
    """Return a model that trains fast, with dropout and negatives so that randomness matters."""
    settings = {
        "width": 8,
        "blocks": 1,
        "max_length": 6,
        "windows": "newest",
        "dropout": 0.2,
        "loss": "bce",
        "negatives": 2,
    }
    return SASRec(**{**settings, **changes})  # type: ignore[arg-type]


def small_training(**changes: object) -> Training:
    """Four epochs of a few steps."""
    return Training(**{"epochs": 4, "batch_size": 16, "seed": 3, "cpu": True, **changes})  # type: ignore[arg-type]


def check_resumed_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: Any, data: Any, training: Training, stop_at: int
) -> dict[str, Any]:
    """Check that a run interrupted after some steps and resumed ends with the bits of an uninterrupted run.

    Return the last state. The uninterrupted run stays in `folder` / "whole", the other in `folder` / "stopped".
    """
    fit(config, data, training=training, quiet=True, out=folder / "whole")
    original, taken = Trainer._step, []

    def interrupting(trainer: Trainer, index: Any, number: int) -> float:
        taken.append(number)
        if len(taken) == stop_at:
            trainer._stop.set()
        return original(trainer, index, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupting)
        with pytest.raises(Interrupted):
            fit(config, data, training=training, quiet=True, out=folder / "stopped")
    fit(config, data, training=training, quiet=True, out=folder / "stopped", resume=True)
    for name in ("best.safetensors", "last.safetensors"):
        expected, resumed = (load_checkpoint(folder / run / name)[0] for run in ("whole", "stopped"))
        assert expected.keys() == resumed.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, resumed[key]), (name, key)
    return resumed


def main(words: list[str] | None = None) -> None:
    """Train, and kill this process at the step given by --die-at."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--loss", default="bce")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    taken = 0
    step = Trainer._step

    def counted(trainer: Trainer, index: np.ndarray, number: int) -> float:
        nonlocal taken
        taken += 1
        if taken == options.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(trainer, index, number)

    Trainer._step = counted  # type: ignore[method-assign]
    fit(
        small_model(dropout=options.dropout, loss=options.loss),
        small_split(),
        training=small_training(save_every_steps=2),
        out=options.folder,
        resume=options.resume,
        quiet=True,
    )


if __name__ == "__main__":
    main()
