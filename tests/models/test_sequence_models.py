"""Models with an encoder of their own, compared with the equations of their papers (`paper_sequences.py`)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import segue
from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.models.next_item import NextItemBatch
from segue.models.sequence_model import CausalModel, SequenceModel
from tests.helpers import make_dataset, prepared, queries_of
from tests.models import paper, paper_sequences

N_ITEMS, MAX_LENGTH = 11, 5
HISTORIES = [[3], [1, 2], [5, 5, 4, 9], [2, 7, 1, 8, 10], [4, 11, 6, 3, 1, 9, 9, 2], [8, 1, 6, 2, 3, 5, 7]]
TIMES = [[7], [0, 90], [5, 5, 6, 400], [0, 8, 9, 9, 10**7], [1, 2, 4, 8, 16, 32, 64, 128], [3, 3, 3, 50, 51, 99, 2000]]
SMALL: dict[str, Any] = {"width": 12, "max_length": MAX_LENGTH, "windows": "newest", "repeats": False, "dropout": 0.4}
CONFIGS: dict[str, Any] = {
    "hstu": segue.HSTU(**SMALL),
    "hstu-heads": segue.HSTU(heads=3, blocks=1, time_bias=True, **SMALL),
    "hstu-relative": segue.HSTU(heads=2, positions="relative", time_bias=True, similarity="dot", **SMALL),
    "hstu-absolute": segue.HSTU(positions="absolute", **SMALL),
}
LOSSES: list[dict[str, Any]] = [
    {"loss": "softmax"},
    {"loss": "sampled-softmax", "negatives": 9, "in_batch": 0.5},
    {"loss": "gbce", "negatives": 3},
]


def built(config: Any, **settings: Any) -> Any:
    """Module in float64 whose parameters are all random, in evaluation mode."""
    model = replace(config, **settings).build(len(HISTORIES), N_ITEMS)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
            if name.endswith("norm.weight"):
                parameter.add_(1.0)
    if model.config.reads_times:
        model.encoder.gap.fill_(7)
    return model.double().eval()


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().astype(np.float64) for name, value in model.state_dict().items()}


def paper_states(model: SequenceModel, items: list[int], times: list[int] | None) -> np.ndarray:
    """Hidden states (length, width) of a history that is no longer than `max_length`."""
    own, config = arrays(model), model.config
    x = own["items.weight"][items]
    assert isinstance(config, segue.HSTU)
    return paper_sequences.hstu(own, x, config.blocks, config.heads, MAX_LENGTH, times if config.time_bias else None)


def paper_scores(model: SequenceModel, states: np.ndarray) -> np.ndarray:
    """Scores (n, n_items + 1) of hidden states (n, width)."""
    table = arrays(model)["items.weight"]
    if model.config.similarity == "dot":
        return paper.dot(states, table)
    return paper.cosine(states, table, model.config.temperature)


def paper_loss(model: SequenceModel, batch: NextItemBatch) -> float:
    states = []
    for row, (user, length) in enumerate(zip(batch.users.tolist(), batch.lengths.tolist(), strict=True)):
        times = TIMES[user - 1][:-1][-MAX_LENGTH:]
        states.append(paper_states(model, batch.items[row, :length].tolist(), times))
    scores = paper_scores(model, np.concatenate(states))
    targets, negatives = batch.targets.numpy(), batch.negatives.numpy()
    config = model.config
    if config.loss == "gbce":
        return paper.gbce(scores, targets, negatives, config.calibration)
    if config.loss == "sampled-softmax":
        return paper.sampled_softmax(scores, targets, negatives, np.exp(batch.log_counts.numpy().astype(np.float64)))
    return paper.full_softmax(scores, targets)


def timed_histories() -> Histories:
    times = np.concatenate([np.array(row, np.int64) for row in TIMES])
    return replace(Histories.from_lists(HISTORIES), times=times)


def states_of(model: SequenceModel, items: list[list[int]], lengths: list[int]) -> torch.Tensor:
    codes = torch.tensor(items)
    ages = torch.zeros_like(codes) if model.config.reads_times else None
    return model.hidden_states(model.items(codes), codes, torch.tensor(lengths), ages)


def close(actual: torch.Tensor, expected: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_those_of_the_equations(name: str) -> None:
    model = built(CONFIGS[name])
    rows = [paper_states(model, *(row[-MAX_LENGTH:] for row in pair)) for pair in zip(HISTORIES, TIMES, strict=True)]
    scores = model.scores().all(queries_of(model, timed_histories()), 0, N_ITEMS + 1)
    close(scores, paper_scores(model, np.stack([row[-1] for row in rows])))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss["loss"])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_and_its_gradients_are_those_of_the_equations(name: str, loss: dict[str, Any]) -> None:
    model = built(CONFIGS[name], **loss)
    dataset = make_dataset(HISTORIES, TIMES, catalogue=range(1, N_ITEMS + 1))
    examples = prepared(model, dataset)
    batch = examples.batch(np.array([3, 0, 2, 4]), np.random.default_rng(3))
    value = model(batch)
    close(value, paper_loss(model, batch), 1e-6 if loss["loss"] == "sampled-softmax" else 1e-10)
    value.backward()
    generator = torch.Generator().manual_seed(11)
    for own, parameter in model.named_parameters():
        step = 1e-5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None, own
        values, kept = [], parameter.detach().clone()
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(sign * step)
                values.append(paper_loss(model, batch))
                parameter.copy_(kept)
        along = float((parameter.grad * step).sum())
        assert along == pytest.approx((values[0] - values[1]) / 2, rel=1e-5, abs=1e-11), own


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_and_its_content_change_nothing(name: str) -> None:
    model = built(CONFIGS[name])
    narrow = states_of(model, [[1, 2, 0], [4, 5, 6]], [2, 3]).detach()
    for items in ([[1, 2, 0, 0, 0], [4, 5, 6, 0, 0]], [[1, 2, 8, 8, 8], [4, 5, 6, 7, 7]]):
        wide = states_of(model, items, [2, 3])
        close(wide[0, :2], narrow[0, :2], 1e-12)
        close(wide[1, :3], narrow[1, :3], 1e-12)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_later_item_changes_nothing_before_it(name: str, training: bool) -> None:
    model = built(CONFIGS[name]).train(training)
    if not isinstance(model, CausalModel):
        pytest.skip("reads both directions")
    states = []
    for row in ([1, 2, 3, 4, 5], [1, 2, 3, 9, 7]):
        torch.manual_seed(0)
        states.append(states_of(model, [row], [5]))
    assert torch.equal(states[0][:, :3], states[1][:, :3])
    assert not torch.allclose(states[0][:, 3], states[1][:, 3])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_query_depends_on_the_newest_items_alone(name: str) -> None:
    model = built(CONFIGS[name])
    together = queries_of(model, timed_histories()).detach()
    for row in range(len(HISTORIES)):
        alone = timed_histories().select(slice(row, row + 1))
        close(queries_of(model, alone), together[row : row + 1], 1e-12)
        close(queries_of(model, alone.last(MAX_LENGTH)), together[row : row + 1], 1e-12)


def test_hstu_reads_times_if_there_are_any() -> None:
    timed = make_dataset(HISTORIES, TIMES, catalogue=range(1, N_ITEMS + 1))
    assert segue.HSTU().resolved(timed).time_bias is True
    assert segue.HSTU().resolved(replace(timed, times=None)).time_bias is False
    assert segue.HSTU(time_bias=False).resolved(timed).time_bias is False


def test_hstu_checks_its_heads() -> None:
    with pytest.raises(ConfigError, match="heads=3"):
        segue.HSTU(heads=3)


def test_the_published_setting_of_hstu() -> None:
    config = segue.HSTU.as_published()
    assert (config.loss, config.negatives, config.temperature, config.width) == ("sampled-softmax", 128, 0.05, 50)
