"""`segue.refresh`: append, train on, compare, replace; killed anywhere, the same command ends with the same result."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue
from segue.errors import ConfigError, DataError, StorageError
from segue.files import read_json, sha256
from segue.training import refreshing
from segue.training.refreshing import Refreshed, refresh
from tests.helpers import cycle_dataset

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = segue.SASRec(width=8, blocks=1, max_length=4)
TRAINING = segue.Training(epochs=2, cpu=True, metric="ndcg@5")


def log() -> pl.DataFrame:
    return cycle_dataset(20, 12, 6).to_frame().with_columns(time=pl.int_range(pl.len()))


def later(shift: int = 0) -> pl.DataFrame:
    rows = [
        (user, (user + 6 + step + shift) % 12 + 1, 1000 + 10 * shift + step) for user in range(21) for step in (0, 1)
    ]
    return pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    data = segue.prepare(log(), out=folder / "data")
    segue.fit(SMALL, segue.leave_last_out(data), training=TRAINING, quiet=True, out=folder / "run")
    later().write_csv(folder / "new.csv")
    return folder


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


def call(place: Path, **options: Any) -> Refreshed:
    return refresh(place / "data", place / "run", place / "new.csv", quiet=True, **options)


def content(place: Path) -> tuple[str, str]:
    """Fingerprint of the Dataset and checksum of the weights."""
    weights = place / "run" / "recommender" / "weights.safetensors"
    return segue.Dataset.open(place / "data").fingerprint, sha256(weights)


def test_the_results_take_the_places_of_the_old_ones(place: Path) -> None:
    before = content(place)
    result = call(place, always=True)
    assert result == Refreshed(True, str(place / "data"), str(place / "run"), None, None, None, None, None)
    data, weights = content(place)
    assert data != before[0] and weights != before[1]
    assert segue.load(place / "run").recommend([1, 0], k=2).height == 4
    assert {path.name for path in place.iterdir()} == {"data", "run", "new.csv"}


def test_the_same_log_again_is_refused_by_name(place: Path) -> None:
    call(place, always=True)
    after = content(place)
    with pytest.raises(DataError, match=r"new.csv is part of this Dataset already"):
        call(place)
    assert content(place) == after
    assert {path.name for path in place.iterdir()} == {"data", "run", "new.csv"}
    later(1).write_csv(place / "new.csv")
    call(place, always=True)


def test_the_new_run_is_compared_with_the_old_one(place: Path) -> None:
    result = call(place)
    assert result.metric == "ndcg@5" or result.metric is not None
    assert result.old is not None and result.new is not None and result.low is not None and result.high is not None
    assert result.replaced == (result.high >= 0)


def test_a_worse_run_stays_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = content(place)[1]
    compared = refreshing.newest_difference

    def swapped(*arguments: Any) -> Any:
        return replace(compared(*arguments), better="a", a=0.5, b=0.1, low=-0.5, high=-0.3)

    monkeypatch.setattr(refreshing, "newest_difference", swapped)
    result = call(place)
    assert not result.replaced
    assert content(place)[1] == weights
    assert segue.Dataset.open(place / "data").n_interactions == 120 + 42  # the Dataset has the log all the same
    later(1).write_csv(place / "new.csv")
    monkeypatch.undo()
    assert call(place, always=True).replaced  # from the run of an older Dataset


def settings_of(run: Path) -> dict[str, Any]:
    return {name: read_json(run / "run.json")[name] for name in ("model", "chosen")}


@pytest.mark.parametrize("given", [None, "softmax"])
def test_a_loss_that_was_left_to_the_data_is_chosen_anew(
    given: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalogue outgrows the softmax. A loss that was given stays, and so do choices that weights depend on."""
    monkeypatch.setattr("segue.models.negatives.SMALL_CATALOGUE", 12)
    data = segue.prepare(log(), out=tmp_path / "data")
    config = replace(SMALL, loss=given)
    segue.fit(config, segue.leave_last_out(data), training=TRAINING, quiet=True, out=tmp_path / "run")
    chosen = {"repeats", "transitions"} | ({"loss"} if given is None else set())
    before = settings_of(tmp_path / "run")
    assert before["model"]["loss"] == "softmax" and set(before["chosen"]) == chosen
    segue.resume(tmp_path / "run", epochs=3, quiet=True)
    assert settings_of(tmp_path / "run") == before
    later().with_columns(pl.col("item") + 6).write_csv(tmp_path / "new.csv")
    call(tmp_path, always=True)
    after = settings_of(tmp_path / "run")
    assert after["model"].pop("loss") == (given or "sampled-softmax") and set(after["chosen"]) == chosen
    before["model"].pop("loss")
    assert after == before


def test_the_newest_windows_alone(place: Path) -> None:
    """The setting goes to the training, the new run keeps it, and the next refresh has it too."""
    assert settings_of(place / "run")["model"]["windows"] == "all"
    call(place, always=True, model={"windows": "newest"}, training={"epochs": 1})
    assert settings_of(place / "run")["model"]["windows"] == "newest"
    later(1).write_csv(place / "new.csv")
    call(place, always=True)
    assert segue.load(place / "run").model.config.to_dict()["windows"] == "newest"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": {"window": "newest"}}, r"no setting 'window'; .*windows"),
        ({"model": {"windows": "latest"}}, r"windows='latest'"),
        ({"model": {"width": 16}}, r"width=16 differs from width=8"),
        ({"training": {"epoch": 1}}, r"no setting 'epoch'; .*epochs"),
        ({"training": {"epochs": 0}}, r"epochs=0"),
        ({"training": {"start_optimizer": "continued", "optimizer": "sgd"}}, r"run was trained with adam"),
    ],
)
def test_impossible_settings_are_refused_before_anything_begins(
    options: dict[str, Any], message: str, place: Path
) -> None:
    before = content(place)
    with pytest.raises(ConfigError, match=message):
        call(place, **options)
    assert content(place) == before and not (place / "run.refresh").exists()
    call(place, always=True)


class Killed(BaseException):
    pass


STEPS = ["begin", "append", "train", "compare", "finish"]


@pytest.mark.parametrize("after", [True, False], ids=["after", "before its note"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_and_run_again(
    step: str, after: bool, place: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world, tmp_path / "calm")
    expected = (call(tmp_path / "calm", always=True).replaced, *content(tmp_path / "calm"))
    done = getattr(refreshing._Steps, step)

    def dies(self: Any, *arguments: Any) -> Any:
        if not after:
            monkeypatch.setattr(refreshing._Steps, "_save", lambda *a, **k: (_ for _ in ()).throw(Killed))
            monkeypatch.setattr(refreshing._Steps, "_remove", lambda *a, **k: (_ for _ in ()).throw(Killed))
        done(self, *arguments)
        raise Killed

    monkeypatch.setattr(refreshing._Steps, step, dies)
    with pytest.raises(Killed):
        call(place, always=True)
    monkeypatch.undo()
    if step == "finish" and after:
        assert (True, *content(place)) == expected
        return
    assert (call(place, always=True).replaced, *content(place)) == expected


def test_killed_while_the_folders_change_places(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Path] = []
    put: Callable[..., None] = refreshing.put

    def puts(source: Path, target: Path) -> None:
        put(source, target)
        moved.append(target)
        raise Killed

    monkeypatch.setattr(refreshing, "put", puts)
    for _ in range(2):  # the Dataset, then the run
        with pytest.raises(Killed):
            call(place, always=True)
    assert [path.name for path in moved] == ["data", "run"]
    monkeypatch.undo()
    assert call(place, always=True).replaced
    assert segue.Dataset.open(place / "data").n_interactions == 120 + 42


def test_a_link_is_switched_and_its_target_stays(place: Path) -> None:
    (place / "run").rename(place / "monday")
    (place / "run").symlink_to("monday")
    result = call(place, always=True)
    assert (place / "run").readlink() == Path("run-0001") and result.run == str(place / "run-0001")
    assert segue.load(place / "run").dataset.n_interactions == 120 + 42
    assert segue.load(place / "monday").dataset.n_interactions == 120
    later(1).write_csv(place / "new.csv")
    call(place, always=True)
    assert (place / "run").readlink() == Path("run-0002")


def test_bad_input(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "run" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"notes.txt, which does not belong to it"):
        call(place)
    (place / "run" / "notes.txt").unlink()
    monkeypatch.setattr(refreshing._Steps, "train", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        call(place)
    monkeypatch.undo()
    later(1).write_csv(place / "other.csv")
    with pytest.raises(StorageError, match=r"an unfinished refresh with another log, .*new.csv"):
        refresh(place / "data", place / "run", place / "other.csv", quiet=True)
    shutil.rmtree(place / "run.refresh")
    data = segue.Dataset.open(place / "data")
    segue.fit(SMALL, data, training=TRAINING, quiet=True, out=place / "run", overwrite=True)
    with pytest.raises(ConfigError, match="without a split"):
        call(place)
    with pytest.raises(StorageError, match="is not a finished run"):
        refresh(place / "data", place / "nowhere", place / "new.csv")
