"""Options of the workers at the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from segue.cli.main import main
from segue.locks import lock_beside, locked
from tests.cli.conftest import Json


def complaint(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    return capsys.readouterr().err


def test_lists_of_two_processes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recommend", str(run), "--all", "--k", "4", "--shards", "3"]
    assert main([*words, "--out", f"{tmp_path}/lists/", "--processes", "2"]) == 0
    assert main([*words, "--out", f"{tmp_path}/one.parquet"]) == 0
    assert pl.read_parquet(tmp_path / "lists" / "part-*.parquet").equals(pl.read_parquet(tmp_path / "one.parquet"))
    assert len(json.loads((tmp_path / "lists" / "lists.json").read_text())["files"]) == 3
    assert "wrote" in capsys.readouterr().err

    others = complaint(capsys, 0, *words, "--out", tmp_path / "lists", "--k", "3")
    assert "held other lists (of another k): they were deleted" in others
    kept = complaint(capsys, 1, *words, "--out", tmp_path / "lists", "--overwrite", "false")
    assert "--overwrite=false keeps them" in kept
    with locked(lock_beside(tmp_path / "lists"), tmp_path / "lists"):
        assert "is in use by process" in complaint(capsys, 1, *words, "--out", tmp_path / "lists")


def test_an_evaluation_of_two_processes(run: Path, answer: Json) -> None:
    alone, shared = answer("evaluate", run), answer("evaluate", run, "--processes", "2")
    assert shared == alone


def test_options_that_do_not_go_together(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--all", "--out", tmp_path / "lists"]
    assert "go with --out" in complaint(capsys, 2, "recommend", run, "--users", "user-0001", "--processes", "2")
    assert "go with --out" in complaint(capsys, 2, "recommend", run, "--users", "user-0001", "--shards", "2")
    address = complaint(capsys, 2, "recommend", run, *out, "--address", "10.0.0.1:6379")
    assert "--engine=processes: choose --engine=ray" in address
    assert 'did you mean "ray"' in complaint(capsys, 2, "evaluate", run, "--engine", "rey")
    assert "--processes=0: expected 1 or more" in complaint(capsys, 2, "evaluate", run, "--processes", "0")
    assert not (tmp_path / "lists").exists()


def test_an_address_without_a_cluster(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    words = ["--engine", "ray", "--address"]
    silent = complaint(capsys, 1, "evaluate", run, *words, "127.0.0.1:1")
    assert "--address=127.0.0.1:1 does not answer" in silent and "ray start --head" in silent
    assert "expected host:port" in complaint(capsys, 2, "evaluate", run, *words, "nowhere")
    lists = ["recommend", run, "--all", "--out", tmp_path / "lists"]
    assert "does not answer" in complaint(capsys, 1, *lists, *words, "127.0.0.1:1")
    shutil.rmtree(tmp_path / "lists")  # a note without parts
