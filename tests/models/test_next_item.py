from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.errors import ConfigError, TrainingError
from segue.models.next_item import NextItemBatch, NextItemExamples, NextItemLoss, position_rows
from segue.models.sasrec import SASRec
from segue.models.similarity import Similarity
from segue.models.ssept import SSEPT
from tests.helpers import make_dataset

N_ITEMS = 40
LISTS = st.lists(st.lists(st.integers(1, 9), max_size=12), min_size=1, max_size=8).filter(
    lambda rows: any(len(row) >= 2 for row in rows)
)


def loss(name: Any = "softmax", negatives: int = 1) -> NextItemLoss:
    return NextItemLoss(name, negatives, 0.75, N_ITEMS, Similarity("dot"))


def dataset_of(histories: list[list[int]]) -> Dataset:
    return make_dataset(histories, catalogue=range(1, N_ITEMS + 1))


def windows(batch: NextItemBatch) -> list[tuple[int, list[int], list[int]]]:
    """User, inputs and targets of every row, after a check that `positions` are the real ones in order."""
    items, lengths = batch.items.numpy(), batch.lengths.numpy()
    real = np.arange(items.shape[1]) < lengths[:, None]
    assert items.shape[1] == lengths.max()
    assert batch.positions.tolist() == np.flatnonzero(real).tolist()
    assert (items[~real] == 0).all() and (items[real] > 0).all()
    targets = np.split(batch.targets.numpy(), np.cumsum(lengths)[:-1])
    inputs = [row[:length].tolist() for row, length in zip(items, lengths, strict=True)]
    return list(zip(batch.users.tolist(), inputs, [row.tolist() for row in targets], strict=True))


@settings(deadline=None)
@given(LISTS, st.integers(1, 6), st.randoms(use_true_random=False))
def test_inputs_and_targets_are_the_newest_window_and_its_shift(
    histories: list[list[int]], max_length: int, random: Any
) -> None:
    examples = NextItemExamples(dataset_of(histories), max_length, loss())
    learnable = [user for user, history in enumerate(histories, 1) if len(history) >= 2]
    assert examples.users.tolist() == learnable
    index = np.array(random.sample(range(len(learnable)), random.randint(1, len(learnable))))
    rows = windows(examples.batch(index, np.random.default_rng(0)))
    assert [user for user, _, _ in rows] == [learnable[i] for i in index]
    for user, inputs, targets in rows:
        history = histories[user - 1][-max_length - 1 :]
        assert (inputs, targets) == (history[:-1], history[1:])
    assert examples.weights[index].sum() == sum(len(targets) for _, _, targets in rows)


@settings(deadline=None)
@given(LISTS, st.integers(1, 6))
def test_all_windows_together_have_each_target_once(histories: list[list[int]], max_length: int) -> None:
    examples = NextItemExamples(dataset_of(histories), max_length, loss(), windows="all")
    expected = []
    for user, history in enumerate(histories, 1):
        for end in range(len(history) - 1, 0, -max_length):
            start = max(0, end - max_length)
            expected.append((user, history[start:end], history[start + 1 : end + 1]))
    batch = examples.batch(np.arange(len(examples.users)), np.random.default_rng(0))
    assert windows(batch) == expected


def test_items_of_older_windows_count_as_targets_when_negatives_are_corrected() -> None:
    corrected = NextItemLoss("sampled-softmax", 4, 0.75, N_ITEMS, Similarity("dot"), logq=True, in_batch=1.0)
    shares = []
    for windows_setting in ("newest", "all"):
        examples = NextItemExamples(dataset_of([[7, 8, 8, 9, 10]]), 2, corrected, windows=windows_setting)
        assert examples.shared is not None
        shares.append(examples.shared.shares[7:11].tolist())
    assert shares == [[0, 0, 0.5, 0.5], [0, 0.5, 0.25, 0.25]]


@pytest.mark.parametrize(("users", "length", "expected"), [(100, 26, 6), (4, 2, 6), (10_000, 5, 150)])
def test_a_usual_batch_has_three_times_the_root_of_all_targets(users: int, length: int, expected: int) -> None:
    examples = NextItemExamples(dataset_of([list(range(1, length + 1))] * users), 50, loss())
    assert examples.usual_batch == expected


@pytest.mark.parametrize(("n_items", "expected"), [(5_000, "softmax"), (5_001, "sampled-softmax")])
def test_sasrec_without_a_loss_chooses_by_the_size_of_the_catalogue(n_items: int, expected: str) -> None:
    assert SASRec(width=2).build(1, n_items).config.loss == expected
    assert SASRec(width=2).resolved(make_dataset([[1]], catalogue=range(n_items))).loss == expected
    assert SASRec(width=2, loss="bce").build(1, n_items).config.loss == "bce"


def test_unknown_windows_are_refused() -> None:
    with pytest.raises(ConfigError, match="windows='oldest'"):
        SASRec(windows="oldest")  # type: ignore[arg-type]


@settings(deadline=None)
@given(LISTS, st.integers(1, 6), st.integers(0, 100))
def test_random_windows_are_stretches_of_the_history(histories: list[list[int]], max_length: int, seed: int) -> None:
    named = [list(range(1 + i, 1 + i + len(row))) for i, row in enumerate(histories)]  # so that a window is unique
    examples = NextItemExamples(dataset_of(named), max_length, loss(), random_window=1.0)
    for user, inputs, targets in windows(examples.batch(np.arange(len(examples.users)), np.random.default_rng(seed))):
        history = named[user - 1]
        assert len(inputs) == min(max_length, len(history) - 1)
        start = history.index(inputs[0])
        assert [*inputs, targets[-1]] == history[start : start + len(inputs) + 1]
        assert targets == [*inputs[1:], targets[-1]]


def test_random_windows_are_uniform_and_taken_with_their_probability() -> None:
    dataset = dataset_of([list(range(1, 11))] * 6000)  # ten items, windows of 4 + 1: six positions
    examples = NextItemExamples(dataset, 4, loss(), random_window=0.6)
    starts = examples.batch(np.arange(6000), np.random.default_rng(0)).items[:, 0].numpy()
    counts = np.bincount(starts, minlength=7)[1:]
    expected = np.array([600] * 5 + [600 + 2400])  # 0.6 over all six positions, the rest at the newest
    assert np.abs(counts - expected).max() < 5 * 50


def test_hidden_interactions_are_neither_inputs_nor_targets() -> None:
    dataset = dataset_of([[1, 2, 3, 4], [5, 6, 7]])
    examples = NextItemExamples(dataset.until(dataset.ends - np.array([0, 1, 2])), 9, loss())
    assert windows(examples.batch(np.array([0]), np.random.default_rng(0))) == [(1, [1, 2], [2, 3])]
    assert len(examples.lengths) == 1


@pytest.mark.parametrize(
    ("name", "shape"), [("bce", (5, 3)), ("gbce", (5, 3)), ("sampled-softmax", (3,)), ("softmax", (0,))]
)
def test_each_loss_gets_the_negatives_that_it_needs(name: str, shape: tuple[int, ...]) -> None:
    dataset = dataset_of([[1, 2, 3, 4], [5, 6, 7]])
    batch = NextItemExamples(dataset, 9, loss(name, 3)).batch(np.array([1, 0]), np.random.default_rng(0))
    assert batch.negatives.shape == shape
    assert ((batch.negatives >= 1) & (batch.negatives <= N_ITEMS)).all()
    if len(shape) == 2:
        assert not set(batch.negatives[:2].flatten().tolist()) & {5, 6, 7}
        assert not set(batch.negatives[2:].flatten().tolist()) & {1, 2, 3, 4}


@settings(deadline=None)
@given(LISTS, st.integers(1, 4), st.sampled_from([0.0, 0.4, 1.0]), st.booleans(), st.integers(0, 99))
def test_shared_negatives_have_their_expected_counts(
    histories: list[list[int]], max_length: int, in_batch: float, windowed: bool, seed: int
) -> None:
    corrected = NextItemLoss("sampled-softmax", 10, 0.75, N_ITEMS, Similarity("dot"), logq=True, in_batch=in_batch)
    examples = NextItemExamples(dataset_of(histories), max_length, corrected, random_window=0.5 * windowed)
    batch = examples.batch(np.arange(len(examples.users)), np.random.default_rng(seed))
    # Targets of an epoch, or possible targets with random windows.
    targets = [item for row in histories for item in (row[1:] if windowed else row[1:][-max_length:])]
    n_batch = round(10 * in_batch)
    for item, log_count in zip(batch.negatives.tolist(), batch.log_counts.tolist(), strict=True):
        expected = (10 - n_batch) / N_ITEMS + n_batch * targets.count(item) / len(targets)
        assert log_count == pytest.approx(np.log(expected), abs=1e-5)
    assert set(batch.negatives[10 - n_batch :].tolist()) <= set(batch.targets.tolist())


@pytest.mark.parametrize("in_batch", [-0.1, 1.5])
def test_an_impossible_share_of_negatives_is_named(in_batch: float) -> None:
    with pytest.raises(ConfigError, match=f"in_batch={in_batch}: expected a share from 0 to 1"):
        SASRec(in_batch=in_batch)


def test_a_batch_is_decided_by_the_generator() -> None:
    examples = NextItemExamples(dataset_of([list(range(1, 20))] * 4), 5, loss("bce", 2), random_window=0.5)
    first, again, other = (examples.batch(np.arange(4), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first[:-2], again[:-2], strict=True))  # then repeats and transitions
    assert not torch.equal(first.negatives, other.negatives)


def test_nothing_to_learn_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no user has two interactions"):
        NextItemExamples(dataset_of([[1], [2], []]), 5, loss())


@pytest.mark.parametrize("config", [SASRec, SSEPT])
@pytest.mark.parametrize(("name", "negatives", "message"), [("bpr", 1, "loss='bpr'"), ("bce", 0, "negatives=0")])
def test_impossible_losses_are_named(config: Any, name: str, negatives: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(loss=name, negatives=negatives)


def test_position_rows_end_at_the_last_row_of_the_table() -> None:
    assert position_rows(torch.tensor([4, 2, 1]), 4, 6).tolist() == [[2, 3, 4, 5], [4, 5, 5, 5], [5, 5, 5, 5]]


# ---- SSE: stochastic shared embeddings ------------------------------------------------------------------------------

SSE_HISTORIES = [[1] * (2 + user % 7) for user in range(3000)] + [[1]]


def swapped(**probabilities: float) -> NextItemBatch:
    config = SSEPT(**{"swap_user": 0.0, "swap_item": 0.0, "swap_target": 0.0, "loss": "softmax", **probabilities})
    dataset = dataset_of(SSE_HISTORIES)
    examples = config.build(dataset.n_users, dataset.n_items).examples(dataset)
    batch = examples.batch(np.arange(3000), np.random.default_rng(0))
    windows(batch)  # checks that padding stays padding
    return batch


def test_without_swaps_ids_stay_the_same() -> None:
    batch = swapped()
    assert batch.users.tolist() == list(range(1, 3001))
    assert set(batch.items.flatten()[batch.positions].tolist()) == {1} == set(batch.targets.tolist())


@pytest.mark.parametrize("setting", ["swap_item", "swap_target"])
def test_items_are_swapped_with_their_probability_for_any_item(setting: str) -> None:
    batch, plain = swapped(**{setting: 0.3}), swapped()
    inputs = batch.items.flatten()[batch.positions]
    changed, same = (inputs, batch.targets) if setting == "swap_item" else (batch.targets, inputs)
    assert set(same.tolist()) == {1}
    assert torch.equal(batch.users, plain.users)
    counts = np.bincount(changed, minlength=N_ITEMS + 1)[1:]
    expected = 0.3 * len(changed) / N_ITEMS
    assert np.abs(counts[1:] - expected).max() < 5 * expected**0.5
    assert counts[0] / len(changed) == pytest.approx(0.7 + 0.3 / N_ITEMS, abs=0.02)


def test_users_are_swapped_with_their_probability_for_users_of_training() -> None:
    batch = swapped(swap_user=0.6)
    plain = np.arange(1, 3001)
    assert np.mean(batch.users.numpy() != plain) == pytest.approx(0.6, abs=0.05)
    everyone = swapped(swap_user=1.0).users.numpy()
    assert np.abs(np.bincount((everyone - 1) // 500) - 500).max() < 5 * 500**0.5, "uniform, and never user 3001"
    assert torch.equal(batch.items, swapped().items) and torch.equal(batch.targets, swapped().targets)


def test_an_input_and_its_target_are_swapped_by_one_draw() -> None:
    """The authors' sampler, written as a loop from the newest position to the oldest, with the same draws."""
    plain, batch = swapped(), swapped(swap_item=0.4, swap_target=0.4, swap_together=True)
    generator = np.random.default_rng(0)
    n = len(plain.positions)
    coins, drawn = generator.random(n) < 0.4, generator.integers(1, N_ITEMS + 1, (2, n))
    inputs, targets = plain.items.flatten()[plain.positions].tolist(), []
    ends = np.cumsum(plain.lengths.numpy())
    for end, length in zip(ends, plain.lengths.tolist(), strict=True):
        row, following = [], plain.targets[end - 1].item()
        for place in reversed(range(end - length, end)):
            if coins[place]:
                inputs[place], following = drawn[0, place], drawn[1, place]
            row.append(following)
            following = inputs[place]
        targets += row[::-1]
    assert batch.items.flatten()[batch.positions].tolist() == inputs
    assert batch.targets.tolist() == targets
    assert torch.equal(batch.users, plain.users)


def test_one_draw_needs_one_probability() -> None:
    with pytest.raises(ConfigError, match=r"swap_target=0\.2 and swap_item=0\.1 differ, but swap_together"):
        SSEPT(swap_target=0.2, swap_together=True)
    published = SSEPT.as_published()
    assert published.swap_together and published.scaled_user
