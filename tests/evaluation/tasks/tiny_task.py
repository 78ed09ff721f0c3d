"""A fourth task, as somebody would add it: the miss of a model is the mean rank of its first target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl

from segue.data.splits.holdouts import Holdout
from segue.evaluation.charts import Chart, Line
from segue.evaluation.tasks.description import Metric, Picture
from segue.evaluation.tasks.result import Evaluation
from segue.evaluation.tasks.task import EvaluationOptions, Measure, Task, ValidationPlan
from segue.inference.scorer import HasScorer, Scorer
from segue.inference.scoring.ranking import target_ranks
from segue.models.base import Model
from segue.models.sasrec import SASRec

HOME = "tests.evaluation.tasks.tiny_task:FirstMiss"


@dataclass(frozen=True)
class Impatient(SASRec):
    """A model that is made for the task."""

    name: ClassVar[str] = "impatient"
    task: ClassVar[str] = "first-miss"


class FirstMiss(Task):
    """Place the first thing that each user does next as early as possible."""

    name: ClassVar[str] = "first-miss"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("miss", "Mean miss", "mean rank of the first target, from 0", at_k=False, better="lower"),
        Metric("early", "Early{}", "share of the first targets in the list"),
    )
    headlines: ClassVar[tuple[str, ...]] = ("miss", "early")
    unit: ClassVar[str] = "visitors"
    part_titles: ClassVar[Mapping[str, str]] = {"parity": "By parity of the code"}
    note: ClassVar[str] = "A miss is a rank from 0."
    settings: ClassVar[tuple[str, ...]] = ("exclude_seen",)
    usual_metric: ClassVar[str] = "miss"
    exclude_seen: ClassVar[bool] = False

    def questions(self, protocol: Mapping[str, Any]) -> str:
        return f"{protocol['users']} visitors"

    def candidates(self, protocol: Mapping[str, Any]) -> str:
        return f"the {protocol['items']} items of the shop"

    def pictures(self, parts: Mapping[str, Mapping[str, pl.DataFrame]]) -> list[Picture]:
        chart = Chart("A dot", "here", "there", [Line("dot", [(0.0, 0.0)])])
        return [Picture("dot", "Dot", "One dot", (chart,), f"drawn for {', '.join(parts)}")]

    def check_validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> None:
        return None

    def validation(self, model: Model, plan: ValidationPlan, holdout: Holdout) -> Measure:
        assert plan.exclude_seen is False

        def measured_now() -> dict[str, float]:
            return dict(evaluate_first(model, holdout, plan.exclude_seen).metrics)

        return measured_now

    def measure(self, recommender: HasScorer, holdout: Holdout, options: EvaluationOptions) -> Evaluation:
        return evaluate_first(recommender.scorer, holdout, bool(options.exclude_seen))


def evaluate_first(model: Scorer | Model, holdout: Holdout, exclude_seen: bool) -> Evaluation:
    targets = holdout.targets()
    ranks = target_ranks(model, holdout.histories(), targets, exclude_seen=exclude_seen)
    miss = ranks[np.cumsum(targets.lengths) - targets.lengths] - 1.0
    early = (miss < 5).astype(np.float64)
    users = holdout.dataset.users.decode(holdout.users)
    odd = holdout.users % 2 == 1
    parity = pl.DataFrame(
        {
            "parity": ["even", "odd"],
            "visitors": [int((~odd).sum()), int(odd.sum())],
            "miss": [float(miss[~odd].mean()), float(miss[odd].mean())],
        }
    )
    return Evaluation(
        model=model.config.name,
        metrics={"miss": float(miss.mean()), "early@5": float(early.mean())},
        intervals={},
        per_user=pl.DataFrame({"user": users, "miss": miss, "early@5": early}),
        parts={"parity": parity},
        protocol={
            "task": FirstMiss.name,
            "split": holdout.name,
            "users": len(holdout),
            "items": holdout.dataset.n_items,
            "exclude_seen": exclude_seen,
        },
    )
