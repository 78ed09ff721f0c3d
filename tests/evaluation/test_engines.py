"""Evaluations by several workers: the same figures, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import segue
from segue.data.splits.by_user import Split
from segue.engines.base import Alone
from segue.engines.engine import Engine
from segue.engines.workers import holding
from segue.errors import DataError
from segue.evaluation.tasks.result import Evaluation
from segue.inference.recommender import Recommender
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import Limits
from segue.inference.scoring.by_parts import Ranker, ranker
from segue.inference.scoring.ranking import target_ranks, top_k

TWO = Engine(processes=2)
LIMITS = [Limits(histories=9), Limits(tokens=40), Limits(histories=16, pairs=150, chunk_items=8)]


@pytest.fixture(scope="module")
def split() -> Split:
    return segue.last_session_out(segue.simulate(120, 6, seed=2).dataset())


@pytest.fixture(scope="module")
def recommender(split: Split) -> Recommender:
    training = segue.Training(epochs=1, cpu=True)
    return segue.fit(segue.SASRec(width=8, blocks=1), split, training=training, quiet=True)


def same(one: Evaluation, other: Evaluation) -> None:
    assert one.to_dict() == other.to_dict()
    assert_frame_equal(one.per_user, other.per_user, check_exact=True)


@contextmanager
def parted(scorer: Scorer, limits: Limits) -> Iterator[Ranker]:
    """A Ranker that divides as for three workers, all of which are this process."""
    yield Ranker(scorer, Alone(holding(scorer)), 3, limits)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_ranks_and_lists_of_parts(recommender: Recommender, split: Split, limits: Limits, exclude_seen: bool) -> None:
    scorer, holdout = recommender.scorer, split.test
    histories, targets = holdout.histories(), holdout.targets()
    candidates = np.random.default_rng(0).integers(1, scorer.n_items + 1, (len(holdout), 6))
    among = np.arange(scorer.n_items + 1) % 2 == 1
    further: list[dict[str, Any]] = [
        {},
        {"candidates": candidates},
        {"among": among},
        {"only": histories},
        {"seen": histories.last(1)},
    ]
    with parted(scorer, limits) as ranking:
        assert len(ranking._parts(histories, 9)) > 1
        for options in further:
            expected = target_ranks(scorer, histories, targets, exclude_seen=exclude_seen, limits=limits, **options)
            found = ranking.target_ranks(histories, targets, exclude_seen=exclude_seen, **options)
            assert np.array_equal(found, expected), options
        expected = top_k(scorer, histories, 4, exclude_seen=exclude_seen, limits=limits)[0]
        assert np.array_equal(ranking.top_k(histories, 4, exclude_seen=exclude_seen), expected)


def test_batches_of_parts_are_those_of_the_whole(
    recommender: Recommender, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the scores are rounded in the same way."""
    seen: list[list[int]] = []
    queries = Scorer.queries

    def watched(self: Scorer, histories: Any) -> Any:
        seen.append(histories.users.tolist())
        return queries(self, histories)

    monkeypatch.setattr(Scorer, "queries", watched)
    histories, targets = split.test.histories(), split.test.targets()
    for limits in LIMITS:
        with parted(recommender.scorer, limits) as ranking:
            ranking.target_ranks(histories, targets)
            by_part = [*seen]
            seen.clear()
            target_ranks(recommender.scorer, histories, targets, limits=limits)
            assert by_part == seen and len(seen) > 3
            seen.clear()


def test_one_history_takes_its_own_way(recommender: Recommender, split: Split) -> None:
    with parted(recommender.scorer, Limits(histories=1)) as ranking:
        histories = split.test.histories()
        assert all(len(part) > 1 for part in ranking._parts(histories.select(slice(0, 19)), 1))
        assert len(ranking.top_k(histories.select(slice(0, 1)), 3)) == 1
        assert len(ranking.top_k(histories.select(slice(0, 0)), 3)) == 0


def test_an_empty_history_is_refused_before_any_worker_begins(recommender: Recommender, split: Split) -> None:
    with ranker(recommender.scorer, TWO) as ranking, pytest.raises(DataError, match="histories are empty"):
        ranking.top_k(split.test.histories().last(0), 3)


def test_evaluations_by_processes(recommender: Recommender, split: Split) -> None:
    for evaluate in (segue.evaluate, segue.evaluate_baskets):
        same(evaluate(recommender, split.test, engine=TWO), evaluate(recommender, split.test))
    options: dict[str, Any] = {"k": 3, "candidates": 5}
    by_one = segue.evaluate_sessions(recommender, split.test, **options)
    same(segue.evaluate_sessions(recommender, split.test, **options, engine=TWO), by_one)


def test_ratings_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.evaluation.tasks import rating_questions

    log = segue.simulate(60, 6, seed=4).log().select("user", "item", rating=pl.col("item") % 5 + 1)
    split = segue.random_rows(segue.prepare(log, time=False, duplicates="first"))
    model = segue.fit(segue.RatingBias(), split, quiet=True)
    monkeypatch.setattr(rating_questions, "_PAIRS", 20)
    same(segue.evaluate_ratings(model, split.test, engine=TWO), segue.evaluate_ratings(model, split.test))
