"""GRU4Rec, compared with an independent float64 implementation of its equations."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch

import segue
from segue.data.histories import Histories
from segue.models.gru4rec import GRU4Rec, GRU4RecModel, TopKLoss
from segue.nn import losses
from tests.helpers import cycle_dataset, make_dataset, prepared, queries_of

HISTORIES = [[3, 1, 4, 1, 5, 9], [2, 6], [5, 3, 5, 8, 9, 7, 9], [1, 2, 3]]
N_ITEMS = 9
Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def model_of(**settings: Any) -> GRU4RecModel:
    torch.manual_seed(0)
    model = GRU4Rec(**{"width": 5, "dropout_input": 0.0, "dropout_hidden": 0.0, "negatives": 7, **settings})
    built = model.build(len(HISTORIES), N_ITEMS).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return built


def paper_states(model: GRU4RecModel, items: list[int]) -> Array:
    """Hidden states (length, width): reset, update and candidate gates, step by step (Cho et al. 2014)."""
    inputs = model.items.weight.detach().numpy()[items]
    for layer in model.recurrent:
        weights = {name: parameter.detach().numpy() for name, parameter in layer.named_parameters()}
        w, u = weights["weight_ih_l0"], weights["weight_hh_l0"]
        b, c = weights["bias_ih_l0"], weights["bias_hh_l0"]
        width = u.shape[1]
        state, states = np.zeros(width), []
        for x in inputs:
            from_input, from_state = (w @ x + b).reshape(3, width), (u @ state + c).reshape(3, width)
            reset, update = sigmoid(from_input[0] + from_state[0]), sigmoid(from_input[1] + from_state[1])
            candidate = np.tanh(from_input[2] + reset * from_state[2])
            state = (1 - update) * candidate + update * state
            states.append(state)
        inputs = np.array(states)
    return inputs


def paper_scores(model: GRU4RecModel, state: Array) -> Array:
    return model.items.weight.detach().numpy() @ state + model.biases.weight.detach().numpy()[:, 0]


def paper_loss(name: str, target: float, negatives: Array, config: GRU4Rec, log_counts: Array) -> float:
    """Loss of one position, from the scores of its target and of the negatives that are not the target."""
    if name == "cross-entropy":
        corrected = negatives - log_counts
        return float(np.log(np.exp(target) + np.exp(corrected).sum()) - target)
    if name == "bpr":
        return float(-np.log(sigmoid(target - negatives)).mean())
    terms = sigmoid(negatives - target) + sigmoid(negatives**2)
    if name == "top1":
        return float(terms.mean())
    if name == "bpr-max" and config.elu:
        target, negatives = (np.where(x > 0, x, config.elu * (np.exp(x) - 1)) for x in (target, negatives))
    shares = np.exp(negatives) / np.exp(negatives).sum()
    if name == "top1-max":
        return float((shares * terms).sum())
    probability = (shares * sigmoid(target - negatives)).sum()
    return float(-np.log(probability) + config.bpr_penalty * (shares * negatives**2).sum())


@pytest.mark.parametrize("layers", [1, 2])
def test_queries_and_scores_are_those_of_the_equations(layers: int) -> None:
    model = model_of(layers=layers)
    queries = queries_of(model, Histories.from_lists(HISTORIES))
    scores = model.scores().all(queries, 0, N_ITEMS + 1).numpy(force=True)
    for row, history in enumerate(HISTORIES):
        assert scores[row] == pytest.approx(paper_scores(model, paper_states(model, history)[-1]), abs=1e-12)


@pytest.mark.parametrize(
    "settings", [{"loss": loss} for loss in get_args(TopKLoss)] + [{"loss": "bpr-max", "elu": 0.5}]
)
@pytest.mark.parametrize("logq", [True, False])
def test_the_loss_is_that_of_the_equations(settings: dict[str, Any], logq: bool) -> None:
    model = model_of(logq=logq, **settings).train()
    data = make_dataset(HISTORIES, catalogue=range(1, N_ITEMS + 1))
    batch = prepared(model, data).batch(np.array([2, 0, 3]), np.random.default_rng(1))
    expected, position = 0.0, 0
    negatives = batch.negatives.numpy()
    for row, length in enumerate(batch.lengths.tolist()):
        states = paper_states(model, batch.items[row, :length].tolist())
        for state in states:
            scores = paper_scores(model, state)
            target = int(batch.targets[position])
            others = negatives != target
            correction = batch.log_counts.numpy()[others] if logq and settings["loss"] == "cross-entropy" else 0.0
            drawn = scores[negatives[others]]
            expected += paper_loss(settings["loss"], scores[target], drawn, model.config, np.asarray(correction))
            position += 1
    assert model(batch).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["bpr_max", "top1_max", "top1", "bpr"])
def test_a_position_without_negatives_has_loss_0_and_a_gradient(name: str) -> None:
    targets = torch.zeros(2, requires_grad=True)
    counted = torch.tensor([[False, False], [True, False]])
    options = (1.0,) if name == "bpr_max" else ()
    both = getattr(losses, name)(targets, torch.ones(2, 2), counted, *options)
    both.backward()
    alone = getattr(losses, name)(targets[1:], torch.ones(1, 1), counted[1:, :1], *options)
    assert both.item() == pytest.approx(alone.item())
    assert targets.grad is not None and targets.grad[0] == 0 and targets.grad[1].isfinite()


@pytest.mark.slow
@pytest.mark.parametrize("loss", get_args(TopKLoss))
def test_every_loss_learns_the_walk(loss: TopKLoss) -> None:
    config = GRU4Rec(width=16, dropout_input=0.0, dropout_hidden=0.0, negatives=16, loss=loss)
    data = cycle_dataset(24, 8, 6)
    training = segue.Training(epochs=80, batch_size=6, learning_rate=0.01, cpu=True, averaging=0.0)
    fitted = segue.fit(config, data, training=training, quiet=True)
    lists = fitted.recommend(histories=[[1, 2, 3], [6, 7, 8]], k=1)
    assert lists["item"].to_list() == [4, 1]


def test_the_published_setting() -> None:
    config = GRU4Rec.as_published()
    assert (config.loss, config.negatives, config.elu, config.width) == ("bpr-max", 2048, 0.5, 100)
