"""A Dataset in shards at the command line: commands that take a Dataset take it, and the others say why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.cli.main import main
from segue.data.dataset import Dataset


@pytest.fixture(scope="module")
def shards(csv: Path) -> Path:
    path = csv.with_name("shards")
    words = ["--out", str(path), "--shards", "3", "--k-core", "2", "--quiet"]
    assert main(["prepare", str(csv), *words]) == 0
    return path


def test_the_summary_is_that_of_an_ordinary_preparation(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summaries = []
    for more in ([], ["--shards", "3"]):
        words = ["--out", str(tmp_path / f"data{len(more)}"), "--k-core", "2", "--json", "--quiet", *more]
        assert main(["prepare", str(csv), *words]) == 0
        summaries.append(json.loads(capsys.readouterr().out))
    one, other = ({k: v for k, v in summary.items() if k not in ("dataset", "logs")} for summary in summaries)
    assert one == other and other["sessions"]
    assert Dataset.open(tmp_path / "data0").fingerprint == Dataset.open(tmp_path / "data2").fingerprint


def test_commands_take_shards(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["describe", str(shards), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["users"] == 60
    assert main(["describe", str(shards / "shard-00001")]) == 0
    assert main(["train", str(shards), "--out", str(run), "--model", "markov", "--quiet"]) == 0
    assert main(["evaluate", str(run), "--data", str(shards)]) == 0
    assert main(["recommend", str(run), "--all", "--out", str(tmp_path / "lists.csv")]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "2"], "divide the work by shards: give --shards, or leave them out"),
        (["--shards", "0"], "--shards=0: expected a number of shards from 1 to 10,000"),
        (["--shards", "2", "--given"], "a split that the data came with is kept as it is: leave out --shards"),
        (["--shards", "2", "--add-to", "x"], "a log is added to one Dataset as a whole: leave out --shards"),
        (["--shards", "2", "--address", "a:1"], "address='a:1' is the address of a Ray cluster|--address"),
    ],
)
def test_what_cannot_be_combined(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["prepare", str(csv), "--out", str(tmp_path / "data"), *words]) == 2
    errors = capsys.readouterr().err
    assert any(part in errors for part in message.split("|")), errors
    assert not (tmp_path / "data").exists()


def test_growing_is_refused(csv: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(csv), "--add-to", str(shards), "--out", str(tmp_path / "grown")]) != 0
    assert "was prepared in shards" in capsys.readouterr().err
    assert main(["forget", str(shards), "--users", "user-0001"]) != 0
    assert "is a Dataset in shards" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "ml-1", "--out", str(tmp_path / "data"), "--shards", "2"]) != 0
    assert 'there is no file "ml-1", and no public dataset of that name' in capsys.readouterr().err


def test_bad_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "log.csv"
    file.write_text("user,item,time\n" + "".join(f"u{n % 5},i{n % 3},{n}\n" for n in range(20)) + "u1,,9\n")
    words = ["--out", str(tmp_path / "data"), "--shards", "2", "--bad-rows", "drop"]
    assert main(["prepare", str(file), *words]) == 0
    assert "1 bad rows" in capsys.readouterr().err
