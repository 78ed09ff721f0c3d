"""Figures of matplotlib from Python, which notebooks show by themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import segue
from segue.errors import ConfigError, EvaluationError
from segue.evaluation.tasks.result import Evaluation

SAVED = Path(__file__).parent / "saved" / "evaluations"


@pytest.fixture(scope="module")
def shop() -> segue.Split:
    return segue.last_session_out(segue.simulate(40, 6, names=True).dataset())


def labels(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_figure_of_an_evaluation(shop: segue.Split) -> None:
    evaluation = segue.evaluate_baskets(
        segue.fit(segue.PersonalFrequency(), shop), shop.test, k=(5, 10), exclude_seen=False
    )
    figure = evaluation.plot()
    assert labels(figure.axes[0])[:2] == ["recall@10", "ndcg@10"]
    assert "novelty@10" not in labels(figure.axes[0])
    assert next(bar.get_width() for bar in figure.axes[0].patches) == evaluation["recall@10"]
    assert figure.axes[1].get_title("left") == "recall@10 bought before and new"
    chosen = evaluation.plot(["hr@5"])
    assert labels(chosen.axes[0]) == ["hr@5"]
    with pytest.raises(EvaluationError, match="hr@6"):
        evaluation.plot(["hr@6"])


@pytest.mark.parametrize("file", sorted(SAVED.glob("*.json")), ids=lambda file: file.stem)
def test_every_kind_of_evaluation_has_a_figure(file: Path) -> None:
    assert Evaluation.load(file).plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_the_figure_of_a_comparison(shop: segue.Split) -> None:
    models = segue.Markov(), segue.PersonalFrequency()
    a, b = (segue.evaluate_baskets(segue.fit(one, shop), shop.test, k=10, exclude_seen=False) for one in models)
    comparison = segue.compare(a, b, metric=["ndcg@10", "explore_recall@10"], resamples=200)
    figure = comparison.plot()
    assert labels(figure.axes[0]) == ["ndcg@10", "explore_recall@10"]
    low, high = figure.axes[0].get_xlim()
    assert low < 0 < high
    assert len(comparison.plot(["ndcg@10"]).axes[0].get_yticks()) == 1


def test_the_figure_of_an_explanation(shop: segue.Split) -> None:
    recommender = segue.fit(segue.PersonalFrequency(), shop)
    item = recommender.recommend("user-0001", k=1, exclude_seen=False)["item"].item()
    figure = recommender.plot_explanation("user-0001", item)
    reasons = recommender.explain("user-0001", item).filter(pl_not_zero())
    assert [bar.get_width() for bar in figure.axes[0].patches] == pytest.approx(reasons["effect"].to_list()[:10])
    assert labels(figure.axes[0])[0].startswith(item)
    given = recommender.plot_explanation(item="beer-03", history=["beer-03", "beer-04", "beer-03"])
    assert given.axes
    with pytest.raises(ConfigError, match="2 scores"):
        recommender.plot_explanation("user-0001", ["beer-03", "beer-04"])


def pl_not_zero() -> Any:
    import polars as pl

    return pl.col("effect") != 0


def test_reasons_of_sessions_and_of_ratings(shop: segue.Split) -> None:
    sessions = segue.fit(segue.VSKNN(), shop)
    item = sessions.recommend("user-0001", k=1)["item"].item()
    assert labels(sessions.plot_explanation("user-0001", item, by="neighbour").axes[0])[0].startswith("a session of")


def test_the_figure_of_the_data_is_that_of_the_picture(shop: segue.Split, tmp_path: Path) -> None:
    description = segue.describe(shop.dataset)
    titles = [axes.get_title("left") for axes in description.plot().axes]
    assert titles[0] == "How long are histories?"
    assert description.picture(tmp_path / "data.png").stat().st_size > 1000


def test_figures_need_no_pyplot(shop: segue.Split) -> None:
    before = "matplotlib.pyplot" in sys.modules
    segue.describe(shop.dataset).plot()._repr_png_()  # type: ignore[attr-defined]
    assert before or "matplotlib.pyplot" not in sys.modules
