"""Defaults of `segue train` and `segue describe` that follow the data, and the evaluation of baskets by commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segue.cli.main import main
from segue.models import suited

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Dataset of baskets of people who repeat themselves."""
    folder = tmp_path_factory.mktemp("shop")
    words = ["--users", "50", "--sessions", "6", "--products", "3", "--categories", "6", "--quiet"]
    assert main(["simulate", "--out", str(folder / "data"), *words]) == 0
    return folder / "data"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Markov stands for the counting model, under its own name."""
    monkeypatch.setattr(suited, "_FOR_REPEATS", ("markov",))


@pytest.mark.usefixtures("counting")
def test_without_a_model_the_one_that_suits_baskets_is_trained(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(shop), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "model: markov, for baskets of " in said and "of them bought before (--model names another)" in said
    assert "split: last-session-out (--split names another)" in said
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["model"]["name"] == "markov"
    assert run["split"] == {"name": "last-session-out"}
    assert main(["train", str(shop), "--out", str(tmp_path / "other"), "--split", "leave-last-out"]) == 0
    assert "model: markov" in capsys.readouterr().err
    assert json.loads((tmp_path / "other" / "run.json").read_text())["split"] == {"name": "leave-last-out"}


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("words", [["--model", "sasrec"], ["--model.width", "8"], ["--config", "run.yaml"]])
def test_a_model_or_a_setting_of_one_is_obeyed(
    words: list[str],
    shop: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text("model: {blocks: 1}\n")
    small = ["--training.epochs", "1", "--training.cpu", "--quiet"]
    assert main(["train", str(shop), "--out", "run", *words, *small]) == 0
    said = capsys.readouterr().err
    assert "model: markov" not in said
    assert "split: leave-last-out" in said
    assert "--split last-session-out holds out whole baskets." in said
    assert json.loads(Path("run/run.json").read_text())["model"]["name"] == "sasrec"


@pytest.mark.usefixtures("counting")
def test_ordinary_data_keep_the_usual_model(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,item,time\n" + "".join(f"u{row % 7},i{row % 5},{row}\n" for row in range(70)))
    assert main(["prepare", str(log), "--out", str(tmp_path / "data")]) == 0
    small = ["--training.epochs", "1", "--training.cpu", "--quiet", "--training.metric", "ndcg@5"]
    assert main(["train", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *small]) == 0
    assert "model:" not in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["model"]["name"] == "sasrec"
    assert main(["describe", str(tmp_path / "data")]) == 0
    assert "This suits them" not in capsys.readouterr().err
    assert main(["train", str(shop), "--help"]) == 0


@pytest.mark.usefixtures("counting")
def test_a_run_goes_on_with_its_own_model(shop: Path, tmp_path: Path, answer: Ask) -> None:
    small = ["--training.cpu", "--quiet", "--model.width", "8", "--model.blocks", "1"]
    answer("train", shop, "--out", tmp_path / "run", *small, "--training.epochs", 1)
    resumed = answer("train", "--resume", tmp_path / "run", "--training.epochs", 2, "--quiet")
    assert resumed["model"]["name"] == "sasrec"


def test_describe_names_what_suits_baskets(
    shop: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suited, "_FOR_REPEATS", ("markov",))
    assert main(["describe", str(shop)]) == 0
    page = capsys.readouterr()
    assert "items of a session taken in an earlier one" in page.out
    assert f"This suits them: segue train {shop} --model markov --split last-session-out" in page.err
    monkeypatch.setattr(suited, "_FOR_REPEATS", ("nothing-yet",))
    assert main(["describe", str(shop)]) == 0
    assert f"This suits them: segue train {shop} --split last-session-out" in capsys.readouterr().err


# ---- evaluation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("popularity", "markov"):
        words = ["--model", name, "--split", "last-session-out"]
        assert main(["train", str(shop), "--out", str(folder / name), *words]) == 0
    return {name: folder / name for name in ("popularity", "markov")}


def test_evaluate_and_compare_measure_baskets(
    runs: dict[str, Path], tmp_path: Path, answer: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer("evaluate", runs["markov"], "--k", 5)
    assert found["protocol"]["task"] == "baskets"
    assert found["protocol"]["exclude_seen"] is False, "people repeat themselves"
    assert {"recall@5", "repeat_recall@5", "explore_own_ndcg@5", "listed_repeats@5"} <= set(found["metrics"])
    assert [row["kind"] for row in found["by_kind"]][:2] == ["whole", "bought before"]
    assert main(["evaluate", str(runs["markov"]), "--parts", "--report", str(tmp_path / "page.html")]) == 0
    page = capsys.readouterr().out
    assert "test: 50 baskets of" in page and "bought before) among all" in page
    assert "new, among such" in page
    assert "Bought before and new" in (tmp_path / "page.html").read_text()
    (comparison,) = answer("compare", *runs.values(), "--metric", "repeat_recall@10", "explore_recall@10")
    assert comparison["unit"] == "baskets"
    assert [row["metric"] for row in comparison["differences"]] == ["repeat_recall@10", "explore_recall@10"]


def test_leaving_seen_items_out_of_baskets_warns(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs["markov"]), "--no-include-seen"]) == 0
    said = capsys.readouterr()
    assert "seen items left out" in said.out
    assert "of the targets of the test part were in their user's history before" in said.err
    assert "(--include-seen)" in said.err


def test_recommending_only_new_items_to_people_who_repeat_themselves_warns(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["recommend", str(runs["markov"]), "--history", "2", "3"]
    for more, warned in (([], True), (["--include-seen"], False), (["--no-include-seen"], False)):
        assert main([*words, *more]) == 0
        said = capsys.readouterr().err
        assert ("bought before: --include-seen" in said) is warned
