from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import last_session_out, leave_last_n, leave_last_out
from segue.errors import ConfigError, StorageError
from segue.evaluation.compare import compare
from segue.evaluation.report.examples import Example, Suggestion
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks.next_items import Evaluation, evaluate
from segue.evaluation.tasks.ratings import evaluate_ratings
from segue.evaluation.tasks.sessions import both_ways
from tests.inference.fakes import Table, random_dataset

HOLDOUT = leave_last_out(random_dataset(400, 60, 30)).test


def evaluated(luck: float, seed: int, k: tuple[int, ...] = (5, 10)) -> Evaluation:
    scores = np.random.default_rng(seed).standard_normal((401, 61)).astype(np.float32)
    scores[HOLDOUT.users, HOLDOUT.targets().items[HOLDOUT.history_ends]] += luck
    return evaluate(Table(scores), HOLDOUT, k=k, exclude_seen=False)


def picture(path: Path, title: str) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    axes[0].plot(1 / np.arange(1, 20))
    axes[1].hist(np.random.default_rng(0).gamma(2, 5, 500), bins=30)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def full_report(path: Path, folder: Path) -> Path:
    models = {"SASRec": evaluated(1.8, 1), "Markov": evaluated(1.0, 2), "Popularity": evaluated(0.4, 3)}
    reasons = [("tea & <b>biscuits</b>", 0.8123), ("milk", 0.21), ("sugar", -0.05)]
    return write_report(
        path,
        title="Next purchase in a made-up shop",
        evaluations=models,
        comparisons=[
            compare(models["Markov"], models["SASRec"], metric=["ndcg@10", "hr@10"], names=("Markov", "SASRec"))
        ],
        data={"users": 31013, "items": 23715, "sparsity": 0.99961, "lengths": {"mean": 9.25, "longest": 800}},
        data_picture=picture(folder / "data.png", "data"),
        curves={"SASRec": picture(folder / "curves.png", "loss")},
        examples=[
            Example(
                f"user {number}", ["bread", "butter", "tea"], [Suggestion("jam", 3.2, reasons), Suggestion("oats", 3)]
            )
            for number in range(3)
        ],
        settings={"SASRec": {"width": 64, "dropout": 0.2, "loss": "bce"}, "training": {"seed": 0, "bf16": False}},
        versions={"segue": "0.1.0", "torch": "2.13"},
    )


def test_the_page_holds_everything_and_loads_nothing(tmp_path: Path) -> None:
    page = full_report(tmp_path / "report.html", tmp_path).read_text(encoding="utf-8")
    for text in (
        "Next purchase",
        "SASRec",
        "SASRec against Markov",
        "By length of history",
        "By popularity",
        "jam",
        "23,715",
    ):
        assert text in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert "tea &amp; &lt;b&gt;biscuits&lt;/b&gt;" in page


class Tags(HTMLParser):
    """Which tags are open."""

    empty = frozenset({"meta", "img", "link", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.empty:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_tag_is_closed(tmp_path: Path) -> None:
    assert Tags(full_report(tmp_path / "report.html", tmp_path).read_text(encoding="utf-8")).open == []


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
    assert page.count("<h3>sess_prec@5, among") == 2
    for way in ("all", "sampled"):
        assert f"{found['B'].sessions[way]['step_hr@5']:.4f}" in page
        assert f"{found['A'].sessions[way].by_step['step_ndcg@5'][1]:.4f}" in page
    assert "60 sessions, among 20 sampled items" in page
    assert Tags(page).open == []
    assert "B against A<small>60 users" not in page, "nothing was compared of users"
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
    with pytest.raises(StorageError, match=r"none\.png is missing"):
        write_report(tmp_path / "r.html", title="One", evaluations={"A": one}, data_picture=tmp_path / "none.png")
    (tmp_path / "no.png").write_text("not a picture")
    with pytest.raises(StorageError, match="not a PNG"):
        write_report(tmp_path / "r.html", title="One", evaluations={"A": one}, curves={"A": tmp_path / "no.png"})
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
    best = re.findall(r'<tr><td>(\S+)</td>\s*<td><span class="best">', page)
    assert {"rmse", "mae", "own_ndcg@2"} <= set(best), "the first model's"
    assert page.count("looked back as published: histories held the test ratings") == 1
    assert len(re.findall("data:image/png", page)) == 1


def test_calibration_is_drawn_of_what_was_measured() -> None:
    from segue.evaluation.tasks.calibration import calibration_figure
    from tests.models.rating_models import ItemLevels, rated_dataset

    data = rated_dataset()
    split = leave_last_n(data, 4)
    found = {}
    for name, probable in (("levels", True), ("number", False)):
        model = ItemLevels(levels=(1, 2, 3, 4, 5), probable=probable).build(data.n_users, data.n_items)
        model.count(split.train)
        found[name] = evaluate_ratings(model, split.test)
    tenths, levels = calibration_figure({name: one.parts for name, one in found.items()}).axes
    for line in tenths.lines[1:]:
        table = found[str(line.get_label())].parts["calibration"]
        assert line.get_xdata().tolist() == table["mean_expected"].to_list()
        assert line.get_ydata().tolist() == table["mean_true"].to_list()
    assert [bars.get_label() for bars in levels.containers] == ["given", "expected by levels"]
    for bars, column in zip(levels.containers, ("questions", "predicted"), strict=True):
        heights = [bar.get_height() * 240 for bar in bars]
        assert heights == pytest.approx(found["levels"].parts["level"][column].to_list())
    assert len(calibration_figure({"number": found["number"].parts}).axes) == 1
