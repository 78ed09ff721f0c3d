"""`start_optimizer="continued"`: the moments of the last run go where their weights go, by raw id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import segue
from segue.errors import ConfigError
from segue.inference.checkpoint import LAST, load_checkpoint
from segue.training.checkpoint import optimizer_tensors
from segue.training.trainer import Trainer
from tests.helpers import cycle_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
CONFIGS: list[Any] = [
    segue.SASRec(width=8, blocks=1, max_length=4),
    segue.GRU4Rec(width=8, max_length=4),
    segue.PARSRec(user_width=4, item_width=4),
]


def training(**options: Any) -> segue.Training:
    return segue.Training(**{"epochs": 2, "cpu": True} | options)


def larger() -> segue.Dataset:
    """The cycle of 12 items with the items 13 and 14, and with codes in another order."""
    return segue.prepare(
        pl.concat(
            [pl.DataFrame({"user": [99, 99, 99], "item": [14, 13, 1], "time": [0, 1, 2]}), cycle_frame(16, 12)],
            how="diagonal_relaxed",
        ),
        sessions="day",
    )


def cycle_frame(users: int, items: int) -> pl.DataFrame:
    frame = cycle_dataset(users, items).to_frame()
    return frame.select("user", "item").with_columns(time=pl.int_range(pl.len()).over("user") * 50_000)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, torch.Tensor]]:
    """State of the optimizer before the first step of each training."""
    seen: list[Mapping[str, torch.Tensor]] = []
    run = Trainer.run

    def looks(self: Trainer, *arguments: Any) -> Any:
        seen.append({name: value.clone() for name, value in optimizer_tensors(self.optimizer).items()})
        return run(self, *arguments)

    monkeypatch.setattr(Trainer, "run", looks)
    return seen


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_moments_go_by_raw_id(
    config: Any, optimizer: str, tmp_path: Path, begun: list[Mapping[str, torch.Tensor]]
) -> None:
    small, large = segue.prepare(cycle_frame(16, 12), sessions="day"), larger()
    options = training(optimizer=optimizer)
    former = segue.fit(config, small, training=options, quiet=True, out=tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / LAST)[0]
    continued = replace(options, start_optimizer="continued")
    begun.clear()
    for settings in (continued, options):
        segue.fit(config, large, training=settings, start=tmp_path / "run", quiet=True)
    state, new = begun
    assert new == {}

    sides = {"items": (small.catalogue, large.catalogue), "users": (small.users, large.users)}
    rows = former.model.code_rows()
    checked = 0
    for place, (name, _) in enumerate(former.model.named_parameters()):
        for moment in ("exp_avg", "exp_avg_sq", "square_avg"):
            key = f"optimizer.{place}.{moment}"
            assert (key in state) == (key in saved), key
            if key not in saved:
                continue
            if name not in rows:
                assert torch.equal(state[key], saved[key]), key
                continue
            old, grown = sides[rows[name].side]
            there = np.flatnonzero(old.encode(grown.ids)) + 1
            codes = old.encode(grown.ids)[there - 1]
            assert torch.equal(state[key][there], saved[key][codes]), key
            checked += 1
    assert checked >= 2 - (optimizer == "rmsprop")
    steps = [float(value) for key, value in state.items() if key.endswith(".step")]
    assert steps and min(steps) > 0


def test_a_refit_and_a_refresh_continue_too(tmp_path: Path, begun: list[Mapping[str, torch.Tensor]]) -> None:
    log = cycle_frame(16, 12)
    data = segue.prepare(log, out=tmp_path / "data")
    options = training(metric="ndcg@5")
    segue.fit(CONFIGS[0], segue.leave_last_out(data), training=options, quiet=True, refit=True, out=tmp_path / "run")
    saved = load_checkpoint(tmp_path / "run" / "refit" / LAST)[0]
    later = log.filter(pl.col("user") <= 3).with_columns(pl.col("time") + 10_000_000)
    later.write_parquet(tmp_path / "later.parquet")
    begun.clear()
    segue.refresh(
        tmp_path / "data",
        tmp_path / "run",
        tmp_path / "later.parquet",
        training={"start_optimizer": "continued", "epochs": 1},
        always=True,
        quiet=True,
    )
    assert len(begun) == 2  # the training, and the second one on everything but the test part
    for state in begun:
        assert all(torch.equal(value, saved[name]) for name, value in state.items() if name.endswith("exp_avg"))
    assert segue.load(tmp_path / "run").metadata["options"]["start_optimizer"] == "continued"


def test_bad_input(tmp_path: Path) -> None:
    split = segue.leave_last_out(cycle_dataset())
    continued = training(start_optimizer="continued")
    with pytest.raises(ConfigError, match="goes with a start"):
        segue.fit(CONFIGS[0], split, training=continued, quiet=True)
    former = segue.fit(CONFIGS[0], split, training=training(), quiet=True, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="a Recommender in memory has no state of an optimizer"):
        segue.fit(CONFIGS[0], split, training=continued, quiet=True, start=former)
    with pytest.raises(ConfigError, match="recommender holds no state of an optimizer"):
        segue.fit(CONFIGS[0], split, training=continued, quiet=True, start=tmp_path / "run" / "recommender")
    with pytest.raises(ConfigError, match=r"run was trained with adam, and the new training has optimizer='sgd'"):
        segue.fit(CONFIGS[0], split, training=replace(continued, optimizer="sgd"), quiet=True, start=tmp_path / "run")
    segue.fit(CONFIGS[0], split, training=replace(continued, optimizer="adamw"), quiet=True, start=tmp_path / "run")
