from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.splits.by_user import Holdout, hold_out_users, leave_last_n, leave_last_out
from segue.data.tables.table import Table as ItemTable
from segue.errors import ConfigError, EvaluationError, StorageError
from segue.evaluation.breakdown import by_history_length, by_popularity
from segue.evaluation.candidates import sample_candidates
from segue.evaluation.tasks.next_items import Evaluation, evaluate
from segue.inference.scorer import Scorer
from segue.inference.scoring.ranking import target_ranks
from tests.helpers import make_dataset
from tests.inference.fakes import Table, dataset, random_dataset

N_USERS, N_ITEMS = 120, 60
SPLIT = leave_last_out(random_dataset(N_USERS, N_ITEMS, 15))
SCORES = np.random.default_rng(1).standard_normal((N_USERS + 1, N_ITEMS + 1)).astype(np.float32)


@dataclass
class Wrapped:
    """Something that carries a Scorer, as a Recommender does."""

    scorer: Scorer


def test_metrics_are_means_over_users_of_the_ranks() -> None:
    found = evaluate(Wrapped(Scorer.of(Table(SCORES))), SPLIT.test, k=[5, 10])
    ranks = target_ranks(Table(SCORES), SPLIT.test.histories(), SPLIT.test.targets())
    assert found["hr@10"] == pytest.approx((ranks <= 10).mean())
    assert found["mrr@5"] == pytest.approx(np.where(ranks <= 5, 1 / ranks, 0).mean())
    assert found.per_user["rank"].to_list() == ranks.tolist()
    assert found.per_user["user"].to_list() == SPLIT.test.users.tolist()
    low, high = found.intervals["hr@10"]
    assert low < found["hr@10"] < high


def test_lists_are_measured_when_all_items_are_ranked() -> None:
    full = evaluate(Table(SCORES), SPLIT.test)
    assert {"novelty@10", "coverage@10", "gini@10"} <= set(full.metrics)
    assert full["coverage@10"] == 1.0
    for other in (evaluate(Table(SCORES), SPLIT.test, lists=False), evaluate(Table(SCORES), SPLIT.test, candidates=20)):
        assert "coverage@10" not in other.metrics


def test_several_targets_with_repeats_count_once() -> None:
    holdout = leave_last_n(dataset([[1, 2, 3, 4, 7, 7, 5]], 9), 3).test
    scores = np.zeros((2, 10))
    scores[1] = [0, 0, 0, 0, 0, 3, 2, 5, 0, 0]
    found = evaluate(Table(scores), holdout, k=2, exclude_seen=False)
    assert found.protocol["targets"] == 2
    assert found["recall@2"] == found["ndcg@2"] == found["precision@2"] == 1.0


def test_a_repeated_item_is_a_miss_unless_seen_items_are_kept() -> None:
    holdout = leave_last_out(dataset([[4, 2, 3, 4]], 9)).test
    scores = np.zeros((2, 10))
    scores[1, 4] = 1
    assert evaluate(Table(scores), holdout, k=6)["hr@6"] == 0.0
    assert evaluate(Table(scores), holdout, k=6, exclude_seen=False)["hr@6"] == 1.0
    assert evaluate(Table(scores), holdout, k=3, candidates=4)["hr@3"] == 0.0


@pytest.mark.parametrize("candidates", [None, 30])
def test_a_constant_model_hits_nothing(candidates: int | None) -> None:
    found = evaluate(Table(np.zeros_like(SCORES)), SPLIT.test, candidates=candidates)
    assert found["hr@10"] == found["ndcg@10"] == found["mrr@10"] == 0.0


def test_candidates_drawn_before_give_the_same_figures() -> None:
    drawn = sample_candidates(SPLIT.test, 25, by="popularity", seed=4)
    once = evaluate(Table(SCORES), SPLIT.test, candidates=drawn)
    again = evaluate(Table(SCORES), SPLIT.test, candidates=25, by="popularity", seed=4)
    assert once.metrics == again.metrics
    assert once.protocol == again.protocol
    part = evaluate(Table(SCORES), SPLIT.test, candidates=drawn, users=40)
    assert len(part.per_user) == 40


def test_a_number_of_users_is_drawn_from_the_seed() -> None:
    asked = [evaluate(Table(SCORES), SPLIT.test, users=30, seed=seed).per_user["user"].to_list() for seed in (1, 1, 2)]
    assert asked[0] == asked[1] != asked[2]
    assert len(asked[0]) == 30


def test_users_held_out_entirely_keep_their_raw_ids() -> None:
    data = dataset([[1, 2, 3, 4]] * 30, 20, [f"user {number:02}" for number in range(30)])
    holdout = hold_out_users(data).test
    found = evaluate(Table(np.random.default_rng(0).random((31, 21))), holdout, k=3)
    assert found.per_user["user"].to_list() == data.users.decode(holdout.users).to_list()


def test_parts_add_up_to_the_whole() -> None:
    found = evaluate(Table(SCORES), SPLIT.test, k=(5, 10))
    lengths, popularity = found.by_history_length, found.by_popularity
    assert lengths["users"].sum() == popularity["targets"].sum() == len(SPLIT.test)
    assert (lengths["users"] * lengths["ndcg@10"]).sum() / len(SPLIT.test) == pytest.approx(found["ndcg@10"])
    assert (popularity["targets"] * popularity["hr@5"]).sum() / len(SPLIT.test) == pytest.approx(found["hr@5"])


def test_buckets() -> None:
    lengths = by_history_length(np.array([1, 5, 6, 500]), {"hr@1": np.array([1.0, 0.0, 1.0, 1.0])})
    assert lengths.rows() == [("1–5", 2, 0.5), ("6–10", 1, 1.0), ("101 or more", 1, 1.0)]
    counts = np.array([0, 40, 20, 20, 10, 10, 10, 10, 0])
    parts = by_popularity(np.array([1, 3, 4, 8]), np.array([1, 9, 1, 1]), counts, [1])
    assert parts["popularity"].to_list() == ["popular, 40 or more", "usual, 20–39", "rare, 1–19", "cold, 0"]
    assert parts["hr@1"].to_list() == [1.0, 0.0, 1.0, 1.0]
    even = by_popularity(np.array([1, 2]), np.array([1, 1]), np.array([0, 3, 3, 3]), [1])
    assert even["popularity"].to_list() == ["popular, 3 or more"]
    nothing = by_popularity(np.array([1, 2]), np.array([1, 1]), np.zeros(4, dtype=np.int64), [1])
    assert nothing["popularity"].to_list() == ["cold, 0"]


def test_save_and_load(tmp_path: Path) -> None:
    found = evaluate(Table(SCORES), SPLIT.test, k=(5, 10))
    again = Evaluation.load(found.save(tmp_path / "evaluation.json"))
    assert again.to_dict() == found.to_dict()
    assert again.per_user.equals(found.per_user)
    assert again.by_popularity.equals(found.by_popularity)
    assert str(again) == str(found)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = evaluate(Table(SCORES), SPLIT.test).save(tmp_path / "evaluation.json")
    text = path.read_text()
    path.write_text(text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StorageError, match=r"has format version 2; this segue reads up to 1. Upgrade"):
        Evaluation.load(path)
    path.write_text(text[:-100])
    with pytest.raises(StorageError, match=r"evaluation.json is not valid JSON"):
        Evaluation.load(path)
    path.write_text("[]")
    with pytest.raises(StorageError, match="not an evaluation"):
        Evaluation.load(path)
    path.write_text(text.replace('"protocol"', '"protocoll"'))
    with pytest.raises(StorageError, match="has no 'protocol'"):
        Evaluation.load(path)


def test_the_table_names_the_protocol() -> None:
    shown = str(evaluate(Table(SCORES), SPLIT.test, k=(5, 10)))
    assert "table · test: 120 users, 120 targets among all 60 items, seen items left out" in shown
    assert "@5" in shown
    assert "ndcg" in shown


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("candidates", [None, 20])
def test_a_diverged_model_is_an_error(value: float, candidates: int | None) -> None:
    broken = np.full_like(SCORES, value)
    with pytest.raises(EvaluationError, match="scores are not finite"):
        evaluate(Table(broken), SPLIT.test, candidates=candidates)


def test_impossible_options_are_explained() -> None:
    model = Table(SCORES)
    for k, message in [
        (-1, "k=-1: expected a whole number from 1, whole numbers from 1 or None"),
        ((5, 0), r"k=\(5, 0\): expected a whole number from 1"),
        ((), "no length of list"),
        (61, "k is 61, but the catalogue has only 60 items"),
    ]:
        with pytest.raises(ConfigError, match=message):
            evaluate(model, SPLIT.test, k=k)
    with pytest.raises(ConfigError, match="k is 10, but each target is ranked among 5 candidates"):
        evaluate(model, SPLIT.test, candidates=5)
    with pytest.raises(ConfigError, match="users=0: expected 1 or more, or None"):
        evaluate(model, SPLIT.test, users=0)
    with pytest.raises(EvaluationError, match="fitted on another Dataset"):
        evaluate(Table(np.zeros((5, 50))), SPLIT.test)


def test_an_empty_holdout_is_an_error() -> None:
    empty: Holdout = SPLIT.test.select(np.zeros(0, dtype=np.int64))
    with pytest.raises(EvaluationError, match="no users"):
        evaluate(Table(SCORES), empty)
    with pytest.raises(EvaluationError, match="no users"):
        evaluate(Table(SCORES), empty, candidates=5, k=2)


@pytest.mark.filterwarnings("error::UserWarning")
def test_cold_targets_do_not_count_as_seen_ones() -> None:
    """A third of the targets is cold, and nobody takes an item twice."""
    log = pl.DataFrame(
        {"user": np.repeat(np.arange(30), 3), "item": np.arange(90) % 21, "time": np.tile([1, 2, 3], 30)}
    )
    data = segue.prepare(log, items=pl.DataFrame({"item": range(21), "size": range(21)}))
    split = segue.cold_items(data, share=0.3, seed=1)
    assert split.test.repeat_share() == 0
    assert (split.train.item_counts()[split.test.dataset.items[split.test.history_ends]] == 0).mean() > 0.1
    segue.evaluate(segue.fit(segue.Markov(), split), split.test, k=3)


def test_cold_targets_are_ranked_among_all_items_and_among_cold_ones() -> None:
    data = make_dataset([[1, 2, 7], [2, 1, 8], [3, 1, 2], [1, 3, 9]], catalogue=range(1, 10))
    kinds: dict[str, Any] = {"price": "number"}
    data = replace(data, item_table=ItemTable(pl.DataFrame({"price": list(range(9))}), kinds, "sku"))
    split = segue.cold_items(data, since=None, share=0.34, seed=3)
    cold = split.test.training_view().item_counts() == 0
    measured = evaluate(Table(np.tile(np.arange(10.0), (5, 1))), split.test, k=(1, 3))
    targets = split.test.targets()
    users, expected, own = [], [], []
    for row, target in enumerate(targets.items[targets.starts]):
        if cold[target]:
            seen = set(split.test.histories().select(np.array([row])).seen()[1].tolist())
            above = [item for item in range(target + 1, 10) if item not in seen]
            users.append(row)
            expected.append(len(above) < 3)
            own.append(sum(bool(cold[item]) for item in above) < 3)
    assert users, "no cold target"
    assert measured["cold_hr@3"] == np.mean(expected) and measured["cold_own_hr@3"] == np.mean(own)
    assert measured.protocol["cold_targets"] == len(users)
    assert measured.per_user["cold_hr@3"].is_not_null().sum() == len(users)
    plain = replace(split.test, dataset=replace(split.test.dataset, item_table=None))
    assert "cold_hr@3" not in evaluate(Table(np.tile(np.arange(10.0), (5, 1))), plain, k=3).metrics
