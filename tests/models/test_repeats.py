"""Repeats in SASRec, SSE-PT, GRU4Rec and PARSRec, compared with an independent float64 NumPy implementation."""

from __future__ import annotations

from dataclasses import replace
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.errors import ConfigError, DataError, TrainingError
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS, all_queries
from segue.models import repeats
from segue.models.base import TrainableModel
from segue.models.parsrec import parsrec
from segue.models.repeats import Repeats, repeat_inputs
from segue.models.scores import AddedScores, ProductScores
from tests.helpers import make_dataset, prepared, queries_of
from tests.models.test_parity import arrays, close, randomised

N_ITEMS = 20
SESSIONS = [
    [[3, 9, 4], [5, 9], [9, 10, 4, 2], [7, 9, 4]],
    [[1, 2], [2, 1, 19, 20, 6], [2, 6]],
    [[12]],
    [[13, 14], [13, 15, 16], [17, 18, 13], [13, 14, 3]],
]
SMALL: dict[str, Any] = {"blocks": 1, "max_length": 12, "positions": "relative", "repeats": True}
"""Windows that hold whole histories, and positions that do not depend on the window."""
NO_SWAPS: dict[str, Any] = {"swap_user": 0.0, "swap_item": 0.0, "swap_target": 0.0}
CONFIGS: dict[str, Any] = {
    "sasrec": segue.SASRec(width=8, similarity="dot", loss="softmax", **SMALL),
    "sasrec-cosine": segue.SASRec(width=8, temperature=0.3, loss="softmax", **SMALL),
    "sasrec-sampled": segue.SASRec(width=8, loss="sampled-softmax", negatives=7, **SMALL),
    "ssept": segue.SSEPT(item_width=6, user_width=4, loss="softmax", **NO_SWAPS, **SMALL),
    "ssept-sampled": segue.SSEPT(item_width=6, user_width=4, loss="sampled-softmax", negatives=7, **NO_SWAPS, **SMALL),
    "gru4rec": segue.GRU4Rec(width=8, max_length=12, negatives=9, repeats=True),
    "lrurec": segue.LRURec(width=8, blocks=1, max_length=12, loss="softmax", dropout=0.0, repeats=True),
    "hstu": segue.HSTU(width=8, loss="sampled-softmax", negatives=7, dropout=0.0, **SMALL),
}
TARGETS = ["item", "session"]


def world(times: bool = True) -> Dataset:
    rows = [[item for session in sessions for item in session] for sessions in SESSIONS]
    stamps = [[40 * number**2 for number, session in enumerate(user) for _ in session] for user in SESSIONS]
    data = make_dataset(rows, stamps if times else None, catalogue=range(1, N_ITEMS + 1))
    lengths = [len(session) for sessions in SESSIONS for session in sessions]
    return replace(data, session_offsets=offsets_of(np.array(lengths)))


def addition(weights: dict[str, np.ndarray], features: Any, item: int) -> float:
    """Addition of an item with these features, in plain NumPy."""
    count, ago, age, fast, slow, time_ago, time_age, steps = (float(value) for value in features)
    gap = float(weights["repeats.gap"])
    time_ago, time_age = (ago, age) if time_ago < 0 else (time_ago / gap, time_age / gap)
    pace, time_pace = 0.0, 0.0
    if count > 1:
        pace = np.log((ago + 1) / ((age - ago) / (count - 1) + 1))
        time_pace = np.log((time_ago + 1) / ((time_age - time_ago) / (count - 1) + 1))
    logs = [np.log(count), np.log1p(ago), np.log(fast + 1e-3), np.log(slow + 1e-3), pace]
    x = np.array([*logs, np.log1p(time_ago), time_pace, np.log1p(age), np.log(steps)])
    hidden = weights["repeats.hidden.weight"] @ x + weights["repeats.hidden.bias"]
    hidden = np.array([value * (1 + erf(value / np.sqrt(2))) / 2 for value in hidden])
    linear = weights["repeats.linear.weight"][0] @ x + weights["repeats.linear.bias"][0]
    return float(linear + weights["repeats.output.weight"][0] @ hidden + weights["repeats.biases.weight"][item, 0])


def build(config: Any, dtype: torch.dtype = torch.float64) -> Any:
    model = randomised(config.build(len(SESSIONS), N_ITEMS), dtype)
    model.repeats.gap.fill_(30)
    return model


def base_of(model: Any) -> Any:
    """Return the model without its repeats, with the same weights."""
    other = replace(model.config, repeats=False).build(len(SESSIONS), N_ITEMS).to(torch.float64).eval()
    other.load_state_dict({name: value for name, value in model.state_dict().items() if "repeats." not in name})
    return other


def scores_by_hand(model: Any, histories: Histories) -> np.ndarray:
    """Scores of the model without repeats, plus the additions of a loop over histories and items."""
    base = base_of(model)
    scores = base.scores().all(queries_of(base, histories), 0, N_ITEMS + 1).detach().numpy().copy()
    items, features = repeat_inputs(histories)
    for row in range(len(histories)):
        for item, values in zip(items[row].tolist(), features[row].numpy(), strict=True):
            if item:
                scores[row, item] += addition(arrays(model), values, item)
    return scores


@pytest.mark.parametrize("times", [True, False], ids=["times", "no times"])
@pytest.mark.parametrize("name", [*CONFIGS, "parsrec"])
def test_scores_are_those_of_the_model_plus_additions(name: str, times: bool) -> None:
    config = CONFIGS.get(name) or segue.PARSRec(user_width=4, item_width=6, repeats=True)
    model = build(config)
    histories = world(times).histories()
    queries, expected = queries_of(model, histories), scores_by_hand(model, histories)
    close(model.scores().all(queries, 0, N_ITEMS + 1)[:, 1:], expected[:, 1:], 1e-9)
    parts = [model.scores().all(queries, start, start + 7) for start in (0, 7, 14)]
    close(torch.cat(parts, dim=1)[:, 1:], expected[:, 1:], 1e-9)
    items = torch.tensor([[2, 20, 9, 13], [9, 9, 1, 3], [12, 1, 2, 3], [13, 14, 3, 20]])
    close(model.scores().of(queries, items), np.take_along_axis(expected, items.numpy(), 1), 1e-9)


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_training_loss_is_that_of_all_scores(name: str, targets: str) -> None:
    """Sampled losses are compared with their own sum, over the history and the negatives outside of it."""
    model = build(replace(CONFIGS[name], targets=targets))
    data = world()
    examples = prepared(model, data)
    randomised(model, torch.float64)
    model.repeats.gap.fill_(30)
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    expected = 0.0
    for place, code in zip(*targets_of(data, targets), strict=True):
        start = data.starts[code]
        end = place
        if targets == "session":
            end = data.session_offsets[np.searchsorted(data.session_offsets, place, side="right") - 1]
        history = replace(data.histories(np.array([code])), ends=np.array([end]))
        scores = scores_by_hand(model, history)[0].copy()
        target = int(data.items[place])
        seen = set(data.items[start:end].tolist())
        terms = [scores[item] for item in range(1, N_ITEMS + 1) if item != target]
        if len(batch.negatives):
            own = [scores[item] for item in seen if item != target]
            drawn = zip(batch.negatives.tolist(), batch.log_counts.tolist(), strict=True)
            terms = own + [scores[item] - log for item, log in drawn if item != target and item not in seen]
        expected += np.log(np.exp([scores[target], *terms]).sum()) - scores[target]
    close(model(batch), expected, 1e-6)


def targets_of(data: Dataset, targets: str) -> tuple[np.ndarray, np.ndarray]:
    """Positions and users of all targets."""
    users = np.repeat(np.arange(data.n_users + 1), np.diff(data.offsets))
    places = np.arange(len(data.items))
    firsts = data.starts[users]
    if targets == "session":
        session = np.searchsorted(data.session_offsets, places, side="right") - 1
        kept = data.session_offsets[session] > firsts
    else:
        kept = places > firsts
    kept &= places < data.ends[users]
    return places[kept], users[kept]


@pytest.mark.parametrize("name", [*CONFIGS, "parsrec", "parsrec-sampled"])
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    loss = "sampled-softmax" if name == "parsrec-sampled" else "softmax"
    own = segue.PARSRec(user_width=4, item_width=6, loss=loss, negatives=9, dropout=0.0, repeats=True)
    model = build(CONFIGS.get(name) or own)
    examples = prepared(model, world())
    randomised(model, torch.float64)
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    model(batch).backward()
    generator = torch.Generator().manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None, parameter_name
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter.add_(direction, alpha=sign * 1e-6)
                values.append(float(model(batch)))
        slope = (values[0] - values[1]) / 2e-6
        found = float((parameter.grad * direction).sum())
        assert found == pytest.approx(slope, rel=1e-4, abs=1e-5), parameter_name


@pytest.mark.parametrize("with_repeats", [True, False], ids=["repeats", "no repeats"])
@pytest.mark.parametrize("loss", ["softmax", "sampled-softmax"])
def test_the_loss_of_parsrec_is_that_of_its_scores(
    loss: str, with_repeats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores are those of the baskets on the way, which other tests compare with the paper."""
    columns: list[np.ndarray] = []
    original = parsrec._first_best

    def spy(*arguments: Any) -> torch.Tensor:
        columns.append(original(*arguments)[:, 0].numpy())
        return original(*arguments)

    monkeypatch.setattr(parsrec, "_first_best", spy)
    config = segue.PARSRec(user_width=4, item_width=6, loss=loss, negatives=9, dropout=0.0, repeats=with_repeats)
    model = randomised(config.build(len(SESSIONS), N_ITEMS), torch.float64)
    data = world()
    examples = prepared(model, data)
    randomised(model, torch.float64)
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    if loss == "softmax" and not with_repeats:
        pytest.skip("the loss over the whole catalogue has tests of its own")
    found = float(model(batch).detach())
    expected = 0.0
    order = np.argsort(-examples.lengths, kind="stable")
    for row, session in enumerate(order):
        end, basket = int(examples.ends[session]), []
        code = int(examples.users[session])
        for step in range(int(batch.lengths[row])):
            target = int(batch.items[row, columns[step][row]])
            scores = scores_after(model, data, code, end, basket)
            remaining = set(batch.items[row, : int(batch.lengths[row])].tolist()) - set(basket)
            if loss == "softmax" and int(scores[1:].argmax()) + 1 in remaining:
                assert target == int(scores[1:].argmax()) + 1
            seen = set(data.items[data.starts[code] : end].tolist()) if with_repeats else set()
            terms = [scores[item] for item in range(1, N_ITEMS + 1) if item != target]
            if loss == "sampled-softmax":
                drawn = zip(batch.negatives.tolist(), batch.log_counts.tolist(), strict=True)
                terms = [scores[item] for item in seen if item != target]
                terms += [scores[item] - log for item, log in drawn if item != target and item not in seen]
            expected += np.log(np.exp([scores[target], *terms]).sum()) - scores[target]
            basket.append(target)
    assert found == pytest.approx(expected, rel=1e-6)


def scores_after(model: TrainableModel, data: Dataset, code: int, end: int, basket: list[int]) -> np.ndarray:
    """Scores of all items after the history of a user up to `end` and a basket."""
    start = int(data.starts[code])
    items = np.concatenate([data.items[start:end], basket]).astype(np.int32)
    assert data.times is not None and data.session_offsets is not None
    times = np.concatenate([data.times[start:end], np.zeros(len(basket), dtype=np.int64)])
    inside = data.session_offsets[(data.session_offsets >= start) & (data.session_offsets <= end)] - start
    one, begin = np.array([0]), np.array([end - start])
    histories = Histories(np.array([code]), items, one, np.array([len(items)]), times, begin, inside)
    scores: np.ndarray = model.scores().all(queries_of(model, histories), 0, N_ITEMS + 1)[0].detach().numpy()
    return scores


def test_a_sample_of_a_long_history_stands_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "PAIRS", 1)
    monkeypatch.setattr(repeats, "_FEWEST", 2)
    model = build(CONFIGS["sasrec"])
    examples = prepared(model, world())
    counts = np.zeros(N_ITEMS + 1)
    for seed in range(400):
        drawn = examples.batch(np.array([2]), np.random.default_rng(seed)).repeats
        counts += np.bincount(drawn.items[-1].numpy(), drawn.log_weights[-1:].exp().expand(2).numpy(), N_ITEMS + 1)
    owned = {13, 14, 15, 16, 17, 18}
    assert {int(item) for item in np.flatnonzero(counts)} <= owned | {0}
    assert all(abs(counts[item] / 400 - 1) < 0.25 for item in owned)


def test_batches_of_queries_of_different_widths_are_joined() -> None:
    model = build(CONFIGS["sasrec"], torch.float32)
    scorer = Scorer.of(model)
    histories = world().histories()
    queries = all_queries(scorer, histories, replace(LIMITS, histories=1))
    alone = [scorer.score_all(scorer.queries(histories.select(slice(row, row + 1))), 1, 21) for row in range(4)]
    assert torch.allclose(scorer.score_all(queries, 1, 21), torch.cat(alone), atol=1e-5)
    items = torch.arange(1, 21).expand(4, -1)
    assert torch.allclose(scorer.score_items(queries, items), torch.cat(alone), atol=1e-5)


def test_scores_without_any_history() -> None:
    vectors = torch.randn(5, 3)
    scores = AddedScores(ProductScores(vectors), 3)
    assert torch.equal(scores.of(torch.ones(2, 3), torch.tensor([[1], [2]])), vectors[1:3].sum(1, keepdim=True))


def test_the_first_scores_count() -> None:
    """Before training the additions are logarithms of the decayed counts, plus a constant."""
    data = world()
    part = Repeats(N_ITEMS)
    part.prepare(data)
    items, features = repeat_inputs(data.histories())
    added = part(features, items)[items > 0]
    assert torch.allclose(added - part.linear.bias, (features[..., 4][items > 0] + 1e-3).log(), atol=1e-5)


def test_repeats_follow_the_data() -> None:
    unique = make_dataset([[1, 2, 3], [2, 4]])
    for config in (segue.SASRec(), segue.GRU4Rec(), segue.SSEPT(loss="softmax"), segue.PARSRec()):
        assert config.resolved(world()).repeats is True
        assert config.resolved(unique).repeats is False
        assert replace(config, repeats=False).resolved(world()).repeats is False
        assert replace(config, repeats=True).resolved(unique).repeats is True
    assert segue.SSEPT().resolved(world()).repeats is False  # its loss is no softmax


@pytest.mark.parametrize("config", [segue.SASRec, segue.SSEPT, segue.GRU4Rec, segue.PARSRec])
def test_the_published_settings_have_no_repeats(config: Any) -> None:
    assert config.as_published().resolved(world()).repeats is False
    assert config.formerly["repeats"] is False


@pytest.mark.parametrize(
    ("config", "loss"),
    [(segue.SASRec, "bce"), (segue.SSEPT, "gbce"), (segue.GRU4Rec, "bpr-max"), (segue.PARSRec, "mse")],
)
def test_repeats_need_a_softmax(config: Any, loss: str) -> None:
    with pytest.raises(ConfigError, match=f"repeats=True goes with a softmax, and loss='{loss}' is none"):
        config(repeats=True, loss=loss)


def test_targets_of_sessions_need_two_sessions() -> None:
    config = segue.SASRec(targets="session", width=4)
    with pytest.raises(DataError, match="no sessions"):
        segue.fit(config, make_dataset([[1, 2, 3]]), quiet=True)
    data = make_dataset([[1, 2, 3]])
    with pytest.raises(TrainingError, match="no user has two sessions"):
        segue.fit(config, replace(data, session_offsets=np.array([0, 3])), quiet=True)
    with pytest.raises(ConfigError, match="expected targets='item'"):
        segue.SSEPT(targets="session", random_window=0.5)


def test_a_saved_model_gives_the_same_lists(tmp_path: Path) -> None:
    training = segue.Training(epochs=2, cpu=True)
    fitted = segue.fit(segue.SASRec(width=8, blocks=1), world(), training=training, quiet=True)
    assert fitted.model.config.repeats is True  # type: ignore[attr-defined]
    fitted.save(tmp_path / "saved")
    opened = segue.load(tmp_path / "saved")
    assert opened.recommend(segue.EVERYONE, k=5, exclude_seen=False).equals(
        fitted.recommend(segue.EVERYONE, k=5, exclude_seen=False)
    )
