"""Fitting: its result, the files of its run, and the requests that it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.splits.by_user import Split, hold_out_users, leave_last_out, random_rows, time_cut
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, TrainingError
from segue.evaluation.tasks.next_items import evaluate
from segue.inference.loading import load
from segue.models.popularity import Popularity
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from segue.training.checkpoint import load_checkpoint
from segue.training.config import Training
from segue.training.fit import fit
from tests.programs import run_joined

from .runs import small_model, small_split, small_training

LOSSES = ["bce", "gbce", "sampled-softmax", "softmax"]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_the_walk(loss: str) -> None:
    split = small_split(n_users=200)
    model = small_model(loss=loss, negatives=8, width=16, dropout=0.1, frequency=0.0)
    fitted = fit(model, split, training=small_training(epochs=30, learning_rate=1e-2, patience=None), quiet=True)
    # A step is one or two items ahead with equal probability, so a perfect model has both in its first two ranks.
    hit_rate = evaluate(fitted, split.test, k=2, exclude_seen=False, lists=False, resamples=0).metrics["hr@2"]
    popular = fit(Popularity(), split, quiet=True)
    chance = evaluate(popular, split.test, k=2, exclude_seen=False, lists=False, resamples=0).metrics["hr@2"]
    assert hit_rate > 0.6 > 0.3 > chance


def test_ssept_learns_the_walk_with_swaps_and_windows() -> None:
    split = small_split(n_users=200)
    config = SSEPT(
        item_width=16, user_width=4, blocks=1, max_length=6, dropout=0.1, swap_user=0.5, swap_item=0.05,
        swap_target=0.05, random_window=0.5, negatives=4,
    )  # fmt: skip
    fitted = fit(config, split, training=small_training(epochs=30, learning_rate=1e-2, patience=None), quiet=True)
    hit_rate = evaluate(fitted, split.test, k=2, exclude_seen=False, lists=False, resamples=0).metrics["hr@2"]
    assert hit_rate > 0.5


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = fit(small_model(), small_split(), training=small_training(), quiet=True)
    assert torch.equal(torch.rand(3), expected)
    second = fit(small_model(), small_split(), training=small_training(), quiet=True)
    other = fit(small_model(), small_split(), training=small_training(seed=4), quiet=True)
    for key, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[key]), key
    assert not torch.equal(first.model.items.weight, other.model.items.weight)  # type: ignore[union-attr]


@pytest.mark.pictures
def test_a_run_leaves_checkpoints_table_picture_and_recommender(tmp_path: Path) -> None:
    fitted = fit(small_model(), small_split(), training=small_training(), out=tmp_path / "run", refit=True, quiet=True)
    run = tmp_path / "run"
    table = pl.read_csv(run / "metrics.csv")
    assert table.columns == ["epoch", "loss", "seconds", "hr@10", "ndcg@10"]
    assert table["epoch"].to_list() == [1, 2, 3, 4]
    best = table.row(table["ndcg@10"].arg_max(), named=True)  # type: ignore[arg-type]
    assert fitted.metadata["training"]["best_epoch"] == best["epoch"]
    assert fitted.metadata["training"]["refit"]["epochs"] == best["epoch"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "refit" / "last.safetensors").is_file()
    assert load(run).metadata["split"] == {"name": "leave-last-out"}


def test_the_best_epoch_is_kept_not_the_last(tmp_path: Path) -> None:
    training = small_training(epochs=12, learning_rate=0.3, patience=3)
    fitted = fit(small_model(), small_split(), training=training, out=tmp_path / "run", quiet=True)
    trained = fitted.metadata["training"]
    assert trained["epochs"] == min(12, trained["best_epoch"] + 3)
    best, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    for key, tensor in fitted.model.state_dict().items():
        assert torch.equal(tensor, best[key]), key


def test_validation_among_candidates_and_another_metric() -> None:
    training = small_training(metric="hr@3", validation_candidates=5, validation_users=20, validate_every=2)
    fitted = fit(small_model(), small_split(), training=training, quiet=True)
    assert fitted.metadata["training"]["validation"].keys() == {"hr@3", "ndcg@3"}
    assert fitted.metadata["training"]["best_epoch"] in (2, 4)


def test_validation_may_count_items_taken_before() -> None:
    split = small_split()  # users walk in circles, so some targets were seen
    once = small_training(epochs=1)
    fitted = fit(small_model(), split, training=once, quiet=True)
    for seen in (True, False):
        again = fit(small_model(), split, training=replace(once, validation_exclude_seen=seen), quiet=True)
        expected = evaluate(fitted, split.validation, exclude_seen=seen, lists=False, resamples=0)["hr@10"]
        assert again.metadata["training"]["validation"]["hr@10"] == expected


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw", "weight_decay": 0.1}, {"warmup_steps": 5, "clip_norm": 1.0}]
)
def test_optimizer_options_change_the_result(changes: dict[str, object]) -> None:
    plain = fit(small_model(), small_split(), training=small_training(), quiet=True)
    other = fit(small_model(), small_split(), training=small_training(**changes), quiet=True)
    assert not torch.equal(plain.model.items.weight, other.model.items.weight)  # type: ignore[union-attr]


def test_bf16_trains_and_keeps_float32_weights() -> None:
    fitted = fit(small_model(), small_split(), training=small_training(precision="bf16"), quiet=True)
    assert {tensor.dtype for tensor in fitted.model.parameters()} == {torch.float32}
    assert math.isfinite(fitted.metadata["training"]["validation"]["ndcg@10"])


def test_a_loss_that_is_not_finite_stops_training_and_names_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segue.models.sasrec import SASRecModel

    forward, calls = SASRecModel.forward, []

    def diverging(model: SASRecModel, batch):  # type: ignore[no-untyped-def]
        calls.append(1)
        return forward(model, batch) * (float("nan") if len(calls) == 7 else 1.0)

    monkeypatch.setattr(SASRecModel, "forward", diverging)
    with pytest.raises(TrainingError, match=r"became nan at epoch 3, step 1.*last good state is in"):
        fit(small_model(), small_split(), training=small_training(), out=tmp_path / "run", quiet=True)
    tensors, note = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert note["state"]["epoch"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_impossible_requests() -> None:
    split = small_split()
    with pytest.raises(ConfigError, match="metric='ndgc@10' is not measured in validation; did you mean \"ndcg@10\""):
        fit(small_model(), split, training=small_training(metric="ndgc@10"), quiet=True)
    for length in (0, split.train.n_items + 1):
        with pytest.raises(ConfigError, match=f"metric='ndcg@{length}': the catalogue has {split.train.n_items} items"):
            fit(small_model(), split, training=small_training(metric=f"ndcg@{length}"), quiet=True)
    with pytest.raises(ConfigError, match="trackers: 'tensorbored' is unknown or not installed"):
        fit(small_model(), split, training=small_training(trackers=("tensorbored",)), quiet=True)
    with pytest.raises(ConfigError, match="refit=True needs a split"):
        fit(small_model(), split.train, refit=True)
    with pytest.raises(ConfigError, match="a split has its own"):
        fit(small_model(), split, split.validation)
    with pytest.raises(ConfigError, match="cannot be split evenly"):
        SASRec(width=10, heads=3)
    with pytest.raises(ConfigError, match="epochs=0"):
        Training(epochs=0)
    with pytest.raises(TrainingError, match="no user has two interactions"):
        fit(small_model(), split.train.until(split.train.starts + (split.train.lengths > 0)), quiet=True)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    words = ["--loss", "softmax", "--dropout", "0"]
    for processes, name in ((1, "one"), (2, "two")):
        run_joined(processes, "-m", "tests.training.runs", tmp_path / name, *words, ACCELERATE_USE_CPU="true")
    alone, together = (load_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for key, tensor in alone[0].items():
        if key.startswith("model."):
            # A bias of the keys adds the same to all scores of a query, so only rounding moves it.
            compared = slice(len(tensor) // 2, None) if key.endswith("key_value.bias") else ...
            torch.testing.assert_close(tensor[compared], together[0][key][compared], rtol=1e-3, atol=1e-4)


def test_tensorboard_gets_the_curves(tmp_path: Path) -> None:
    training = small_training(trackers=("tensorboard",))
    fit(small_model(), small_split(), training=training, out=tmp_path / "run", quiet=True)
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("split", [leave_last_out, time_cut, hold_out_users, random_rows])
def test_a_loaded_run_repeats_its_split(tmp_path: Path, split: Callable[[Dataset], Split]) -> None:
    made = split(timed(small_split(n_users=200).dataset))
    fit(Popularity(), made, out=tmp_path / "run", quiet=True)
    loaded = load(tmp_path / "run")
    again = split_by(loaded.dataset, loaded.metadata["split"])
    for part in ("validation", "test"):
        repeated, expected = getattr(again, part), getattr(made, part)
        for array in ("users", "history_ends", "target_ends"):
            assert (getattr(repeated, array) == getattr(expected, array)).all(), (part, array)
    assert again.refit.fingerprint == made.refit.fingerprint


def timed(dataset: Dataset) -> Dataset:
    """Return the same interactions with times, each user starting at a random time."""
    starts = np.random.default_rng(2).integers(0, 50, dataset.n_users + 1)
    within = np.arange(len(dataset.items)) - np.repeat(dataset.starts, dataset.lengths)
    return replace(dataset, times=np.repeat(starts, dataset.lengths) + within, time_unit="s")
