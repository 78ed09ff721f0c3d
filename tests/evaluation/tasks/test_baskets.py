"""Baskets measured as sets, against a slow second writing and against ir-measures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from math import log2

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import P, R, Success, nDCG

from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import Holdout, last_session_out, leave_last_out
from segue.errors import ConfigError
from segue.evaluation.compare import compare
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks.baskets import Baskets, evaluate_baskets
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, leaves_seen_out, measure, task_named, task_of_metric
from segue.inference.scoring.batches import Limits
from segue.inference.scoring.ranking import target_ranks
from segue.models.parsrec.parsrec import PARSRec
from segue.models.popularity import Popularity
from segue.models.sasrec import SASRec
from segue.training.config import Training
from segue.training.fit import fit
from tests.evaluation.tasks.test_sessions import with_sessions
from tests.inference.fakes import Table

N_ITEMS = 9
SHOP = simulate(40, 6, categories=8, products=4, longest=5).dataset()
SPLIT = last_session_out(SHOP)
THEIRS = {"recall": R, "ndcg": nDCG, "hr": Success, "precision": P}


def holdout_of(users: Sequence[Sequence[Sequence[int]]]) -> Holdout:
    """The last sessions of users with three or more."""
    return last_session_out(with_sessions(users)).test


def slowly(scores: np.ndarray, history: set[int], wanted: set[int], allowed: set[int], k: int) -> dict[str, float]:
    """Metrics of one user: `wanted` items among the `allowed` ones; equal scores count against the basket's items."""
    ranked = sorted(allowed, key=lambda item: (-scores[item], item in wanted, item))
    hits = [rank for rank, item in enumerate(ranked[:k], 1) if item in wanted]
    gain = sum(1 / log2(1 + rank) for rank in hits)
    best = sum(1 / log2(1 + rank) for rank in range(1, min(k, len(wanted)) + 1))
    return {
        "recall": len(hits) / len(wanted),
        "ndcg": gain / best,
        "hr": float(bool(hits)),
        "precision": len(hits) / k,
    }


baskets = st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=5), min_size=3, max_size=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(baskets, min_size=1, max_size=4), st.integers(1, N_ITEMS), st.booleans(), st.integers(0, 99))
def test_every_figure_equals_the_slow_writing(rows: list, k: int, exclude_seen: bool, seed: int) -> None:
    """Distinct scores: with equal ones the order of two targets of different kinds depends on which is ranked."""
    holdout = holdout_of(rows)
    shape = (len(rows) + 1, N_ITEMS + 1)
    scores = np.random.default_rng(seed).permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = evaluate_baskets(Table(scores), holdout, k=k, exclude_seen=exclude_seen, resamples=0)
    every = set(range(1, N_ITEMS + 1))
    parts: dict[str, list[dict[str, float]]] = {}
    shares, listed = [], []
    for row, user in enumerate(holdout.users):
        history = {item for session in rows[user - 1][:-1] for item in session}
        basket = set(rows[user - 1][-1])
        among = every - history if exclude_seen else every
        kinds = {"": basket, "repeat": basket & history, "explore": basket - history}
        ways = {"": among, "_own": every}
        for kind, wanted in kinds.items():
            for way in ways if kind else [""]:
                allowed = among if not way else history if kind == "repeat" else every - history
                if wanted:
                    figures = slowly(scores[user], history, wanted, allowed, k)
                    parts.setdefault(f"{kind}{way}", []).append(figures)
                    if kind:
                        assert found.per_user[f"{kind}{way}_ndcg@{k}"][row] == pytest.approx(figures["ndcg"])
        shares.append(len(basket & history) / len(basket))
        best = sorted(among, key=lambda item: -scores[user][item])[:k]
        listed.append(len(set(best) & history) / max(len(best), 1))
    for part, figures in parts.items():
        for name in ("recall", "ndcg", "hr"):
            full = f"{part}_{name}@{k}" if part else f"{name}@{k}"
            assert found[full] == pytest.approx(np.mean([one[name] for one in figures])), full
    by_kind = {row["kind"]: row for row in found.parts["kind"].to_dicts()}
    for part, words in (("", "whole"), ("repeat_own", "bought before, among such"), ("explore", "new")):
        rows_of_kind = parts.get(part, [])
        assert by_kind[words]["baskets"] == len(rows_of_kind)
        for name in THEIRS if rows_of_kind else ():
            assert by_kind[words][f"{name}@{k}"] == pytest.approx(np.mean([one[name] for one in rows_of_kind]))
    assert found.protocol["repeats"] == pytest.approx(np.mean(shares))
    assert found.per_user["repeats"].to_list() == pytest.approx(shares)
    assert found[f"listed_repeats@{k}"] == pytest.approx(np.mean(listed))


def test_the_parts_are_those_of_ir_measures() -> None:
    """All items of a basket are relevant; a part has the qrels of its items, in the same run or in that of its kind."""
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((SHOP.n_users + 1, SHOP.n_items + 1)).astype(np.float32)
    found = evaluate_baskets(Table(scores), SPLIT.test, k=(3, 10), exclude_seen=False)
    histories, targets = SPLIT.test.histories(), SPLIT.test.targets()
    sets = [
        (set(histories.items[a:b].tolist()), set(targets.items[c:d].tolist()))
        for a, b, c, d in zip(histories.starts, histories.ends, targets.starts, targets.ends, strict=True)
    ]
    for part in ("", "repeat_", "explore_", "repeat_own_", "explore_own_"):
        qrels, run = {}, {}
        for row, (history, basket) in enumerate(sets):
            wanted = basket & history if "repeat" in part else basket - history if part else basket
            allowed = set(range(1, SHOP.n_items + 1))
            if "own" in part:
                allowed = history if "repeat" in part else allowed - history
            if wanted:
                qrels[str(row)] = dict.fromkeys(map(str, wanted), 1)
                run[str(row)] = {str(item): float(scores[SPLIT.test.users[row], item]) for item in allowed}
        measures = {f"{part}{name}@{k}": theirs @ k for name, theirs in THEIRS.items() for k in (3, 10)}
        theirs = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
        for name, measured in measures.items():
            if name in found.metrics:
                assert found[name] == pytest.approx(theirs[measured]), name
        assert f"{part}ndcg@3" in found.metrics


def test_the_whole_is_that_of_next_items() -> None:
    model = fit(Popularity(), SPLIT, quiet=True)
    whole, parts = (one(model, SPLIT.test, exclude_seen=False) for one in (evaluate, evaluate_baskets))
    assert {name: parts[name] for name in whole.metrics} == dict(whole.metrics)
    assert {name: parts.intervals[name] for name in whole.intervals} == dict(whole.intervals)
    assert "of them" not in parts.caption
    assert "40 baskets of" in parts.caption and "bought before) among all" in parts.caption
    assert parts.task is task_named("baskets")


def test_a_chunked_catalogue_gives_the_same_ranks() -> None:
    scores = np.random.default_rng(0).standard_normal((SHOP.n_users + 1, SHOP.n_items + 1)).astype(np.float32)
    histories, targets = SPLIT.test.histories(), SPLIT.test.targets()
    small = Limits(chunk_items=5)
    whole, pieces = (
        target_ranks(Table(scores), histories, targets, exclude_seen=False, only=histories, limits=limits)
        for limits in (Limits(), small)
    )
    assert whole.tolist() == pieces.tolist()
    assert (whole[~histories.holds(targets)] == SHOP.n_items + 1).all()


def test_baskets_without_repeats_or_without_new_items() -> None:
    new = holdout_of([[[1], [2], [3, 4]]])
    table = Table(np.ones((2, N_ITEMS + 1)))
    found = evaluate_baskets(table, new, k=2)
    assert found.protocol["exclude_seen"] is True, "nobody repeats anything"
    assert "repeat_recall@2" not in found.metrics and "explore_recall@2" in found.metrics
    assert found.parts["kind"].filter(kind="bought before")["recall@2"].to_list() == [None]
    old = holdout_of([[[1, 2], [2], [1, 2]]])
    found = evaluate_baskets(table, old, k=2)
    assert found.protocol["exclude_seen"] is False, "all is repeated"
    assert found["repeat_own_recall@2"] == 1.0 and "explore_recall@2" not in found.metrics


def test_sampled_candidates_come_from_the_history_if_that_is_kept() -> None:
    model = fit(Popularity(), SPLIT, quiet=True)
    found = evaluate_baskets(model, SPLIT.test, candidates=12, exclude_seen=False)
    assert found.protocol["candidates"] == 12
    assert "repeat_recall@10" in found.metrics
    assert not [name for name in found.metrics if "_own_" in name or name.startswith("listed")]


# ---- the task -------------------------------------------------------------------------------------------------------


def test_only_whole_sessions_of_several_items_are_baskets() -> None:
    task = Baskets()
    assert task.suits(SPLIT.test)
    assert not task.suits(leave_last_out(SHOP).test)
    assert not task.suits(holdout_of([[[1], [2], [3]], [[4], [5], [5]]])), "one item each"
    assert task_of_metric("ndcg@10", SPLIT.test)[0].name == "baskets"
    assert task_of_metric("ndcg@10", leave_last_out(SHOP).test)[0].name == "next-items"
    assert task_of_metric("sess_prec@10", SPLIT.test)[0].name == "sessions"


def test_the_share_of_repeats_is_that_of_the_targets() -> None:
    assert holdout_of([[[1, 2], [3], [1, 9, 3]], [[1], [2], [1]]]).repeat_share() == 3 / 4
    assert SPLIT.test.select(np.zeros(0, dtype=np.int64)).repeat_share() == 0.0


def test_seen_items_are_kept_where_people_repeat_themselves() -> None:
    assert SPLIT.test.repeat_share() > 0.1
    assert not leaves_seen_out(SASRec(), SPLIT.test)
    assert leaves_seen_out(SASRec(), leave_last_out(SHOP).test), "a single next item has the default of its model"
    assert leaves_seen_out(SASRec(), holdout_of([[[1], [2], [3, 4]]]))
    assert not leaves_seen_out(PARSRec(), holdout_of([[[1], [2], [3, 4]]]))
    assert leaves_seen_out(SASRec(), None)


def test_every_ranking_model_is_measured_on_baskets() -> None:
    model = fit(Popularity(), SPLIT, quiet=True)
    found = measure(model, SPLIT.test, EvaluationOptions(split="last-session-out"))
    assert found.task.name == "baskets"
    assert found.protocol["exclude_seen"] is False
    assert "all" in found.sessions, "the sessions are completed as before"
    assert "sess_prec@10" in found.sessions["all"].metrics


def test_leaving_repeats_out_warns_with_the_option() -> None:
    model = fit(Popularity(), SPLIT, quiet=True)
    for one in (evaluate, evaluate_baskets):
        with pytest.warns(UserWarning, match=r"% of the targets of the test part .* Keep seen items: exclude_seen=Fal"):
            found = one(model, SPLIT.test, exclude_seen=True)
        assert found["hr@10"] < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_baskets(model, SPLIT.test)
        evaluate(model, SPLIT.test, exclude_seen=False)
    with pytest.warns(UserWarning, match=r"--training\.validation-exclude-seen false"):
        fit(
            SASRec(width=8, blocks=1, heads=1),
            SPLIT,
            training=Training(epochs=1, validation_exclude_seen=True, cpu=True),
            quiet=True,
        )


def test_validation_measures_both_parts() -> None:
    config, training = SASRec(width=8, blocks=1, heads=1), Training(epochs=1, cpu=True)
    metadata = fit(config, SPLIT, training=training, quiet=True).metadata
    measured = metadata["training"]["validation"]
    assert list(measured) == ["hr@10", "ndcg@10", "recall@10", "repeat_recall@10", "explore_recall@10"]
    assert metadata["options"]["validation_exclude_seen"] is False
    chosen = replace(training, metric="explore_own_ndcg@5", validation_candidates=None)
    fitted = fit(config, SPLIT, training=chosen, quiet=True)
    value = evaluate_baskets(fitted, SPLIT.validation, k=5)["explore_own_ndcg@5"]
    assert fitted.metadata["training"]["validation"]["explore_own_ndcg@5"] == pytest.approx(value)
    with pytest.raises(ConfigError, match="whole baskets"):
        fit(config, leave_last_out(SHOP), training=replace(training, metric="repeat_ndcg@10"), quiet=True)
    with pytest.raises(ConfigError, match="all items"):
        sampled = replace(training, metric="repeat_own_ndcg@10", validation_candidates=12)
        fit(config, SPLIT, training=sampled, quiet=True)


def test_a_comparison_and_a_report_show_the_parts(tmp_path: object) -> None:
    scores = [np.random.default_rng(seed).standard_normal((41, SHOP.n_items + 1)) for seed in (0, 1)]
    a, b = (evaluate_baskets(Table(one), SPLIT.test) for one in scores)
    found = compare(a, b, resamples=200)
    assert found.unit == "baskets"
    assert found["repeat_recall@10"].b == pytest.approx(b["repeat_recall@10"])
    page = write_report(f"{tmp_path}/page.html", title="Baskets", evaluations={"a": a, "b": b}).read_text()
    page = page.replace("<wbr>", "")  # names of metrics may be broken on narrow screens
    for text in ("Bought before and new", "bought before, among such", "explore_own_ndcg@10", "listed_repeats@10"):
        assert text in page
    again = Evaluation.load(a.save(f"{tmp_path}/a.json"))
    assert str(again) == str(a)
    assert compare(again, b, metric="explore_ndcg@10", resamples=100).users == 40
