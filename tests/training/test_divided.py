"""Tables that are divided over processes: the same training as with whole tables, and one saved model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from segue.errors import ConfigError, StorageError
from segue.inference.checkpoint import drop_parts, read_note
from segue.inference.loading import load
from segue.inference.unfinished import UnfinishedRunWarning
from segue.models.item_table import DividedItemTable, ItemTable
from segue.models.parsrec.parsrec import PARSRec
from segue.models.sasrec import SASRec
from segue.nn import divided
from segue.nn.divided import Division
from segue.training.checkpoint import load_checkpoint
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.resuming import resume
from tests.programs import run_joined

from .runs import small_model, small_split, small_training

CASES = ("shared", "softmax", "always", "clipped", "repeats", "sampled", "users", "recurrent")


def run_cases(folder: Path, processes: int, *names: str) -> None:
    """Train cases of `divided_runs.py` in several processes."""
    run_joined(processes, Path(__file__).with_name("divided_runs.py"), folder, *names)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_cases(folder, 2, *CASES, "gathered", "stopped")
    return folder


def close(key: str, one: torch.Tensor, other: torch.Tensor) -> None:
    """Check that two tensors differ by rounding alone.

    The bias of the keys is left out: it moves all scores of a query alike, so its gradient is rounding, which Adam
    makes steps of.
    """
    if key.endswith("key_value.bias"):
        one, other = (tensor[len(tensor) // 2 :] for tensor in (one, other))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=lambda text: f"{key} {text}")


def check_same(folder: Path, name: str, processes: int) -> None:
    """Check that both trainings of a case have the same losses, metrics, weights and states."""
    tables = [pl.read_csv(folder / f"{kind}-{name}" / "metrics.csv").drop("seconds") for kind in ("whole", "divided")]
    np.testing.assert_allclose(tables[0].to_numpy(), tables[1].to_numpy(), rtol=1e-5)
    for file in ("last.safetensors", "best.safetensors"):
        (whole, note), (parts, divided_note) = (
            load_checkpoint(folder / f"{kind}-{name}" / file) for kind in ("whole", "divided")
        )
        assert whole.keys() == parts.keys()
        assert len(divided_note["parts"]) == processes
        assert note["state"].keys() == divided_note["state"].keys()
        for key, tensor in whole.items():
            close(key, parts[key], tensor)
    saved, other = (load(folder / f"{kind}-{name}") for kind in ("whole", "divided"))
    for key, tensor in saved.model.state_dict().items():
        close(key, other.model.state_dict()[key], tensor)
    users = saved.dataset.users.ids.head(5).to_list()
    lists, others = (one.recommend(users, k=3, exclude_seen=False)["item"].to_list() for one in (saved, other))
    assert lists == others


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_divided_tables_train_as_two_with_whole_ones(two: Path, name: str) -> None:
    check_same(two, name, 2)


@pytest.mark.slow
def test_rows_of_gradients_that_several_processes_gather_move_the_whole_table(two: Path) -> None:
    for file in ("last.safetensors", "best.safetensors"):
        expected, gathered = (load_checkpoint(two / name / file)[0] for name in ("never", "auto"))
        for key, tensor in expected.items():
            close(key, gathered[key], tensor)


@pytest.mark.slow
def test_four_processes(two: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "left", tmp_path / "left")
    run_cases(tmp_path, 4, "shared", "softmax", "left")
    assert len(read_note(tmp_path / "left" / "last.safetensors")["parts"]) == 4  # two processes began it
    assert load(tmp_path / "left").metadata["training"]["epochs"] == 3
    for name in ("shared", "softmax"):
        check_same(tmp_path, name, 4)
    one = fit(
        SASRec(width=8, blocks=1, max_length=6, dropout=0.0, loss="softmax", transitions=False),
        small_split(),
        training=Training(
            epochs=3, batch_size=16, seed=3, cpu=True, averaging=0.5, metric="ndcg@5", validation_exclude_seen=False
        ),
        quiet=True,
    )
    # Without draws in a step, the processes minimise the loss of one.
    for key, tensor in one.model.state_dict().items():
        close(key, load(tmp_path / "divided-softmax").model.state_dict()[key], tensor)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_bits(two: Path) -> None:
    for file in ("last.safetensors", "best.safetensors", "epochs/0002.safetensors", "epochs/state-0002.safetensors"):
        whole = two / "divided-shared" / file
        expected = load_checkpoint(whole if whole.is_file() else two / "stopped" / file)[0]
        for key, tensor in load_checkpoint(two / "stopped" / file)[0].items():
            assert torch.equal(tensor, expected[key]), (file, key)
    note = read_note(two / "stopped" / "last.safetensors")
    assert {one["file"] for one in note["parts"]} == {f"{rank}of2/last-e3s0.safetensors" for rank in (1, 2)}
    left = sorted(file.name for file in (two / "stopped" / "parts" / "1of2").iterdir())
    assert len(left) == 2 and left[1] == "last-e3s0.safetensors"  # the best weights, and the state
    assert load(two / "stopped", epoch=2).metadata["epoch"] == 2


@pytest.mark.slow
def test_a_state_in_parts_opens_and_goes_on_in_one_process(two: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two / "left", tmp_path / "run")
    with pytest.warns(UnfinishedRunWarning):
        assert load(run).model.config.name == "sasrec"
    resumed = resume(run, quiet=True, divide_tables=False)
    assert resumed.metadata["training"]["epochs"] == 3
    assert "parts" not in read_note(run / "last.safetensors")


@pytest.mark.slow
def test_parts_that_are_altered_missing_or_of_another_moment_are_refused(two: Path, tmp_path: Path) -> None:
    run = shutil.copytree(two / "left", tmp_path / "run")
    entry = read_note(run / "last.safetensors")["parts"][1]["file"]
    part = run / "parts" / entry
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StorageError, match="altered"):
        load_checkpoint(run / "last.safetensors")
    shutil.copy(two / "stopped" / "parts" / "2of2" / "last-e3s0.safetensors", part)
    with pytest.raises(StorageError, match="not the part"):
        load_checkpoint(run / "last.safetensors")
    part.unlink()
    with pytest.raises(StorageError, match="is missing"):
        load_checkpoint(run / "last.safetensors")


@pytest.mark.slow
def test_rows_of_any_number_of_processes_are_read_from_parts(two: Path) -> None:
    whole = load_checkpoint(two / "divided-shared" / "last.safetensors")[0]
    key = "model.items.weight"
    for wanted in (range(3, 14), range(0, 1), range(5, 5)):
        rows = load_checkpoint(
            two / "divided-shared" / "last.safetensors", lambda name, own=wanted: own if name == key else None
        )[0]
        assert torch.equal(rows[key], whole[key][wanted.start : wanted.stop])


# ---- in one process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_rows", [1, 7, 21, 1000])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_every_process_draws_its_rows_of_the_same_table(
    n_rows: int, world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(divided, "_ROWS_DRAWN", 64)
    torch.manual_seed(1)
    whole = ItemTable(n_rows, 5)
    following = torch.rand(3)
    parts = []
    for rank in range(world):
        torch.manual_seed(1)
        table = DividedItemTable(n_rows, 5, Division(rank, world))
        assert torch.equal(torch.rand(3), following)
        parts.append(table.weight.detach())
        assert len(table.weight) == len(table.codes)
    assert torch.equal(torch.cat(parts), whole.weight.detach())
    assert isinstance(table.whole(whole.weight.detach()), nn.Embedding)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PARSRec(), "parsrec reads its tables as a whole"),
        ("popularity", "popularity reads its tables as a whole"),
        (small_model(loss="softmax", repeats=True), "repeats=True with loss='softmax'"),
        (small_model(loss="softmax", embedding_l2=0.1), "embedding_l2=0.1"),
    ],
)
def test_models_that_cannot_divide_their_tables_are_refused(config: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(config, small_split(), training=small_training(divide_tables=True), out=tmp_path / "run", quiet=True)  # type: ignore[arg-type]


def test_divided_tables_need_a_folder_and_new_weights(tmp_path: Path) -> None:
    training = small_training(divide_tables=True, epochs=1)
    with pytest.raises(ConfigError, match="needs the folder"):
        fit(small_model(), small_split(), training=training, quiet=True)
    first = fit(small_model(), small_split(), training=training, out=tmp_path / "one", quiet=True)
    with pytest.raises(ConfigError, match="new weights"):
        fit(small_model(), small_split(), training=training, out=tmp_path / "two", start=first, quiet=True)


def test_one_process_has_all_rows(tmp_path: Path) -> None:
    plain = fit(small_model(), small_split(), training=small_training(epochs=1), quiet=True)
    alone = fit(
        small_model(),
        small_split(),
        training=small_training(epochs=1, divide_tables=True),
        out=tmp_path / "run",
        quiet=True,
    )
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, alone.model.state_dict()[key])
    drop_parts(tmp_path / "run")
    assert load(tmp_path / "run").model.config.name == "sasrec"
