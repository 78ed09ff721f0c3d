from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.cli.main import main
from tests.models.behaviour import small_world


def test_two_runs_become_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_world().save(tmp_path / "data")
    for name in ("popularity", "markov"):
        assert main(["train", str(tmp_path / "data"), "--model", name, "--out", str(tmp_path / name)]) == 0
    runs = [str(tmp_path / "popularity"), str(tmp_path / "markov")]
    capsys.readouterr()
    assert main(["blend", *runs, "--out", str(tmp_path / "both"), "--json"]) == 0
    captured = capsys.readouterr()
    blended = json.loads(captured.out)
    assert blended["weights"][0] == 1 and blended["weights"][1] > 0
    assert f"{runs[1]} (markov) 0.3" in " ".join(captured.err.split())
    assert main(["evaluate", str(tmp_path / "both"), "--json"]) == 0
    assert main(["compare", str(tmp_path / "both"), runs[1]]) == 0
    assert main(["recommend", str(tmp_path / "both"), "--users", "user 003"]) == 0
    assert main(["blend", *runs, "--out", str(tmp_path / "ranks"), "--by", "rank", "--weights", "1,2", "--quiet"]) == 0
    assert main(["blend", runs[0], "--out", str(tmp_path / "one")]) == 2
