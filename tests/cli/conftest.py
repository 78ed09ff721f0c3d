from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.cli.main import main
from segue.data.simulation.simulate import simulate

Json = Callable[..., Any]

START, WEEK = 1_704_067_200, 604_800
TINY = ["--training.epochs", "2", "--model.width", "8", "--model.blocks", "1", "--training.cpu", "--quiet"]
"""Options of a training that takes a second."""


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 users and 40 items, named "user-0001" and "pasta-01", in sessions."""
    path = tmp_path_factory.mktemp("log") / "shop.csv"
    log = simulate(60, 4, categories=8, products=5, price_effect=0.1, longest=6, names=True).log()
    log.with_columns(time=START + WEEK * log["time"].cast(int)).write_csv(path)
    return path


@pytest.fixture(scope="session")
def data(csv: Path) -> Path:
    """The Dataset made of the log."""
    path = csv.with_name("data")
    assert main(["prepare", str(csv), "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="session")
def run(data: Path) -> Path:
    """A run of SASRec."""
    path = data.with_name("sasrec")
    assert main(["train", str(data), "--out", str(path), *TINY]) == 0
    return path


@pytest.fixture(scope="session")
def markov(data: Path) -> Path:
    """A run of the baseline."""
    path = data.with_name("markov")
    assert main(["train", str(data), "--out", str(path), "--model", "markov"]) == 0
    return path


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Json:
    """Runs a command with --json and gives what it wrote."""

    def ask(*words: object) -> Any:
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must end with the given exit code and gives its message."""

    def ask(code: int, *words: object) -> str:
        capsys.readouterr()
        assert main([*map(str, words)]) == code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return captured.err

    return ask
