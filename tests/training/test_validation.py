"""Validation on next items and on whole sessions, and the watched test part."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segue.data.dataset import Dataset
from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import last_session_out, leave_last_out, time_cut
from segue.errors import ConfigError
from segue.evaluation.tasks.baskets import evaluate_baskets
from segue.evaluation.tasks.sessions import evaluate_sessions
from segue.models.parsrec.parsrec import PARSRec
from segue.models.popularity import Popularity
from segue.training.checkpoint import load_checkpoint
from segue.training.fit import fit
from tests.helpers import make_dataset

from .runs import small_model, small_split, small_training

SESSIONS = ["sess_prec@5", "step_hr@5", "step_ndcg@5"]


@pytest.fixture(scope="module")
def shop() -> Dataset:
    return simulate(40, 6, categories=8, products=4, longest=5).dataset()


def test_sessions_choose_the_epoch(shop: Dataset) -> None:
    split = last_session_out(shop)
    training = small_training(metric="sess_prec@5", validation_candidates=9, validation_users=30)
    fitted = fit(PARSRec(user_width=8, item_width=8), split, training=training, quiet=True)
    metrics = fitted.metadata["training"]["validation"]
    assert list(metrics) == SESSIONS
    sample = split.validation.sample(30, training.seed)
    expected = evaluate_sessions(fitted, sample, k=5, candidates=9, seed=training.seed, resamples=0).metrics
    assert metrics == {name: expected[name] for name in SESSIONS}


def test_any_model_is_validated_by_sessions(shop: Dataset) -> None:
    training = small_training(metric="step_ndcg@5", epochs=1)
    fitted = fit(small_model(), last_session_out(shop), training=training, quiet=True)
    assert list(fitted.metadata["training"]["validation"]) == SESSIONS


@pytest.mark.parametrize("metric", ["ndcg@5", "sess_prec@5"])
def test_the_test_part_is_watched_and_chooses_nothing(tmp_path: Path, shop: Dataset, metric: str) -> None:
    split = last_session_out(shop)
    training = small_training(metric=metric, validate_every=2, patience=2)
    plain = fit(small_model(), split, training=training, out=tmp_path / "plain", quiet=True)
    watching = replace(training, watch_test=True)
    watched = fit(small_model(), split, training=watching, out=tmp_path / "watched", quiet=True)
    histories = {}
    for name in ("plain", "watched"):
        _, note = load_checkpoint(tmp_path / name / "last.safetensors")
        histories[name] = note["state"]["history"]
    measured = evaluate_sessions if metric in SESSIONS else evaluate_baskets
    for row, other in zip(histories["plain"], histories["watched"], strict=True):
        names = row.keys() - {"epoch", "loss", "seconds"}
        assert other.keys() - row.keys() == {f"test {name}" for name in names}
        assert {name: other[name] for name in names} == {name: row[name] for name in names}
    last = histories["watched"][watched.metadata["training"]["best_epoch"] - 1]
    expected = measured(watched, split.test, k=5, seed=training.seed, resamples=0).metrics  # type: ignore[operator]
    assert last[f"test {metric}"] == expected[metric]
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[key]), key
    noted = watched.metadata["training"]
    assert noted["best_epoch"] == plain.metadata["training"]["best_epoch"]
    assert noted["validation"] == plain.metadata["training"]["validation"]


def test_watching_may_begin_when_a_run_is_resumed(tmp_path: Path) -> None:
    fit(small_model(), small_split(), training=small_training(epochs=1), out=tmp_path / "run", quiet=True)
    watching = small_training(epochs=2, watch_test=True)
    fit(small_model(), small_split(), training=watching, out=tmp_path / "run", resume=True, quiet=True)
    header, first, second = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert header.endswith("test hr@10,test ndcg@10")
    assert first.endswith(",,")
    assert not second.endswith(",")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metric": "sess_prek@10"},
            "metric='sess_prek@10' is not measured in validation; did you mean \"sess_prec@10\"",
        ),
        ({"metric": "sess_prec@10"}, r"measured on whole sessions.*split by last-session-out"),
        ({"metric": "ndcg@10", "validation_candidates": 9}, "validation_candidates=9 are ranked with each target"),
    ],
)
def test_an_unmeasurable_metric_is_refused_before_training(
    tmp_path: Path, shop: Dataset, changes: dict[str, object], message: str
) -> None:
    for split in (small_split(), leave_last_out(shop)):
        with pytest.raises(ConfigError, match=message):
            fit(small_model(), split, training=small_training(**changes), out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    fit(Popularity(), leave_last_out(shop), training=small_training(**changes), quiet=True)


def test_a_session_model_is_validated_by_sessions(shop: Dataset) -> None:
    config, training = PARSRec(user_width=8, item_width=8), small_training(epochs=1)
    by_session = fit(config, last_session_out(shop), training=training, quiet=True).metadata
    assert list(by_session["training"]["validation"]) == ["sess_prec@10", "step_hr@10", "step_ndcg@10"]
    within = fit(config, leave_last_out(shop), training=training, quiet=True).metadata
    assert list(within["training"]["validation"]) == ["hr@10", "ndcg@10"]
    assert within["training"]["validation"]["hr@10"] > 0
    for metadata in (by_session, within):
        assert metadata["options"]["validation_exclude_seen"] is False
    explicit = small_training(epochs=1, metric="ndcg@10", validation_exclude_seen=True)
    assert fit(config, last_session_out(shop), training=explicit, quiet=True).metadata["options"]["metric"] == "ndcg@10"


def test_a_validation_without_possible_hits_warns() -> None:
    everyone_again = make_dataset([[1, 2, 3, 1, 2, 3]] * 8, catalogue=range(1, 12))
    split = leave_last_out(everyone_again)
    with pytest.warns(UserWarning, match="all of the targets of the validation part were in their user's history"):
        fitted = fit(small_model(), split, training=small_training(epochs=1), quiet=True)
    assert fitted.metadata["training"]["validation"] == {"hr@10": 0.0, "ndcg@10": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(small_model(), split, training=small_training(epochs=1, validation_exclude_seen=False), quiet=True)
        fit(small_model(), small_split(), training=small_training(epochs=1), quiet=True)


def test_watching_needs_a_test_part() -> None:
    split, training = small_split(), small_training(watch_test=True)
    with pytest.raises(ConfigError, match="watch_test=True needs a split"):
        fit(small_model(), split.train, training=training, quiet=True)
    with pytest.raises(ConfigError, match="watch_test=True needs a split"):
        fit(small_model(), split.train, split.validation, training=training, quiet=True)


def test_the_manifest_of_a_run(tmp_path: Path, shop: Dataset) -> None:
    split, training = last_session_out(shop), small_training(epochs=1)
    fit(small_model(), split, training=training, out=tmp_path / "trained", refit=True, quiet=True)
    fit(Popularity(), leave_last_out(small_split().dataset), out=tmp_path / "counted", quiet=True)
    trained, again, counted = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("trained", "trained/refit", "counted")
    )
    assert trained["model"] == small_model().to_dict() | {"repeats": False, "transitions": False}
    assert trained["training"] == training.to_dict() | {
        "metric": "ndcg@10",
        "validation_exclude_seen": False,  # the last visits are baskets of people who repeat themselves
        "averaging": 0.9,
    }
    assert trained["split"] == {"name": "last-session-out"}
    assert trained["dataset"] == {
        "source": "polars frame",
        "fingerprint": shop.fingerprint,
        "users": 40,
        "items": shop.n_items,
        "interactions": shop.n_interactions,
        "sessions": 240,
    }
    assert trained["processes"] == 1
    assert trained["refit"] is True
    assert {"python", "segue", "torch", "numpy", "polars"} <= trained["versions"].keys()
    assert again["training"]["patience"] is None
    assert again["dataset"] == trained["dataset"]
    assert counted["model"] == {"name": "popularity"}
    assert "training" not in counted
    assert counted["dataset"]["sessions"] is None


def test_without_validation_the_last_epoch_is_kept_and_the_test_part_can_be_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = time_cut(with_steps_as_times(small_split().dataset), test=0.2, validation=0)
    training = small_training(epochs=3, watch_test=True, patience=1)
    watched = fit(small_model(), split, training=training, out=tmp_path / "run")
    noted = watched.metadata["training"]
    assert (noted["epochs"], noted["best_epoch"], noted["validation"]) == (3, 3, {})
    lines = capsys.readouterr().err.splitlines()
    assert sum("test ndcg@10" in line and "best" not in line for line in lines) == 3
    plain = fit(small_model(), split, training=small_training(epochs=3), quiet=True)
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[key]), key


def with_steps_as_times(data: Dataset) -> Dataset:
    """The Dataset with the place in the history as time."""
    return replace(data, times=np.arange(len(data.items)) - np.repeat(data.offsets[:-1], np.diff(data.offsets)))
