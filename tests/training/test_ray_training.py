"""Training by workers of Ray: the same bits as by processes of this machine, also if a worker is killed in between."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from segue.cli.train import TrainOptions
from segue.data.simulation.simulate import simulate
from segue.errors import ConfigError, EngineError, TrainingError
from segue.inference.loading import load
from segue.training import ray_launch
from segue.training.checkpoint import load_checkpoint
from tests.engines.processes import descendants, title_of

OPTIONS = [
    "--model", "sasrec", "--model.width", "8", "--model.blocks", "1", "--model.loss", "sampled-softmax",
    "--model.negatives", "7", "--model.repeats", "false", "--training.batch-size", "2", "--training.cpu",
    "--training.epochs", "6", "--training.divide-tables", "--training.save-every-steps", "3",
    "--training.validation-exclude-seen", "false", "--processes", "2",
]  # fmt: skip
WORKER = "RayTrainWorker"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(60, 6).dataset().save(tmp_path_factory.mktemp("shop") / "data")


def start(shop: Path, run: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "segue", "train", str(shop), "--out", str(run), *OPTIONS, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def workers_of(pid: int) -> list[int]:
    """Training workers of Ray among the descendants of a process."""
    return [one for one in descendants(pid) if WORKER in title_of(one)]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the workers are found through /proc")
def test_a_killed_worker_ends_in_a_resume_with_the_same_bits(shop: Path, tmp_path: Path) -> None:
    planned = start(shop, tmp_path / "planned")
    messages = planned.communicate(timeout=300)[1]
    assert planned.returncode == 0, messages
    killed = start(shop, tmp_path / "killed", "--engine", "ray")
    begun = time.monotonic()
    while not (tmp_path / "killed" / "metrics.csv").exists() or len(workers_of(killed.pid)) < 2:
        assert killed.poll() is None, killed.communicate()[1]
        assert time.monotonic() - begun < 300, "the training did not begin"
        time.sleep(0.02)
    family = descendants(killed.pid)
    os.kill(workers_of(killed.pid)[1], 9)
    answer, messages = killed.communicate(timeout=300)
    assert killed.returncode == 0, messages
    assert "best epoch" in answer
    for name in ("last.safetensors", "best.safetensors"):
        (expected, note), (resumed, other) = (load_checkpoint(tmp_path / run / name) for run in ("planned", "killed"))
        assert expected.keys() == resumed.keys()
        for key, tensor in expected.items():
            assert torch.equal(tensor, resumed[key]), (name, key)
        times = {"seconds": None}
        histories = [[row | times for row in one["state"]["history"]] for one in (note, other)]
        assert histories[0] == histories[1]
    assert load(tmp_path / "killed").metadata["training"]["epochs"] == 6
    assert sorted(one.name for one in tmp_path.iterdir() if one.is_dir()) == ["killed", "planned"]
    begun = time.monotonic()
    while any(Path(f"/proc/{one}").exists() for one in family):
        assert time.monotonic() - begun < 30, "processes of Ray are left"
        time.sleep(0.1)


def test_an_error_of_a_worker_ends_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    calls: list[bool] = []

    def work(resume: bool) -> None:
        calls.append(resume)
        raise TrainingError("the loss became nan")

    arguments = (work, str(tmp_path / "run"), str(tmp_path), str(tmp_path), version("segue"), {})
    with pytest.raises(TrainingError):
        ray_launch._train(*arguments)
    ray_launch._train(*arguments)  # the second attempt
    assert calls == [False]
    fault = ray_launch._fault(tmp_path)
    assert isinstance(fault, TrainingError) and str(fault) == "the loss became nan"


def test_a_worker_with_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"0\.0\.1"):
        ray_launch._train(lambda resume: None, str(tmp_path / "run"), str(tmp_path), str(tmp_path), "0.0.1", {})


def test_an_address_goes_with_ray() -> None:
    with pytest.raises(ConfigError, match="address="):
        TrainOptions(dataset="data", address="10.0.0.1:6379")
