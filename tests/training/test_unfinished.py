"""Runs that were stopped before their end: opened with the best weights so far, and resumed without their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import segue
from segue.errors import ConfigError, StorageError
from segue.inference.unfinished import UnfinishedRunWarning
from segue.training.checkpoint import load_checkpoint
from segue.training.fit import fit
from segue.training.resuming import resume
from segue.training.trainer import Interrupted, Trainer
from tests.training.runs import small_model, small_split, small_training


def stop_after(epoch: int, monkeypatch: pytest.MonkeyPatch, out: Path, **changes: Any) -> None:
    """Train the small run until an epoch is over, and interrupt the next one."""
    original = Trainer._step

    def interrupting(trainer: Trainer, index: Any, number: int) -> float:
        if trainer.state.epoch == epoch:
            trainer._stop.set()
        return original(trainer, index, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", interrupting)
        with pytest.raises(Interrupted):
            fit(small_model(), small_split(), training=small_training(**changes), out=out, quiet=True)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_stopped_run_opens_with_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    stop_after(2, monkeypatch, run)
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    with pytest.warns(UnfinishedRunWarning, match="was not finished: these are its best weights so far, of epoch"):
        opened = segue.load(run)
    assert {file.name: file.stat().st_mtime_ns for file in run.iterdir()} == before
    best, note = load_checkpoint(run / "best.safetensors")
    assert equal(best, opened.model.state_dict())
    assert opened.metadata["training"]["best_epoch"] == note["state"]["best_epoch"]
    assert len(segue.evaluate(opened, small_split().test).per_user) == len(small_split().test)
    assert opened.recommend(opened.dataset.users.ids[:3], k=2).height == 6
    resume(run, quiet=True)
    assert not (run / "unfinished").exists()
    assert "unfinished" not in segue.load(run).metadata


def test_a_kill_between_best_and_state_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new best weights stand beside the former ones until the state names them."""
    run = tmp_path / "run"
    stop_after(2, monkeypatch, run)
    (run / "best.safetensors").rename(run / "best.next.safetensors")
    with pytest.warns(UnfinishedRunWarning):
        assert segue.load(run).metadata["training"]["best_epoch"] >= 1


def test_a_run_without_an_epoch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(0, monkeypatch, tmp_path / "run")
    with pytest.raises(StorageError, match="no best epoch yet"):
        segue.load(tmp_path / "run")
    (tmp_path / "run" / "last.safetensors").unlink()
    with pytest.raises(StorageError, match="no weights yet"):
        segue.load(tmp_path / "run")


def test_resume_needs_only_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit(small_model(), small_split(), training=small_training(), out=tmp_path / "whole", quiet=True)
    stop_after(1, monkeypatch, tmp_path / "run")
    resume(tmp_path / "run", quiet=True)
    for name in ("best.safetensors", "last.safetensors"):
        assert equal(*(load_checkpoint(tmp_path / run / name)[0] for run in ("whole", "run")))
    longer = resume(tmp_path / "run", epochs=5, patience=None, quiet=True)
    assert longer.metadata["training"]["epochs"] == 5
    with pytest.raises(ConfigError, match="epoch"):
        resume(tmp_path / "run", epochz=6)
    with pytest.raises(StorageError, match=r"another training\.seed"):
        resume(tmp_path / "run", seed=9)


@pytest.mark.parametrize("keep_every", [1, 2])
def test_resume_from_an_earlier_epoch(tmp_path: Path, keep_every: int) -> None:
    """The state after a kept epoch leads to the same end, and what came later is forgotten."""
    training = small_training(keep_every=keep_every, patience=None)
    fit(small_model(), small_split(), training=training, out=tmp_path / "run", quiet=True)
    whole = {name: load_checkpoint(tmp_path / "run" / f"{name}.safetensors")[0] for name in ("best", "last")}
    part = resume(tmp_path / "run", from_epoch=2, epochs=3, quiet=True)
    assert part.metadata["training"]["epochs"] == 3
    resume(tmp_path / "run", from_epoch=2, epochs=4, quiet=True)
    for name, tensors in whole.items():
        assert equal(tensors, load_checkpoint(tmp_path / "run" / f"{name}.safetensors")[0])


def test_an_epoch_that_was_not_kept_is_refused(tmp_path: Path) -> None:
    training = small_training(keep_every=2)
    fit(small_model(), small_split(), training=training, out=tmp_path / "run", quiet=True)
    with pytest.raises(StorageError, match="did not keep its state after epoch 3; kept: 2, 4"):
        resume(tmp_path / "run", from_epoch=3)
    with pytest.raises(ConfigError, match="goes with resume=True"):
        fit(small_model(), small_split(), training=training, out=tmp_path / "other", from_epoch=2)


def test_a_validation_part_of_ones_own_must_be_given_again(tmp_path: Path) -> None:
    split = small_split()
    fit(small_model(), split.train, split.validation, training=small_training(), out=tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="validation part of its own"):
        resume(tmp_path / "run")


def test_a_kill_while_the_dataset_is_written_leaves_no_obstacle(tmp_path: Path) -> None:
    """The half-written copy is a folder with files in it."""
    run, left = tmp_path / "run", tmp_path / "run" / ".unfinished.a1b2c3d4.segue-tmp"
    left.mkdir(parents=True)
    (left / "items.npy").write_bytes(b"half")
    fit(small_model(), small_split(), training=small_training(), out=run, resume=True, quiet=True)
    assert not left.exists() and (run / "run.json").is_file()
