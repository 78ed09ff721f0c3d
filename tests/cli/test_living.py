"""The commands of models that live: `prepare --add-to`, `train --start`, `refresh` and `forget`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import polars as pl
import pytest

import segue
from segue.cli.main import main
from tests.helpers import cycle_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = ["--model.width", "8", "--model.blocks", "1", "--training.epochs", "1", "--training.metric", "ndcg@5"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("living")
    log = cycle_dataset(20, 12, 6).to_frame().with_columns(time=pl.int_range(pl.len()))
    log.write_csv(folder / "monday.csv")
    log.head(30).with_columns(time=pl.col("time") + 1000).write_csv(folder / "tuesday.csv")
    data = str(folder / "data")
    assert main(["prepare", str(folder / "monday.csv"), "--out", data, "--quiet"]) == 0
    assert main(["train", data, "--out", str(folder / "run"), "--quiet", *SMALL]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    capsys.readouterr()
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out + err


def test_prepare_adds_to_a_dataset(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", world / "tuesday.csv", "--add-to", world / "data", "--quiet"]
    assert "appended" in said(capsys, 0, *words, "--out", tmp_path / "data")
    assert segue.Dataset.open(tmp_path / "data").n_interactions == 150
    again = ["prepare", world / "tuesday.csv", "--add-to", tmp_path / "data", "--out", tmp_path / "data"]
    assert "is part of this Dataset already" in said(capsys, 1, *again)
    assert "leave out --k-core" in said(capsys, 2, *words, "--out", tmp_path / "other", "--k-core", 5)
    assert "leave out --sessions" in said(capsys, 2, *words, "--out", tmp_path / "other", "--sessions", "day")


def test_train_starts_from_a_run(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", world / "data", "--start", world / "run", "--quiet"]
    said(capsys, 0, *words, "--out", tmp_path / "next")
    manifest = json.loads((tmp_path / "next" / "run.json").read_text())
    assert manifest["model"]["width"] == 8 and manifest["training"]["epochs"] == 1
    assert manifest["start"]["folder"] == str(world / "run")
    first = json.loads((world / "run" / "run.json").read_text())
    assert "loss" in manifest["chosen"] and manifest["chosen"] == first["chosen"]
    given = (*words, "--out", tmp_path / "given", "--model.loss", "softmax")
    said(capsys, 0, *given)
    assert "loss" not in json.loads((tmp_path / "given" / "run.json").read_text())["chosen"]
    other = said(capsys, 2, *words, "--out", tmp_path / "other", "--model.width", 16)
    assert "--model.width=16" in other and "of the model to start from" in other
    assert "is sasrec, and the new one is gru4rec" in said(
        capsys, 2, *words, "--out", tmp_path / "other", "--model", "gru4rec"
    )


def test_refresh(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, 0, "prepare", world / "monday.csv", "--out", tmp_path / "data", "--quiet")
    said(capsys, 0, "train", tmp_path / "data", "--out", tmp_path / "run", "--quiet", *SMALL)
    words = ["refresh", tmp_path / "data", tmp_path / "run", world / "tuesday.csv", "--quiet"]
    text = said(capsys, 0, *words, "--epochs", 2)
    assert str(tmp_path / "run") in text and "the Dataset with the new log" in text
    assert "is part of this Dataset already" in said(capsys, 1, *words)
    words[3] = tmp_path / "wednesday.csv"
    words[3].write_text((world / "tuesday.csv").read_text().replace("\n1,", "\n2,"))
    said(capsys, 0, *words, "--windows", "newest", "--start-optimizer", "continued", "--always")
    options = json.loads((tmp_path / "run" / "run.json").read_text())
    assert options["model"]["windows"] == "newest" and options["training"]["start_optimizer"] == "continued"
    assert options["training"]["epochs"] == 2


def test_forget_in_a_dataset_and_a_run(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, 0, "prepare", world / "monday.csv", "--out", tmp_path / "data", "--quiet")
    said(capsys, 0, "train", tmp_path / "data", "--out", tmp_path / "run", "--quiet", "--model", "ssept",
         "--training.epochs", 1, "--training.metric", "ndcg@5")  # fmt: skip
    assert "2 users forgotten" in said(capsys, 0, "forget", tmp_path / "data", "--users", 1, 2)
    assert segue.Dataset.open(tmp_path / "data").users.encode([1, 2, 3]).tolist() == [0, 0, 3]
    text = said(capsys, 0, "forget", tmp_path / "run", "--users", 1)
    assert "may still tell" in text and "cannot be resumed" in text
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert "unknown user" in said(capsys, 1, "recommend", tmp_path / "run", "--users", 1)
    assert "unknown user" in said(capsys, 1, "forget", tmp_path / "run", "--users", 1)
    (tmp_path / "forgotten.txt").write_text("1\n3\n999999\n")
    file = ("--users-file", tmp_path / "forgotten.txt")
    assert "1 users forgotten (2 of the ids are unknown)" in said(capsys, 0, "forget", tmp_path / "data", *file)
    assert "unknown user" in said(capsys, 1, "forget", tmp_path / "data", *file)
    text = said(capsys, 0, "forget", tmp_path / "data", *file, "--skip-unknown")
    assert "0 users forgotten (3 of the ids are unknown)" in text
    assert "two lists" in said(capsys, 2, "forget", tmp_path / "data", *file, "--users", 4)
    said(capsys, 0, "recommend", tmp_path / "run", "--users", 2)
    said(capsys, 0, "evaluate", tmp_path / "run", "--k", 5)


def test_light_copies(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, 0, "forget", world / "run", "--histories", "--out", tmp_path / "light")
    assert "saved without histories" in said(capsys, 1, "recommend", tmp_path / "light", "--users", 1)
    assert "--histories needs --out" in said(capsys, 2, "forget", world / "run", "--histories")
    assert "needs --users" in said(capsys, 2, "forget", world / "run")
    assert "is a Dataset" in said(capsys, 2, "forget", world / "data", "--histories", "--out", tmp_path / "x")


def test_files_follow_the_umask(world: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        segue.load(world / "run").save(tmp_path / "recommender")
        split = segue.leave_last_out(segue.Dataset.open(world / "data"))
        training = segue.Training(epochs=2, cpu=True, metric="ndcg@5", keep_every=1)
        config = segue.SASRec(width=8, blocks=1)
        segue.fit(config, split, training=training, out=tmp_path / "run", quiet=True, refit=True)
        segue.fit(config, split, training=training, out=tmp_path / "run", quiet=True, overwrite=True)
        segue.load(tmp_path / "run").export(tmp_path / "lists.csv", segue.EVERYONE, k=2)
        segue.simulate(3, 2).save(tmp_path / "log.csv")
    finally:
        os.umask(before)
    made = list(tmp_path.rglob("*"))
    assert made
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in made}
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o750 if path.is_dir() else 0o640)}
    assert not wrong
