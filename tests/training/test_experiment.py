"""Experiments by a plan: every cell a run, exact after kills, shared by processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import segue
from segue.cli.main import main
from segue.errors import ConfigError, StorageError
from segue.locks import locked
from segue.training.plan import Plan
from tests.engines.processes import descendants, title_of
from tests.helpers import cycle_dataset
from tests.programs import Program

SOURCE = Path(segue.__file__).parents[1]
SASREC = {"model": "sasrec", "width": 4, "blocks": 1, "max_length": 5}


@pytest.fixture
def plan(tmp_path: Path) -> dict[str, Any]:
    """3 models × 2 data sets × 2 seeds."""
    for name, n_items in (("eight", 8), ("nine", 9)):
        cycle_dataset(n_users=18, n_items=n_items, length=6).save(tmp_path / name)
    return {
        "data": {
            "eight": str(tmp_path / "eight"),
            "nine": {"dataset": str(tmp_path / "nine"), "split": {"name": "leave-last-n", "n": 2}},
        },
        "models": {"Markov": "markov", "SASRec": SASREC, "wide": {**SASREC, "width": 8, "training": {"epochs": 3}}},
        "seeds": 2,
        "training": {"epochs": 2, "batch_size": 8, "cpu": True},
        "evaluation": {"k": [1, 3]},
        "metrics": ["hr@1", "ndcg@3"],
    }


def written(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("results.md", "results.tex", "results.csv")]


KILLED = """
import os, signal, sys, yaml
import segue
from segue.training import experiment

begun, fit = 0, experiment.fit

def killed(*given, **named):
    global begun
    begun += 1

    def on_epoch(history):
        if begun == int(sys.argv[3]) and len(history) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return fit(*given, on_epoch=on_epoch, **named)

experiment.fit = killed
segue.experiment(sys.argv[1], sys.argv[2])
"""


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(SOURCE), str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": paths}


def python(*words: str) -> Program:
    return Program(*words, env=environment(), quiet=True)


def command(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "segue", *words], env=environment(), stdout=subprocess.DEVNULL, cwd=cwd
    )


@pytest.mark.slow
def test_an_experiment_that_was_killed_twice_ends_with_the_table_of_an_undisturbed_one(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    """SIGKILL within the second training, then within the fourth of what is left."""
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    for nth in ("2", "4"):
        killed = python("-c", KILLED, str(tmp_path / "plan.yaml"), str(tmp_path / "out"), nth)
        assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "out" / "results.md").exists()
    before = len(list((tmp_path / "out").glob("*/*/seed-?.json")))
    assert 0 < before < 10
    made: list[int] = []
    segue.experiment(tmp_path / "plan.yaml", tmp_path / "out", on_cell=lambda cell, evaluation, done, n: made.append(n))
    assert made == [10] * (10 - before)
    segue.experiment(plan, tmp_path / "whole")
    assert written(tmp_path / "out") == written(tmp_path / "whole")
    run = segue.load(tmp_path / "out" / "nine" / "wide" / "seed-1")
    assert run.metadata["options"]["seed"] == 1 and run.metadata["training"]["epochs"] == 3


WORKERS = {"processes": "multiprocessing.spawn", "ray": "SegueWorker"}
"""Words in the command lines of workers, which may be killed."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the workers are found through /proc")
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_workers_share_the_cells_and_one_is_killed(engine: str, plan: dict[str, Any], tmp_path: Path) -> None:
    """The table is that of this process, to the digit, with one folder of runs and nothing else left."""
    if engine == "ray":
        pytest.importorskip("ray")
    plan |= {"data": {"eight": "eight"}, "models": {"Markov": "markov", "SASRec": SASREC}}  # a relative path
    plan["training"]["epochs"] = 20
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["experiment", "plan.yaml", "--quiet", "--engine", engine, "--processes", "2"]
    started = command(*words, cwd=tmp_path)
    begun = time.monotonic()
    while not (victims := [one for one in descendants(started.pid) if is_training(one, WORKERS[engine], tmp_path)]):
        assert started.poll() is None and time.monotonic() - begun < 300
        time.sleep(0.02)
    os.kill(victims[-1], signal.SIGKILL)
    assert started.wait(timeout=300) == 0
    with contextlib.chdir(tmp_path):
        segue.experiment(plan, "whole")
    assert written(tmp_path / "plan") == written(tmp_path / "whole")
    assert not list(tmp_path.rglob(".*"))


def is_training(pid: int, word: str, folder: Path) -> bool:
    """True for a worker, once a training has left a first epoch."""
    return word in title_of(pid) and next(folder.glob("plan/*/*/seed-?/metrics.csv"), None) is not None


def test_cells_that_another_program_has_begun_are_waited_for(plan: dict[str, Any], tmp_path: Path) -> None:
    plan |= {"data": {"eight": plan["data"]["eight"]}, "models": {"Markov": "markov", "pop": "popularity"}}
    run = tmp_path / "out" / "eight" / "Markov" / "seed-0"
    made: list[str] = []
    with locked(run.with_name(".seed-0.in-flight"), run):
        thread = threading.Thread(
            target=lambda: segue.experiment(
                plan,
                tmp_path / "out",
                on_cell=lambda cell, evaluation, done, n: made.append(cell.model),
            )
        )
        thread.start()
        while not made:
            assert thread.is_alive()
            time.sleep(0.02)
        assert made == ["pop"]
    thread.join(timeout=120)
    assert made == ["pop", "Markov"] and (tmp_path / "out" / "results.md").is_file()


def test_done_cells_are_skipped_and_changed_ones_refused(
    plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan |= {"data": {"eight": plan["data"]["eight"]}, "models": {"Markov": "markov", "pop": "popularity"}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    words = ["experiment", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "2 of 2  eight  pop  seed 0  hr@1" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "of 2" not in captured.err and '"p_holm"' in captured.out
    plan["models"]["Markov"] = {"model": "markov", "steps": 1}
    with pytest.raises(StorageError, match=r"seed-0\.cell\.json tells of a cell with another model: .*steps"):
        segue.experiment(plan, tmp_path / "out")
    plan["models"] = {"Markov": "markov", "ease": "ease"}
    assert segue.experiment(plan, tmp_path / "out").models == ["Markov", "ease"]


def test_settings_are_crossed_with_the_models(plan: dict[str, Any]) -> None:
    plan["settings"] = {"dry": {"dropout": 0.0}, "wet": {"dropout": 0.5, "training": {"epochs": 7}}}
    plan["models"] = {"SASRec": SASREC, "Markov": {"model": "markov", "settings": {"one": {"steps": 1}}}}
    cells = Plan.of(plan).cells
    names = {(cell.data, cell.model): cell for cell in cells}
    assert [model for data, model in names if data == "nine"] == ["SASRec-dry", "SASRec-wet", "Markov-one"]
    wet = names["eight", "SASRec-wet"]
    assert wet.config.to_dict()["dropout"] == 0.5 and wet.training.epochs == 7 and wet.training.batch_size == 8
    assert [cell.seed for cell in cells if cell.model == "Markov-one"] == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dta": 1}, r"there is no part 'dta'; did you mean .data"),
        ({"data": {}}, "expected data as names"),
        ({"models": ["sasrec"]}, "expected models as names"),
        ({"models": {"a/b": "markov"}}, r"models: 'a/b' cannot be the name of a folder"),
        ({"models": {"x": "markow"}}, "markow"),
        ({"models": {"x": {"model": "markov", "stps": 1}}}, r"models\.x: markov has no setting 'stps'"),
        ({"settings": {"s": {"dropout": 0.1}}}, r"models\.Markov\.settings\.s: markov has no setting 'dropout'"),
        ({"training": {"epochs": 0}}, "epochs=0"),
        ({"training": 3}, "expected training as"),
        ({"seeds": 0}, "seeds=0"),
        ({"seeds": [1, -1]}, r"seeds=\[1, -1\]"),
        ({"split": 3}, "split=3"),
        ({"data": {"x": {"folder": "y"}}}, r"data\.x: expected the folder of a Dataset"),
        ({"metrics": 3}, "metrics=3"),
        ({"baseline": "Markow"}, r"baseline='Markow' is none of the models"),
        ({"evaluation": {"on": "train"}}, "on='train'"),
        ({"evaluation": {"q": 1}}, "has no setting 'q'"),
    ],
)
def test_impossible_plans_are_refused(plan: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan.of(plan | change)


@pytest.mark.parametrize(("text", "message"), [("[1]", "expected the parts of a plan"), ("a: [", "not YAML")])
def test_files_that_are_no_plan_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        segue.experiment(tmp_path / "plan.yaml", tmp_path / "out")
    with pytest.raises(ConfigError, match="cannot be read"):
        segue.experiment(tmp_path / "none.yaml", tmp_path / "out")
    with pytest.raises(ConfigError, match="plan=3"):
        segue.experiment(3, tmp_path / "out")  # type: ignore[arg-type]
