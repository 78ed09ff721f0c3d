from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from segue.data.splits.by_user import leave_last_out
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.compare import compare
from segue.evaluation.resampling import bootstrap_interval, sign_flip_p_value
from segue.evaluation.tasks.next_items import Evaluation, evaluate
from tests.inference.fakes import Table, random_dataset

HOLDOUT = leave_last_out(random_dataset(300, 40, 12)).test


def table(luck: float, seed: int = 0) -> np.ndarray:
    """Random scores; targets get `luck` more."""
    scores = np.random.default_rng(seed).standard_normal((301, 41)).astype(np.float32)
    scores[HOLDOUT.users, HOLDOUT.targets().items[HOLDOUT.history_ends]] += luck
    return scores


def evaluated(luck: float, seed: int = 0) -> Evaluation:
    return evaluate(Table(table(luck, seed)), HOLDOUT, k=(5, 10), exclude_seen=False)


def test_a_better_model_is_found_better() -> None:
    found = compare(evaluated(0.0), evaluated(2.0, seed=1))
    row = found["ndcg@10"]
    assert row.difference > 0.1
    assert row.low > 0
    assert row.p_value < 0.001
    assert row.wins > row.losses
    assert row.wins + row.ties + row.losses == found.users == len(HOLDOUT)
    assert row.difference == pytest.approx(row.b - row.a)


def test_a_model_does_not_differ_from_itself() -> None:
    same = evaluated(1.0)
    row = compare(same, same)["hr@5"]
    assert (row.difference, row.low, row.high, row.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert row.ties == len(HOLDOUT)


def test_the_order_only_turns_the_sign() -> None:
    a, b = evaluated(0.5), evaluated(0.8, seed=2)
    one, other = compare(a, b, metric="mrr@10")["mrr@10"], compare(b, a, metric="mrr@10")["mrr@10"]
    assert one.difference == pytest.approx(-other.difference)
    assert (one.wins, one.losses) == (other.losses, other.wins)


def test_users_are_matched_by_id_not_by_place() -> None:
    a, b = evaluated(0.0), evaluated(1.0, seed=1)
    shuffled = replace(b, per_user=b.per_user.sample(fraction=1.0, shuffle=True, seed=3))
    assert compare(a, b)["ndcg@5"].wins == compare(a, shuffled)["ndcg@5"].wins


def test_different_users_are_an_error() -> None:
    a = evaluated(0.0)
    fewer = evaluate(Table(table(0.0)), HOLDOUT, k=(5, 10), users=50)
    with pytest.raises(EvaluationError, match="different users: 300 and 50, of whom 50 are in both"):
        compare(a, fewer)
    strings = replace(a, per_user=a.per_user.with_columns(pl.col("user").cast(pl.String)))
    with pytest.raises(EvaluationError, match="of whom 0 are in both"):
        compare(a, strings)


def test_different_protocols_are_an_error() -> None:
    a = evaluated(0.0)
    with pytest.raises(EvaluationError, match="candidates is 'all' in one and 10 in the other"):
        compare(a, evaluate(Table(table(0.0)), HOLDOUT, candidates=10, exclude_seen=False))
    with pytest.raises(EvaluationError, match="exclude_seen is False in one and True in the other"):
        compare(a, evaluate(Table(table(0.0)), HOLDOUT))
    drawn = [evaluate(Table(table(0.0)), HOLDOUT, candidates=20, seed=seed) for seed in (0, 1)]
    with pytest.raises(EvaluationError, match="drawn_from_seed is 0 in one and 1 in the other"):
        compare(*drawn)


def test_unknown_metrics_name_the_nearest() -> None:
    a = evaluated(0.0)
    with pytest.raises(ConfigError, match='did you mean "ndcg@10"'):
        compare(a, a, metric="ndgc@10")
    with pytest.raises(EvaluationError, match='did you mean "ndcg@10"'):
        compare(a, a)["ndgc@10"]


def test_it_prints_and_becomes_json() -> None:
    found = compare(evaluated(0.0), evaluated(1.0, seed=1), metric=["hr@10"])
    assert "better / equal / worse" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["differences"][0]["metric"] == "hr@10"


@pytest.mark.parametrize("distinct", [True, False])
def test_bootstrap_interval_agrees_with_the_normal_one(distinct: bool) -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal(2_000) if distinct else generator.integers(0, 4, 2_000).astype(np.float64)
    low, high = bootstrap_interval(values, 4_000, seed=1)
    error = values.std() / np.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=error / 6)
    assert (low, high) == bootstrap_interval(values, 4_000, seed=1)


@pytest.mark.parametrize("shift", [0.0, 0.05])
def test_sign_flips_agree_with_scipy(shift: float) -> None:
    values = np.random.default_rng(1).integers(-2, 3, 400) / 4 + shift
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=4_000, rng=0)
    assert sign_flip_p_value(values, 20_000) == pytest.approx(float(theirs.pvalue), abs=0.03)
