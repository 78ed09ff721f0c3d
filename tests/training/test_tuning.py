"""The search for settings: blind for the test part, exact after a kill, and shared by several workers."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.data.splits.holdouts import Split
from segue.errors import ConfigError, StorageError, TrainingError
from segue.models.registry import _HOMES, MODELS
from segue.training.search_space import (
    SPACES,
    TRAINING_SPACE,
    Between,
    Choice,
    check_space,
    dimension_of,
    parsed_space,
    space_of,
)
from segue.training.tuning import is_trained
from tests.helpers import cycle_dataset
from tests.programs import Program

pytest.importorskip("optuna", reason="Optuna is not installed (the extra tune)")

SOURCE = Path(segue.__file__).parents[1]
TRAINING = segue.Training(epochs=3, batch_size=8, cpu=True, validation_users=None)
TINY = segue.SASRec(width=8, blocks=1, max_length=6, dropout=0.1)
SPACE = {"model.width": [4, 8], "model.dropout": (0.0, 0.5), "training.learning_rate": (1e-3, 1e-1, "log")}


@pytest.fixture(scope="module")
def split() -> Split:
    return segue.leave_last_out(cycle_dataset(n_users=24, n_items=8, length=6))


def run_of(tuning: Any) -> list[tuple[Any, ...]]:
    """All that is the same in every run of a search."""
    rows: list[tuple[Any, ...]] = tuning.trials.drop("seconds").rows()
    return rows


# ---- spaces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(MODELS))
def test_the_space_of_every_model_holds_its_defaults_and_nothing_impossible(name: str) -> None:
    config = MODELS[name]
    space = space_of(config, trained=True)
    check_space(space, config)
    for full, dimension in space.items():
        part, _, field = full.partition(".")
        owner = config if part == "model" else segue.Training
        default = next(one.default for one in fields(owner) if one.name == field)
        assert default in dimension, f"{full}={default!r} of {name} is not in {dimension}"


def test_models_without_settings_have_no_space_and_no_name_is_wrong() -> None:
    assert {"popularity", "global-mean"} == set(_HOMES) - set(SPACES)  # without those that other tests registered
    assert set(SPACES) <= set(MODELS)
    assert TRAINING_SPACE.keys() <= {one.name for one in fields(segue.Training)}
    assert is_trained(segue.SASRec()) and is_trained(segue.ARERec())
    assert not is_trained(segue.EASE()) and not is_trained(segue.VSTAN())


def test_words_of_the_command_line_become_dimensions() -> None:
    space = parsed_space(["model.width=32,64", "model.max-length=5:9", "training.learning_rate=1e-4:1e-2:log"])
    assert space == {
        "model.width": Choice((32, 64)),
        "model.max_length": Between(5, 9),
        "training.learning_rate": Between(1e-4, 1e-2, log=True),
    }
    assert space["model.max_length"].is_whole  # type: ignore[union-attr]
    assert parsed_space(["model.loss=bce,null"])["model.loss"] == Choice(("bce", None))


@pytest.mark.parametrize("wrong", ["model.width", "model.width=", "model.width=9:3", "model.width=0:3:log", "a=1:2:3"])
def test_words_of_another_form_are_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        parsed_space([wrong])


@pytest.mark.parametrize("wrong", [None, 3, [], (1,), (2, 1), (0, 1, "log"), {"low": 1}, [[1]], (True, 2)])
def test_dimensions_of_another_form_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"space: x is .* expected a list of values"):
        dimension_of("x", wrong)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.widht": [4]}, r"no setting 'model\.widht'; did you mean .model\.width"),
        ({"model.width": [0, 4]}, r"model\.width=0: expected 1 or more"),
        ({"model.width": (0.5, 4)}, r"model\.width=0\.5: expected a whole number"),
        (7, "expected a dict of settings"),
        ({}, "has no setting that is worth a search"),
    ],
)
def test_impossible_spaces_are_refused(split: Split, space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        segue.tune(TINY, split, space=space, trials=1)


# ---- the search ------------------------------------------------------------------------------------------------------


def test_the_first_trial_has_the_settings_as_they_are_and_the_best_is_returned(split: Split) -> None:
    tuning = segue.tune(TINY, split, trials=4, training=TRAINING, space=SPACE, prune=False)
    first = tuning.trials.row(0, named=True)
    assert [first[name] for name in SPACE] == [8, 0.1, 0.001]
    alone = segue.fit(TINY, split, training=TRAINING, quiet=True)
    assert first["ndcg@8"] == alone.metadata["training"]["validation"]["ndcg@8"]
    values = tuning.trials[tuning.metric]
    assert tuning.value == values.max()
    assert tuning.recommender is not None
    assert tuning.recommender.metadata["training"]["validation"][tuning.metric] == tuning.value
    again = segue.fit(tuning.config, split, training=tuning.training, quiet=True)
    assert again.metadata["training"]["validation"][tuning.metric] == tuning.value
    assert tuning.to_frame() is tuning.trials
    assert "importance" in str(tuning) and "<table" in tuning._repr_html_()


def test_counting_models_are_measured_on_validation(split: Split, tmp_path: Path) -> None:
    tuning = segue.tune("markov", split, trials=5, out=tmp_path / "search")
    assert tuning.trials["state"].to_list() == ["done"] * 5
    assert tuning.metric == "ndcg@8"
    assert set(tuning.settings) == {"model.steps", "model.decay", "model.smoothing"}
    assert (tmp_path / "search" / "tuning.png").is_file()
    best = segue.load(tmp_path / "search" / "best")
    assert best.model.config == tuning.config
    assert sorted(one.name for one in (tmp_path / "search" / "trials").iterdir()) == []
    assert segue.evaluate(best, split.test, k=3, resamples=0).metrics["hr@3"] >= 0


def test_no_trial_sees_the_test_part(split: Split) -> None:
    """With other items as test targets, every trial is the same to the digit."""
    data = split.dataset
    items = data.items.copy()
    last = split.test.history_ends
    items[last] = items[last] % data.n_items + 1
    other = segue.leave_last_out(replace(data, items=items))
    assert (other.test.targets().items[last] != split.test.targets().items[last]).all()
    settings: dict[str, Any] = {"trials": 3, "training": TRAINING, "space": SPACE}
    assert run_of(segue.tune(TINY, split, **settings)) == run_of(segue.tune(TINY, other, **settings))
    with pytest.raises(ConfigError, match="watch_test"):
        segue.tune(TINY, split, training=replace(TRAINING, watch_test=True))


def test_trials_that_fall_behind_are_stopped(split: Split, tmp_path: Path) -> None:
    training = replace(TRAINING, epochs=8, patience=None)
    space = {"training.learning_rate": [1e-2, 1e-7]}
    tuning = segue.tune(TINY, split, trials=14, training=training, space=space, sampler="random")
    stopped = tuning.trials.filter(pl.col("state") == "stopped early")
    assert len(stopped)
    assert (stopped["epochs"] < 8).all() and (stopped["training.learning_rate"] == 1e-7).all()
    whole = segue.tune(TINY, split, trials=8, training=training, space=space, sampler="random", prune=False)
    assert whole.trials["state"].to_list() == ["done"] * 8


def test_the_time_is_a_limit(split: Split) -> None:
    tuning = segue.tune(TINY, split, trials=10_000, minutes=0.02, training=TRAINING, space=SPACE)
    assert 0 < len(tuning.trials) < 10_000


def test_an_error_in_a_trial_is_noted_and_does_not_end_the_search(split: Split) -> None:
    space = {"model.heads": [1, 3]}
    tuning = segue.tune(TINY, split, trials=6, training=TRAINING, space=space, sampler="random", prune=False)
    states = dict(tuning.trials.select("model.heads", "state").iter_rows())
    assert states == {1: "done", 3: "failed"}
    with pytest.raises((ConfigError, TrainingError), match="heads"):
        segue.tune(TINY, split, trials=2, training=TRAINING, space={"model.heads": [3]})


def test_a_search_without_validation_or_optuna_is_refused(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="needs a validation part"):
        segue.tune(TINY, split.train)
    with pytest.raises(ConfigError, match="pass either a split"):
        segue.tune(TINY, split, split.validation)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"needs Optuna: pip install 'segue\[tune\]'"):
        segue.tune(TINY, split)


# ---- going on --------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import segue
from segue.training import tuning
from tests.helpers import cycle_dataset
from tests.training.test_tuning import SPACE, TINY, TRAINING

begun, fit = 0, tuning.fit

def killed(*given, on_epoch, **named):
    global begun
    begun += 1
    def on_epoch_or_kill(history):
        ended = on_epoch(history)
        if begun == 3 and len(history) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return ended
    return fit(*given, on_epoch=on_epoch_or_kill, **named)

tuning.fit = killed
split = segue.leave_last_out(cycle_dataset(n_users=24, n_items=8, length=6))
segue.tune(TINY, split, trials=4, training=TRAINING, space=SPACE, out=sys.argv[1])
"""


def python(*words: str) -> Program:
    paths = os.pathsep.join([str(SOURCE), str(Path(__file__).parents[2])])
    return Program(*words, env={**os.environ, "PYTHONPATH": paths}, quiet=True)


def test_a_killed_search_goes_on_as_if_nothing_had_happened(split: Split, tmp_path: Path) -> None:
    """SIGKILL in the second epoch of the third trial: that training goes on, and all later trials are the same."""
    killed = python("-c", KILLED, str(tmp_path / "search"))
    assert killed.wait() == -signal.SIGKILL
    assert [one.name for one in (tmp_path / "search" / "trials").glob("0*")] == ["0003"]
    again = segue.tune(TINY, split, trials=4, training=TRAINING, space=SPACE, out=tmp_path / "search")
    whole = segue.tune(TINY, split, trials=4, training=TRAINING, space=SPACE, out=tmp_path / "whole")
    assert run_of(again) == run_of(whole)
    assert again.trials["trial"].to_list() == [1, 2, 3, 4]
    same = [segue.load(tmp_path / name / "best").recommend([1, 2], k=3) for name in ("search", "whole")]
    assert same[0].equals(same[1])
    more = segue.tune(TINY, split, trials=5, training=TRAINING, space=SPACE, out=tmp_path / "search")
    assert len(more.trials) == 5


def test_another_search_is_not_mixed_in(split: Split, tmp_path: Path) -> None:
    segue.tune("markov", split, trials=1, out=tmp_path / "search")
    with pytest.raises(StorageError, match=r"belongs to a search with another .*: .* there, .* here"):
        segue.tune(segue.Markov(steps=1), split, trials=2, out=tmp_path / "search", space={"model.decay": (0.1, 1.0)})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(StorageError, match=r"holds notes\.txt, and no search"):
        segue.tune("markov", split, trials=1, out=tmp_path / "mine")
    (tmp_path / "bad.db").write_text("no database" * 100)
    with pytest.raises(StorageError, match="cannot be used as the storage"):
        segue.tune("markov", split, trials=1, out=tmp_path / "other", storage=tmp_path / "bad.db")


@pytest.mark.slow
def test_several_workers_share_the_trials(split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split.dataset.save(tmp_path / "data")
    words = ["tune", str(tmp_path / "data"), "--model", "markov", "--trials", "9"]
    words += ["--storage", str(tmp_path / "study.db")]
    workers = [python("-m", "segue", *words) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert main([*words, "--json"]) == 0
    import json

    summary = json.loads(capsys.readouterr().out)
    assert summary["trials"] == {"done": 9}
    assert segue.load(summary["run"]).model.config.name == "markov"


def test_the_command_searches_what_is_not_given(
    split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split.dataset.save(tmp_path / "data")
    words = ["tune", str(tmp_path / "data"), "--model", "markov", "--trials", "2"]
    assert main([*words, "--storage", str(tmp_path / "study.db"), "--model.steps", "2"]) == 0
    captured = capsys.readouterr()
    assert "split: leave-last-out" in captured.err and "trial 2  done  ndcg@8" in captured.err
    assert segue.load(tmp_path / "study" / "best").model.config.steps == 2  # type: ignore[attr-defined]
    assert main(["evaluate", str(tmp_path / "study" / "best"), "--k", "3"]) == 0
    assert main([*words, "--out", str(tmp_path / "s"), "--search", "model.steps=1,2", "--json", "--quiet"]) == 0
    assert main(words) == 2
    assert "needs --out" in capsys.readouterr().err
    everything = [f"--model.{name}={value}" for name, value in (("steps", 1), ("decay", 0.4), ("smoothing", 3))]
    assert main([*words, "--out", str(tmp_path / "t"), *everything]) == 2
    assert "name others with --search" in capsys.readouterr().err


# ---- fit(on_epoch=) --------------------------------------------------------------------------------------------------


def test_a_training_ends_where_on_epoch_says_so_and_can_go_on(split: Split, tmp_path: Path) -> None:
    seen: list[int] = []

    def end_after_two(history: list[dict[str, float]]) -> bool:
        seen.append(len(history))
        assert history[-1].keys() >= {"epoch", "loss", "seconds"}
        return len(history) == 2

    training = replace(TRAINING, epochs=5, save_every=4)
    ended = segue.fit(TINY, split, training=training, out=tmp_path / "run", on_epoch=end_after_two, quiet=True)
    assert seen == [1, 2] and ended.metadata["training"]["epochs"] == 2
    on = segue.resume(tmp_path / "run", quiet=True)
    whole = segue.fit(TINY, split, training=training, quiet=True)
    weights = [dict(one.model.state_dict()) for one in (on, whole)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
