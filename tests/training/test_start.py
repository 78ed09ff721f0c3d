"""Trainings that start from an earlier run, and go on after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import segue
from segue.errors import StorageError
from segue.files import read_json
from segue.training.trainer import Interrupted, Trainer
from tests.helpers import cycle_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = segue.SASRec(width=8, blocks=1, max_length=4)


def training(**options: Any) -> segue.Training:
    return segue.Training(**{"epochs": 3, "cpu": True, "metric": "ndcg@5"} | options)


def weights(recommender: segue.Recommender) -> dict[str, torch.Tensor]:
    return recommender.model.state_dict()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "first"
    segue.fit(SMALL, segue.leave_last_out(cycle_dataset(16)), training=training(), out=run, quiet=True)
    return run


@pytest.mark.parametrize("refit", [False, True])
def test_a_killed_run_goes_on_from_its_start(
    refit: bool, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = segue.leave_last_out(cycle_dataset(20))
    options: dict[str, Any] = {"training": training(), "quiet": True, "refit": refit}
    whole = segue.fit(SMALL, split, start=first, out=tmp_path / "whole", **options)
    end_epoch = Trainer._end_epoch

    def dies(self: Trainer, row: dict[str, float]) -> None:
        end_epoch(self, row)
        raise Interrupted

    monkeypatch.setattr(Trainer, "_end_epoch", dies)
    with pytest.raises(Interrupted):
        segue.fit(SMALL, split, start=first, out=tmp_path / "killed", **options)
    monkeypatch.undo()
    again = segue.resume(tmp_path / "killed", quiet=True)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(again)[name]), name
    assert read_json(tmp_path / "killed" / "run.json")["start"]["folder"] == str(first)


def test_killed_before_the_first_state(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = segue.leave_last_out(cycle_dataset(20))
    whole = segue.fit(SMALL, split, start=first, training=training(), quiet=True)
    monkeypatch.setattr(Trainer, "run", lambda *_: (_ for _ in ()).throw(Interrupted))
    for place, start in (("folder", first), ("memory", segue.load(first))):
        with pytest.raises(Interrupted):
            segue.fit(SMALL, split, start=start, training=training(), quiet=True, out=tmp_path / place)
    monkeypatch.undo()
    again = segue.resume(tmp_path / "folder", quiet=True)
    assert all(torch.equal(tensor, weights(again)[name]) for name, tensor in weights(whole).items())
    with pytest.raises(StorageError, match="started from the weights of a Recommender"):
        segue.resume(tmp_path / "memory", quiet=True)


def test_another_start_is_another_run(first: Path, tmp_path: Path) -> None:
    split = segue.leave_last_out(cycle_dataset(20))
    segue.fit(SMALL, split, start=first, training=training(), quiet=True, out=tmp_path / "run")
    other = segue.fit(SMALL, split, training=training(epochs=1), quiet=True)
    with pytest.raises(StorageError, match="another start"):
        segue.fit(SMALL, split, start=other, training=training(epochs=4), quiet=True, out=tmp_path / "run", resume=True)


def test_a_start_begins_lower(first: Path) -> None:
    """The loss of the first epoch is that of a model that has learned something."""
    split = segue.leave_last_out(cycle_dataset(16))
    long = segue.fit(SMALL, split, training=training(epochs=30, patience=None), quiet=True)
    fresh = segue.fit(SMALL, split, training=training(epochs=1), quiet=True)
    started = segue.fit(SMALL, split, training=training(epochs=1), quiet=True, start=long)
    figures = [one.metadata["training"]["validation"]["ndcg@5"] for one in (fresh, started)]
    assert figures[1] > figures[0]


def test_a_start_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        segue.fit(SMALL, segue.leave_last_out(cycle_dataset()), start=tmp_path / "nowhere", quiet=True)
