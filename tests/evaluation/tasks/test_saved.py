"""Evaluations that segue saved before tasks were objects load, print and compare as they did then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.evaluation.compare import compare
from segue.evaluation.tasks.result import Evaluation

SAVED = Path(__file__).parent.parent.parent / "saved" / "evaluations"
PRINTED = json.loads((SAVED / "printed" / "printed.json").read_text(encoding="utf-8"))
"""Text of each evaluation, of what is within it and of comparisons, printed by the segue that saved them."""
TASKS = {"next": "next-items", "sessions": "next-items", "ratings": "ratings"}


def texts(evaluation: Evaluation) -> list[str]:
    inner = [*evaluation.sessions.values(), *filter(None, [evaluation.ranking])]
    return [str(one) for one in (evaluation, *inner)]


@pytest.mark.parametrize("path", sorted(SAVED.glob("*.json")), ids=lambda path: path.stem)
def test_they_load_print_and_save_the_same(path: Path, tmp_path: Path) -> None:
    evaluation = Evaluation.load(path)
    assert texts(evaluation) == PRINTED[path.stem]
    assert evaluation.task.name == TASKS[path.stem.rpartition("-")[2]]
    assert {way.task.name for way in evaluation.sessions.values()} <= {"sessions"}
    assert evaluation.save(tmp_path / "again.json").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", list(TASKS))
def test_they_compare_the_same(setting: str) -> None:
    first, second = (Evaluation.load(path) for path in sorted(SAVED.glob(f"*-{setting}.json")))
    comparison = compare(first, second, resamples=500)
    assert [str(one) for one in (comparison, *comparison.sessions.values())] == PRINTED[f"comparison-{setting}"]
