"""`segue export`: an index, its use by `segue recommend`, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import segue

Ask = Callable[..., Any]


def test_an_index_is_written_and_used(run: Path, tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    pytest.importorskip("usearch")
    folder = tmp_path / "index"
    summary = answer("export", run, "--to", "index", "--out", folder, "--recall", 0.9, "--sample", 30)
    assert summary["model"] == "sasrec" and summary["recall@10"] >= 0.8
    assert summary["indexed items"] == segue.load(run).scorer.n_items
    words = ("recommend", run, "--users", "user-0001", "--k", 3)
    exact, near = answer(*words), answer(*words, "--index", folder)
    assert [row["item"] for row in near] == [row["item"] for row in exact]
    assert "already holds" in complaint(1, "export", run, "--to", "index", "--out", folder, "--overwrite", "false")
    assert "without --out" in complaint(2, *words, "--index", folder, "--out", tmp_path / "lists.csv")


def test_refusals(run: Path, markov: Path, tmp_path: Path, complaint: Ask) -> None:
    assert "nothing to export" in complaint(2, "export", markov, "--out", tmp_path / "out")
    assert "nothing to index" in complaint(2, "export", markov, "--to", "index", "--out", tmp_path / "out")
    assert "--to onnx" in complaint(2, "export", run, "--to", "index", "--index", "--out", tmp_path / "out")


@pytest.mark.slow
def test_a_model_is_exported(run: Path, tmp_path: Path, answer: Ask) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("usearch")
    summary = answer("export", run, "--to", "onnx", "--out", tmp_path / "out", "--index")
    assert summary["model"] == "sasrec" and summary["MB"] > 0
    reader = segue.OnnxRecommender(tmp_path / "out")
    history = list(reader.items.ids[:3])
    expected = segue.load(run).recommend(histories=[history], k=3)["item"].to_list()
    for approximate in (False, True):
        assert [item for item, _ in reader.recommend([history], k=3, approximate=approximate)[0]] == expected
