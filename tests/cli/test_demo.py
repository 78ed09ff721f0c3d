from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segue.cli.main import main

SMALL = ["--users", "60", "--sessions", "4", "--products", "3", "--epochs", "2", "--quiet"]


def test_demo_shows_all_of_it_and_leaves_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out), *SMALL]) == 0
    page = capsys.readouterr().out
    for expected in ("popularity", "markov", "sasrec", "because of", "95 % interval", str(out / "report.html")):
        assert expected in page
    assert "segue prepare ratings.csv --out data/mine" in page
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "of 100 items of the next basket within its first ten" in report
    assert "data:" not in report and "Training loss per target" in report
    assert main(["demo", "--out", str(out), *SMALL]) == 0, "an earlier demo is replaced"


def test_demo_touches_no_other_folder(tmp_path: Path, complaint: Callable[..., str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "was not made by segue demo" in complaint(2, "demo", "--out", tmp_path, *SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
