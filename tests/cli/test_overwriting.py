"""The rule of overwriting and the treatment of SIGTERM, by commands: nothing foreign is ever deleted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.errors import ConfigError, StorageError
from segue.files import exclusive
from segue.inference import export as export_module
from segue.inference.recommender import Recommender
from segue.training.fit import fit
from tests.helpers import cycle_dataset
from tests.programs import Program

MARKOV = ["--model", "markov", "--quiet", "--json"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rows = [f"{user},{(user + step) % 12},{1_577_836_800 + step}" for user in range(20) for step in range(6)]
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def data(log: Path, tmp_path: Path) -> Path:
    assert main(["prepare", str(log), "--out", str(tmp_path / "data"), "--quiet"]) == 0
    return tmp_path / "data"


def recommender() -> Recommender:
    return fit(segue.Markov(), cycle_dataset(), quiet=True)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that a command is refused with a message, and changes nothing."""
    before = everything(folder)
    assert main(words) == 1
    assert message in capsys.readouterr().err
    assert everything(folder) == before


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_prepare_deletes_nothing(
    tmp_path: Path, log: Path, data: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    log.rename(mine / "log.tsv")
    prepare = ["prepare", str(mine / "log.tsv"), "--quiet", *more, "--out"]
    refused(tmp_path, [*prepare, str(mine)], "was not written by segue", capsys)
    assert main(["train", str(data), "--out", str(tmp_path / "run"), *MARKOV]) == 0
    capsys.readouterr()
    refused(tmp_path, [*prepare, str(tmp_path / "run")], "holds a run, and a dataset would take its place", capsys)
    refused(tmp_path, [*prepare, str(tmp_path / "run" / "recommender")], "holds a recommender", capsys)
    assert main(["train", str(data), "--out", str(data / "run"), *MARKOV]) == 0
    capsys.readouterr()
    refused(tmp_path, [*prepare, str(data)], "also run/MODEL_CARD.md and 9 more", capsys)


def test_the_same_command_can_be_given_again(tmp_path: Path, log: Path, data: Path) -> None:
    prepare = ["prepare", str(log), "--out", str(data), "--quiet"]
    assert main(prepare) == 0
    assert main([*prepare, "--overwrite"]) == 0
    assert main([*prepare, "--overwrite", "false"]) == 1
    assert segue.Dataset.open(data).n_users == 20


def test_save_replaces_only_its_own_kind(tmp_path: Path) -> None:
    one = recommender()
    one.dataset.save(tmp_path / "ds")
    for overwrite in (None, True, False):
        with pytest.raises(StorageError, match="holds a dataset, and a recommender would take its place"):
            one.save(tmp_path / "ds", overwrite=overwrite)
        one.save(tmp_path / "model")
        with pytest.raises(StorageError, match="holds a recommender, and a dataset would take its place"):
            one.dataset.save(tmp_path / "model", overwrite=overwrite)
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        one.save(tmp_path / "model", overwrite=False)
    assert segue.Dataset.open(tmp_path / "ds").n_users == 12 and segue.load(tmp_path / "model")


def test_train_touches_nothing_of_others(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "metrics.csv").write_text("mine\n")
    for more in ([], ["--overwrite"], ["--resume"]):
        refused(tmp_path, ["train", str(data), "--out", str(own), *MARKOV, *more], "holds metrics.csv, and no", capsys)
        refused(tmp_path, ["train", str(data), "--out", str(data), *MARKOV, *more], "holds a dataset", capsys)


def test_a_run_is_replaced_only_if_it_is_said_so(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", str(data), "--out", str(tmp_path / "run"), *MARKOV]
    assert main(train) == 0
    (tmp_path / "run" / "epochs").mkdir()
    (tmp_path / "run" / "epochs" / "0007.safetensors").write_text("of the former run")
    capsys.readouterr()
    refused(tmp_path, train, "--overwrite", capsys)
    assert main([*train, "--overwrite"]) == 0
    assert not (tmp_path / "run" / "epochs").exists() and segue.load(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    capsys.readouterr()
    refused(tmp_path, [*train, "--overwrite"], "also notes.txt, which does not belong to it", capsys)
    with pytest.raises(ConfigError, match="give one of them"):
        fit(segue.Markov(), cycle_dataset(), out=tmp_path / "run", resume=True, overwrite=True)


def test_two_trainings_into_one_folder(tmp_path: Path) -> None:
    with exclusive(tmp_path / "run"), pytest.raises(StorageError, match=rf"in use by process {os.getpid()} on"):
        fit(segue.Markov(), cycle_dataset(), out=tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())
    assert fit(segue.Markov(), cycle_dataset(), out=tmp_path / "run", quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["lists.csv", "lists.jsonl", "lists.parquet"])
def test_lists_replace_lists_and_nothing_else(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pl.DataFrame({"user": [1], "note": ["mine"]}).write_csv(path)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is not a file of lists that segue wrote"):
        recommender().export(path, segue.EVERYONE, k=2, overwrite=True)
    assert path.read_bytes() == before
    path.unlink()
    for k in (2, 3):
        recommender().export(path, segue.EVERYONE, k=k)
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        recommender().export(path, segue.EVERYONE, k=2, overwrite=False)
    with exclusive(path), pytest.raises(StorageError, match="in use by process"):
        recommender().export(path, segue.EVERYONE, k=2)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_an_export_that_was_killed_at_any_step_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = recommender().export(tmp_path / "expected.csv", segue.EVERYONE, k=2).read_bytes()
    parts = tmp_path / "lists.csv.parts"
    parts.mkdir()  # as an earlier version left it between two steps, with and without its unfinished note
    recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2)
    parts.mkdir()
    (parts / ".export.json.abcdefgh.segue-tmp").write_text("{")
    recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2)
    for step in ("_open_parts", "_join", "_remove_parts"):
        with monkeypatch.context() as patch:
            patch.setattr(export_module, step, lambda *words, **named: (_ for _ in ()).throw(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2, chunk=5)
        assert recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2, chunk=5).read_bytes() == expected
    parts.mkdir()
    (parts / "export.json").write_text("[" * 9999)  # damaged: its parts are not used
    (parts / "part-000000.parquet").write_bytes(b"")
    assert recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2).read_bytes() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"expected.csv", "lists.csv"}


def test_a_part_that_is_no_table_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = recommender().export(tmp_path / "expected.csv", segue.EVERYONE, k=2).read_bytes()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export_module, "_join", lambda *words: (_ for _ in ()).throw(KeyboardInterrupt()))
        recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2, chunk=5)
    (tmp_path / "lists.csv.parts" / "part-000001.parquet").write_bytes(b"half")
    assert recommender().export(tmp_path / "lists.csv", segue.EVERYONE, k=2, chunk=5).read_bytes() == expected


@pytest.mark.parametrize("name", ["shop.csv", "shop.parquet", "shop.txt", "shop"])
def test_a_simulation_replaces_only_a_simulation(tmp_path: Path, name: str) -> None:
    simulation, path = segue.simulate(8, 2), tmp_path / name
    simulation.save(path)
    names = {one.name for one in tmp_path.iterdir()}
    segue.simulate(8, 2, seed=5).save(path)
    assert {one.name for one in tmp_path.iterdir()} == names
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        simulation.save(path, overwrite=False)
    (tmp_path / "shop.truth.npz").write_bytes(b"mine")
    with pytest.raises(StorageError, match=r"shop\.truth\.npz exists and is not the truth of a simulation"):
        simulation.save(path)
    if path.is_file():
        (tmp_path / "shop.truth.npz").unlink()
        with pytest.raises(StorageError, match="is not a simulated log that segue wrote there"):
            simulation.save(path)  # a log of one's own may have the same columns


def test_pictures_and_reports_replace_their_own_kind(tmp_path: Path, data: Path) -> None:
    description = segue.describe(segue.Dataset.open(data))
    for name in ("a.png", "a.svg", "a.pdf"):
        for _ in range(2):
            description.picture(tmp_path / name)
        (tmp_path / f"my-{name}").write_bytes(b"\x89PNG\r\n\x1a\n mine")
        with pytest.raises(StorageError, match="is not a picture that segue wrote"):
            description.picture(tmp_path / f"my-{name}")
    holdout = segue.leave_last_out(segue.Dataset.open(data)).test
    evaluation = segue.evaluate(fit(segue.Markov(), segue.Dataset.open(data), quiet=True), holdout)
    for _ in range(2):
        evaluation.save(tmp_path / "evaluation.json")
    (tmp_path / "mine.json").write_text('{"mine": 1}')
    with pytest.raises(StorageError, match="is not an evaluation that segue wrote"):
        evaluation.save(tmp_path / "mine.json")


WAITING = """
import sys, time
import segue.cli.datasets as command
from segue.cli.main import main
from segue.files import atomic_file
from pathlib import Path

def wait(argv):
    with atomic_file(Path("out.txt")):
        print("waiting", flush=True)
        time.sleep(60)

command.main = wait
sys.exit(main(["datasets"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_is_treated_like_ctrl_c(tmp_path: Path, number: signal.Signals) -> None:
    process = Program("-c", WAITING, cwd=tmp_path)
    assert process.stdout.readline() == "waiting\n"
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    _, messages = process.communicate(timeout=30)
    assert (process.returncode, messages) == (130, "segue: interrupted.\n")
    assert not list(tmp_path.iterdir())


def test_the_handler_of_a_program_stays(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["datasets", "--help"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_with_kept_states_is_replaced(tmp_path: Path) -> None:
    training = segue.Training(epochs=2, keep_every=1, cpu=True)
    for _ in range(2):
        options = {"training": training, "out": tmp_path / "run", "overwrite": True, "quiet": True}
        fit(segue.SASRec(width=4, blocks=1, max_length=4), segue.leave_last_out(cycle_dataset()), **options)
    assert {path.name for path in (tmp_path / "run" / "epochs").iterdir()} > {"state-0001.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
def test_sigterm_saves_a_training_and_says_how_to_go_on(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    words = ["train", str(data), "--out", str(run), "--model.width", "8", "--training.epochs", "100000"]
    words += ["--training.patience", "100000", "--training.cpu", "--quiet"]
    process = Program("-m", "segue", *words)
    while not (run / "metrics.csv").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130 and "Go on where it stopped with" in messages
    assert (run / "last.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
