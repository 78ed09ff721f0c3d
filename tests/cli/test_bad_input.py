"""Bad input at the command line: one clear message, an exit code, no traceback, and nothing half written."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segue.cli.main import main
from segue.data.dataset import Dataset
from tests.cli.conftest import TINY
from tests.helpers import alter, truncate

Ask = Callable[..., Any]

HEAD = "user,item,time\n"
FIRST = "1,2,1700000000\n"


# ---- logs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "log.csv is empty: it holds no interactions"),
        (HEAD, 'log.csv holds a header ("user,item,time") and no interactions.'),
        ("buyer,thing\n1,2\n", "no column looks like the user. It has: buyer, thing. Say which: --user="),
        (f"{HEAD},2,1700000000\n,3,1700000001\n", 'the column "user" (user) has no values at all, in 2 rows'),
        (f"{HEAD}1,,1700000000\n2,,1700000001\n", 'the column "item" (item) has no values at all, in 2 rows'),
        (f"{HEAD}1,2,\n1,3,\n", 'the column "time" (time) has no values at all, in 2 rows'),
        (f"{HEAD}{FIRST}1,3,soon\n", "log.csv, line 3: the time (column \"time\") is 'soon'; expected a time in s."),
        (f"{HEAD}{FIRST}1,3,\n", 'line 3: the time (column "time") is missing. 1 row has no time.'),
        (f"{HEAD}{FIRST}1,3,\n", "leave such rows out with --bad-rows=drop, or the column with --time=false"),
        (f"{HEAD}{FIRST},3,1700000001\n", 'line 3: the user (column "user") is missing. 1 row has no user.'),
        (f"{HEAD}{FIRST}1,3\n", "log.csv, line 3 has 2 fields, expected 3"),
        ("a binary\x00file\x00\n", "log.csv is a binary file of an unknown kind"),
    ],
)
def test_a_log_that_cannot_be_used(text: str, message: str, tmp_path: Path, complaint: Ask) -> None:
    (tmp_path / "log.csv").write_text(text)
    said = complaint(1, "prepare", tmp_path / "log.csv", "--out", tmp_path / "data")
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_ids_that_mix_numbers_and_words_are_words(tmp_path: Path, answer: Ask) -> None:
    (tmp_path / "log.csv").write_text(f"{HEAD}{FIRST}ann,3,1700000001\n1,3,1700000002\n")
    (tmp_path / "log.jsonl").write_text('{"user": 1, "item": "2"}\n{"user": "ann", "item": 3}\n')
    for name in ("log.csv", "log.jsonl"):
        answer("prepare", tmp_path / name, "--out", tmp_path / "data")
        assert Dataset.open(tmp_path / "data").users.ids.to_list() == ["1", "ann"]


def test_users_with_one_item_and_repeated_rows(tmp_path: Path, answer: Ask, complaint: Ask) -> None:
    """Both are kept in the data and counted; a model can learn from the first, and the second stand once."""
    rows = "".join(f"{user},{item},17000000{item}{user}\n" for user in (1, 2, 3) for item in (4, 5, 6, 7))
    (tmp_path / "log.csv").write_text(f"{HEAD}{rows}{rows}9,4,1700000099\n")
    found = answer("prepare", tmp_path / "log.csv", "--out", tmp_path / "data")
    assert [step["interactions"] for step in found["steps"]] == [25, 13]
    assert answer("describe", tmp_path / "data")["short_users"] == 1
    answer("train", tmp_path / "data", "--out", tmp_path / "run", "--model", "markov")
    assert answer("evaluate", tmp_path / "run", "--k", 2)["protocol"]["users"] == 3
    assert {row["user"] for row in answer("recommend", tmp_path / "run", "--users", 9, "--k", 2)} == {9}
    (tmp_path / "one.csv").write_text(f"{HEAD}{FIRST}")
    answer("prepare", tmp_path / "one.csv", "--out", tmp_path / "one")
    said = complaint(1, "train", tmp_path / "one", "--out", tmp_path / "run2", *TINY)
    assert "no user has the 3 interactions that this split needs" in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--k-core", "-1"], 2, "--k-core=-1: expected 0 or more."),
        (["--k-core", "99"], 1, "the filters leave nothing"),
        (["--rounds", "0"], 2, "--rounds=0: expected 1 or more"),
        (["--min-rating", "3"], 2, "--min-rating=3.0 needs ratings; there are only user, item, time, session."),
        (["--duplicates", "drp"], 2, '--duplicates=drp: expected drop, keep, first or last; did you mean "drop"?'),
        (["--format", "cvs"], 2, "cvs"),
        (["--time-unit", "hours"], 2, "hours"),
        (["--user", "7"], 1, "--user=7 counts from 0"),
    ],
)
def test_impossible_ways_to_prepare(
    words: list[str], code: int, message: str, csv: Path, tmp_path: Path, complaint: Ask
) -> None:
    assert message in complaint(code, "prepare", csv, "--out", tmp_path / "data", *words)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_files(tmp_path: Path, complaint: Ask) -> None:
    (tmp_path / "logs").mkdir()
    said = complaint(1, "prepare", tmp_path / "logs", "--out", tmp_path / "data")
    assert "logs is a folder without files in it" in said


def test_what_is_not_ours_is_not_replaced(csv: Path, tmp_path: Path, complaint: Ask) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "was not written by segue" in complaint(1, "prepare", csv, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# ---- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("traning: {epochs: 3}", 'run.yaml: unknown option "traning.epochs": did you mean "training.epochs"?'),
        ("model: {name: sasrec, widht: 3}", 'run.yaml: unknown option "model.widht": did you mean "model.width"?'),
        ("model: sasrek", 'did you mean "sasrec"?'),
        ("training: {epochs: three}", "run.yaml: --training.epochs=three: expected a whole number from 1."),
        ("training: [1", "run.yaml: not YAML"),
    ],
)
def test_a_file_of_options_that_cannot_be_used(
    text: str, message: str, data: Path, tmp_path: Path, complaint: Ask
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    said = complaint(2, "train", data, "--out", tmp_path / "run", "--config", tmp_path / "run.yaml")
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("k", [0, -3, 1000])
@pytest.mark.parametrize(
    "words", [["recommend", "--users", "user-0001"], ["similar", "--items", "pasta-01"], ["evaluate"], ["compare"]]
)
def test_lists_of_an_impossible_length(words: list[str], k: int, markov: Path, complaint: Ask) -> None:
    command, *rest = words
    runs = [markov] * (2 if command == "compare" else 1)
    said = complaint(2, command, *runs, *rest, "--k", k)
    expected = "expected (1 or more|whole numbers from 1)" if k < 1 else "only 40 items: ask for 40 or fewer"
    assert re.search(expected, said)


@pytest.mark.parametrize(("metric", "message"), [("ndgc@10", 'did you mean "ndcg@10"'), ("ndcg@99", "40 items")])
def test_a_metric_that_cannot_choose_the_epoch(
    metric: str, message: str, data: Path, tmp_path: Path, complaint: Ask
) -> None:
    words = ["train", data, "--out", tmp_path / "run", *TINY, "--training.metric", metric]
    said = complaint(2, *words)
    assert message in said
    assert f"--training.metric={metric}" in said


# ---- what segue wrote, damaged ---------------------------------------------------------------------------------------

DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "items.npy is missing."),
    "truncated": (truncate, "it is truncated or altered"),
    "altered": (lambda file: alter(file, -1), "does not match its checksum"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["describe", "train"])
def test_a_damaged_dataset(command: str, damage: str, data: Path, tmp_path: Path, complaint: Ask) -> None:
    spoil, message = DAMAGES[damage]
    broken = shutil.copytree(data, tmp_path / "data")
    spoil(broken / "items.npy")
    words = ["--out", tmp_path / "run", *TINY] if command == "train" else []
    assert message in complaint(1, command, broken, *words)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run(damage: str, markov: Path, tmp_path: Path, complaint: Ask) -> None:
    spoil, message = DAMAGES[damage]
    broken = shutil.copytree(markov, tmp_path / "run")
    spoil(broken / "recommender" / "data" / "items.npy")
    assert message in complaint(1, "recommend", broken, "--users", "user-0001")


def test_a_run_of_a_future_version(markov: Path, tmp_path: Path, complaint: Ask) -> None:
    newer = shutil.copytree(markov, tmp_path / "run")
    manifest = newer / "recommender" / "recommender.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    said = complaint(1, "evaluate", newer)
    assert "has format version 99; this segue reads up to 1. Upgrade segue to open it." in said


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("save", [pickle.dump, torch.save])
def test_a_pickle_in_place_of_weights(save: Callable[..., None], run: Path, tmp_path: Path, complaint: Ask) -> None:
    spoilt = shutil.copytree(run, tmp_path / "run")
    for file in ("recommender/weights.safetensors", "last.safetensors"):
        with (spoilt / file).open("wb") as stream:
            save(Bomb(), stream)
    assert "is a pickle or a file of torch.save" in complaint(1, "recommend", spoilt, "--users", "user-0001")
    data = spoilt / "recommender" / "data"
    assert "pickles can run code" in complaint(1, "train", data, "--out", spoilt, *TINY, "--resume")


def test_a_checkpoint_of_another_dataset(run: Path, tmp_path: Path, csv: Path, answer: Ask, complaint: Ask) -> None:
    (tmp_path / "half.csv").write_text("".join(csv.read_text().splitlines(keepends=True)[:300]))
    answer("prepare", tmp_path / "half.csv", "--out", tmp_path / "other")
    before = shutil.copytree(run, tmp_path / "run")
    said = complaint(1, "train", tmp_path / "other", "--out", before, *TINY, "--resume")
    assert "holds a run with another dataset. Resume with the same settings and Dataset" in said
    assert (before / "last.safetensors").read_bytes() == (run / "last.safetensors").read_bytes()


@pytest.mark.parametrize("command", ["evaluate", "recommend", "explain"])
def test_a_folder_that_is_no_run(command: str, data: Path, complaint: Ask) -> None:
    words = {"recommend": ["--users", "1"], "explain": ["--user", "1", "--item", "1"]}.get(command, [])
    said = complaint(1, command, data, *words)
    assert "is not a recommender written by segue" in said and "It holds a dataset" in said


# ---- while it runs -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite(data: Path, tmp_path: Path, complaint: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    from segue.models.sasrec import SASRecModel

    monkeypatch.setattr(SASRecModel, "forward", lambda self, batch: sum(p.sum() for p in self.parameters()) * torch.nan)
    said = complaint(1, "train", data, "--out", tmp_path / "run", *TINY)
    assert "epoch 1" in said
    assert "nan" in said.lower()


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full(data: Path, run: Path, tmp_path: Path, complaint: Ask, monkeypatch: Any) -> None:
    """The old state remains, and the message names the file."""
    copy, lists = shutil.copytree(data, tmp_path / "data"), tmp_path / "lists.csv"
    main(["recommend", str(run), "--all", "--out", str(lists), "--k", "2"])
    old = lists.read_text()
    monkeypatch.setattr("os.fsync", full)
    frame = tmp_path / "shop.csv"
    frame.write_text("user,item\n1,2\n1,3\n")
    asked = [
        (["prepare", frame, "--out", copy], copy),
        (["train", data, "--out", tmp_path / "run", *TINY], tmp_path / "run" / "unfinished"),
        (["recommend", run, "--all", "--out", lists], lists.with_name("lists.csv.parts")),
        (["evaluate", run, "--out", tmp_path / "found.json"], tmp_path / "found.json"),
        (["describe", data, "--picture", tmp_path / "shop.png"], tmp_path / "shop.png"),
    ]
    for words, named in asked:
        said = complaint(1, *words)
        assert said.splitlines()[-1] == f"segue: {named}: No space left on device."
    assert lists.read_text() == old
    monkeypatch.undo()
    assert Dataset.open(copy).fingerprint == Dataset.open(data).fingerprint


def test_a_place_that_may_not_be_written(csv: Path, tmp_path: Path, complaint: Ask) -> None:
    (tmp_path / "file").write_text("")
    said = complaint(1, "prepare", csv, "--out", tmp_path / "file" / "data")
    assert said == f"segue: {tmp_path / 'file'}: File exists.\n" or said.endswith("Not a directory.\n")


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there(device: str, run: Path, complaint: Ask) -> None:
    said = complaint(2, "recommend", run, "--users", "user-0001", "--device", device)
    assert f"device='{device}' cannot be used here" in said


def test_a_public_dataset_that_cannot_be_fetched(
    tmp_path: Path, complaint: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    def offline(*_: object, **__: object) -> None:
        raise requests.ConnectionError("offline")

    monkeypatch.setattr(requests.Session, "send", offline)
    said = complaint(1, "prepare", "ml-1m", "--out", tmp_path / "data", "--cache", tmp_path / "cache")
    assert "MovieLens 1M could not be fetched from https://" in said
    assert "pass the path of your copy with --archive=." in said


# ---- ids -----------------------------------------------------------------------------------------------------------


def test_unknown_ids_among_known_ones(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answered for the known, the others listed."""
    for words, unknown, shown in (
        (
            ["recommend", "--users", "user-0001", "nobody", "--k", "2"],
            "1 unknown user left out: 'nobody'.",
            "user-0001",
        ),
        (["score", "--users", "user-0001", "--items", "pasta-01", "x"], "1 unknown item left out: 'x'.", "pasta-01"),
        (["similar", "--items", "pasta-01", "x", "--k", "2"], "1 unknown item left out: 'x'.", "pasta-01"),
        (["explain", "--user", "user-0001", "--item", "pasta-01", "x"], "1 unknown item left out: 'x'.", "pasta-01"),
        (["recommend", "--history", "jam-01", "x"], "1 unknown item left out of the histories: 'x'.", "sasrec"),
    ):
        command, *rest = words
        assert main([command, str(run), *rest]) == 0
        captured = capsys.readouterr()
        assert unknown in captured.err
        assert shown in captured.out


@pytest.mark.parametrize(
    "words",
    [
        ["recommend", "--users", "nobody"],
        ["score", "--users", "nobody", "--items", "pasta-01"],
        ["similar", "--items", "nothing"],
        ["explain", "--user", "nobody", "--item", "pasta-01"],
    ],
)
def test_only_unknown_ids(words: list[str], run: Path, complaint: Ask) -> None:
    command, *rest = words
    said = complaint(1, command, run, *rest)
    assert "unknown" in said
    assert "Known ones look like" in said
