from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from segue.data.splits import leave_last_out
from segue.errors import ConfigError, StorageError
from segue.evaluation.compare import compare
from segue.evaluation.evaluate import Evaluation, evaluate
from segue.evaluation.examples import Example, Suggestion
from segue.evaluation.report import write_report
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


def test_every_tag_is_closed(tmp_path: Path) -> None:
    class Checker(HTMLParser):
        empty = frozenset({"meta", "img", "link", "br"})

        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in self.empty:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(full_report(tmp_path / "report.html", tmp_path).read_text(encoding="utf-8"))
    assert checker.open == []


def test_one_evaluation_is_enough(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r.html", title="One", evaluations={"Table": evaluated(1.0, 1, k=(3,))}).read_text()
    assert "ndcg@3" in page
    assert 'id="comparison"' not in page
    assert 'id="data"' not in page


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
