"""`segue evaluate` and `segue compare` of runs whose test is the last session of each user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.cli.main import main
from segue.evaluation.tasks.result import Evaluation

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two models on 50 made users with 5 sessions each."""
    folder = tmp_path_factory.mktemp("sessions")
    words = ["--users", "50", "--sessions", "5", "--products", "6", "--quiet"]
    assert main(["simulate", "--out", str(folder / "data"), *words]) == 0
    for name in ("popularity", "markov"):
        split = ["--split", "last-session-out"]
        assert main(["train", str(folder / "data"), "--out", str(folder / name), "--model", name, *split]) == 0
    return {name: folder / name for name in ("popularity", "markov")}


def test_both_ways_in_json_and_in_the_file(runs: dict[str, Path], tmp_path: Path, answer: Ask) -> None:
    out = tmp_path / "found.json"
    found = answer("evaluate", runs["markov"], "--k", "5,10", "--candidates", 30, "--out", out)
    assert found["protocol"]["candidates"] == 30
    ways = found["sessions"]
    assert [way["protocol"]["candidates"] for way in ways.values()] == ["all", 30]
    for way in ways.values():
        assert way["protocol"]["exclude_seen"] is False
        assert list(way["metrics"]) == [
            f"{name}@{k}" for name in ("sess_prec", "step_hr", "step_ndcg") for k in (5, 10)
        ]
        assert [part["step"] for part in way["by_step"]][:2] == ["1", "2"]
    kept = Evaluation.load(out)
    assert {way: evaluation.to_dict() for way, evaluation in kept.sessions.items()} == ways
    assert len(kept.sessions["sampled"].per_user) == 50


def test_99_are_sampled_unless_the_catalogue_is_smaller(
    runs: dict[str, Path], answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answer("evaluate", runs["markov"], "--on", "validation", "--users", 20)["sessions"]["sampled"]["protocol"]
    assert (asked["split"], asked["users"], asked["candidates"]) == ("validation", 20, 99)
    assert main(["evaluate", str(runs["markov"]), "--k", "100"]) == 0
    said = capsys.readouterr()
    assert "none would be below a list of 100" in said.err
    assert "sess_prec@100" in said.out
    assert "sampled items" not in said.out


def test_one_table_shows_both_ways(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs["markov"]), "--parts"]) == 0
    page = capsys.readouterr().out
    assert "test: 50 sessions completed step by step" in page
    (head,) = [line for line in page.splitlines() if "among all" in line and "among 99 sampled items" in line]
    (row,) = [line for line in page.splitlines() if "sess_prec@10" in line]
    assert row.count("[") == 2, f"an interval for each way, under {head}"
    assert "by step, among 99 sampled items" in page
    assert "step_ndcg@10" in page


def test_the_page_shows_both_ways(runs: dict[str, Path], tmp_path: Path, answer: Ask) -> None:
    answer("evaluate", runs["markov"], "--report", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for shown in ("Session by session", "sess_prec@10, among all", "step_ndcg@10 by step, among 99 sampled items"):
        assert shown in page


def test_compare(runs: dict[str, Path], answer: Ask, complaint: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", runs["popularity"], runs["markov"], "--metric", "sess_prec@10", "hr@10"]
    (found,) = answer(*words)
    assert [row["metric"] for row in found["differences"]] == ["hr@10"]
    for way in ("all", "sampled"):
        (row,) = found["sessions"][way]["differences"]
        assert row["metric"] == "sess_prec@10"
        assert row["low"] <= row["difference"] <= row["high"]
    assert main(["compare", str(runs["popularity"]), str(runs["markov"]), "--metric", "step_hr@10"]) == 0
    page = capsys.readouterr().out
    assert page.count("markov against popularity, 50 sessions, among") == 2
    assert "50 users, among" not in page, "no table without the metric that was asked for"
    assert 'did you mean "step_ndcg@10"' in complaint(2, *words[:3], "--metric", "step_ndgc@10")


# ---- the defaults of a model of sessions ---------------------------------------------------------------------------

TINY = ["--model.user-width", "8", "--model.item-width", "8", "--training.epochs", "2", "--training.cpu", "--quiet"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dataset whose users take the same items again and again, in sessions."""
    folder = tmp_path_factory.mktemp("shop")
    words = ["--users", "60", "--sessions", "6", "--products", "3", "--categories", "6", "--quiet"]
    assert main(["simulate", "--out", str(folder / "data"), *words]) == 0
    return folder / "data"


def test_parsrec_is_trained_and_measured_by_sessions_unless_told_otherwise(
    shop: Path, tmp_path: Path, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(shop), "--out", str(tmp_path / "run"), "--model", "parsrec", *TINY]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "split: last-session-out (--split names another)" in said.err
    assert "validation sess_prec@10" in said.out
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["split"] == {"name": "last-session-out"}
    assert run["training"]["metric"] == "sess_prec@10"
    assert run["training"]["validation_exclude_seen"] is False
    found = answer("evaluate", tmp_path / "run", "--k", "5")
    assert found["protocol"]["exclude_seen"] is False
    assert found["metrics"]["hr@5"] > 0
    assert found["sessions"]["all"]["metrics"]["sess_prec@5"] > 0
    assert answer("evaluate", tmp_path / "run", "--k", "5", "--no-include-seen")["protocol"]["exclude_seen"] is True
    assert main([*words, "--split", "last-session-out", "--resume"]) == 0
    assert "split:" not in capsys.readouterr().err, "it was named"


def test_a_split_inside_sessions_keeps_seen_items(shop: Path, tmp_path: Path, answer: Ask) -> None:
    words = ["train", shop, "--out", tmp_path / "run", "--model", "parsrec", *TINY, "--split", "leave-last-out"]
    trained = answer(*words)
    assert trained["options"]["metric"] == "ndcg@10"
    assert trained["options"]["validation_exclude_seen"] is False
    assert trained["training"]["validation"]["hr@10"] > 0
    assert "sessions" not in answer("evaluate", tmp_path / "run", "--k", "5")


def test_other_models_keep_their_defaults(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "sasrec", "--model.width", "8", "--model.blocks", "1", "--training.epochs", "1", "--quiet"]
    assert main(["train", str(shop), "--out", str(tmp_path / "run"), *words]) == 0
    assert "split: leave-last-out" in capsys.readouterr().err
    training = json.loads((tmp_path / "run" / "run.json").read_text())["training"]
    assert (training["metric"], training["validation_exclude_seen"]) == ("ndcg@10", True)


def test_a_run_goes_on_with_its_own_split_and_metric(shop: Path, tmp_path: Path, answer: Ask) -> None:
    """As runs of parsrec began before the defaults were those of the task."""
    words = ["train", shop, "--out", tmp_path / "run", "--model", "parsrec", *TINY]
    options = ["--training.metric", "ndcg@10", "--training.validation-exclude-seen", "true"]
    answer(*words, "--split", "leave-last-out", *options)
    resumed = answer(*words, "--resume", "--training.epochs", "3")
    assert resumed["training"]["epochs"] == 3
    assert resumed["split"] == {"name": "leave-last-out"}
    assert resumed["options"]["metric"] == "ndcg@10"
    assert resumed["options"]["validation_exclude_seen"] is True


def test_parsrec_without_sessions_says_how_to_get_them(tmp_path: Path, complaint: Ask) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\n" + "".join(f"{i % 5},{i % 7},{i}\n" for i in range(60)))
    assert main(["prepare", str(tmp_path / "log.csv"), "--out", str(tmp_path / "data"), "--quiet"]) == 0
    said = complaint(1, "train", tmp_path / "data", "--out", tmp_path / "run", "--model", "parsrec", *TINY)
    assert "this Dataset has no sessions: prepare it from a log with a column of sessions" in said


def test_runs_of_both_tasks_are_compared_with_seen_items(shop: Path, tmp_path: Path, answer: Ask) -> None:
    split = ["--split", "last-session-out"]
    answer("train", shop, "--out", tmp_path / "parsrec", "--model", "parsrec", *TINY)
    answer("train", shop, "--out", tmp_path / "markov", "--model", "markov", *split)
    (found,) = answer("compare", tmp_path / "markov", tmp_path / "parsrec", "--metric", "hr@10", "sess_prec@10")
    assert found["differences"][0]["b"] > 0
    assert found["sessions"]["all"]["differences"][0]["metric"] == "sess_prec@10"
