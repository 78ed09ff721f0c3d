from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import last_session_out, leave_last_n
from segue.errors import ConfigError
from segue.evaluation.charts import Bars, Line
from segue.evaluation.compare import compare
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks.next_items import evaluate
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.evaluation.tasks.sessions import both_ways
from tests.evaluation.report.pages import HOLDOUT, evaluated, full_report
from tests.inference.fakes import Table


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return full_report(tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


def test_the_page_holds_everything_and_loads_nothing(page: str) -> None:
    for text in (
        "Next purchase",
        "SASRec",
        "SASRec against Markov",
        "By length of history",
        "By popularity",
        "jam",
        "23,715",
        "How popular are items?",
        "Training loss per target",
        "best epoch 3",
    ):
        assert text in page
    assert "data:" not in page and "<img" not in page and "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert not re.search(r"<[^>]*\s(style|on\w+)=", page), "a strict policy allows no attributes of style"
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]{44}'", page) and "unsafe" not in page
    assert "tea &amp; &lt;b&gt;biscuits&lt;/b&gt;" in page and "<b>biscuits" not in page
    assert len(page.encode()) < 100_000


def test_the_best_model_is_first_everywhere(page: str) -> None:
    heads = re.findall(r'<thead><tr><th scope="col">metric</th>(.*?)</tr>', page)
    assert [re.findall(r">([^<]+)</th>", head) for head in heads] == [["SASRec", "Markov", "Popularity"]]
    assert re.findall(r'<g class="first"><text[^>]*>([^<]+)', page) == ["SASRec", "SASRec"]
    assert re.findall(r'<th scope="row">(.*?)</th>', page)[:2] == ["hr<wbr>@10", "ndcg<wbr>@10"], "the headlines first"
    lead = re.findall(r'<p class="lead">(.*?)</p>', page)
    assert len(lead) == 1 and lead[0].startswith("SASRec finds ")
    assert page.index("The difference is real") < page.index("<h2")


def test_every_chart_is_drawn_inline_and_described(page: str) -> None:
    charts = re.findall(r"<svg[^>]*role=\"img\"[^>]*>.*?</svg>", page)
    assert len(charts) >= 2 + 3 + 2
    for chart in charts:
        labels = re.findall(r'aria-labelledby="(\S+) (\S+)"', chart)[0]
        assert re.search(rf'<title id="{labels[0]}">[^<]+</title><desc id="{labels[1]}">[^<]+</desc>', chart)
        assert not re.search(r"#[0-9a-f]{3,6}|rgb", chart), "colours are those of the page"
        assert "nan" not in chart and "inf" not in chart
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for svg in re.findall(r"<svg[^>]*>", page):
        assert 'role="img"' in svg or 'aria-hidden="true"' in svg


def test_reasons_name_only_items_that_are_shown(page: str) -> None:
    trail = re.findall(r'<ul class="trail".*?</ul>', page, re.DOTALL)[0]
    shown = re.findall(r"<li[^>]*>(.*?)</li>", trail)
    assert shown == ["milk", "… then …", "bread", "butter", "tea &amp; &lt;b&gt;biscuits&lt;/b&gt;"]
    for named in re.findall(r"<li>because of (.*?) \(\+", page):
        assert named in shown


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_bars_and_lines_stand_out(page: str, theme: int) -> None:
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", page, re.DOTALL)[theme]))
    card = luminance(colours["card"])
    for name in ("main", "rest", "edge", "s0", "s1", "s2", "s3", "s4", "s5"):
        low, high = sorted((card, luminance(colours[name])))
        assert (high + 0.05) / (low + 0.05) >= 3, name


def test_footnotes_are_of_metrics_on_the_page(page: str) -> None:
    for foreign in ("rmse", "own_", "cold_", "repeat_", "rated", "less is better", "sess_"):
        assert foreign not in page, foreign
    meanings = re.findall(r'<details class="meanings">.*?</details>', page, re.DOTALL)[0]
    named = re.findall(r"<dt>(\w+)</dt>", meanings)
    assert named == ["hr", "ndcg", "mrr", "recall", "precision", "map", "novelty", "coverage", "gini"]


class Tags(HTMLParser):
    """Which tags are open."""

    empty = frozenset({"meta", "img", "link", "br", "wbr"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.empty:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_tag_is_closed(page: str) -> None:
    assert Tags(page).open == []


def test_one_evaluation_is_enough(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r.html", title="One", evaluations={"Table": evaluated(1.0, 1, k=(3,))}).read_text()
    assert "ndcg@3" in page
    assert 'id="comparison"' not in page
    assert 'id="data"' not in page


def test_sessions_have_a_section_of_their_own(tmp_path: Path) -> None:
    holdout = last_session_out(simulate(60, 4, categories=8, products=5, price_effect=0.1, longest=6).dataset()).test
    shape = (holdout.dataset.n_users + 1, holdout.dataset.n_items + 1)
    models = {name: Table(np.random.default_rng(seed).random(shape)) for seed, name in enumerate(("A", "B"))}
    found = {
        name: replace(evaluate(model, holdout, k=5), sessions=both_ways(model, holdout, k=5, candidates=20))
        for name, model in models.items()
    }
    compared = [compare(found["A"], found["B"], metric=["sess_prec@5"])]
    page = write_report(tmp_path / "r.html", title="Two", evaluations=found, comparisons=compared).read_text()
    assert 'id="sessions"' in page
    assert page.count("<figcaption>sess_prec@5, among") == 2
    for way in ("all", "sampled"):
        assert f"{found['B'].sessions[way]['step_hr@5']:.4f}" in page
        assert f"{found['A'].sessions[way].by_step['step_ndcg@5'][1]:.4f}" in page
    assert "60 sessions, among 20 sampled items" in page
    assert Tags(page).open == []
    assert "B against A<small>60 users" not in page, "nothing was compared of users"
    assert page.count("of 100 steps of a session within its first five") == 2
    alone = {"A": found["A"].sessions["all"]}
    page = write_report(tmp_path / "r.html", title="One", evaluations=alone).read_text()
    assert "sess_prec@5" in page
    assert 'id="sessions"' not in page
    other = replace(found["B"], sessions=both_ways(models["B"], holdout, k=5, candidates=15))
    with pytest.raises(ConfigError, match="15 sampled items"):
        write_report(tmp_path / "r.html", title="Two", evaluations={"A": found["A"], "B": other})


def test_what_cannot_be_reported_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one evaluation"):
        write_report(tmp_path / "r.html", title="None", evaluations={})
    one = evaluated(1.0, 1)
    other = evaluate(Table(np.zeros((401, 61))), HOLDOUT, users=20)
    with pytest.raises(ConfigError, match="these differ: A: test: 400 users"):
        write_report(tmp_path / "r.html", title="Two", evaluations={"A": one, "B": other})
    assert not (tmp_path / "r.html").exists()


def test_of_errors_the_least_is_best(tmp_path: Path) -> None:
    from tests.models.rating_models import ItemLevels, rated_dataset

    data = rated_dataset()
    split = leave_last_n(data, 4)
    models = {}
    for name, look_back in (("learnt", "train"), ("blank", "reference")):
        model = ItemLevels(levels=(1, 2, 3, 4, 5), look_back=look_back).build(data.n_users, data.n_items)
        if name == "learnt":
            model.count(split.train)
        models[name] = evaluate_ratings(model, split.test, k=2)
    assert models["learnt"]["rmse"] < models["blank"]["rmse"]
    page = write_report(tmp_path / "page.html", title="Ratings", evaluations=models).read_text(encoding="utf-8")
    best = re.findall(r'<tr><th scope="row">(\S+)</th>\s*<td><span class="best">', page)
    assert {"rmse", "mae", "own<wbr>_ndcg<wbr>@2"} <= set(best), "the first model's"
    assert re.search(r'<p class="lead">learnt expects ratings with a typical error of [\d.]+ on a scale', page)
    assert re.search(r"Of rmse, mae(, log_loss)? and ece less is better", page)
    assert page.count("looked back as published: histories held the test ratings") == 1
    assert "Ratings given against ratings expected</figcaption>" in page


def test_calibration_is_drawn_of_what_was_measured() -> None:
    from segue.evaluation.tasks.calibration import calibration_charts
    from tests.models.rating_models import ItemLevels, rated_dataset

    data = rated_dataset()
    split = leave_last_n(data, 4)
    found = {}
    for name, probable in (("levels", True), ("number", False)):
        model = ItemLevels(levels=(1, 2, 3, 4, 5), probable=probable).build(data.n_users, data.n_items)
        model.count(split.train)
        found[name] = evaluate_ratings(model, split.test)
    tenths, levels = calibration_charts({name: one.parts for name, one in found.items()})
    assert [series.name for series in tenths.series] == ["as expected", "levels", "number"]
    for line in tenths.series[1:]:
        table = found[line.name].parts["calibration"]
        assert isinstance(line, Line)
        assert line.points == table.select("mean_expected", "mean_true").rows()
    assert [bars.name for bars in levels.series] == ["given", "expected by levels"]
    for bars, column in zip(levels.series, ("questions", "predicted"), strict=True):
        assert isinstance(bars, Bars)
        heights = [height * 240 for _, _, height in bars.bars]
        assert heights == pytest.approx(found["levels"].parts["level"][column].to_list())
    assert len(calibration_charts({"number": found["number"].parts})) == 1
