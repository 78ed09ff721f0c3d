"""Real trackers, with local files only: metrics by epoch, settings, tags, final figures and the files of the run."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.data.splits.holdouts import Split
from segue.errors import ConfigError, StorageError
from segue.training import tracking
from segue.training.tracking import Tracking
from tests.helpers import cycle_dataset

TINY = segue.SASRec(width=4, blocks=1, max_length=5)


@pytest.fixture(scope="module")
def split() -> Split:
    return segue.leave_last_out(cycle_dataset(n_users=18, n_items=12, length=6))


def training(*trackers: str, **options: Any) -> segue.Training:
    return segue.Training(epochs=3, batch_size=8, cpu=True, trackers=trackers, **options)


def package(name: str) -> Any:
    """The package of a tracker; without it, or if it cannot be imported, the test is skipped."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        pytest.skip(f"{name} is not installed, or cannot be imported: {error}")


def rows(run: Path) -> list[dict[str, float]]:
    import polars as pl

    return pl.read_csv(run / "metrics.csv").to_dicts()


# ---- MLflow ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of MLflow on local files."""
    mlflow = package("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TAGS"):
        monkeypatch.delenv(name, raising=False)
    mlflow.set_tracking_uri(uri)
    yield mlflow.MlflowClient(uri)
    assert mlflow.active_run() is None
    mlflow.set_tracking_uri(None)


def only_run(client: Any, experiment: str) -> Any:
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return found


@pytest.mark.slow
def test_mlflow_has_everything_of_a_run(split: Split, tmp_path: Path, store: Any) -> None:
    options = training("mlflow", tracker_project="shop", tracker_run="first")
    recommender = segue.fit(TINY, split, training=options, out=tmp_path / "run", quiet=True)
    found = only_run(store, "shop")
    assert found.info.run_name == "first" and found.info.status == "FINISHED"
    assert found.data.params["model.width"] == "4" and found.data.params["training.epochs"] == "3"
    assert found.data.params["split.name"] == "leave-last-out"
    assert found.data.tags["model"] == "sasrec" and found.data.tags["split"] == "leave-last-out"
    for ours, theirs in (("loss", "loss"), ("ndcg@10", "ndcg_at_10"), ("hr@10", "hr_at_10")):
        history = sorted((point.step, point.value) for point in store.get_metric_history(found.info.run_id, theirs))
        assert history == [(int(row["epoch"]), pytest.approx(row[ours])) for row in rows(tmp_path / "run")]
    best = recommender.metadata["training"]
    assert found.data.metrics["best/ndcg_at_10"] == pytest.approx(best["validation"]["ndcg@10"])
    assert found.data.metrics["best/epoch"] == best["best_epoch"]
    files = {one.path for one in store.list_artifacts(found.info.run_id, "run")}
    assert files == {f"run/{name}" for name in ("run.json", "metrics.csv", "curves.png", "recommender")}
    kept = store.download_artifacts(found.info.run_id, "run/recommender", str(tmp_path))
    assert segue.load(kept).recommend([1], k=3).equals(recommender.recommend([1], k=3))


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(split: Split, tmp_path: Path, store: Any) -> None:
    options = training("mlflow")
    segue.fit(TINY, split, training=options, out=tmp_path / "run", quiet=True, on_epoch=lambda history: True)
    segue.resume(tmp_path / "run", quiet=True)
    found = only_run(store, "segue")
    history = store.get_metric_history(found.info.run_id, "ndcg_at_10")
    assert sorted(point.step for point in history) == [1, 2, 3]
    assert found.info.run_name == "run"
    (tmp_path / "run" / "trackers.json").write_text("[1]")
    with pytest.raises(StorageError, match="does not name the runs of trackers"):
        segue.resume(tmp_path / "run", quiet=True, epochs=4)
    segue.fit(TINY, split, training=training(), out=tmp_path / "run", overwrite=True, quiet=True)


def test_a_failed_training_leaves_no_run_open(split: Split, tmp_path: Path, store: Any) -> None:
    def fail(history: list[dict[str, float]]) -> bool:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        segue.fit(TINY, split, training=training("mlflow"), quiet=True, on_epoch=fail)
    assert only_run(store, "segue").info.run_name == "sasrec"  # the fixture sees that none is active


# ---- Weights & Biases ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_offline_has_everything_of_a_run(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    options = training("wandb", tracker_project="shop", tracker_run="first")
    segue.fit(TINY, split, training=options, out=tmp_path / "run", quiet=True)
    (file,) = (tmp_path / "run" / "segue").glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    for text in (b"shop", b"first", b"sasrec", b"leave-last-out", b"model.width", b"ndcg@10", b"hr@10", b"best/epoch"):
        assert text in content, text
    assert str(rows(tmp_path / "run")[1]["loss"])[:8].encode() in content
    assert b"recommender/recommender.json" in content  # the artefact
    ids = json.loads((tmp_path / "run" / "trackers.json").read_text())
    assert ids["wandb"] in file.name
    assert not (tmp_path / "wandb").exists()
    segue.fit(TINY, split, training=training(), out=tmp_path / "run", overwrite=True, quiet=True)


# ---- TensorBoard and trackio -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tensorboard_has_metrics_settings_and_tags(split: Split, tmp_path: Path) -> None:
    package("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recommender = segue.fit(TINY, split, training=training("tensorboard"), out=tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "segue")).Reload()
    for name in ("loss", "ndcg@10", "hr@10"):
        points = [(event.step, event.value) for event in events.Scalars(name)]
        assert points == [(int(row["epoch"]), pytest.approx(row[name], rel=1e-5)) for row in rows(tmp_path / "run")]
    best = recommender.metadata["training"]["validation"]["ndcg@10"]
    assert [event.value for event in events.Scalars("best/ndcg@10")] == pytest.approx([best])
    assert any("tags" in name for name in events.Tags()["tensors"])
    (settings,) = (tmp_path / "run" / "segue").glob("*/hparams.yml")
    assert "model.width: 4" in settings.read_text()


@pytest.mark.slow
def test_trackio_has_metrics_and_settings(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    package("trackio")
    options = training("trackio", tracker_project="shop", tracker_run="first")
    segue.fit(TINY, split, training=options, out=tmp_path / "run", quiet=True)
    assert list((tmp_path / "trackio").rglob("shop*"))


# ---- names and errors ------------------------------------------------------------------------------------------------


class Noted:
    """A tracker that keeps what it is told."""

    requires_logging_directory = False

    def __init__(self, project: str, **options: Any) -> None:
        self.project, self.options, self.logged, self.finished = project, options, [], 0
        MADE.append(self)

    def start(self) -> None:
        if self.project == "broken":
            raise OSError("no server")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.values = values

    def log(self, values: dict[str, Any], step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished += 1


MADE: list[Any] = []


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "noted", Noted)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["noted"])
    MADE.clear()
    return MADE


def test_a_refit_is_no_run_of_its_own(split: Split, noted: list[Any]) -> None:
    segue.fit(TINY, split, training=training("noted"), refit=True, quiet=True)
    (tracker,) = noted
    assert [step for step, _ in tracker.logged] == [1, 2, 3, 3]
    assert tracker.logged[-1][1].keys() == {"best/ndcg@10", "best/hr@10", "best/epoch"}
    assert tracker.finished == 1
    assert tracker.values["model.name"] == "sasrec" and tracker.values["training.clip_norm"] == "null"
    assert tracker.project == "segue"


def test_a_tracker_that_cannot_start_is_an_error_that_says_why(split: Split, noted: list[Any]) -> None:
    with pytest.raises(ConfigError, match="noted could not be started: OSError: no server"):
        segue.fit(TINY, split, training=training("noted", tracker_project="broken"), quiet=True)


def test_former_runs_of_trackers_are_known_on_resume_alone(split: Split, tmp_path: Path, noted: list[Any]) -> None:
    (tmp_path / "trackers.json").write_text('{"mlflow": "abc"}')
    facts = {"model": {"name": "sasrec"}, "split": None, "dataset": {"source": "x" * 200}}
    fresh, resumed = (Tracking(training("noted"), tmp_path, facts, again) for again in (False, True))
    assert fresh._ids == {} and resumed._ids == {"mlflow": "abc"}
    assert len(fresh._tags["data"]) == 60
