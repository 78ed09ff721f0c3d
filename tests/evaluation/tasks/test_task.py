"""Tasks as objects: their metrics, their defaults, and the seam by which a fourth one is served without other edits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import last_session_out, leave_last_n, leave_last_out
from segue.errors import ConfigError, DataError
from segue.evaluation.compare import compare
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks import registry
from segue.evaluation.tasks.baskets import evaluate_baskets
from segue.evaluation.tasks.next_items import NextItems, evaluate
from segue.evaluation.tasks.ratings import Ratings, evaluate_ratings
from segue.evaluation.tasks.registry import lower_is_better, metric_named, title_of
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.sessions import Sessions, evaluate_sessions
from segue.evaluation.tasks.task import EvaluationOptions, measure, task_named, task_of, task_of_metric, tasks
from segue.inference.scorer import scorer_of
from segue.models.arerec.arerec import ARERec
from segue.models.matrix_factorization import MatrixFactorization
from segue.models.parsrec.parsrec import PARSRec
from segue.models.popularity import Popularity
from segue.models.rating_bias import GlobalMean, RatingBias
from segue.models.sasrec import SASRec
from segue.training.config import Training
from segue.training.curves import figure_of
from segue.training.fit import fit
from segue.training.trainer import Trainer
from tests.evaluation.tasks.tiny_task import HOME, FirstMiss, Impatient
from tests.inference.fakes import Table
from tests.models.rating_models import ItemLevels, rated_dataset

SHOP = simulate(40, 6, categories=8, products=4, longest=5).dataset()
METRICS = [metric for task in tasks() for metric in task.metrics]
ERRORS = {"rmse", "mae", "log_loss", "ece"}
NEITHER = {"novelty", "coverage", "gini", "listed_repeats"}
COLD = {"cold_hr", "cold_ndcg", "cold_own_hr", "cold_own_ndcg"}
"""Metrics of data with an item table."""


def test_a_metric_means_the_same_in_all_tasks() -> None:
    assert len({metric.name for metric in METRICS}) == len(set(METRICS))
    for task in tasks():
        assert {metric.name for metric in task.metrics} >= set(task.headlines)
        assert task.usual_metric.partition("@")[0] in {metric.name for metric in task.metrics}
        for metric in task.metrics:
            assert metric_named(metric.at(7)) is metric
            assert metric.meaning
            if metric.validated:
                chosen, same, k = task_of_metric(metric.at(7))
                assert (same, k) == (metric, 7 if metric.at_k else 10)
                assert chosen is task or metric in chosen.metrics, "of several tasks the first"


def test_every_metric_has_its_direction() -> None:
    assert {metric.name for metric in METRICS if metric.better == "lower"} == ERRORS
    assert {metric.name for metric in METRICS if metric.better is None} == NEITHER


def evaluations() -> dict[str, tuple[Evaluation, Evaluation]]:
    """For each task a bad and a good model."""
    split = last_session_out(SHOP)
    shape = (SHOP.n_users + 1, SHOP.n_items + 1)
    tables = []
    for luck in (0.0, 2.0):
        scores = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        targets = split.test.targets()
        for row, user in enumerate(split.test.users):
            scores[user, targets.items[targets.starts[row] : targets.ends[row]]] += luck
        tables.append(Table(scores))
    bad, good = tables
    rated = rated_dataset()
    rows = leave_last_n(rated, 4)
    blank, learnt = (ItemLevels(levels=(1, 2, 3, 4, 5)).build(rated.n_users, rated.n_items) for _ in range(2))
    learnt.count(rows.train)
    return {
        "next-items": (evaluate(bad, split.test, exclude_seen=False), evaluate(good, split.test, exclude_seen=False)),
        "baskets": (evaluate_baskets(bad, split.test, k=2), evaluate_baskets(good, split.test, k=2)),
        "sessions": (evaluate_sessions(bad, split.test), evaluate_sessions(good, split.test)),
        "ratings": (evaluate_ratings(blank, rows.test, k=3), evaluate_ratings(learnt, rows.test, k=3)),
    }


def test_comparisons_obey_the_direction_of_every_metric() -> None:
    compared = set()
    for name, (bad, good) in evaluations().items():
        assert bad.task is task_named(name)
        measured = {metric.partition("@")[0] for metric in bad.metrics}
        assert measured == {metric.name for metric in bad.task.metrics} - COLD
        comparison = compare(bad, good, resamples=500)
        assert comparison.unit == bad.task.unit
        for row in comparison.differences:
            metric = bad.task.metric(row.metric)
            assert metric is not None
            if metric.better is None:
                continue
            compared.add(metric.name)
            assert (row.difference < 0) is metric.lower_is_better, row
            assert row.wins > row.losses
            assert row.better == "b" if row.low * row.high > 0 else row.better is None
            assert compare(good, bad, metric=row.metric, resamples=500)[row.metric].wins == row.losses
    assert compared == {metric.name for metric in METRICS} - NEITHER - {"ece"} - COLD, "all that users have values of"


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.validated], ids=lambda metric: metric.name)
def test_early_stopping_obeys_the_direction_of_every_metric(metric: registry.Metric) -> None:
    name = metric.at(10)
    run = SimpleNamespace(
        validate=object(),
        chooses=True,
        settings=Training(metric=name),
        state=SimpleNamespace(best_epoch=1, best_metric=0.5),
    )
    assert Trainer._is_best(run, {name: 0.4}) is metric.lower_is_better  # type: ignore[arg-type]
    assert Trainer._is_best(run, {name: 0.6}) is not metric.lower_is_better  # type: ignore[arg-type]
    assert lower_is_better(name) is (metric.name in ERRORS)


@pytest.mark.parametrize(
    ("config", "task"),
    [
        (SASRec, NextItems), (Popularity, NextItems), (PARSRec, Sessions),
        (ARERec, Ratings), (GlobalMean, Ratings), (RatingBias, Ratings), (MatrixFactorization, Ratings),
    ],
)  # fmt: skip
def test_a_model_names_its_task(config: type, task: type) -> None:
    assert isinstance(task_of(config()), task)


def test_a_task_gives_its_defaults() -> None:
    sessions, next_items = task_named("sessions"), task_named("next-items")
    assert sessions.suitable_split(SHOP) == {"name": "last-session-out"}
    assert next_items.suitable_split(SHOP) == {"name": "leave-last-out"}
    assert task_named("ratings").suitable_split(rated_dataset()) == {"name": "leave-last-out"}
    assert sessions.suitable_metric(last_session_out(SHOP).validation) == "sess_prec@10"
    assert sessions.suitable_metric(leave_last_n(SHOP, 1).validation) == "ndcg@10"
    with pytest.raises(DataError, match="no sessions: prepare it from a log with a column of sessions"):
        sessions.suitable_split(replace(SHOP, session_offsets=None))
    with pytest.raises(ConfigError, match="no task 'session'; did you mean \"sessions\""):
        task_named("session")


# ---- a fourth task -------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._HOMES, FirstMiss.name, HOME)


def tiny(**settings: object) -> Impatient:
    return Impatient(width=8, blocks=1, max_length=6, **settings)  # type: ignore[arg-type]


@pytest.mark.usefixtures("registered")
def test_a_new_task_is_validated_drawn_and_chosen_by(tmp_path: Path) -> None:
    split, training = leave_last_out(SHOP), Training(epochs=3, cpu=True, watch_test=True)
    fitted = fit(tiny(), split, training=training, out=tmp_path / "run", quiet=True)
    assert fitted.metadata["options"]["metric"] == "miss"
    assert fitted.metadata["options"]["validation_exclude_seen"] is False
    table = pl.read_csv(tmp_path / "run" / "metrics.csv")
    assert table.columns[3:] == ["miss", "early@5", "test miss", "test early@5"]
    assert fitted.metadata["training"]["best_epochs"]["miss"] == int(table["miss"].arg_min() or 0) + 1
    titles = [axes.get_title(loc="left") for axes in figure_of(table.to_dicts(), "miss", 1).axes]
    assert titles == ["Training loss per target", "Mean miss", "Early@5"]
    assert title_of("early@5") == "Early@5"


@pytest.mark.usefixtures("registered")
def test_a_new_task_is_measured_saved_reported_and_compared(tmp_path: Path) -> None:
    test = leave_last_out(SHOP).test
    made = {"A": tiny(), "B": tiny(dropout=0.1)}
    scorers = {name: scorer_of(config.build(SHOP.n_users, SHOP.n_items).eval()) for name, config in made.items()}
    runs = {name: SimpleNamespace(scorer=scorer) for name, scorer in scorers.items()}
    found = {name: measure(run, test, EvaluationOptions()) for name, run in runs.items()}
    again = Evaluation.load(found["A"].save(tmp_path / "a.json"))
    assert again.task is task_named("first-miss")
    assert str(again) == str(found["A"])
    assert again.setting == "test: 40 visitors among the 31 items of the shop"
    comparison = compare(found["A"], found["B"], resamples=100)
    assert "40 visitors, among the 31 items of the shop" in str(comparison) and "miss ↓" in str(comparison)
    seen = measure(runs["A"], test, EvaluationOptions(exclude_seen=True))
    with pytest.raises(Exception, match="exclude_seen is False in one and True in the other"):
        compare(found["A"], seen)
    page = write_report(tmp_path / "p.html", title="Four", evaluations=found, comparisons=[comparison]).read_text()
    for text in ("<figcaption>miss<", "<figcaption>early@5<", "A miss is a rank from 0.", "One dot", "drawn for "):
        assert text in page
    assert "By parity of the code, miss" in page
    assert re.search(r'class="lead">[AB] has a value of [\d.]+ in Mean miss, [AB] [\d.]+\.<', page)
    assert "count visitors. Of miss a negative difference is better." in page


def test_of_an_unknown_task_nothing_is_made_up() -> None:
    evaluation = Evaluation("tiny", {"miss": 1.0}, {}, pl.DataFrame({"user": [1]}), {}, {"task": "first-miss"})
    with pytest.raises(ConfigError, match="there is no task 'first-miss'"):
        str(evaluation)
