"""Training in several processes: the files of the run, exit codes and Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from segue.cores import usable_cores
from segue.data.simulation.simulate import simulate
from segue.inference.loading import load
from segue.training.checkpoint import load_checkpoint
from segue.training.launch import launch
from tests.programs import Program, run_joined

OPTIONS = [
    "--model", "parsrec", "--model.user-width", "8", "--model.item-width", "8", "--split", "last-session-out",
    "--training.metric", "sess_prec@5", "--training.watch-test", "--training.batch-size", "1", "--training.cpu",
    "--training.epochs", "3", "--processes", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "data"
    simulate(24, 5, categories=8, products=4, longest=4).save(path)
    return path


def start(shop: Path, run: Path, *options: str) -> Program:
    """Start `segue train` in its own process group, as a terminal does. An epoch has about seventy steps."""
    return Program("-m", "segue", "train", shop, "--out", run, *OPTIONS, *options, group=True)


@pytest.mark.slow
def test_ctrl_c_stops_all_after_the_same_step_and_the_run_goes_on_from_there(shop: Path, tmp_path: Path) -> None:
    stopped = start(shop, tmp_path / "run")
    while not (tmp_path / "run" / "metrics.csv").exists():
        assert stopped.poll() is None, stopped.communicate()[1]
        time.sleep(0.1)
    os.killpg(stopped.pid, signal.SIGINT)
    _, messages = stopped.communicate(timeout=120)
    assert stopped.returncode == 130
    assert messages.count("interrupted") == 1
    assert any(line.endswith(f"segue train --resume {tmp_path / 'run'}") for line in messages.splitlines()), messages
    assert "Traceback" not in messages
    _, note = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert 1 <= note["state"]["epoch"] < 3
    resumed = start(shop, tmp_path / "run", "--resume")
    _, messages = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, messages
    table = pl.read_csv(tmp_path / "run" / "metrics.csv")
    assert table["epoch"].to_list() == [1, 2, 3]
    assert table["sess_prec@5"].to_list()[: note["state"]["epoch"]] == [
        row["sess_prec@5"] for row in note["state"]["history"]
    ]
    assert "test sess_prec@5" in table.columns
    assert load(tmp_path / "run").metadata["split"] == {"name": "last-session-out"}


@pytest.mark.slow
def test_exit_codes_and_restored_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    (tmp_path / "tiny.py").write_text(
        "import os, sys\n"
        "open(sys.argv[1] + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'] + os.environ['OMP_NUM_THREADS'])\n"
        "sys.exit(3 * (os.environ['RANK'] == '1') if sys.argv[2:] else 0)\n"
    )
    assert launch(["tiny", str(tmp_path / "rank-")], 2) == 0
    threads = max(1, usable_cores() // 2)
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == [f"2{threads}"] * 2
    assert launch(["tiny", str(tmp_path / "rank-"), "fail"], 2) == 3
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert not [*scratch.iterdir()]
    assert "OMP_NUM_THREADS" not in os.environ
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.slow
def test_counting_models_are_written_once(shop: Path, tmp_path: Path) -> None:
    options = ["--model", "popularity", "--quiet", "--json"]
    outputs = run_joined(2, "-m", "segue", "train", shop, "--out", tmp_path / "run", *options)
    assert "".join(outputs).count('"run":') == 1
    assert load(tmp_path / "run").model.config.name == "popularity"


@pytest.mark.slow
def test_two_trainings_of_two_processes_end(shop: Path, tmp_path: Path) -> None:
    """Processes leave the group once, after both trainings; leaving it between them could make them wait forever."""
    options = ["--training.epochs", "2", "--training.batch-size", "4", "--training.row-updates", "always", "--refit"]
    options += ["--model.loss", "sampled-softmax", "--model.width", "8", "--training.cpu"]
    run_joined(2, "-m", "segue", "train", shop, "--out", tmp_path / "run", *options)
    recommender = load(tmp_path / "run")
    metadata, kept = recommender.metadata, recommender.model.state_dict()
    _, note = load_checkpoint(tmp_path / "run" / "refit" / "last.safetensors")
    assert metadata["refit"] and note["state"]["epoch"] == metadata["training"]["best_epoch"]
    best, _ = load_checkpoint(tmp_path / "run" / "refit" / "best.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in best.items())
