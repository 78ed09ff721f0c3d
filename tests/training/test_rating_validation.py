"""Validation of rating models by rating metrics, kept epochs, and the intervals of saves."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

from segue.data.splits.by_user import Split, leave_last_n, leave_last_out, time_cut
from segue.errors import ConfigError, StorageError
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.inference.loading import load
from segue.models.base import ModelConfig
from segue.training.checkpoint import load_checkpoint
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.progress import Progress
from segue.training.trainer import Interrupted
from tests.models.rating_models import ItemLevels, LevelBiases, rated_dataset

from .runs import small_model, small_split, small_training

DATA = rated_dataset()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.models import registry

    monkeypatch.setitem(registry._HOMES, "level-biases", "tests.models.rating_models:LevelBiases")


def four_each() -> Split:
    """Split with four held-out ratings per user."""
    return leave_last_n(DATA, 4)


def rating_training(**changes: object) -> Training:
    return small_training(**{"learning_rate": 0.05, **changes})


def test_the_task_of_the_model_has_the_default_metric(tmp_path: Path) -> None:
    fitted = fit(LevelBiases(), four_each(), training=rating_training(), out=tmp_path / "run", quiet=True)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["training"]["metric"] == "rmse"
    assert fitted.metadata["options"]["metric"] == "rmse"
    ranks = fit(small_model(), small_split(), training=small_training(epochs=1), quiet=True)
    assert ranks.metadata["options"]["metric"] == "ndcg@10"
    assert list(ranks.metadata["training"]["validation"]) == ["hr@10", "ndcg@10"]


def test_settings_are_resolved_on_the_data_of_each_training() -> None:
    # The lowest level occurs once, at the end of a history, so only the refit may know it.
    ratings = DATA.ratings.copy()  # type: ignore[union-attr]
    ratings[ratings == 1] = 2
    ratings[DATA.ends[5] - 2] = 1
    split = leave_last_out(replace(DATA, ratings=ratings))
    without = replace(split, validation=split.validation.select(split.validation.users[:2] * 0))
    first = fit(LevelBiases(), without.train, training=rating_training(epochs=1), quiet=True)
    assert first.model.config == LevelBiases(levels=(2, 3, 4, 5))
    again = fit(LevelBiases(), without, training=rating_training(epochs=1), refit=True, quiet=True)
    assert again.model.config == LevelBiases(levels=(1, 2, 3, 4, 5))


@pytest.mark.parametrize("metric", ["rmse", "mae", "log_loss", "own_hr@3", "own_ndcg@3"])
def test_the_best_epoch_is_the_lowest_error_and_the_highest_of_all_else(tmp_path: Path, metric: str) -> None:
    training = rating_training(metric=metric, epochs=10, learning_rate=0.3)
    fitted = fit(LevelBiases(), four_each(), training=training, out=tmp_path / "run", quiet=True)
    table = pl.read_csv(tmp_path / "run" / "metrics.csv")
    choose = dict.fromkeys(("rmse", "mae", "log_loss"), pl.Series.arg_min)
    best = {name: int(choose.get(name, pl.Series.arg_max)(table[name])) + 1 for name in table.columns[3:]}  # type: ignore[arg-type]
    noted = fitted.metadata["training"]
    assert noted["best_epochs"] == best
    assert noted["best_epoch"] == best[metric]
    assert best["log_loss"] < 10, "so large a step must have overfitted"
    measured = evaluate_ratings(fitted, four_each().validation).metrics
    assert noted["validation"] == {name: measured[name] for name in noted["validation"]}


def test_all_rating_metrics_are_recorded_each_epoch_and_on_the_test_part(tmp_path: Path) -> None:
    training = rating_training(metric="own_hr@2", watch_test=True)
    fit(LevelBiases(), four_each(), training=training, out=tmp_path / "run", quiet=True)
    names = ["rmse", "mae", "log_loss", "own_hr@2", "own_hr@3", "own_ndcg@2", "own_ndcg@3"]
    table = pl.read_csv(tmp_path / "run" / "metrics.csv")
    assert table.columns == ["epoch", "loss", "seconds", *names, *(f"test {name}" for name in names)]
    assert table.null_count().sum_horizontal().item() == 0


def test_patience_waits_for_a_lower_error() -> None:
    training = rating_training(epochs=60, learning_rate=0.3, patience=2)
    trained = fit(LevelBiases(), four_each(), training=training, quiet=True).metadata["training"]
    assert 1 < trained["epochs"] == trained["best_epoch"] + 2 < 60


def test_a_rating_model_may_be_validated_by_ranking() -> None:
    training = rating_training(metric="ndcg@5", epochs=1)
    fitted = fit(LevelBiases(), four_each(), training=training, quiet=True)
    assert list(fitted.metadata["training"]["validation"]) == ["hr@5", "ndcg@5"]


@pytest.mark.parametrize(
    ("config", "metric", "message"),
    [
        (small_model(), "rmse", "metric='rmse' is of predicted ratings, and sasrec predicts none"),
        (small_model(), "own_hr@3", "metric='own_hr@3' is of predicted ratings"),
        (LevelBiases(), "rsme", "metric='rsme' is not measured in validation; did you mean \"rmse\""),
        (LevelBiases(), "rmse@10", "metric='rmse@10' is not measured in validation"),
        (LevelBiases(), "own_hr@5", "users with 5 ratings in the validation part, and the most that one has is 4"),
        (LevelBiases(), "own_hr@0", "look at so many at most"),
    ],
)
def test_an_unmeasurable_metric_is_refused_before_training(
    tmp_path: Path, config: ModelConfig, metric: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(config, four_each(), training=rating_training(metric=metric), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_weights_of_epochs_are_kept_and_loaded(tmp_path: Path) -> None:
    split, run = time_cut(DATA), tmp_path / "run"
    training = rating_training(epochs=5, keep_every=2)
    fitted = fit(LevelBiases(), split, training=training, out=run, refit=True, quiet=True)
    kept = ["0002.safetensors", "0004.safetensors", "state-0002.safetensors", "state-0004.safetensors"]
    assert sorted(path.name for path in (run / "epochs").iterdir()) == kept
    recorded = pl.read_csv(run / "metrics.csv")["rmse"]
    for epoch in (2, 4):
        loaded = load(run, epoch=epoch)
        assert evaluate_ratings(loaded, split.validation)["rmse"] == pytest.approx(recorded[epoch - 1], rel=1e-12)
        assert loaded.metadata["epoch"] == epoch
        assert loaded.metadata["refit"] is False
        assert not loaded.model.training
    assert load(run).metadata == fitted.metadata
    assert load(run).model.config == fitted.model.config
    with pytest.raises(StorageError, match=r"did not keep the weights of epoch 3; kept: 2, 4\. Train with"):
        load(run, epoch=3)
    kept = run / "epochs" / "0002.safetensors"
    kept.write_bytes(kept.read_bytes()[:-4] + b"1234")
    with pytest.raises(StorageError, match="checksum"):
        load(run, epoch=2)


def test_the_state_is_saved_at_the_interval_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.training import trainer

    saved: list[tuple[str, int]] = []
    save = trainer.save_checkpoint

    def noted(path: Path, tensors: dict[str, torch.Tensor], note: dict[str, dict[str, int]]) -> None:
        saved.append((path.name, note["state"]["epoch"]))
        save(path, tensors, note)

    monkeypatch.setattr(trainer, "save_checkpoint", noted)
    fit(LevelBiases(), four_each(), training=rating_training(epochs=7, save_every=3), out=tmp_path / "run", quiet=True)
    assert [epoch for name, epoch in saved if name == "last.safetensors"] == [3, 6, 7]
    assert {epoch for name, epoch in saved if name == "best.safetensors"} <= {3, 6, 7}
    saved.clear()
    impatient = rating_training(epochs=60, save_every=50, patience=2, learning_rate=0.3)
    stopped = fit(LevelBiases(), four_each(), training=impatient, out=tmp_path / "other", quiet=True)
    assert [epoch for name, epoch in saved if name == "last.safetensors"] == [stopped.metadata["training"]["epochs"]]


def test_a_run_interrupted_between_saves_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = rating_training(epochs=6, save_every=5)
    whole = fit(LevelBiases(), four_each(), training=training, out=tmp_path / "whole", quiet=True)

    started = Progress.start_epoch

    def interrupting(progress: Progress, epoch: int, epochs: int, steps: int, done: int) -> None:
        if epoch == 4:
            signal.raise_signal(signal.SIGINT)
        started(progress, epoch, epochs, steps, done)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(Progress, "start_epoch", interrupting)
        fit(LevelBiases(), four_each(), training=training, out=tmp_path / "run", quiet=True)
    _, note = load_checkpoint(tmp_path / "run" / "last.safetensors")
    assert (note["state"]["epoch"], note["state"]["step"]) == (3, 1)
    best, _ = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert note["state"]["best_epoch"] == 3
    kept = replace(training, epochs=3, keep_every=3)
    fit(LevelBiases(), four_each(), training=kept, out=tmp_path / "three", quiet=True)
    three, _ = load_checkpoint(tmp_path / "three" / "epochs" / "0003.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in three.items()), (
        "the best weights belong to the saved state"
    )
    again = fit(LevelBiases(), four_each(), training=training, out=tmp_path / "run", resume=True, quiet=True)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name]), name
    assert again.metadata["training"]["validation"] == whole.metadata["training"]["validation"]


@pytest.mark.parametrize("name", ["save_every", "keep_every"])
def test_an_interval_of_0_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}=0: expected 1 or more"):
        Training(**{name: 0})  # type: ignore[arg-type]


def test_a_counting_model_is_resolved_too() -> None:
    assert fit(ItemLevels(), four_each()).model.config == ItemLevels(levels=(1, 2, 3, 4, 5))
