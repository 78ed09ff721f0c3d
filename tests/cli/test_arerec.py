"""ARERec from the command line: from a log to reasons, and what is answered to bad input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from segue.cli.main import main
from tests.models.rating_models import rated_dataset
from tests.programs import run_joined

Ask = Callable[..., Any]
TINY = ["--model", "arerec", "--model.width", "8", "--training.epochs", "1", "--training.cpu", "--quiet"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dataset prepared from a log with ratings from 1 to 5."""
    folder = tmp_path_factory.mktemp("rated")
    rated_dataset(30, 12, 14).to_frame().write_csv(folder / "log.csv")
    assert main(["prepare", str(folder / "log.csv"), "--out", str(folder / "data"), "--quiet"]) == 0
    return folder / "data"


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    """A run on rows drawn at random."""
    path = data.with_name("run")
    assert main(["train", str(data), "--out", str(path), *TINY, "--split", "random-rows"]) == 0
    return path


def test_from_a_log_to_reasons(run: Path, answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"rmse", "log_loss", "own_ndcg@3"} <= set(answer("evaluate", run)["metrics"])
    scores = answer("score", run, "--users", 1, 2, "--items", 10, 20, "--long")
    assert len(scores) == 4 and all(1 <= row["score"] <= 5 for row in scores)
    assert [row["rank"] for row in answer("recommend", run, "--users", 1, "--k", 3)] == [1, 2, 3]
    assert len(answer("similar", run, "--items", 10, "--k", 3)) == 3
    reasons = answer("explain", run, "--user", 1, "--item", 10, "--top", 4)
    assert len(reasons) == 4
    assert {"because", "rating", "attention", "agreement", "decided", "effect"} <= set(reasons[0])
    assert main(["explain", str(run), "--user", "1", "--item", "10"]) == 0
    assert "effect: the expected rating minus the one without that neighbour." in capsys.readouterr().err


def test_settings_from_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model:\n  name: arerec\n  width: 8\n  levels: [1, 2, 3, 4, 5]\n  history-length: max\n  look_back: train\n"
        "training: {epochs: 1, cpu: true}\nquiet: true\n"
    )
    assert main(["train", str(data), "--out", str(tmp_path / "run"), "--config", str(tmp_path / "run.yaml")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--model.history-length", "longest"],
            "longest: expected a whole number from 1, mean or max.",
        ),
        (["--model.history-length", "0"], "--model.history-length=0: expected a whole number from 1, mean or max"),
        (["--model.look-back", "future"], "--model.look-back=future: expected past, train, reference or null."),
        (["--model.look-back", "reference"], "Set --model.neighbour-ratings=false, as published"),
        (["--model.levels", "5", "1"], "expected two or more numbers, ascending"),
        (["--model.levels", "1", "many"], "--model.levels=many: expected numbers or null."),
        (["--model.heads", "3"], "--model.heads=3 does not divide --model.width=8"),
    ],
)
def test_bad_settings(data: Path, tmp_path: Path, complaint: Ask, words: list[str], message: str) -> None:
    assert message in complaint(2, "train", data, "--out", tmp_path / "run", *TINY, *words)


def test_bad_data(data: Path, tmp_path: Path, complaint: Ask) -> None:
    log = pl.read_csv(data.with_name("log.csv"))
    n = len(log)
    logs = {
        "none": (log.drop("rating"), "no ratings"),
        "one": (log.with_columns(rating=pl.lit(1)), "with a single level there is nothing to predict"),
        "many": (log.with_columns(rating=pl.Series(range(n)) % 150), "different values, from 0 to 149: too many"),
    }
    for name, (frame, message) in logs.items():
        frame.write_csv(tmp_path / f"{name}.csv")
        assert main(["prepare", str(tmp_path / f"{name}.csv"), "--out", str(tmp_path / name), "--quiet"]) == 0
        assert message in complaint(1, "train", tmp_path / name, "--out", tmp_path / "run", *TINY)
    said = complaint(1, "train", data, "--out", tmp_path / "run", *TINY, "--model.levels", "1", "2", "3")
    assert "ratings of 4, 5 are none of the 3 levels 1, 2, 3" in said
    log.with_columns(rating=pl.lit("good")).write_csv(tmp_path / "words.csv")
    said = complaint(1, "prepare", tmp_path / "words.csv", "--out", tmp_path / "words", "--quiet")
    assert "the rating" in said and "'good'; expected a number" in said
    log.drop("time").write_csv(tmp_path / "timeless.csv")
    assert main(["prepare", str(tmp_path / "timeless.csv"), "--out", str(tmp_path / "timeless"), "--quiet"]) == 0
    said = complaint(1, "train", tmp_path / "timeless", "--out", tmp_path / "run", *TINY, "--model.look-back", "past")
    assert "--model.look-back=past needs times, and this Dataset has none: use --model.look-back=train" in said


@pytest.mark.slow
@pytest.mark.parametrize("form", [[], ["--model.contexts", "interaction", "--model.biases", "false",
                                       "--model.neighbour-ratings", "false"]], ids=["shared", "published"])  # fmt: skip
def test_two_processes(data: Path, tmp_path: Path, form: list[str], answer: Ask) -> None:
    words = [*TINY, "--split", "random-rows", *form]
    run_joined(2, "-m", "segue", "train", data, "--out", tmp_path / "run", *words)
    assert answer("evaluate", tmp_path / "run")["metrics"]["rmse"] < 2
