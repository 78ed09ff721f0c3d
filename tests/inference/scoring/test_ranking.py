from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segue.data.histories import Histories
from segue.errors import ConfigError, DataError, EvaluationError
from segue.inference.scoring import ranking
from segue.inference.scoring.batches import Limits
from segue.inference.scoring.ranking import distinct, target_ranks, top_k
from tests.inference.fakes import Dot, Table

N_ITEMS = 9
TINY = Limits(buffer_bytes=4 * 12, chunk_items=4, tokens=8, pairs=30, histories=3)


@st.composite
def questions(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], list[list[int]]]:
    """Scores with many ties, and a history and targets (repeats and seen ones included) for each user."""
    n = draw(st.integers(1, 6))
    table = draw(hnp.arrays(np.float32, (n + 1, N_ITEMS + 1), elements=st.sampled_from([-1.5, 0.0, 0.5, 2.0])))
    items = st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=5)
    histories = draw(st.lists(items, min_size=n, max_size=n))
    targets = draw(st.lists(items, min_size=n, max_size=n))
    return table, histories, targets


def lists(rows: Sequence[Sequence[int]]) -> Histories:
    return Histories.from_lists(rows, np.arange(1, len(rows) + 1))


def naive_top_k(scores: np.ndarray, k: int, hidden: Sequence[int]) -> list[int]:
    left = [item for item in range(1, len(scores)) if item not in hidden]
    best = sorted(left, key=lambda item: (-scores[item], item))[:k]
    return best + [0] * (k - len(best))


def naive_ranks(scores: np.ndarray, targets: Sequence[int], hidden: Sequence[int], among: Sequence[int]) -> list[int]:
    kept = sorted(set(targets) - set(hidden), key=lambda item: (-scores[item], item))
    others = [item for item in among if item not in hidden and item not in targets]
    return [
        len(scores)
        if target in hidden
        else 1 + kept.index(target) + sum(bool(scores[item] >= scores[target]) for item in others)
        for target in targets
    ]


@settings(max_examples=60, deadline=None)
@given(questions(), st.integers(1, N_ITEMS), st.booleans(), st.sampled_from([Limits(), TINY]), st.integers(1, 4))
def test_top_k_equals_a_naive_sort(question: tuple, k: int, exclude_seen: bool, limits: Limits, block: int) -> None:
    table, histories, _ = question
    with patch.multiple(ranking, _BLOCK=block, _MIN_REDUCTION=1):
        codes, scores = top_k(Table(table), lists(histories), k, exclude_seen=exclude_seen, limits=limits)
    for row, history in enumerate(histories):
        expected = naive_top_k(table[row + 1], k, history if exclude_seen else [])
        assert codes[row].tolist() == expected
        kept = np.array(expected) > 0
        np.testing.assert_array_equal(scores[row][kept], table[row + 1][np.array(expected)[kept]])
        assert np.isneginf(scores[row][~kept]).all()


@settings(max_examples=60, deadline=None)
@given(questions(), st.booleans(), st.sampled_from([Limits(), TINY]))
def test_ranks_equal_a_naive_count(question: tuple, exclude_seen: bool, limits: Limits) -> None:
    table, histories, targets = question
    ranks = target_ranks(Table(table), lists(histories), lists(targets), exclude_seen=exclude_seen, limits=limits)
    expected = [
        naive_ranks(table[row + 1], targets[row], history if exclude_seen else [], range(1, N_ITEMS + 1))
        for row, history in enumerate(histories)
    ]
    assert ranks.tolist() == list(chain(*expected))


@settings(max_examples=60, deadline=None)
@given(questions(), st.data(), st.booleans(), st.sampled_from([Limits(), TINY]))
def test_ranks_among_candidates_equal_a_naive_count(
    question: tuple, data: st.DataObject, exclude_seen: bool, limits: Limits
) -> None:
    table, histories, targets = question
    drawn = st.lists(st.integers(1, N_ITEMS), min_size=4, max_size=4, unique=True)
    candidates = np.array(data.draw(st.lists(drawn, min_size=len(histories), max_size=len(histories))))
    candidates[0, 2:] = 0
    ranks = target_ranks(
        Table(table),
        lists(histories),
        lists(targets),
        exclude_seen=exclude_seen,
        candidates=candidates,
        limits=limits,
    )
    expected = [
        naive_ranks(table[row + 1], targets[row], history if exclude_seen else [], [c for c in candidates[row] if c])
        for row, history in enumerate(histories)
    ]
    assert ranks.tolist() == list(chain(*expected))


def test_lists_from_a_large_catalogue_equal_a_sort() -> None:
    table = np.random.default_rng(0).integers(0, 300, (5, 6_001)).astype(np.float32)
    codes, _ = top_k(Table(table), lists([[1], [2], [3], [4]]), 10)
    for row, ranked in enumerate(codes, 1):
        assert ranked.tolist() == naive_top_k(table[row], 10, [row])


def test_chunks_and_batches_change_nothing() -> None:
    generator = np.random.default_rng(0)
    model = Dot(generator.integers(-9, 10, (500, 16)))  # whole numbers: no rounding, some ties
    rows = [generator.integers(1, 500, generator.integers(1, 80)) for _ in range(90)]
    targets = [generator.integers(1, 500, 3) for _ in range(90)]
    small = Limits(buffer_bytes=4 * 64 * 7, chunk_items=64, tokens=300)
    whole, parts = (top_k(model, lists(rows), 20, limits=limits)[0] for limits in (Limits(), small))
    np.testing.assert_array_equal(whole, parts)
    whole, parts = (target_ranks(model, lists(rows), lists(targets), limits=limits) for limits in (Limits(), small))
    np.testing.assert_array_equal(whole, parts)


def test_only_allowed_items_are_recommended() -> None:
    allowed = np.zeros(N_ITEMS + 1, dtype=bool)
    allowed[[2, 5]] = True
    table = np.tile(np.arange(N_ITEMS + 1, dtype=np.float32), (2, 1))
    codes, scores = top_k(Table(table), lists([[1]]), 3, allowed=allowed)
    assert codes.tolist() == [[5, 2, 0]]
    assert scores.tolist() == [[5.0, 2.0, -np.inf]]


def test_items_of_other_histories_can_be_left_out() -> None:
    table = np.tile(np.arange(N_ITEMS + 1, dtype=np.float32), (2, 1))
    codes, _ = top_k(Table(table), lists([[1]]), 2, seen=lists([[9, 7]]))
    assert codes.tolist() == [[8, 6]]
    question = Table(table), lists([[8]]), lists([[6, 7]])
    assert target_ranks(*question, seen=lists([[9, 7]])).tolist() == [2, N_ITEMS + 1]
    assert target_ranks(*question, seen=lists([[9, 7]]), candidates=np.array([[9, 5, 8]])).tolist() == [2, N_ITEMS + 1]
    assert target_ranks(*question, seen=lists([[9, 7]]), exclude_seen=False).tolist() == [4, 3]


def test_a_seen_target_is_beyond_every_list_unless_seen_items_are_kept() -> None:
    table = np.tile(np.arange(N_ITEMS + 1, dtype=np.float32), (2, 1))
    question = Table(table), lists([[9, 3]]), lists([[9, 8]])
    assert target_ranks(*question).tolist() == [N_ITEMS + 1, 1]
    assert target_ranks(*question, exclude_seen=False).tolist() == [1, 2]


def test_a_constant_model_ranks_every_target_last() -> None:
    constant = Table(np.ones((2, N_ITEMS + 1)))
    assert target_ranks(constant, lists([[1, 2]]), lists([[3]])).tolist() == [N_ITEMS - 2]


def test_a_collapsed_model_gains_nothing_from_rounding() -> None:
    generator = np.random.default_rng(0)
    model = Dot(np.tile(generator.standard_normal(50), (304, 1)))
    rows = lists([generator.integers(1, 304, 5) for _ in range(70)])
    targets = lists([generator.integers(1, 304, 1) for _ in range(70)])
    assert (target_ranks(model, rows, targets, exclude_seen=False) == 303).all()
    drawn = np.tile(np.arange(1, 40), (70, 1))
    among = 40 - (targets.items < 40)
    assert (target_ranks(model, rows, targets, exclude_seen=False, candidates=drawn) == among).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("item", [1, N_ITEMS])
@pytest.mark.parametrize("limits", [Limits(), TINY])
def test_scores_that_are_not_finite_are_an_error(value: float, item: int, limits: Limits) -> None:
    table = np.ones((4, N_ITEMS + 1), dtype=np.float32)
    table[2, item] = value
    model, histories, targets = Table(table), lists([[3], [item], [4]]), lists([[5], [2], [6]])
    with pytest.raises(EvaluationError, match="scores are not finite"):
        top_k(model, histories, 2, limits=limits)
    with pytest.raises(EvaluationError, match="scores are not finite"):
        target_ranks(model, histories, targets, limits=limits)
    drawn = np.array([[1, 2, N_ITEMS]] * 3)
    with pytest.raises(EvaluationError, match="scores are not finite"):
        target_ranks(model, histories, targets, candidates=drawn, limits=limits)


def test_the_column_of_code_0_may_hold_any_value() -> None:
    table = np.tile(np.arange(N_ITEMS + 1, dtype=np.float32), (2, 1))
    table[:, 0] = np.nan
    assert top_k(Table(table), lists([[1]]), 1)[0].tolist() == [[9]]
    assert target_ranks(Table(table), lists([[1]]), lists([[9]])).tolist() == [1]


def test_large_scores_whose_sum_overflows_are_fine() -> None:
    table = np.full((2, N_ITEMS + 1), 3e38, dtype=np.float32)
    assert top_k(Table(table), lists([[1]]), 1)[0].tolist() == [[2]]


def test_empty_histories_and_impossible_k_are_explained() -> None:
    model = Table(np.ones((3, N_ITEMS + 1)))
    with pytest.raises(DataError, match="1 of 2 histories are empty"):
        top_k(model, lists([[1], []]), 2)
    for k in (0, -1):
        with pytest.raises(ConfigError, match=f"expected 1 or more, found {k}"):
            top_k(model, lists([[1]]), k)
    with pytest.raises(ConfigError, match="the catalogue has only 9 items"):
        top_k(model, lists([[1]]), N_ITEMS + 1)
    with pytest.raises(DataError, match="as many rows"):
        target_ranks(model, lists([[1], [2]]), lists([[1]]))


def test_the_mode_of_the_model_stays() -> None:
    model = Dot(np.ones((N_ITEMS + 1, 4))).train()
    top_k(model, lists([[1]]), 2)
    assert model.training
    assert torch.is_grad_enabled()


def test_distinct_keeps_each_item_once_and_gives_its_new_position() -> None:
    once, inverse = distinct(lists([[4, 2, 4], [7], [1, 1]]))
    assert [once.items[a:b].tolist() for a, b in zip(once.starts, once.ends, strict=True)] == [[2, 4], [7], [1]]
    assert inverse.tolist() == [1, 0, 1, 2, 3, 3]
