"""The first sentences of a report: for each task, for one model, for ties and for chance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import last_session_out, leave_last_n
from segue.evaluation.compare import compare
from segue.evaluation.report.outcome import best_first, outcome_of
from segue.evaluation.tasks.baskets import evaluate_baskets
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.sessions import evaluate_sessions
from tests.evaluation.report.pages import evaluated
from tests.inference.fakes import Table
from tests.models.rating_models import ItemLevels, rated_dataset


def hits(*values: float, ndcg: float | None = None, **protocol: Any) -> Evaluation:
    """An evaluation of next items with these hits, one user each."""
    column = np.asarray(values, dtype=np.float64)
    mean = float(column.mean())
    return Evaluation(
        model="model",
        metrics={"hr@10": mean, "ndcg@10": mean if ndcg is None else ndcg},
        intervals={"hr@10": (mean - 0.04, mean + 0.04)},
        per_user=pl.DataFrame({"user": np.arange(len(values)), "hr@10": column, "ndcg@10": column}),
        parts={},
        protocol={
            "split": "test",
            "users": len(values),
            "targets": len(values),
            "candidates": "all",
            "items": 300,
            "exclude_seen": True,
        }
        | protocol,
    )


def share(of_100: int, times: int = 1) -> Evaluation:
    return hits(*([1.0] * of_100 + [0.0] * (100 - of_100)) * times)


def said(**evaluations: Evaluation) -> tuple[str, str]:
    outcome = outcome_of(evaluations)
    assert outcome is not None
    return outcome.lead, outcome.rest


def test_a_real_difference_of_next_items() -> None:
    lead, rest = said(popularity=share(12), markov=share(29), sasrec=share(67))
    assert lead == (
        "sasrec finds 67 of 100 users' next item within its first ten, markov 29, and popularity, the last of three "
        "models, 12."
    )
    assert rest.startswith("The difference is real: ")
    assert rest.endswith("of 100 more than markov (95 % interval, p < 0.001, on the same 100 users).")


def test_a_difference_that_may_be_chance() -> None:
    first = share(50)
    other = hits(*first.per_user["hr@10"].to_list()[::-1][:-1], 0.0)
    lead, rest = said(a=first, b=other)
    assert lead == "a finds 50 of 100 users' next item within its first ten, b 49."
    assert rest.startswith("The difference between a and b may be chance: from \u2212")
    assert "Neither is shown to be better." in rest and "real" not in rest


def test_models_that_are_equal() -> None:
    lead, rest = said(a=share(40), b=share(40))
    assert lead == "a finds 40 of 100 users' next item within its first ten, b 40."
    assert rest == "a and b are equal for each of the same 100 users."
    mirrored = hits(*share(40).per_user["hr@10"].to_list()[::-1])
    rest = said(a=share(40), b=mirrored)[1]
    assert "may be chance" in rest, "equal means, other users"


def test_one_model_alone() -> None:
    lead, rest = said(sasrec=share(67))
    assert lead == "sasrec finds 67 of 100 users' next item within its first ten (95 % interval 63.0 to 71.0)."
    assert rest.startswith("It was measured alone")


def test_figures_have_the_digits_that_they_need() -> None:
    lead = said(a=hits(*[1.0] * 671, *[0.0] * 329), b=hits(*[1.0] * 669, *[0.0] * 331))[0]
    assert "67.1 of 100" in lead and "b 66.9" in lead, "both would be 67"
    lead = said(a=hits(*[1.0] * 3, *[0.0] * 997), b=hits(*[0.0] * 1000))[0]
    assert "0.3 of 100" in lead and "b 0.0" in lead, "few are not none"


def test_words_of_the_questions() -> None:
    lead = said(a=hits(1.0, 0.0, targets=9))[0]
    assert lead.startswith("a finds an item that came next for 50 of 100 users within its first ten")
    lead = said(a=hits(1.0, 0.0, candidates=20, drawn_by="uniform"))[0]
    assert "within its first ten among 20 sampled items" in lead
    assert "as its first item" in said(a=evaluated(1.0, 1, k=(1,)))[0]
    assert "within its first 20" in said(a=evaluated(1.0, 1, k=(20,)))[0]


def test_a_second_headline_that_says_otherwise_is_told() -> None:
    first, other = share(60), share(40)
    rest = said(a=replace(first, metrics={**first.metrics, "ndcg@10": 0.3}), b=other)[1]
    assert rest.endswith("By NDCG@10, b is ahead: 0.40 against 0.30.")


def test_the_tests_that_were_made_are_told() -> None:
    models = {"a": share(60), "b": share(40)}
    made = compare(models["a"], models["b"], metric="hr@10", names=("a", "b"))
    odd = replace(made, differences=(replace(made["hr@10"], low=-0.5, high=-0.125, p_value=0.04),))
    outcome = outcome_of(models, [odd])
    assert outcome is not None
    assert outcome.rest.startswith("The difference is real: 12.5 to 50.0 of 100 more than b (95 % interval, p = 0.040")
    unsure = replace(odd, differences=(replace(odd.differences[0], p_value=0.06),))
    outcome = outcome_of(models, [unsure])
    assert outcome is not None and "may be chance" in outcome.rest, "interval and p must agree"


def test_the_best_is_first_and_the_next_headline_decides_between_equals() -> None:
    third = replace(share(50), metrics={"hr@10": 0.5, "ndcg@10": 0.6})
    assert list(best_first({"a": share(20), "b": share(50), "c": third})) == ["c", "b", "a"]


@pytest.fixture(scope="module")
def tables() -> tuple[Any, list[Table]]:
    holdout = last_session_out(simulate(60, 6, categories=8, products=4, longest=5).dataset()).test
    shape = (holdout.dataset.n_users + 1, holdout.dataset.n_items + 1)
    scores = [np.random.default_rng(seed).random(shape) for seed in (0, 1)]
    targets = holdout.targets()
    rows = np.repeat(holdout.users, targets.lengths)
    held = np.concatenate([targets.items[low:high] for low, high in zip(targets.starts, targets.ends, strict=True)])
    scores[1][rows, held] += 0.5
    return holdout, [Table(one) for one in scores]


def test_baskets(tables: tuple[Any, list[Table]]) -> None:
    holdout, (bad, good) = tables
    found = {
        name: evaluate_baskets(one, holdout, k=5, exclude_seen=False) for name, one in (("bad", bad), ("good", good))
    }
    lead, rest = said(**found)
    recalls = [f"{100 * found[name]['recall@5']:.0f}" for name in ("good", "bad")]
    assert lead == f"good finds {recalls[0]} of 100 items of the next basket within its first five, bad {recalls[1]}."
    assert rest.startswith("The difference is real") and "on the same 60 baskets" in rest


def test_sessions(tables: tuple[Any, list[Table]]) -> None:
    holdout, (bad, good) = tables
    found = {name: evaluate_sessions(one, holdout, k=5) for name, one in (("bad", bad), ("good", good))}
    lead, rest = said(**found)
    shares = [f"{100 * found[name]['sess_prec@5']:.0f}" for name in ("good", "bad")]
    expected = f"good finds the item of {shares[0]} of 100 steps of a session within its first five, bad {shares[1]}."
    assert lead == expected
    assert "on the same 60 sessions" in rest


def test_ratings_have_less_error() -> None:
    data = rated_dataset()
    split = leave_last_n(data, 4)
    found = {}
    for name in ("blank", "learnt"):
        model = ItemLevels(levels=(1, 2, 3, 4, 5)).build(data.n_users, data.n_items)
        if name == "learnt":
            model.count(split.train)
        found[name] = evaluate_ratings(model, split.test, k=2)
    lead, rest = said(**found)
    errors = [f"{found[name]['rmse']:.2f}" for name in ("learnt", "blank")]
    assert (
        lead == f"learnt expects ratings with a typical error of {errors[0]} on a scale from 1 to 5, blank {errors[1]}."
    )
    row = compare(found["blank"], found["learnt"], metric="rmse")["rmse"]
    assert row.high < 0
    assert f"{-row.high:.2f} to {-row.low:.2f} less than blank" in rest and "of 100" not in rest
    alone = said(learnt=found["learnt"])[0]
    assert alone.startswith(f"learnt expects ratings with a typical error of {errors[0]} on a scale from 1 to 5 (95 %")


def test_without_values_of_users_nothing_is_claimed() -> None:
    models = {
        name: replace(share(luck), per_user=pl.DataFrame({"user": range(100)})) for name, luck in (("a", 9), ("b", 8))
    }
    rest = said(**models)[1]
    assert rest == "The difference between a and b was not tested: there are no values of hr@10 by user."
