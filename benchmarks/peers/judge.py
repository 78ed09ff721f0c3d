"""One evaluator for all lists: measured by segue and again by ir-measures; training curves; the printed table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ir_measures
import polars as pl
from ir_measures import Success, nDCG

import segue

K = 10
NDCG, HR = f"ndcg@{K}", f"hr@{K}"


@dataclass(frozen=True)
class Answer:
    """Answer of the script of another library."""

    report: dict[str, Any]
    """Seconds, memory, settings and versions, as `handover.Job` wrote them."""
    lists: dict[tuple[str, int], pl.DataFrame]
    """Lists by part and epoch: user, item (codes), rank."""

    @classmethod
    def read(cls, folder: Path, checks: Iterable[int], parts: Iterable[str]) -> Answer:
        """Read the files in the folder that the script was given."""
        schema = {"user": pl.Int64, "item": pl.Int64, "rank": pl.Int64}
        lists = {
            (part, epoch): pl.read_csv(folder / f"{part}_{epoch}.csv", schema=schema)
            for part in parts
            for epoch in checks
        }
        return cls(json.loads((folder / "report.json").read_text()), lists)


def measure(lists: pl.DataFrame, holdout: segue.Holdout, resamples: int = 1_000) -> dict[str, Any]:
    """NDCG@10 and HR@10 of lists of codes with 95 % intervals, after ir-measures found the same figures."""
    data = holdout.dataset
    named = lists.with_columns(
        data.users.decode(lists["user"]).alias("user"), data.catalogue.decode(lists["item"]).alias("item")
    )
    found = segue.evaluate_lists(named, holdout, k=K, resamples=resamples)
    theirs = _by_ir_measures(lists, holdout)
    for name, value in theirs.items():
        if abs(found[name] - value) > 1e-9:
            raise SystemExit(f"{name} is {found[name]} here and {value} by ir-measures: one evaluator is wrong.")
    figures = {name: round(found[name], 4) for name in (NDCG, HR, f"coverage@{K}")}
    intervals = {name: [round(end, 4) for end in found.intervals[name]] for name in (NDCG, HR) if resamples}
    return figures | ({"intervals": intervals} if resamples else {})


def _by_ir_measures(lists: pl.DataFrame, holdout: segue.Holdout) -> dict[str, float]:
    measures = {nDCG @ K: NDCG, Success @ K: HR}
    targets = holdout.targets()
    qrels = pl.DataFrame({"query_id": holdout.users, "doc_id": targets.items[targets.starts]})
    qrels = qrels.with_columns(pl.all().cast(pl.String), pl.lit(1).alias("relevance")).to_pandas()
    run = lists.select(
        query_id=pl.col("user").cast(pl.String),
        doc_id=pl.col("item").cast(pl.String),
        score=-pl.col("rank").cast(pl.Float64),
    )
    found = ir_measures.calc_aggregate(list(measures), qrels, run.to_pandas())
    return {name: found[measure] for measure, name in measures.items()}


def curve(answer: Answer, holdout: segue.Holdout) -> list[dict[str, float]]:
    """NDCG@10 and HR@10 on the validation part after each validation, and the seconds of training until then."""
    seconds = answer.report["epoch_seconds"]
    rows = []
    for (part, epoch), lists in sorted(answer.lists.items()):
        if part == holdout.name:
            figures = measure(lists, holdout, resamples=0)
            rows.append(
                {"epoch": epoch, "seconds": round(sum(seconds[:epoch]), 2), NDCG: figures[NDCG], HR: figures[HR]}
            )
    return rows


def reached(rows: list[dict[str, float]], target: float) -> float | None:
    """Seconds of training until the curve first reaches `target` NDCG@10, linear between validations; None if it never
    does."""
    before = {"seconds": 0.0, NDCG: 0.0}
    for row in rows if target > 0 else []:
        if row[NDCG] >= target:
            share = (target - before[NDCG]) / (row[NDCG] - before[NDCG])
            return round(before["seconds"] + max(share, 0.0) * (row["seconds"] - before["seconds"]), 1)
        before = row
    return None


COLUMNS = (
    "system",
    "NDCG@10",
    "HR@10",
    "epochs",
    "s/epoch",
    "s to 95 %",
    "users/s",
    "memory, training",
    "memory",
    "sampled users/s",
)


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown table of runs, best first."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for run in sorted(runs, key=lambda run: -tested(run)[NDCG]):
        found = tested(run)
        figures = [f"{found[name]:.4f} [{low:.4f}, {high:.4f}]" for name, (low, high) in found["intervals"].items()]
        cells = [
            f"{run['peer']} ({run['protocol']}, {run['threads']} threads)",
            *figures,
            run["epochs"],
            f"{run['seconds_per_epoch']:.1f}",
            "" if run.get("seconds_to_95_percent") is None else f"{run['seconds_to_95_percent']:.0f}",
            f"{run['recommended_users_per_second']:,.0f}",
            f"{run['peak_memory_training'] / 1e6:,.0f} MB",
            f"{run['peak_memory'] / 1e6:,.0f} MB",
            f"{run['sampled_users_per_second']:,.0f}" if run.get("sampled_users_per_second") else "",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def tested(run: dict[str, Any]) -> dict[str, Any]:
    """Test figures of a run: those of the refit, if there was one."""
    return run.get("refit_test") or run["test"]
