"""Tables of items on the command line: prepare, describe, rules and titles."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from segue.cli.main import main

LOG = "user,item,time\n" + "".join(
    f"u{user},i{(user * 3 + step) % 9},{step}\n" for user in range(12) for step in range(6)
)
TABLE = "sku,title,category,price\n" + "".join(
    f"i{n},Thing {n},{'tea' if n % 2 else 'milk'},{n}.5\n" for n in range(12)
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "log.csv").write_text(LOG)
    (folder / "table.csv").write_text(TABLE)
    data = str(folder / "data")
    assert (
        main(["prepare", str(folder / "log.csv"), "--out", data, "--items", str(folder / "table.csv"), "--quiet"]) == 0
    )
    assert main(["train", data, "--out", str(folder / "run"), "--model", "markov"]) == 0
    return folder


def test_describe_shows_the_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(run / "data")]) == 0
    out = capsys.readouterr().out
    assert "title" in out and "text (title)" in out and "items that nobody has taken" in out
    assert main(["describe", str(run / "data"), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["item_table"]
    assert table["cold"] == 0.25 and table["coverage"] == 1.0 and table["kinds"]["price"] == "number"


def test_preparing_says_what_matched(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(run / "table.csv")
    words = ["--items", table, "--item-key", "sku", "--item-kinds", "price=category", "--table-items", "known"]
    assert main(["prepare", str(run / "log.csv"), "--out", str(run / "known"), *words]) == 0
    assert "9 of 9 items have a row" in capsys.readouterr().err
    assert (
        main(["prepare", str(run / "log.csv"), "--out", str(run / "known"), "--items", table, "--item-kinds", "x"]) == 2
    )
    assert "expected COLUMN=KIND" in capsys.readouterr().err


def test_readers_see_titles_and_machines_ids(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["recommend", str(run / "run"), "--user", "u1", "--include-seen", "--k", "2"]
    assert main(words) == 0
    assert "Thing" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert "title" not in json.loads(capsys.readouterr().out)[0]
    assert main([*words, "--json", "--show", "title", "price"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["title"].startswith("Thing")
    assert main(["similar", str(run / "run"), "--items", "i1"]) == 0
    assert "similar (title)" in capsys.readouterr().out
    assert main(["explain", str(run / "run"), "--user", "u1", "--item", "i1"]) == 0
    assert "because (title)" in capsys.readouterr().out


def test_rules(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "recommend",
        str(run / "run"),
        "--user",
        "u1",
        "--include-seen",
        "--k",
        "6",
        "--json",
        "--show",
        "category",
    ]
    rules = ["--where", "price < 8", "--boost", "category=tea:5", "--at-most", "category=2"]
    assert main([*words, *rules, "--diversity", "0.2", "--diversity-by", "category"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row["category"] for row in rows) == ["milk", "milk", "tea", "tea"]
    out = run / "lists.parquet"
    assert main(["recommend", str(run / "run"), "--all", "--out", str(out), "--show", "title", *rules]) == 0
    assert pl.read_parquet(out).columns[-1] == "title"
    for bad in (
        ["--boost", "tea"],
        ["--boost", "category=tea:much"],
        ["--at-most", "category=few"],
        ["--at-most", "2"],
    ):
        assert main([*words, *bad]) == 2
        assert "expected COLUMN=" in capsys.readouterr().err
    assert main([*words, "--where", "prise < 3"]) == 2
    assert 'did you mean "price"' in capsys.readouterr().err


def test_baskets_and_similar_items_with_rules_and_columns(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["complete", str(run / "run"), "--user", "u1", "--n", "3", "--where", "category = 'tea'"]
    assert main([*words, "--show", "category", "price", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3
    assert {row["category"] for row in rows} == {"tea"} and all(isinstance(row["price"], float) for row in rows)
    assert main(words) == 0
    assert "Thing" in capsys.readouterr().out
    assert main(["complete", str(run / "run"), "--user", "u1", "--where", "colour = 1"]) == 2
    assert "colour" in capsys.readouterr().err
    assert main(["similar", str(run / "run"), "--items", "i1", "--show", "category"]) == 0
    assert "similar (category)" in capsys.readouterr().out
    assert main(["explain", str(run / "run"), "--user", "u1", "--item", "i1", "--show", "category"]) == 0
    assert "because (category)" in capsys.readouterr().out
