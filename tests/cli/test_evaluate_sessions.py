"""`segue evaluate` and `segue compare` of runs whose test is the last session of each user."""

from __future__ import annotations

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
