"""Evaluations and a full report for tests of the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segue.data.splits.by_user import leave_last_out
from segue.data.statistics.describe import describe
from segue.evaluation.compare import compare
from segue.evaluation.report.curves import curve_charts
from segue.evaluation.report.data import data_charts
from segue.evaluation.report.examples import Example, Suggestion
from segue.evaluation.report.page import write_report
from segue.evaluation.tasks.next_items import Evaluation, evaluate
from tests.inference.fakes import Table, random_dataset

DATA = random_dataset(400, 60, 30)
HOLDOUT = leave_last_out(DATA).test
CURVES = (
    "epoch,loss,seconds,hr@10,ndcg@5,ndcg@10,test ndcg@10\n1,5.9,1,,,,\n"
    "2,5.2,2,0.5,0.2,0.3,0.29\n3,5,3,0.6,0.3,0.4,0.38\n"
)


def evaluated(luck: float, seed: int, k: tuple[int, ...] = (5, 10)) -> Evaluation:
    """An Evaluation of random scores; `luck` is added to those of the targets."""
    scores = np.random.default_rng(seed).standard_normal((401, 61)).astype(np.float32)
    scores[HOLDOUT.users, HOLDOUT.targets().items[HOLDOUT.history_ends]] += luck
    return evaluate(Table(scores), HOLDOUT, k=k, exclude_seen=False)


def full_report(path: Path) -> Path:
    """A report with every section of next items; the best model stands last in the arguments."""
    models = {"Popularity": evaluated(0.4, 3), "Markov": evaluated(1.0, 2), "SASRec": evaluated(1.8, 1)}
    reasons = [("tea & <b>biscuits</b>", 0.8123), ("milk", 0.21)]
    table = path.with_suffix(".csv")
    table.write_text(CURVES)
    example = Example(
        "user <1>",
        ["bread", "butter", "tea & <b>biscuits</b>"],
        [Suggestion("jam", 3.2, reasons), Suggestion("oats", 3)],
        earlier=["milk"],
        named=frozenset({"milk", "tea & <b>biscuits</b>"}),
    )
    return write_report(
        path,
        title="Next purchase in a made-up shop",
        evaluations=models,
        comparisons=[
            compare(models["Markov"], models["SASRec"], metric=["ndcg@10", "hr@10"], names=("Markov", "SASRec"))
        ],
        data={"users": 31013, "items": 23715, "sparsity": 0.99961, "lengths": {"mean": 9.25, "longest": 800}},
        data_charts=data_charts(describe(DATA)),
        curves={"SASRec": curve_charts(table, "ndcg@10", 3)},
        examples=[example] * 3,
        settings={"SASRec": {"width": 64, "dropout": 0.2, "loss": "bce"}, "training": {"seed": 0, "bf16": False}},
        versions={"segue": "0.1.0", "torch": "2.13"},
    )
