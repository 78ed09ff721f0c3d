"""`segue evaluate` and `segue compare` of runs whose model predicts ratings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segue.cli.main import main
from segue.data.splits.registry import split_by
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.evaluation.tasks.result import Evaluation
from segue.inference.loading import load
from segue.models import registry
from tests.models.rating_models import rated_dataset

Ask = Callable[..., Any]
LEAK = "looked back as published: histories held the test ratings"
LEARNT = ["--training.epochs", "4", "--training.learning-rate", "0.05", "--training.keep-every", "2"]
MODELS = {
    "learnt": ["level-biases", "--model.look_back", "train", *LEARNT],
    "leaking": ["level-biases", "--model.look_back", "reference", *LEARNT],
    "bias": ["rating-bias"],
    "popularity": ["popularity"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Runs of four models on 60 users; the one that learns keeps the weights of epochs 2 and 4."""
    folder = tmp_path_factory.mktemp("ratings")
    rated_dataset().save(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._HOMES, "level-biases", "tests.models.rating_models:LevelBiases")
        for name, words in MODELS.items():
            split = ["--split", "random-rows", "--training.cpu", "--quiet"]
            assert main(["train", str(folder / "data"), "--out", str(folder / name), "--model", *words, *split]) == 0
        yield {name: folder / name for name in MODELS}


def test_ratings_are_measured_without_being_asked_for(runs: dict[str, Path], tmp_path: Path, answer: Ask) -> None:
    found = answer("evaluate", runs["learnt"], "--out", tmp_path / "found.json")
    loaded = load(runs["learnt"])
    expected = evaluate_ratings(loaded, split_by(loaded.dataset, loaded.metadata["split"]).test)
    assert found["metrics"] == dict(expected.metrics)
    assert found["protocol"] == dict(expected.protocol)
    assert "ranking" not in found
    assert Evaluation.load(tmp_path / "found.json").to_dict() == expected.to_dict()
    liked = answer(
        "evaluate", runs["learnt"], "--k", "2", "--cutoff", "4.5", "--arg-max", "--users", 30, "--published-gains"
    )
    assert {name for name in liked["metrics"] if "@" in name} == {"own_hr@2", "own_ndcg@2"}
    assert [liked["protocol"][name] for name in ("cutoff", "arg_max", "users")] == [4.5, True, 30]
    assert liked["protocol"]["published_gains"] is True


def test_the_ranking_beside_them(runs: dict[str, Path], tmp_path: Path, answer: Ask) -> None:
    found = answer("evaluate", runs["learnt"], "--ranking", "--out", tmp_path / "found.json", "--k", "5")
    loaded = load(runs["learnt"])
    expected = evaluate(loaded, split_by(loaded.dataset, loaded.metadata["split"]).test, k=5)
    assert found["ranking"]["metrics"] == dict(expected.metrics)
    assert "rmse" in found["metrics"]
    kept = Evaluation.load(tmp_path / "found.json").ranking
    assert kept is not None and kept.per_user.equals(expected.per_user)


def test_tables_say_what_is_what(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs["learnt"]), "--parts", "--ranking"]) == 0
    page = capsys.readouterr().out
    for word in ("rmse", "log_loss", "own_ndcg", "item_ratings", "mean_expected", "predicted", "ndcg", "popularity"):
        assert word in page, word
    assert LEAK not in page
    assert main(["evaluate", str(runs["leaking"]), "--ranking"]) == 0
    assert capsys.readouterr().out.count(LEAK) == 2, "of the ratings and of the ranking"


def test_the_training_says_it_too(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("leaking", "learnt"):
        words = [*MODELS[name], "--split", "random-rows", "--quiet", "--training.epochs", "1"]
        data, out = str(runs[name].parent / "data"), str(tmp_path / name)
        assert main(["train", data, "--out", out, "--model", *words]) == 0
        assert (LEAK in capsys.readouterr().err) is (name == "leaking")


def test_an_epoch_that_was_kept_is_evaluated(runs: dict[str, Path], answer: Ask) -> None:
    second, fourth, best = (
        answer("evaluate", runs["learnt"], *words)["metrics"]["rmse"] for words in (["--epoch", 2], ["--epoch", 4], [])
    )
    assert second != fourth == best
    assert main(["evaluate", str(runs["learnt"]), "--epoch", "3"]) != 0


def test_ratings_are_compared(runs: dict[str, Path], answer: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer("compare", runs["bias"], runs["leaking"], "--metric", "rmse", "own_hr@3")[0]
    assert [row["metric"] for row in found["differences"]] == ["rmse", "own_hr@3"]
    assert found["cautions"] == [f"level-biases: {LEAK}"]
    assert main(["compare", str(runs["bias"]), str(runs["leaking"])]) == 0
    page = capsys.readouterr().out
    assert "rmse ↓" in page and LEAK in page and "mae" in page
    ranked = answer("compare", runs["bias"], runs["learnt"], "--ranking")[0]
    assert "ndcg@10" in {row["metric"] for row in ranked["differences"]}


def test_with_models_that_predict_none_rankings_are_compared(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs["popularity"]), str(runs["bias"]), "--metric", "ndcg@10"]) == 0
    said = capsys.readouterr()
    assert "ndcg@10" in said.out and "rmse" not in said.out
    assert "compared by how they rank" in said.err


def test_the_report_shows_calibration_and_the_leak(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = {}
    for name in ("learnt", "leaking", "popularity"):
        words = ["--report", str(tmp_path / f"{name}.html"), "--ranking"]
        assert main(["evaluate", str(runs[name]), *words]) == 0
        pages[name] = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
    for name in ("learnt", "leaking"):
        for part in ('id="calibration"', 'id="ranking"', "rmse", "own_ndcg@", "By number of ratings of the item"):
            assert part in pages[name], part
        assert (LEAK in pages[name]) is (name == "leaking")
    assert 'id="calibration"' not in pages["popularity"]
    assert "rmse" not in pages["popularity"].split("<style>")[0]
