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
    "bert4rec": segue.BERT4Rec(masked=0.4, newest_every=2, **SMALL),
    "bert4rec-blocks": segue.BERT4Rec(
        heads=1, blocks=3, inner_width=7, norm="paper", similarity="dot", masked=0.0, **SMALL
    ),
    "lrurec": segue.LRURec(**SMALL),
    "lrurec-wide": segue.LRURec(blocks=1, inner_width=7, similarity="dot", **SMALL),
    "hstu-absolute": segue.HSTU(positions="absolute", **SMALL),
}
LOSSES: list[dict[str, Any]] = [
    {"loss": "softmax"},
    {"loss": "sampled-softmax", "negatives": 9, "in_batch": 0.5},
    {"loss": "gbce", "negatives": 3},
    {"loss": "softmax", "embedding_l2": 0.1},
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
    """Hidden states (length, width) of a history that is no longer than `max_length`; masked items have code 0."""
    own, config = arrays(model), model.config
    x = own["items.weight"][items]
    if isinstance(config, segue.BERT4Rec):
        return paper_sequences.bert4rec(own, x, np.array(items) == 0, config.blocks, config.heads)
    if isinstance(config, segue.LRURec):
        return paper_sequences.lrurec(own, x, config.blocks)
    assert isinstance(config, segue.HSTU)
    return paper_sequences.hstu(own, x, config.blocks, config.heads, MAX_LENGTH, times if config.time_bias else None)


def paper_scores(model: SequenceModel, states: np.ndarray) -> np.ndarray:
    """Scores (n, n_items + 1) of hidden states (n, width)."""
    table = arrays(model)["items.weight"]
    if model.config.similarity == "dot":
        return paper.dot(states, table)
    return paper.cosine(states, table, model.config.temperature)


def paper_loss(model: SequenceModel, batch: NextItemBatch) -> float:
    states, inputs = [], []
    for row, (user, length) in enumerate(zip(batch.users.tolist(), batch.lengths.tolist(), strict=True)):
        times, items = TIMES[user - 1][:-1][-MAX_LENGTH:], batch.items[row, :length].tolist()
        masked = not isinstance(model, CausalModel)
        states.append(paper_states(model, items, times)[[item == 0 or not masked for item in items]])
        inputs += [item for item in items if item]
    scores = paper_scores(model, np.concatenate(states))
    targets, negatives = batch.targets.numpy(), batch.negatives.numpy()
    config = model.config
    if config.embedding_l2:
        table = arrays(model)["items.weight"]
        squares = (table[inputs] ** 2).sum() + (table[1:] ** 2).sum()
        return paper.full_softmax(scores, targets) + config.embedding_l2 * squares
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
    mask = [] if isinstance(model, CausalModel) else [0]
    pairs = [(items[-MAX_LENGTH:] + mask, times[-MAX_LENGTH:]) for items, times in zip(HISTORIES, TIMES, strict=True)]
    rows = [paper_states(model, *pair) for pair in pairs]
    scores = model.scores().all(queries_of(model, timed_histories()), 0, N_ITEMS + 1)
    close(scores, paper_scores(model, np.stack([row[-1] for row in rows])))


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_and_its_gradients_are_those_of_the_equations(name: str, loss: dict[str, Any]) -> None:
    model = built(CONFIGS[name], **loss)
    dataset = make_dataset(HISTORIES, TIMES, catalogue=range(1, N_ITEMS + 1))
    examples = prepared(model, dataset)
    batch = examples.batch(np.arange(min(4, len(examples.lengths)))[::-1], np.random.default_rng(3))
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


# ---- masks of BERT4Rec ----------------------------------------------------------------------------------------------


def masked_examples(**settings: Any) -> Any:
    config = segue.BERT4Rec(**{"width": 4, "max_length": 7, "loss": "softmax", "repeats": False, **settings})
    lists = [[(start + step) % N_ITEMS + 1 for step in range(3 + start % 11)] for start in range(40)]
    dataset = make_dataset(lists, catalogue=range(1, N_ITEMS + 1))
    return dataset, config, prepared(config.resolved(dataset).build(40, N_ITEMS), dataset)


@pytest.mark.parametrize("masked", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("windows", ["newest", "all"])
def test_a_batch_has_the_masks_of_its_units(masked: float, windows: str) -> None:
    dataset, config, examples = masked_examples(masked=masked, windows=windows, newest_every=4)
    n = len(examples.window_lengths)
    assert len(examples.lengths) == n + n // 4
    for seed in range(3):
        index = np.random.default_rng(seed).permutation(len(examples.lengths))
        batch = examples.batch(index, np.random.default_rng(seed))
        masks = (batch.items == 0) & (torch.arange(batch.items.shape[1]) < batch.lengths[:, None])
        assert torch.equal(masks.flatten().nonzero()[:, 0], batch.positions)
        counts = masks.sum(1).numpy()
        assert (counts == examples.weights[index]).all() and counts.sum() == len(batch.targets)
        whole = batch.items.flatten().index_copy(0, batch.positions, batch.targets).view_as(batch.items)
        for row, unit in enumerate(index.tolist()):
            length = int(batch.lengths[row])
            history = dataset.items[dataset.starts[batch.users[row]] : dataset.ends[batch.users[row]]].tolist()
            window = whole[row, :length].tolist()
            assert any(history[start : start + length] == window for start in range(len(history)))
            assert 2 <= length <= config.max_length + 1 and length <= examples.lengths[unit]
            if unit < n:
                assert counts[row] == max(1, round(masked * length))
            else:
                assert masks[row].nonzero()[:, 0].tolist() == [length - 1]


def test_every_item_is_masked_as_often_as_the_counts_of_the_negatives_say() -> None:
    _, _, examples = masked_examples(
        loss="sampled-softmax", negatives=4, in_batch=0.5, newest_every=2, masked=0.4, windows="all"
    )
    counts = np.zeros(N_ITEMS + 1)
    for seed in range(400):
        batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(seed))
        counts += np.bincount(batch.targets, minlength=N_ITEMS + 1)
    np.testing.assert_allclose(counts / counts.sum(), examples.shared.shares, atol=0.005)


def test_a_mask_is_read_from_both_sides() -> None:
    model = built(CONFIGS["bert4rec"])
    states = [states_of(model, [row], [4])[0, 1] for row in ([3, 0, 5, 6], [4, 0, 5, 6], [3, 0, 5, 7])]
    assert not torch.allclose(states[0], states[1]) and not torch.allclose(states[0], states[2])


def test_the_published_setting_of_bert4rec() -> None:
    config = segue.BERT4Rec.as_published()
    assert (config.loss, config.similarity, config.masked, config.heads, config.max_length) == (
        "softmax",
        "dot",
        0.2,
        2,
        199,
    )
    with pytest.raises(ConfigError, match="heads=3"):
        segue.BERT4Rec(heads=3)


# ---- decays of LRURec -----------------------------------------------------------------------------------------------


def test_the_decays_of_lrurec_start_in_the_ring_of_the_paper() -> None:
    torch.manual_seed(0)
    unit = segue.LRURec(width=200).build(2, 3).encoder.blocks[0].recurrence
    sizes, angles = (-unit.decay.detach().exp()).exp(), unit.angle.detach().exp()
    assert 0.8 <= float(sizes.min()) < 0.81 and 0.98 < float(sizes.max()) <= 0.99
    assert torch.allclose(unit.scale.exp(), (1 - sizes**2).sqrt(), atol=1e-5)
    assert float(angles.min()) > 0 and float(angles.max()) <= 2 * np.pi + 1e-5


def test_the_published_setting_of_lrurec() -> None:
    config = segue.LRURec.as_published()
    assert (config.loss, config.similarity, config.width, config.dropout) == ("softmax", "dot", 64, 0.2)
