"""RowAdam, compared with torch's Adam on dense gradients and a plain loop over rows on sparse ones."""

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

from segue.data.splits.by_user import random_rows
from segue.errors import ConfigError
from segue.models.arerec.arerec import ARERec
from segue.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from segue.training.optimizers import RowAdam, check_processes, clip_gradients, make_optimizer
from tests.models.rating_models import rated_dataset

from .runs import check_resumed_bits, small_training

RATE, BETAS, EPS = 0.01, (0.9, 0.98), 1e-8
ROWS, WIDTH = 6, 3
VARIANTS = [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]
READ = st.lists(st.lists(st.integers(0, ROWS - 1), max_size=5), min_size=1, max_size=5)


def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(ROWS, WIDTH, sparse=True, dtype=torch.float64)


def step(layer: nn.Embedding, optimizer: torch.optim.Optimizer, read: list[int], factor: float) -> None:
    """Take a step of a loss that reads some rows, a few of them twice."""
    optimizer.zero_grad(set_to_none=True)
    targets = factor * torch.arange(len(read) * WIDTH, dtype=torch.float64).view(-1, WIDTH)
    (layer(torch.tensor(read, dtype=torch.long)) * targets.cos()).pow(2).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@given(reads=READ)
@settings(max_examples=25, deadline=None)
def test_gathered_gradients_are_torchs_adam(variant: dict[str, Any], clipped: bool, reads: list[list[int]]) -> None:
    weights = []
    for gathered in (True, False):
        layer = table()
        layer.sparse = False
        optimizer = RowAdam(layer.parameters(), lr=RATE, betas=BETAS, fused=True, **variant)
        if gathered:
            optimizer.gather(layer)
        for number, read in enumerate(reads):
            targets = (number + torch.arange(len(read) * WIDTH, dtype=torch.float64)).view(-1, WIDTH).cos()
            (layer(torch.tensor(read, dtype=torch.long)) * targets).pow(2).sum().backward()
            if clipped:
                clip_gradients(layer.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        weights.append(layer.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_dense_gradients_are_torchs_adam_bit_for_bit(variant: dict[str, Any]) -> None:
    actual, expected = [], []
    for optimizer_class, weights in ((RowAdam, actual), (torch.optim.Adam, expected)):
        torch.manual_seed(1)
        layer = nn.Linear(5, 4)
        optimizer = optimizer_class(layer.parameters(), lr=RATE, betas=BETAS, fused=True, **variant)
        for number in range(5):
            optimizer.zero_grad(set_to_none=True)
            layer(torch.arange(5.0) + number).square().sum().backward()
            optimizer.step()
            weights += [parameter.detach().clone() for parameter in layer.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@given(READ)
@settings(max_examples=40, deadline=None)
def test_sparse_gradients_move_the_rows_that_were_read(variant: dict[str, Any], reads: list[list[int]]) -> None:
    layer = table()
    weights = layer.weight.detach().numpy().copy()
    first, second = np.zeros((ROWS, WIDTH)), np.zeros(ROWS)
    optimizer = RowAdam(layer.parameters(), lr=RATE, betas=BETAS, eps=EPS, fused=True, **variant)
    for number, read in enumerate(reads, 1):
        factors = np.cos(number * np.arange(len(read) * WIDTH).reshape(-1, WIDTH)) ** 2
        gradients = {row: np.zeros(WIDTH) for row in read}
        for position, row in enumerate(read):
            gradients[row] += 2 * factors[position] * weights[row]
        step(layer, optimizer, read, number)
        for row, gradient in gradients.items():
            if variant.get("decoupled_weight_decay"):
                weights[row] *= 1 - RATE * variant["weight_decay"]
            else:
                gradient = gradient + variant.get("weight_decay", 0.0) * weights[row]
            first[row] = BETAS[0] * first[row] + (1 - BETAS[0]) * gradient
            second[row] = BETAS[1] * second[row] + (1 - BETAS[1]) * np.mean(gradient**2)
            size = np.sqrt(second[row] / (1 - BETAS[1] ** number)) + EPS
            weights[row] -= RATE * first[row] / (1 - BETAS[0] ** number) / size
        np.testing.assert_allclose(layer.weight.detach().numpy(), weights, rtol=1e-12, atol=1e-15)
        assert layer.weight.grad is None, "a step consumes sparse gradients"


def test_rows_that_are_not_read_keep_every_bit() -> None:
    layer = table()
    before = layer.weight.detach().clone()
    optimizer = RowAdam(layer.parameters(), lr=RATE, weight_decay=0.3, decoupled_weight_decay=True)
    for number in range(4):
        step(layer, optimizer, [1, 4, 4], number + 1)
    moved = (layer.weight != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False, True, False]


def test_dense_and_sparse_side_by_side() -> None:
    layer, dense = table(), nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimizer = RowAdam([*layer.parameters(), dense], lr=RATE, fused=True)
    (layer(torch.tensor([2])).sum() * dense.sum()).backward()
    loss = optimizer.step()
    assert loss is None and (dense != 1).all() and optimizer.state[layer.weight]["exp_avg_sq"].shape == (ROWS, 1)


def test_state_is_saved_and_restored(tmp_path: Path) -> None:
    whole, halves = table(), table()
    optimizer = RowAdam(whole.parameters(), lr=RATE, fused=True)
    for number in range(6):
        step(whole, optimizer, [number % ROWS, 0], number + 1)
    before = RowAdam(halves.parameters(), lr=RATE, fused=True)
    for number in range(3):
        step(halves, before, [number % ROWS, 0], number + 1)
    save_checkpoint(tmp_path / "state.safetensors", optimizer_tensors(before), {})
    after = RowAdam(halves.parameters(), lr=RATE, fused=True)
    restore_optimizer(after, load_checkpoint(tmp_path / "state.safetensors")[0])
    for number in range(3, 6):
        step(halves, after, [number % ROWS, 0], number + 1)
    assert torch.equal(whole.weight, halves.weight)
    assert all(
        torch.equal(value, optimizer_tensors(after)[name]) for name, value in optimizer_tensors(optimizer).items()
    )


def test_clipping_counts_sparse_gradients_as_they_add_up() -> None:
    sparse, dense = table(), nn.Parameter(torch.ones(2, dtype=torch.float64))
    (sparse(torch.tensor([1, 1, 3])).sum() * 3 + dense.sum() * 4).backward()
    assert sparse.weight.grad is not None and dense.grad is not None
    gradients = np.concatenate([sparse.weight.grad.to_dense().numpy().ravel(), dense.grad.numpy()])
    norm = np.sqrt((gradients**2).sum())
    parameters = [sparse.weight, dense, nn.Parameter(torch.ones(1))]
    clip_gradients(parameters, 2 * norm)
    assert torch.equal(dense.grad, torch.full((2,), 4.0, dtype=torch.float64))
    clip_gradients(parameters, 0.5)
    clipped = np.concatenate([sparse.weight.grad.to_dense().numpy().ravel(), dense.grad.numpy()])
    np.testing.assert_allclose(clipped, gradients * 0.5 / norm, rtol=1e-5)


def test_clipping_dense_gradients_is_torchs() -> None:
    torch.manual_seed(0)
    mine, theirs = ([nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))] for _ in range(2))
    for parameter, other in zip(mine, theirs, strict=True):
        parameter.grad = torch.randn_like(parameter)
        other.grad = parameter.grad.clone()
    clip_gradients(mine, 0.7)
    nn.utils.clip_grad_norm_(theirs, 0.7)
    for parameter, other in zip(mine, theirs, strict=True):
        assert parameter.grad is not None and other.grad is not None and torch.equal(parameter.grad, other.grad)


def test_several_gpus_are_refused_before_they_fail() -> None:
    model = ARERec(width=8, levels=(1, 2), look_back="train", history_length=3).build(2, 2)
    for processes, device, fine in ((2, "cuda", False), (2, "cpu", True), (1, "cuda", True)):
        accelerator: Any = SimpleNamespace(num_processes=processes, device=torch.device(device))
        if fine:
            check_processes(model, accelerator)
        else:
            with pytest.raises(ConfigError, match="several GPUs cannot add up"):
                check_processes(model, accelerator)


SHAPES: list[dict[str, Any]] = [{}, {"contexts": "interaction"}, {"contexts": "interaction", "attention": False,
          "biases": False, "neighbour_ratings": False}]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_interrupted_run_ends_with_the_same_bits(
    tmp_path: Path, shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    split, config = random_rows(rated_dataset(30, 12, 14)), ARERec(width=8, group=4, **shape)
    training = small_training(batch_size=16, clip_norm=1.0, epochs=3)
    model = config.resolved(split.train).build(split.train.n_users, split.train.n_items)
    per_epoch = max(1, round(len(model.examples(split.train).lengths) / training.batch_size))
    assert per_epoch > 2
    check_resumed_bits(tmp_path, monkeypatch, config, split, training, stop_at=per_epoch + 2)


OTHERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "momentum": 0.9},
    {"optimizer": "sgd", "weight_decay": 0.1},
    {"optimizer": "rmsprop", "momentum": 0.5},
    {"optimizer": "adagrad"},
]


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_other_optimizers_resume_with_the_same_bits(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a model with sparse gradients."""
    split, config = random_rows(rated_dataset(30, 12, 14)), ARERec(width=8, group=4, contexts="interaction")
    training = small_training(batch_size=16, epochs=2, learning_rate=0.01, **options)
    check_resumed_bits(tmp_path, monkeypatch, config, split, training, stop_at=4)


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("sgd", lambda weights: torch.optim.SGD(weights, lr=RATE)),
        ("rmsprop", lambda weights: torch.optim.RMSprop(weights, lr=RATE, alpha=0.9)),
        ("adagrad", lambda weights: torch.optim.Adagrad(weights, lr=RATE)),
    ],
)
def test_other_optimizers_are_those_of_torch(name: str, same: Any) -> None:
    """Sparse gradients move the table as dense ones do."""
    layers = [nn.Embedding(6, 3, sparse=sparse) for sparse in (True, False)]
    layers[1].load_state_dict(layers[0].state_dict())
    settings = small_training(optimizer=name, learning_rate=RATE)
    steps = [make_optimizer(layers[0], settings), same(layers[1].parameters())]  # type: ignore[arg-type]
    for read in ([1, 2, 2], [3], [1]):
        for layer, optimizer in zip(layers, steps, strict=True):
            layer(torch.tensor(read)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(layers[0].weight, layers[1].weight)


@pytest.mark.parametrize("options", [{"optimizer": "sgd", "row_updates": "always"}, {"momentum": 0.9}], ids=str)
def test_options_of_another_optimizer_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"row_updates='always'|momentum=0\.9"):
        small_training(**options)
