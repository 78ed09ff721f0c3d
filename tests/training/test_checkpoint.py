from __future__ import annotations

import copy
import errno
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segue.errors import StorageError
from segue.inference import checkpoint
from segue.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from tests.helpers import alter, truncate

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "half": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
    "known": torch.tensor([True, False, True]),
    "step": torch.tensor(7.0, dtype=torch.float64),
    "empty": torch.zeros(0, 4),
}
NOTE = {"epoch": 3, "metrics": {"ndcg@10": 0.1 + 0.2}, "name": "Zoë"}


def saved(folder: Path) -> Path:
    path = folder / "last.safetensors"
    save_checkpoint(path, TENSORS, NOTE)
    return path


def test_tensors_and_note_come_back_exactly(tmp_path: Path) -> None:
    tensors, note = load_checkpoint(saved(tmp_path))
    assert note == NOTE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(tensors[name], tensor)


def test_views_and_parameters_can_be_saved(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
    save_checkpoint(tmp_path / "a.safetensors", {"turned": weight.T, "same": weight}, {})
    tensors, _ = load_checkpoint(tmp_path / "a.safetensors")
    assert torch.equal(tensors["turned"], weight.T) and torch.equal(tensors["same"], weight)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("save", [lambda file: torch.save({"a": Bomb()}, file), lambda file: pickle.dump(Bomb(), file)])
def test_a_pickle_is_refused_and_not_run(save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.safetensors"
    with path.open("wb") as file:
        save(file)
    with pytest.raises(StorageError, match=r"not a readable safetensors file .* pickles can run code"):
        load_checkpoint(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("by", [1, 8, 200])
def test_a_truncated_file_is_refused(by: int, tmp_path: Path) -> None:
    path = saved(tmp_path)
    truncate(path, by)
    with pytest.raises(StorageError, match="not a readable safetensors file"):
        load_checkpoint(path)


def test_every_altered_byte_is_noticed(tmp_path: Path) -> None:
    """Check every byte of the header, the note and the tensors."""
    path = saved(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StorageError):
            load_checkpoint(path)


def test_altered_values_fail_the_checksum(tmp_path: Path) -> None:
    path = saved(tmp_path)
    alter(path, -1)
    with pytest.raises(StorageError, match="does not match its checksum"):
        load_checkpoint(path)


def test_values_read_as_another_type_are_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    with pytest.raises(StorageError, match="does not match its checksum"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["note", "sha256", "format_version", "kind"])
def test_a_header_that_lacks_something_is_refused(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    with safe_open(path, framework="pt") as stored:
        header = {key: value for key, value in stored.metadata().items() if key != name}
    save_file(TENSORS, path, metadata=header)
    with pytest.raises(StorageError, match=r"last\.safetensors"):
        load_checkpoint(path)


def test_a_future_version_asks_for_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "FORMAT_VERSION", 12)
        path = saved(tmp_path)
    with pytest.raises(StorageError, match=r"format version 12; this segue reads up to \d+\. Upgrade"):
        load_checkpoint(path)


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    with pytest.raises(StorageError, match="not a checkpoint written by segue"):
        load_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(StorageError, match=r"b\.safetensors is missing"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)

    def full(tensors: Any, file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, {}, {})
    assert load_checkpoint(path)[1] == NOTE
    assert list(tmp_path.iterdir()) == [path]


OPTIMIZERS = [
    pytest.param(lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.98)), id="adam"),
    pytest.param(lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True), id="adamw"),
    pytest.param(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), id="sgd"),
]


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("build", OPTIMIZERS)
def test_a_restored_optimizer_continues_with_the_same_bits(build: Any, tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    model.register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))  # has no state
    optimizer = build(model.parameters())
    train(model, optimizer, range(4))
    save_checkpoint(tmp_path / "a.safetensors", optimizer_tensors(optimizer), {})
    other = copy.deepcopy(model)
    fresh, restored = build(copy.deepcopy(model).parameters()), build(other.parameters())
    restore_optimizer(restored, load_checkpoint(tmp_path / "a.safetensors")[0])
    assert optimizer_tensors(restored).keys() == optimizer_tensors(optimizer).keys() != optimizer_tensors(fresh).keys()
    train(model, optimizer, range(4, 8))
    train(other, restored, range(4, 8))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_fresh_optimizer_has_nothing_to_keep() -> None:
    assert optimizer_tensors(torch.optim.Adam(torch.nn.Linear(3, 2).parameters())) == {}
