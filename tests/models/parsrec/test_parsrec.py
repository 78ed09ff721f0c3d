"""PARSRec, compared with an independent float64 NumPy implementation with the same random choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.errors import ConfigError, TrainingError
from segue.models.parsrec import parsrec
from segue.models.parsrec.attention import BasketAttention, BasketGradient
from segue.models.parsrec.parsrec import PARSRec, PARSRecModel
from tests.helpers import make_dataset, prepared, queries_of
from tests.models.parsrec import paper
from tests.models.test_parity import PRECISIONS, arrays, close, randomised

N_USERS, N_ITEMS = 5, 20
SHAPES = [{"blocks": 1, "heads": 2}, {"blocks": 3, "heads": 1}, {"blocks": 2, "heads": 4}]


def build(dtype: torch.dtype, **settings: Any) -> PARSRecModel:
    model = PARSRec(**{"user_width": 8, "item_width": 4, "dropout": 0.4, **settings}).build(N_USERS, N_ITEMS)
    randomised(model, dtype)
    model.users.known[1:4] = True
    return model


def user_vector(model: PARSRecModel, user: int) -> np.ndarray:
    table, known = arrays(model)["users.weight"], model.users.known.numpy()
    return table[user] if known[user] else table[known].mean(0)


CASES = [
    (1, [3, 9, 3, 14], [7, 2, 5]),
    (2, [4], []),
    (3, [], [11]),
    (0, [6, 6, 8], [1, 20]),
    (5, [], [19, 18, 17, 16]),
    (1, [2, 1], [3]),
]


def cases_as_histories() -> Histories:
    """Return the cases as histories followed by baskets."""
    joined = [history + basket for _, history, basket in CASES]
    histories = Histories.from_lists(joined, np.array([user for user, _, _ in CASES]))
    baskets = histories.starts + np.array([len(history) for _, history, _ in CASES])
    return Histories(histories.users, histories.items, histories.starts, histories.ends, baskets=baskets)


def sessions_of(rows: list[list[list[int]]]) -> Dataset:
    """Return a Dataset of users (rows) with sessions. All item codes occur, so codes equal positions in the list."""
    flat = [[item for session in sessions for item in session] for sessions in rows]
    data = make_dataset(flat, catalogue=range(1, N_ITEMS + 1))
    lengths = [len(session) for sessions in rows for session in sessions]
    return Dataset(data.items, data.offsets, data.users, data.catalogue, session_offsets=offsets_of(np.array(lengths)))


SESSIONS = [
    [[3, 9, 4], [5], [9, 10, 11, 2], [7, 8]],
    [[1, 2], [2, 1, 19, 20, 6]],
    [[12]],
    [[13, 14], [13, 15, 16], [17, 18, 13]],
]


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores_and_attention_are_the_papers(shape: dict[str, int], dtype: torch.dtype, tolerance: float) -> None:
    model = build(dtype, **shape)
    scores = model.scores().all(queries_of(model, cases_as_histories()), 0, N_ITEMS + 1)
    attention = model.attention(cases_as_histories())
    for row, (user, history, basket) in enumerate(CASES):
        expected = paper.walk(arrays(model), user_vector(model, user), history, basket, shape["heads"])
        close(scores[row], expected.scores, tolerance)
        n = len(basket)
        if n:
            close(attention.weights[row, :, :, :n], expected.attention, tolerance)
        assert not attention.weights[row, :, :, n:].any()
        positions = attention.places[row]
        assert cases_as_histories().items[positions[:n]].tolist() == basket and (positions[n:] == -1).all()


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed twice"])
@pytest.mark.parametrize("loss", ["softmax", "bce", "mse"])
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_targets_and_summed_loss_are_the_papers(
    shape: dict[str, int],
    dtype: torch.dtype,
    tolerance: float,
    loss: str,
    stored: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not stored:
        monkeypatch.setattr(parsrec, "_KEPT_BYTES", 0)
        monkeypatch.setattr(parsrec, "_CHUNK_BYTES", 300)  # several chunks of the catalogue
    chosen = spied_targets(monkeypatch)
    model = build(dtype, loss=loss, **shape)
    examples = prepared(model, sessions_of(SESSIONS))
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    loss_sum = model(batch)  # in evaluation mode, without dropout
    total, by_step = 0.0, {}
    histories = histories_of(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        order = batch.items[row, :length].tolist()
        user = arrays(model)["users.weight"][int(batch.users[row])]
        one, targets = paper.learn(arrays(model), user, histories[row], order, shape["heads"], loss)
        total += one
        by_step |= {(step, row): target for step, target in enumerate(targets)}
    close(loss_sum, total, tolerance * 10)
    assert (chosen[0] + 1).tolist() == [by_step[key] for key in sorted(by_step)]


def spied_targets(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Record the targets that the model chooses, step by step."""
    chosen: list[torch.Tensor] = []
    original = parsrec.catalogue_loss

    def spy(name: Any, vectors: Any, items: Any, targets: torch.Tensor, scores: Any) -> torch.Tensor:
        chosen.append(targets)
        return original(name, vectors, items, targets, scores)

    monkeypatch.setattr(parsrec, "catalogue_loss", spy)
    return chosen


def histories_of(batch: Any) -> list[list[int]]:
    """Return the histories of the rows of the batch, up to their order."""
    histories = []
    for first, last in zip(batch.offsets[:-1].tolist(), batch.offsets[1:].tolist(), strict=True):
        shares = batch.values[first:last].double()
        counts = (shares * 840).round().int().tolist()  # histories here have at most 8 items
        histories.append(
            [item for item, n in zip(batch.columns[first:last].tolist(), counts, strict=True) for _ in range(n)]
        )
    return histories


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "computed twice"])
@pytest.mark.parametrize("loss", ["softmax", "bce", "mse"])
def test_the_gradient_is_that_of_the_loss(loss: str, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with central differences of the loss, along random directions of each parameter."""
    if not stored:
        monkeypatch.setattr(parsrec, "_KEPT_BYTES", 0)
    model = build(torch.float64, loss=loss, blocks=2, heads=2)
    examples = prepared(model, sessions_of(SESSIONS))
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    model(batch).backward()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None, name
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter.add_(direction, alpha=sign * 1e-6)
                values.append(float(model(batch)))
        slope = (values[0] - values[1]) / 2e-6
        assert float((parameter.grad * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6), name


def test_history_sessions_limit_the_history() -> None:
    model = build(torch.float64, history_sessions=2)
    everything = build(torch.float64)
    data = sessions_of(SESSIONS)
    whole = data.histories(np.array([1, 4]))
    last = Histories.from_lists([[9, 10, 11, 2, 7, 8], [13, 15, 16, 17, 18, 13]], whole.users)
    assert torch.allclose(queries_of(model, whole), queries_of(everything, last))
    assert not torch.allclose(queries_of(everything, whole), queries_of(everything, last))
    none = build(torch.float64, history_sessions=0)
    bare = Histories(whole.users, whole.items, whole.ends, whole.ends)
    assert torch.allclose(queries_of(none, whole), queries_of(everything, bare))


def test_examples_mark_their_users_as_known() -> None:
    model = PARSRec(user_width=4, item_width=4).build(5, N_ITEMS)
    prepared(model, sessions_of([*SESSIONS, []]))
    assert model.users.known.tolist() == [False, True, True, True, True, False]


def test_the_first_basket_of_an_unknown_user_has_scores() -> None:
    model = PARSRec(user_width=4, item_width=4).build(5, N_ITEMS).eval()
    assert queries_of(model, Histories.from_lists([[3]])).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide user_width . item_width = 256"),
        ({"item_width": 0}, "item_width=0: expected 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"loss": "cce"}, "loss='cce': expected softmax"),
        ({"history_sessions": -1}, "history_sessions=-1"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PARSRec(**settings)


def test_nothing_to_learn() -> None:
    data = sessions_of(SESSIONS)
    with pytest.raises(segue.SegueError, match="no sessions"):
        PARSRec().build(4, N_ITEMS).examples(make_dataset([[1, 2]], catalogue=range(1, N_ITEMS + 1)))
    with pytest.raises(TrainingError, match="no session is visible"):
        PARSRec().build(4, N_ITEMS).examples(data.until(data.starts))


@pytest.mark.parametrize("blocks", [1, 2])
def test_the_gradient_of_the_baskets_is_that_of_each_step(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed once for all steps; step by step, as torch does it, it is the same."""
    model = build(torch.float64, loss="sampled-softmax", negatives=12, blocks=blocks)
    examples = prepared(model, sessions_of(SESSIONS))
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(3))
    assert int(batch.lengths.max()) > int(batch.lengths.min()) > 0

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        torch.manual_seed(5)  # the same dropout
        model(batch).backward()
        return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}

    once = gradients()
    plain = BasketAttention.forward
    monkeypatch.setattr(BasketGradient, "token", lambda self, basket: setattr(self, "basket", basket))

    def by_steps(self: Any, query: Any, mapped: Any, basket: Any, inside: Any, composed: Any, gradient: Any) -> Any:
        assert gradient is not None
        return plain(self, query, mapped, gradient[0].basket[: len(basket), : basket.shape[1]], inside, composed)

    monkeypatch.setattr(BasketAttention, "forward", by_steps)
    for name, gradient in gradients().items():
        torch.testing.assert_close(once[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
