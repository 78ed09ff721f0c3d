"""Resumed runs, which end with the bits of an uninterrupted run."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.errors import ConfigError, StorageError
from segue.models.sasrec import SASRec
from segue.training.checkpoint import load_checkpoint, save_checkpoint
from segue.training.fit import fit
from segue.training.trainer import Interrupted, Trainer

from .runs import main, small_model, small_split, small_training

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.training.runs", "torch._dynamo"])  # imported once: they take the most time


def run(folder: Path, *options: str) -> int | None:
    """Train in a process of its own and return its exit code."""
    process = PROCESSES.Process(target=main, args=([str(folder), *options],))
    process.start()
    process.join()
    return process.exitcode


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uninterrupted run: four epochs of three steps."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(folder) == 0
    return folder


@pytest.mark.parametrize("death", ["2", "6", "7"], ids=["first-epoch", "inside-an-epoch", "start-of-an-epoch"])
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path, whole_run: Path, death: str) -> None:
    assert run(tmp_path / "killed", "--die-at", death) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "recommender").exists()
    assert run(tmp_path / "killed", "--resume") == 0
    for name in ("last.safetensors", "best.safetensors"):
        whole, _ = load_checkpoint(whole_run / name)
        killed, _ = load_checkpoint(tmp_path / "killed" / name)
        assert whole.keys() == killed.keys()
        for key, tensor in whole.items():
            assert torch.equal(tensor, killed[key]), key
    columns = [line.split(",")[:2] for line in (whole_run / "metrics.csv").read_text().splitlines()]
    assert columns == [line.split(",")[:2] for line in (tmp_path / "killed" / "metrics.csv").read_text().splitlines()]


def test_ctrl_c_saves_after_the_step_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, taken = Trainer._step, []

    def interrupting(trainer: Trainer, index, number):  # type: ignore[no-untyped-def]
        taken.append(number)
        if len(taken) == 6:
            signal.raise_signal(signal.SIGINT)
        return step(trainer, index, number)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Trainer, "_step", interrupting)
    with pytest.raises(Interrupted):
        fit(small_model(), small_split(), training=small_training(), out=tmp_path / "run", quiet=True)
    assert signal.getsignal(signal.SIGINT) is before
    _, note = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert (note["state"]["epoch"], note["state"]["step"]) == (1, 3)
    monkeypatch.setattr(Trainer, "_step", step)
    resumed = fit(
        small_model(), small_split(), training=small_training(), out=tmp_path / "run", resume=True, quiet=True
    )
    whole = fit(small_model(), small_split(), training=small_training(), quiet=True)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[key]), key


def test_more_epochs_may_be_added(tmp_path: Path) -> None:
    split = small_split()
    fit(small_model(), split, training=small_training(epochs=2), out=tmp_path / "run", quiet=True)
    longer = fit(small_model(), split, training=small_training(), out=tmp_path / "run", resume=True, quiet=True)
    assert longer.metadata["training"]["epochs"] == 4


def test_resume_refuses_another_run(tmp_path: Path) -> None:
    fit(small_model(), small_split(), training=small_training(epochs=1), out=tmp_path / "run", quiet=True)
    with pytest.raises(StorageError, match=r"another model\.width: 8 there, 16 here"):
        fit(small_model(width=16), small_split(), training=small_training(), out=tmp_path / "run", resume=True)
    with pytest.raises(StorageError, match="another dataset"):
        fit(small_model(), small_split(seed=2), training=small_training(), out=tmp_path / "run", resume=True)
    with pytest.raises(StorageError, match=r"another training\.learning_rate"):
        changed = small_training(learning_rate=0.5)
        fit(small_model(), small_split(), training=changed, out=tmp_path / "run", resume=True)


def test_a_run_older_than_a_setting_is_resumed_with_its_former_value(tmp_path: Path) -> None:
    file = tmp_path / "run" / "last.safetensors"
    then: dict[str, Any] = dict(SASRec.formerly)
    fit(small_model(**then), small_split(), training=small_training(epochs=1), out=tmp_path / "run", quiet=True)
    tensors, note = load_checkpoint(file)
    for setting in then:
        del note["identity"]["model"][setting]
    save_checkpoint(file, tensors, note)
    with pytest.raises(StorageError, match=r"another model\.logq: False there, True here"):
        now = small_model(**{**then, "logq": True})
        fit(now, small_split(), training=small_training(), out=tmp_path / "run", resume=True)
    old = small_model(**then)
    longer = fit(old, small_split(), training=small_training(), out=tmp_path / "run", resume=True, quiet=True)
    assert longer.metadata["training"]["epochs"] == 4


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    fit(small_model(), small_split(), training=small_training(epochs=1), out=tmp_path / "run", quiet=True)
    with pytest.raises(StorageError, match="already holds a run"):
        fit(small_model(), small_split(), training=small_training(epochs=1), out=tmp_path / "run", quiet=True)


def test_resume_needs_a_folder() -> None:
    with pytest.raises(ConfigError, match="needs the folder"):
        fit(small_model(), small_split(), resume=True)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import segue.inference.checkpoint as checkpoint

    written = []
    save = checkpoint.save_file

    def full(tensors, path, metadata):  # type: ignore[no-untyped-def]
        written.append(path)
        if len(written) == 3:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        fit(small_model(), small_split(), training=small_training(), out=tmp_path / "run", quiet=True)
    _, note = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert note["state"]["epoch"] == 1
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.startswith(".")] == []
