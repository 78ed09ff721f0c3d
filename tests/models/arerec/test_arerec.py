"""ARERec, compared with an independent float64 NumPy implementation of its equations."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import numpy as np
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.histories import NOW
from segue.data.ragged import rows_of
from segue.models.arerec import model as arerec_model
from segue.models.arerec.arerec import ARERec
from segue.models.arerec.model import ARERecModel
from segue.models.arerec.neighbours import RatingBatch, RatingExamples
from tests.helpers import make_dataset, prepared
from tests.models.arerec import paper
from tests.models.test_parity import PRECISIONS, arrays, close, randomised

LEVELS = (1.0, 2.0, 3.5, 5.0)
N_USERS, N_ITEMS = 7, 8
ALL_L2 = {f"l2_{name}": 0.01 * n for n, name in enumerate(["query", "key", "value", "concat", "output"], 1)}
MOMENTS = [0, 2, 5, NOW]


def log() -> Dataset:
    """Return ratings with many equal times; the last of 7 users and the last of 8 items have no visible rating."""
    generator = np.random.default_rng(5)
    items: list[list[int]] = []
    times: list[list[int]] = []
    for length in (6, 7, 4, 5, 6, 6, 1):
        items.append((generator.permutation(N_ITEMS - 1)[:length] + 1).tolist())
        times.append(np.sort(generator.integers(0, 6, length)).tolist())
    ratings = [generator.choice(LEVELS, len(row)).tolist() for row in items]
    data = make_dataset(items, times, ratings, catalogue=range(1, N_ITEMS + 1))
    hidden = np.array([0, 0, 0, 0, 0, 0, 2, 1])
    return data.until(data.ends - hidden)


def rows(data: Dataset) -> list[tuple[int, int, float, int]]:
    """Visible ratings as (user, item, rating, time)."""
    assert data.ratings is not None and data.times is not None
    users = rows_of(data.offsets[:-1], data.offsets[1:]).tolist()
    table = list(zip(users, data.items.tolist(), data.ratings.tolist(), data.times.tolist(), strict=True))
    return [table[row] for user in range(len(data.ends)) for row in range(data.starts[user], data.ends[user])]


DATA = log()
TRAINING = rows(DATA)
EVERYTHING = rows(DATA.until(DATA.offsets[1:]))


def build(dtype: torch.dtype = torch.float64, **settings: Any) -> tuple[ARERecModel, RatingExamples]:
    """Build a model with random weights on `DATA`, in evaluation mode, and its examples."""
    sizes = {"width": 8, "region_size": 3, "heads": 2, "history_length": 3, "group": 4, "levels": LEVELS}
    config = ARERec(**{"look_back": "past", **sizes, **settings}).resolved(DATA)
    model = config.build(N_USERS, N_ITEMS)
    examples = prepared(model, DATA)
    return randomised(model, dtype), examples


def histories(config: ARERec) -> dict[int, list[paper.Entry]]:
    return paper.histories(EVERYTHING if config.look_back == "reference" else TRAINING)


def pairs_to_rate() -> tuple[list[int], list[int], list[int]]:
    """Users, items and times in random order, with unknown users and hidden pairs."""
    pairs = list(product(range(N_USERS + 1), range(1, N_ITEMS + 1), MOMENTS))
    chosen = np.random.default_rng(0).permutation(len(pairs))[:150]
    return tuple(map(list, zip(*(pairs[index] for index in chosen), strict=True)))  # type: ignore[return-value]


def expected(model: ARERecModel, user: int, item: int, moment: int) -> paper.Prediction:
    entries = paper.neighbours(model.config, histories(model.config).get(item, []), user, moment)
    return paper.predict(arrays(model), model.config, user, item, entries)


def all_units(examples: RatingExamples) -> np.ndarray:
    return np.arange(len(examples.lengths))


def shapes() -> list[dict[str, Any]]:
    heads, lengths = cycle([1, 2, 4]), cycle([2, 100, 3, 1, 5])
    combinations = []
    for contexts, attention, biases, given, look_back, keep in product(
        ["shared", "interaction"], [True, False], [True, False], [True, False],
        ["past", "train", "reference"], ["newest", "oldest"],
    ):  # fmt: skip
        if not (given and look_back == "reference"):
            shape = {"contexts": contexts, "attention": attention, "biases": biases, "neighbour_ratings": given}
            shape |= {"look_back": look_back, "keep": keep, "heads": next(heads), "history_length": next(lengths)}
            combinations.append(shape)
    return combinations


SHAPES = shapes()


def named(shape: dict[str, Any]) -> str:
    return "-".join(name if value is True else f"no_{name}" if value is False else str(value)
                    for name, value in shape.items())  # fmt: skip


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_probabilities_and_ratings_are_the_papers(shape: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model, _ = build(dtype, **shape)
    users, items, moments = pairs_to_rate()
    rated = model.rate(*map(torch.tensor, (users, items, moments)))
    predictions = [expected(model, *triple) for triple in zip(users, items, moments, strict=True)]
    close(rated.probabilities, np.array([predicted.probabilities for predicted in predictions]), tolerance)
    close(rated.expected, np.array([predicted.expected for predicted in predictions]), tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_the_summed_loss_is_the_papers(shape: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model, examples = build(dtype, l2_agreement=0.02, **ALL_L2, **shape)
    batch = examples.batch(all_units(examples), np.random.default_rng(0))
    assert (batch.users == 0).any(), "no group is smaller than the others"
    weights, whole = arrays(model), histories(model.config)
    predictions, read = [], {0}
    for user, item, rating, time in TRAINING:
        entries = paper.neighbours(model.config, whole[item], user, time)
        # A user's own rating is read for the others of the group.
        read |= {entry.user for entry in paper.neighbours(model.config, whole[item], 0, time)}
        predictions.append((paper.predict(weights, model.config, user, item, entries), LEVELS.index(rating)))
    penalty = paper.penalty(weights, model.config, {0} | {user for user, *_ in TRAINING}, read)
    close(model(batch), paper.loss(predictions) + penalty * len(TRAINING), tolerance * 10)


@pytest.mark.parametrize("shape", [SHAPES[number] for number in range(0, len(SHAPES), 7)], ids=named)
def test_the_gradient_is_that_of_the_loss(shape: dict[str, Any]) -> None:
    """Compare with central differences of the loss, along random directions of each parameter."""
    model, examples = build(l2_agreement=0.02, **ALL_L2, **shape)
    batch = examples.batch(all_units(examples)[::2], np.random.default_rng(0))
    model(batch).backward()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        assert parameter.grad is not None, f"{name} is never used"
        tables = ("regions.k_iu", "regions.k_ui", "asks", "tells", "items")
        sparse = parameter.grad.is_sparse
        if name != "users.weight":  # in evaluation mode their mean is read too
            assert sparse is (name.removesuffix(".weight") in tables), name
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter.add_(direction, alpha=sign * 1e-6)
                values.append(float(model(batch)))
        slope = (values[0] - values[1]) / 2e-6
        gradient = parameter.grad.to_dense() if sparse else parameter.grad
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("cells", [1, 300, 4_000_000])
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[-1]], ids=named)
def test_rate_and_both_scores_agree(shape: dict[str, Any], cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arerec_model, "_CELLS", cells)
    monkeypatch.setattr(arerec_model, "_GROUP", 3)
    model, _ = build(**shape)
    queries = torch.tensor([[user, moment] for user, moment in product(range(N_USERS + 1), MOMENTS)])
    everything = model.scores().all(queries, 0, N_ITEMS + 1)
    items = torch.arange(1, N_ITEMS + 1).expand(len(queries), -1)
    close(model.scores().of(queries, items), everything[:, 1:].detach().numpy(), 1e-12)
    buffer = torch.zeros(len(queries), 4, dtype=torch.float64)
    assert model.scores().all(queries, 3, 7, buffer) is buffer
    close(buffer, everything[:, 3:7].detach().numpy(), 1e-12)
    ratings = [[expected(model, user, item, moment).expected for item in range(1, N_ITEMS + 1)]
               for user, moment in queries.tolist()]  # fmt: skip
    close(everything[:, 1:], np.array(ratings), 1e-10)


def test_no_pairs_give_empty_results() -> None:
    model, _ = build()
    model.requires_grad_(False)
    none = torch.zeros(0, dtype=torch.long)
    rated = model.rate(none, none, none)
    assert rated.expected.shape == (0,) and rated.probabilities is not None and rated.probabilities.shape == (0, 4)
    assert model.scores().all(torch.zeros(0, 2, dtype=torch.long), 2, 6).shape == (0, 4)
    assert model.neighbours(none, none, none).rows.shape == (0,)
    assert model.neighbours(*(torch.tensor([one]) for one in (1, N_ITEMS, NOW))).rows.shape == (0,)


@pytest.mark.parametrize("shape", SHAPES, ids=named)
def test_neighbours_are_those_that_decided(shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arerec_model, "_CELLS", 400)  # a few pairs at a time
    model, _ = build(**shape)
    config, weights, whole = model.config, arrays(model), histories(model.config)
    users, items, moments = (column[:25] for column in pairs_to_rate())
    with torch.no_grad():
        neighbours = model.neighbours(*map(torch.tensor, (users, items, moments)))
    first = 0
    for row, (user, item, moment) in enumerate(zip(users, items, moments, strict=True)):
        entries = paper.neighbours(config, whole.get(item, []), user, moment)
        part = slice(first, first + len(entries))
        first += len(entries)
        assert (neighbours.rows[part] == row).all() and len(neighbours.rows[part]) == len(entries)
        predicted = paper.predict(weights, config, user, item, entries)
        assert neighbours.users[part].tolist() == [entry.user for entry in entries]
        assert neighbours.ratings[part].tolist() == [entry.rating for entry in entries]
        assert neighbours.positions[part].tolist() == [entry.position for entry in entries]
        assert neighbours.times is not None and neighbours.times[part].tolist() == [entry.time for entry in entries]
        without = [
            paper.predict(weights, config, user, item, entries[:column] + entries[column + 1 :]).expected
            for column in range(len(entries))
        ]
        np.testing.assert_allclose(neighbours.effects[part], predicted.expected - np.array(without), atol=1e-10)
        if entries:
            np.testing.assert_allclose(neighbours.decided[part], predicted.decided, atol=1e-6)
        assert (neighbours.agreement is not None) is config.neighbour_ratings
        if neighbours.agreement is not None and entries:
            np.testing.assert_allclose(neighbours.agreement[part], predicted.agreement, atol=1e-10)
        assert (neighbours.weights is not None) is config.attention
        if neighbours.weights is not None and entries:
            np.testing.assert_allclose(neighbours.weights[part], predicted.weights.T, atol=1e-10)
            np.testing.assert_allclose(neighbours.weights[part].sum(axis=0), 1.0)
    assert first == len(neighbours.rows)


def test_neighbour_ratings_change_nothing_as_published() -> None:
    model, _ = build(neighbour_ratings=False)
    users, items, moments = map(torch.tensor, pairs_to_rate())
    before = model.rate(users, items, moments).expected
    model.rated.fill_(0)
    model._index = None
    assert torch.equal(model.rate(users, items, moments).expected, before)


def test_the_initial_weights() -> None:
    config = ARERec(width=8, levels=LEVELS, look_back="past", history_length=3).resolved(DATA)
    model = config.build(N_USERS, N_ITEMS)
    prepared(model, DATA)
    model.requires_grad_(False)
    ratings = np.array([rating for _, _, rating, _ in TRAINING])
    assert float(model.mean) == pytest.approx(ratings.mean(), rel=1e-6)
    assert model.users.known.tolist() == [False, *[True] * 6, False]
    assert model.unrated().tolist() == [*[False] * N_ITEMS, True]
    # Without regions and neighbours, the levels follow the normal distribution around mean + biases.
    model.output.weight.zero_()
    model.asks.weight.zero_()
    probabilities = model.eval().rate(*(torch.tensor([value]) for value in (2, 3, NOW))).probabilities
    assert probabilities is not None
    mean = float(model.mean + model.user_biases.weight[2, 0] + model.item_biases.weight[3, 0])
    residuals = [
        rating - float(model.mean + model.user_biases.weight[user, 0] + model.item_biases.weight[item, 0])
        for user, item, rating, _ in TRAINING
    ]
    heights = np.exp(-((np.array(LEVELS) - mean) ** 2) / (2 * np.var(residuals)))
    close(probabilities[0], heights / heights.sum(), 1e-4)


def test_penalties_count_once_for_each_rating() -> None:
    """Check that penalties are a part of the mean loss for any number of units."""
    model, examples = build(l2_output=0.5)
    batch: RatingBatch = examples.batch(all_units(examples)[:3], np.random.default_rng(0))
    plain, _ = build()
    n = int((batch.levels >= 0).sum())
    close(model(batch) - plain(batch), 0.5 * n * (arrays(model)["output.weight"] ** 2).sum(), 1e-10)
