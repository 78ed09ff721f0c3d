"""The model card of a run: written at the end of the training, and with figures by `segue card`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import segue
from segue.cli.main import main
from segue.training.card import card_of

COUNTS = segue.Markov()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    split = segue.last_session_out(segue.simulate(40, 6, names=True).dataset())
    segue.fit(COUNTS, split, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_has_a_card(run: Path) -> None:
    text = (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["library_name"] == "segue" and "markov" in head["tags"]
    assert re.findall(r"^## (.+)$", text, re.M) == ["Data", "Split", "Settings", "Figures", "Limits", "How to load it"]
    assert "| users | 40 |" in text and "last-session-out" in text and "Not evaluated yet" in text
    assert "personal data" in text


def test_the_command_adds_figures_of_the_test_part(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run)]) == 0
    assert "MODEL_CARD.md" in capsys.readouterr().err
    recommender = segue.load(run)
    evaluation = segue.evaluate_baskets(
        recommender, segue.last_session_out(recommender.dataset).test, k=10, exclude_seen=False
    )
    low, high = evaluation.intervals["ndcg@10"]
    row = f"| ndcg@10 | {evaluation['ndcg@10']:.4f} | {low:.4f} to {high:.4f} |"
    assert row in (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_code_of_the_card_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    code = re.search(r"```python\n(.*?)```", (run / "MODEL_CARD.md").read_text(encoding="utf-8"), re.S)
    assert code is not None
    exec(code[1], {})


def test_figures_of_a_file(run: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(run), "--k", "5", "--out", str(tmp_path / "five.json"), "--quiet"][:-1]) == 0
    assert main(["card", str(run), "--evaluation", str(tmp_path / "five.json")]) == 0
    assert "ndcg@5" in (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_foreign_card_is_not_replaced(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "MODEL_CARD.md").write_text("My notes")
    assert main(["card", str(run)]) == 1
    assert "MODEL_CARD.md" in capsys.readouterr().err
    assert (run / "MODEL_CARD.md").read_text() == "My notes"


def test_a_saved_recommender_is_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(run / "recommender")]) == 2
    assert "no folder of a run" in capsys.readouterr().err


def test_the_evaluation_of_another_model_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recommender = segue.load(run)
    split = segue.last_session_out(recommender.dataset)
    other = segue.evaluate_baskets(segue.fit(segue.Popularity(), split), split.test, exclude_seen=False)
    assert main(["card", str(run), "--evaluation", str(other.save(tmp_path / "other.json"))]) == 2
    assert "is of popularity" in capsys.readouterr().err


def test_a_card_without_a_split_and_of_ratings() -> None:
    log = segue.simulate(20, 4).log().with_columns(rating=3.0).drop("session")
    text = card_of(segue.fit(segue.RatingBias(), segue.prepare(log)), "rated | by $")
    assert "expected rating" in text and "fitted on all interactions" in text
    assert "| rating" not in text
