"""Training by workers of Ray: their errors, versions and networks. `tests/scaling/test_two_nodes.py` has a real one."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from segue.cli.train import TrainOptions
from segue.errors import ConfigError, EngineError, TrainingError
from segue.training import ray_launch


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


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are read as on Linux")
def test_the_interface_of_an_address() -> None:
    assert ray_launch.network_interfaces()["127.0.0.1"] == "lo"
