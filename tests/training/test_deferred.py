"""Deferred tables, compared with torch's Adam on dense gradients, which gives the same weights more slowly."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segue.errors import ConfigError
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from segue.training import deferred, optimizers
from segue.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from segue.training.config import Training
from segue.training.deferred import DeferredTable
from segue.training.fit import fit
from segue.training.optimizers import RowAdam, sparse_tables
from tests.helpers import make_dataset

from .runs import check_resumed_bits, small_training

ROWS, WIDTH, PERIOD = 7, 3, 5
READS = st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=4), min_size=1, max_size=4 * PERIOD)


@pytest.fixture(autouse=True)
def short_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred, "PERIOD", PERIOD)
    monkeypatch.setattr(deferred, "_ROWS_AT_ONCE", 3)


def table(sparse: bool) -> tuple[nn.Embedding, RowAdam]:
    """Return a table and its optimizer. The eps is tiny, because a deferred table differs from Adam only by it."""
    torch.manual_seed(0)
    layer = nn.Embedding(ROWS, WIDTH, dtype=torch.float64)
    optimizer = RowAdam(layer.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-16, fused=True)
    if sparse:
        optimizer.defer(layer)
    return layer, optimizer


def step(layer: nn.Embedding, optimizer: RowAdam, read: list[int], number: int) -> torch.Tensor:
    """Take a step with a changing learning rate and a gradient that depends on the weights; return the rows read."""
    optimizer.param_groups[0]["lr"] = 0.01 * (1 + number % 3)
    optimizer.zero_grad(set_to_none=True)
    vectors = layer(torch.tensor(read))
    targets = (number + torch.arange(len(read) * WIDTH, dtype=torch.float64)).view(-1, WIDTH).cos()
    ((vectors - targets).square().sum()).backward()
    optimizer.step()
    return vectors.detach().clone()


@given(READS)
@settings(max_examples=60, deadline=None)
def test_rows_read_and_final_weights_are_those_of_adam(reads: list[list[int]]) -> None:
    late, now = table(True), table(False)
    for number, read in enumerate(reads):
        deferred_rows, expected = step(*late, read, number), step(*now, read, number)
        torch.testing.assert_close(deferred_rows, expected, rtol=1e-6, atol=1e-7)
    late[1].settle()
    torch.testing.assert_close(late[0].weight, now[0].weight, rtol=1e-6, atol=1e-7)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(
            late[1].state[late[0].weight][name], now[1].state[now[0].weight][name], rtol=1e-6, atol=1e-7
        )


def test_rows_that_are_not_read_wait() -> None:
    layer, optimizer = table(True)
    step(layer, optimizer, [1, 2], 0)
    before = layer.weight.detach().clone()
    step(layer, optimizer, [2, 2], 1)
    assert (layer.weight != before).any(dim=1).nonzero().flatten().tolist() == [2]
    optimizer.settle()
    assert (layer.weight != before).any(dim=1).nonzero().flatten().tolist() == [1, 2]
    again = layer.weight.detach().clone()
    optimizer.settle()
    assert torch.equal(layer.weight, again)


def test_rows_that_another_process_read_are_caught_up_before_they_are_moved() -> None:
    """Let a process look up some rows, and get a gradient that also has rows of the other process."""
    (one, first), (other, second) = table(True), table(True)
    for number, read in enumerate([[1, 2, 3], [2], [4]]):
        step(one, first, read, number)
        step(other, second, read, number)
    one(torch.tensor([1]))
    other(torch.tensor([1, 3]))
    for layer, optimizer in ((one, first), (other, second)):
        rows, values = torch.tensor([[1, 3]]), torch.ones(2, WIDTH, dtype=torch.float64)
        layer.weight.grad = torch.sparse_coo_tensor(rows, values, (ROWS, WIDTH), check_invariants=True)
        optimizer.step()
        optimizer.settle()
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("saved_after", [3, PERIOD, 2 * PERIOD + 1])
def test_a_restored_state_continues_bit_for_bit(tmp_path: Path, saved_after: int) -> None:
    reads = [[number % ROWS, number * number % ROWS] for number in range(4 * PERIOD)]
    whole, optimizer = table(True)
    for number, read in enumerate(reads):
        step(whole, optimizer, read, number)
    halves, before = table(True)
    for number, read in enumerate(reads[:saved_after]):
        step(halves, before, read, number)
    save_checkpoint(tmp_path / "state.safetensors", optimizer_tensors(before) | {"weight": halves.weight.detach()}, {})
    tensors, _ = load_checkpoint(tmp_path / "state.safetensors")
    restored, after = table(True)
    restored.load_state_dict({"weight": tensors["weight"]})
    restore_optimizer(after, tensors)
    for number, read in enumerate(reads[saved_after:], saved_after):
        step(restored, after, read, number)
    assert torch.equal(whole.weight, restored.weight)


@pytest.mark.parametrize("was_sparse", [True, False])
def test_a_state_can_be_loaded_by_the_other_method(was_sparse: bool) -> None:
    reads = [[number % ROWS] for number in range(12)]
    whole, halves, rest = table(False), table(was_sparse), table(not was_sparse)
    for number, read in enumerate(reads):
        step(*whole, read, number)
    for number, read in enumerate(reads[:8]):
        step(*halves, read, number)
    rest[0].load_state_dict(halves[0].state_dict())
    rest[1].load_state_dict(halves[1].state_dict())
    for number, read in enumerate(reads[8:], 8):
        step(*rest, read, number)
    rest[1].settle()
    torch.testing.assert_close(rest[0].weight, whole[0].weight, rtol=1e-6, atol=1e-7)


def test_weight_decay_cannot_wait() -> None:
    layer = nn.Embedding(ROWS, WIDTH)
    with pytest.raises(ConfigError, match="row_updates"):
        RowAdam(layer.parameters(), weight_decay=0.1).defer(layer)


# ---- in training ----------------------------------------------------------------------------------------------------

HISTORIES = [np.random.default_rng(user).integers(1, 60, 4 + user % 9).tolist() for user in range(40)]
CONFIGS: list[Any] = [
    SASRec(width=8, max_length=6, loss="bce", negatives=1),
    SASRec(width=8, max_length=6, loss="sampled-softmax", negatives=5),
    SSEPT(item_width=4, user_width=4, max_length=6),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.loss}")
def test_both_methods_train_the_same_model(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(DeferredTable, "step", lambda self, *a, o=DeferredTable.step: (taken.append(1), o(self, *a)))
    data = make_dataset(HISTORIES, catalogue=range(1, 61))
    weights = {}
    for way in ("never", "always"):
        training = small_training(epochs=3, batch_size=8, row_updates=way, learning_rate=1e-3)
        weights[way] = fit(config, data, training=training, quiet=True).model.state_dict()
        assert bool(taken) == (way == "always")
    for name, tensor in weights["never"].items():
        if "key_value.bias" not in name:  # it does not change a softmax, so its gradient is pure rounding
            torch.testing.assert_close(weights["always"][name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.loss}")
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, training = make_dataset(HISTORIES), small_training(epochs=3, batch_size=8, row_updates="always")
    check_resumed_bits(tmp_path, monkeypatch, config, data, training, stop_at=8)


def chosen_tables(model: Any, examples: Any, device: str = "cpu", processes: int = 1, **named: Any) -> list[list[Any]]:
    """Tables to defer, and tables whose gradients to gather."""
    accelerator: Any = SimpleNamespace(device=torch.device(device), num_processes=processes)
    return [*sparse_tables(model, examples, Training(batch_size=8, **named), accelerator)]


def test_only_large_tables_are_deferred_or_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step reads 8 of 40 users and about 60 inputs, 60 targets and 60 negatives: all of 60 items, few of many."""
    model = CONFIGS[2].build(40, 60)
    examples = model.examples(make_dataset(HISTORIES, catalogue=range(1, 61)))
    assert chosen_tables(model, examples) == [[], [model.users]]
    assert chosen_tables(model, examples, processes=2) == [[], [model.users]]
    assert chosen_tables(model, examples, device="cuda") == [[], []]
    monkeypatch.setattr(optimizers, "_WORTH_DEFERRING", 2)
    assert chosen_tables(model, examples) == [[model.users], []]
    assert chosen_tables(model, examples, weight_decay=0.1) == [[], [model.users]]
    assert chosen_tables(model, examples, device="cuda") == [[], []]
    assert chosen_tables(model, examples, device="cuda", row_updates="always") == [[model.users, model.items], []]
    assert chosen_tables(model, examples, row_updates="never") == [[], []]
    whole = SASRec(width=8, max_length=6, loss="softmax").build(40, 10**4)
    assert chosen_tables(whole, examples, row_updates="always") == [[], []]


@pytest.mark.parametrize("way", ["always", "auto"])
def test_a_fitted_model_keeps_nothing_of_the_optimizer(monkeypatch: pytest.MonkeyPatch, way: Any) -> None:
    monkeypatch.setattr(optimizers, "_WORTH_GATHERING", 0)
    training = small_training(epochs=1, row_updates=way)
    model = fit(CONFIGS[0], make_dataset(HISTORIES), training=training, quiet=True).model.train()
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding)]
    assert not any(table.sparse or table._forward_pre_hooks for table in tables)
    examples = model.examples(make_dataset(HISTORIES))
    loss = model(examples.batch(np.arange(4), np.random.default_rng(0)))
    loss.backward()
    torch.optim.AdamW(model.parameters()).step()
