"""HR and NDCG among own ratings against plain writings of them, and calibration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.evaluation.tasks.rating_metrics import by_level, calibration, calibration_error, own_metrics


def plain(truth: Sequence[float], predicted: Sequence[float], k: int, cutoff: float) -> tuple[float, float]:
    """The published metrics of one user, ties in the order of rows: a stable sort, highest first."""
    by_truth = sorted(range(len(truth)), key=lambda row: -truth[row])[:k]
    by_prediction = sorted(range(len(truth)), key=lambda row: -predicted[row])[:k]
    liked = [row for row in by_truth if truth[row] >= cutoff]
    hits = sum(row in by_prediction for row in liked)
    gained, ideal = (
        sum((2 ** truth[row] - 1) / math.log2(place + 2) for place, row in enumerate(rows))
        for rows in (by_prediction, by_truth)
    )
    return hits / len(liked) if liked else math.nan, gained / ideal if ideal else math.nan


def published_ndcg(truth: Sequence[float], predicted: Sequence[float], k: int) -> float:
    """NDCG of one user as the published code computes it, ties in the order of rows."""
    ideal = sorted(range(len(truth)), key=lambda row: -truth[row])[:k]
    listed = sorted(range(len(truth)), key=lambda row: -predicted[row])[:k]
    ratings = [truth[row] for row in ideal]
    gains = [ratings[listed.index(row)] if row in listed else 0 for row in ideal]
    ranks = [1 + sum(other > rating for other in ratings) for rating in ratings]  # ties share the lowest rank
    gained, best = (
        sum((2**gain - 1) / math.log2(rank + 1) for gain, rank in zip(values, ranks, strict=True))
        for values in (gains, ratings)
    )
    return gained / best if best else math.nan


def of_one_user(
    truth: Sequence[float], predicted: Sequence[float], k: int, cutoff: float = 3, published: bool = False
) -> tuple[float, float]:
    rows = np.zeros(len(truth), dtype=np.int64)
    found = own_metrics(rows, 1, np.array(truth, dtype=float), np.array(predicted, dtype=float), [k], cutoff, published)
    return float(found[f"own_hr@{k}"][0]), float(found[f"own_ndcg@{k}"][0])


@given(st.permutations(list(range(8))), st.permutations([0, 0.5, 1, 2, 2.5, 3, 4, 5]), st.integers(1, 8))
def test_without_ties_it_is_the_published_way(predicted: list[int], truth: list[float], k: int) -> None:
    assert of_one_user(truth, predicted, k) == pytest.approx(plain(truth, predicted, k, 3), nan_ok=True)


def test_the_published_gains_of_an_example() -> None:
    """Ideal items rated 5, 4, 4 (ranks 1, 2, 2); the list holds the second at place 1 and the first at place 3."""
    truth, predicted = [5, 4, 4, 1], [2, 4, 1, 3]
    gained = (2**4 - 1) / math.log2(2) + (2**5 - 1) / math.log2(3) + 0
    best = (2**5 - 1) / math.log2(2) + 2 * (2**4 - 1) / math.log2(3)
    hr, ndcg = of_one_user(truth, predicted, 3, published=True)
    assert hr == pytest.approx(2 / 3)
    assert ndcg == pytest.approx(gained / best)


@given(st.permutations(list(range(8))), st.lists(st.sampled_from([0, 0.5, 1, 3, 4, 5]), min_size=8, max_size=8))
def test_published_gains_whatever_the_ratings(predicted: list[int], truth: list[float]) -> None:
    """The whole list, so that ties among the true ratings matter for ranks alone."""
    expected = published_ndcg(truth, predicted, 8)
    hr, ndcg = of_one_user(truth, predicted, 8, published=True)
    assert ndcg == pytest.approx(expected, nan_ok=True)
    assert hr == pytest.approx(of_one_user(truth, predicted, 8)[0], nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_published_gains_with_ties_are_means_over_all_orders(data: st.DataObject, k: int) -> None:
    n = data.draw(st.integers(k, 4))
    truth = data.draw(st.lists(st.sampled_from([0, 1, 2, 4]), min_size=n, max_size=n))
    predicted = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=n, max_size=n))
    gains = []
    for true_order in itertools.permutations(range(n)):
        for order in itertools.permutations(range(n)):
            rows = list(true_order)  # another order of the rows breaks the ties among true ratings
            guessed = [predicted[row] + order[row] / 100 for row in rows]
            gains.append(published_ndcg([truth[row] for row in rows], guessed, k))
    assert of_one_user(truth, predicted, k, published=True)[1] == pytest.approx(np.mean(gains), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_ties_count_what_they_are_worth_in_all_orders(data: st.DataObject, k: int) -> None:
    n = data.draw(st.integers(k, 4))
    truth = data.draw(st.lists(st.sampled_from([1, 2, 3, 4]), min_size=n, max_size=n))
    predicted = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=n, max_size=n))
    hits, gains = [], []
    for true_order in itertools.permutations(range(n)):
        for order in itertools.permutations(range(n)):
            # Ties broken by a random key of each item, on either side by itself.
            true = [rating + true_order[row] / 100 for row, rating in enumerate(truth)]
            guessed = [value + order[row] / 100 for row, value in enumerate(predicted)]
            best = sorted(range(n), key=lambda row: -true[row])[:k]
            chosen = sorted(range(n), key=lambda row: -guessed[row])[:k]
            liked = [row for row in best if truth[row] >= 3]
            hits.append(sum(row in chosen for row in liked) / len(liked) if liked else math.nan)
            gains.append(plain(truth, guessed, k, 3)[1])
    assert of_one_user(truth, predicted, k) == pytest.approx((np.mean(hits), np.mean(gains)), nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_each_user_by_themselves_in_any_order_of_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    published = bool(seed % 2)
    rows = np.sort(generator.integers(0, 6, 40))
    truth, predicted = generator.integers(1, 6, 40).astype(float), generator.integers(0, 4, 40).astype(float)
    found = own_metrics(rows, 7, truth, predicted, [3, 5], 3.5, published)
    order = generator.permutation(40)
    again = own_metrics(rows[order], 7, truth[order], predicted[order], [3, 5], 3.5, published)
    for k, user in itertools.product((3, 5), range(7)):
        mine = rows == user
        alone = (
            of_one_user(truth[mine], predicted[mine], k, 3.5, published) if mine.sum() >= k else (math.nan, math.nan)
        )
        for tables in (found, again):
            both = tables[f"own_hr@{k}"][user], tables[f"own_ndcg@{k}"][user]
            assert both == pytest.approx(alone, nan_ok=True)


def test_a_constant_prediction_scores_what_chance_does() -> None:
    truth = [5, 5, 4, 1, 1, 1, 1, 1, 1, 1]
    hr, ndcg = of_one_user(truth, [3.5] * 10, 3)
    assert hr == pytest.approx(3 / 10)
    generator = np.random.default_rng(0)
    drawn = [plain(truth, generator.random(10), 3, 3) for _ in range(4000)]  # type: ignore[arg-type]
    assert (hr, ndcg) == pytest.approx(tuple(np.mean(drawn, axis=0)), abs=0.015)


def test_who_cannot_be_measured_is_left_out() -> None:
    hr, ndcg = of_one_user([1, 2], [1, 2], 3)
    assert math.isnan(hr) and math.isnan(ndcg), "fewer than k questions"
    hr, ndcg = of_one_user([1, 2, 2], [1, 2, 3], 3)
    assert math.isnan(hr) and ndcg == 1, "nothing liked"
    hr, ndcg = of_one_user([0, -1, 0], [1, 2, 3], 3, cutoff=0)
    assert hr == 1 and math.isnan(ndcg), "nothing to gain"


@pytest.mark.parametrize("top", [100.0, 5000.0])
def test_long_scales_do_not_overflow(top: float) -> None:
    assert of_one_user([top, top - 1, 3], [1, 3, 2], 3)[1] == pytest.approx(
        (1 / 2 + 1 / math.log2(4)) / (1 + 0.5 / math.log2(3))
    )


@given(st.lists(st.integers(0, 12), min_size=1, max_size=80), st.integers(0, 2**32 - 1))
def test_tenths_hold_every_question_once_and_equal_ones_together(values: list[int], seed: int) -> None:
    expected = np.array(values) / 4
    truth = np.random.default_rng(seed).integers(1, 6, len(values)).astype(float)
    table = calibration(expected, truth)
    assert table["questions"].sum() == len(values)
    assert len(table) <= 10
    spans = [tuple(map(float, name.split("–"))) for name in table["expected"]]
    assert all(high < low for (_, high), (low, _) in itertools.pairwise(spans))
    error = 0.0
    for (low, high), row in zip(spans, table.iter_rows(named=True), strict=True):
        within = [place for place, value in enumerate(expected) if low <= value <= high]
        assert row["questions"] == len(within)
        assert row["mean_expected"] == pytest.approx(np.mean(expected[within]))
        assert row["mean_true"] == pytest.approx(np.mean(truth[within]))
        error += abs(sum(expected[within]) - sum(truth[within])) / len(values)
    assert calibration_error(table) == pytest.approx(error)


def test_tenths_are_tenths() -> None:
    table = calibration(np.random.default_rng(0).permutation(np.arange(1000) / 100), np.zeros(1000))
    assert table["questions"].to_list() == [100] * 10


def test_levels() -> None:
    table = by_level([0.5, 3, 5], np.array([2, 2, 0]), np.array([4.0, 5.0, 1.0]), np.array([0.5, 1.0, 1.5]))
    assert table.to_dicts() == [
        {"level": "0.5", "questions": 1, "predicted": 0.5, "mean_expected": 1.0},
        {"level": "3", "questions": 0, "predicted": 1.0, "mean_expected": None},
        {"level": "5", "questions": 2, "predicted": 1.5, "mean_expected": 4.5},
    ]
    assert isinstance(table, pl.DataFrame)
