from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from segue.data.histories import Histories
from segue.errors import ConfigError, DataError, UnknownIdError
from segue.inference import explain, variants
from segue.inference.people import UnknownIdWarning
from segue.inference.recommender import Recommender
from tests.inference.fakes import Dot, dataset, random_dataset

VECTORS = np.random.default_rng(3).normal(size=(31, 5)).astype(np.float32)


def recommender(n_users: int = 40, longest: int = 9, max_history: int | None = 50) -> Recommender:
    """Scores are sums over the newest items of dot products, so the effect of each is known."""
    model = Dot(VECTORS)
    model.n_users, model.max_history = n_users, max_history
    return Recommender(model, random_dataset(n_users, 30, longest))


def test_effects_of_a_sum_are_its_terms() -> None:
    answers = recommender()
    lists = answers.recommend(k=3)
    reasons = answers.explain(lists["user"], lists["item"])
    left, right = (VECTORS[(reasons[name] // 10).to_numpy()] for name in ("because", "item"))
    assert np.allclose(reasons["effect"], (left * right).sum(1), atol=1e-4)
    # With a linear model the effects add up to the score.
    sums = reasons.group_by("user", "item").agg(total=pl.col("effect").sum())
    scores = lists.select("user", "item", "score")
    joined = scores.join(sums, on=["user", "item"], maintain_order="left")
    assert np.allclose(joined["score"], joined["total"], atol=1e-3)


def test_an_older_item_moves_up_when_a_newer_is_left_out() -> None:
    model = Newest(VECTORS)
    answers = Recommender(model, dataset([[1, 2, 3]], 30))
    reasons = answers.explain(1, 40)
    # The model reads two items: without 3 it reads 1 and 2.
    assert reasons["because"].sort().to_list() == [20, 30]
    expected = VECTORS[4] @ (VECTORS[3] - VECTORS[1])
    assert reasons.filter(because=30)["effect"].item() == pytest.approx(expected, abs=1e-5)
    assert reasons.filter(because=30)["position"].item() == 3


class Newest(Dot):
    """Sums the newest two items only."""

    max_history = 2

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors)
        self.n_users = 1

    def queries(self, histories: Histories) -> torch.Tensor:
        return super().queries(histories.last(2))


def test_a_lone_item_is_compared_with_popular_ones() -> None:
    answers = recommender()
    counts = answers.dataset.item_counts()
    references = np.argsort(-counts[1:], kind="stable")[: explain.REFERENCES] + 1
    reasons = answers.explain(items=50, histories=[[70]])
    expected = VECTORS[5] @ (VECTORS[7] - VECTORS[references].mean(0))
    assert reasons["effect"].item() == pytest.approx(expected, abs=1e-4)
    assert reasons["score"].item() == pytest.approx(VECTORS[5] @ VECTORS[7], abs=1e-4)


def test_portions_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = recommender()
    lists = answers.recommend(k=2).sample(fraction=1.0, shuffle=True, seed=1)
    whole = answers.explain(lists["user"], lists["item"])
    monkeypatch.setattr(variants, "_ITEMS", 200)
    parts = answers.explain(lists["user"], lists["item"])
    keys = ["user", "item", "position"]  # equal effects may change places by a rounding
    assert_frame_equal(parts.sort(keys), whole.sort(keys), abs_tol=1e-4)


def test_order_and_top() -> None:
    answers = recommender()
    reasons = answers.explain([3, 1], [100, 200])
    assert reasons["user"].unique(maintain_order=True).to_list() == [3, 1]
    for _, part in reasons.group_by("user"):
        assert part["effect"].is_sorted(descending=True)
    top = answers.explain([3, 1], [100, 200], top=2)
    assert_frame_equal(top, reasons.group_by("user", maintain_order=True).head(2).select(top.columns), abs_tol=1e-5)


def test_one_with_many_and_pairs() -> None:
    answers = recommender()
    assert answers.explain(1, [10, 20]).select("user", "item").unique().shape == (2, 2)
    assert answers.explain([1, 2], 10).select("user", "item").unique().shape == (2, 2)
    assert answers.explain([1, 2], [10, 20]).select("user", "item").unique().shape == (2, 2)
    assert answers.explain(histories={"x": [10, 20], "y": [30, 40]}, items=50)["user"].unique().len() == 2


def test_unknown_ids_and_empty_histories() -> None:
    answers = recommender()
    with pytest.warns(UnknownIdWarning, match="1 unknown user left out: 99"):
        assert answers.explain([1, 99], [10, 20])["user"].unique().to_list() == [1]
    with pytest.warns(UnknownIdWarning, match="1 unknown item left out: 15"):
        assert answers.explain(1, [10, 15])["item"].unique().to_list() == [10]
    assert not len(answers.explain(histories=[[]], items=10))


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda r: r.explain([1, 2], [10, 20, 30]), DataError, "2 people and 3 items make no pairs"),
        (lambda r: r.explain(items=10), ConfigError, "give users, histories or a basket"),
        (lambda r: r.explain(99, 10), UnknownIdError, "unknown user: 99"),
        (lambda r: r.explain(1, 11), UnknownIdError, "unknown item: 11"),
        (lambda r: r.explain(1, 10, histories=[[10]]), ConfigError, "not both"),
    ],
)
def test_impossible_questions(ask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(recommender())
