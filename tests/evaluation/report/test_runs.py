from __future__ import annotations

from pathlib import Path

from segue.data.splits.by_user import leave_last_out
from segue.evaluation.report.examples import examples_of
from segue.evaluation.report.runs import report_runs
from segue.evaluation.tasks.next_items import evaluate
from segue.models.markov import Markov
from segue.models.popularity import Popularity
from segue.models.sasrec import SASRec
from segue.training.config import Training
from segue.training.fit import fit
from tests.inference.fakes import random_dataset


def test_runs_are_reported_with_what_is_there(tmp_path: Path) -> None:
    split = leave_last_out(random_dataset(60, 30, 12))
    tiny = Training(epochs=1, cpu=True)
    configs = (Popularity(), Markov(), SASRec(width=8, blocks=1, loss="bce", negatives=1))
    runs = {one.name: fit(one, split, training=tiny, out=tmp_path / one.name, quiet=True) for one in configs}
    page = report_runs(
        tmp_path / "report.html",
        runs,
        {name: evaluate(run, split.test, k=5) for name, run in runs.items()},
        title="Three runs",
        folders={name: tmp_path / name for name in runs},
        examples=examples_of(runs["markov"], [1, 2]),
    ).read_text(encoding="utf-8")
    assert "Three runs" in page
    assert "data:" not in page and "How popular are items?" in page
    assert page.count("Training loss per target</figcaption>") == 1, "the curves of the one run that has some"
    for shown in ("Training curves of sasrec", "Gini of item popularity", "split · name", "leave-last-out"):
        assert shown in page
    assert page.count("training · learning rate") == 1, "models that count have no options of training"
    assert page.count("outcome · seconds") >= 3


def test_a_recommender_that_was_not_trained_by_fit(tmp_path: Path) -> None:
    split = leave_last_out(random_dataset(60, 30, 12))
    run = fit(Markov(), split)
    run.metadata.clear()
    page = report_runs(tmp_path / "page.html", {"markov": run}, {"markov": evaluate(run, split.test)}, title="One")
    assert "outcome" not in page.read_text(encoding="utf-8")
