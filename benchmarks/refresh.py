"""Weekly `segue.refresh` against training from nothing, on the last weeks of The Complete Journey.

    SEGUE_TEST_DATA=… python benchmarks/refresh.py [--weeks 8] [--households 2469] [--epochs 30] [--refresh-epochs 3]

The log ends before the last weeks, and each week is appended in turn. From nothing: the whole log so far is prepared,
and SASRec is trained on it for at most `--epochs`, until validation stops improving. Refresh: the week is appended, and
the training starts from the last run, for `--refresh-epochs`. Both are measured on the test part of leave-last-out of
the same data, with items of the history in the ranking, since households buy again. Neither the settings nor the
numbers of epochs were chosen on the test parts. Times are CPU seconds of all steps. The result goes to
benchmarks/results/refresh.json.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import common
import polars as pl

import segue

FEWEST = 20
"""Fewest purchases of a product, counted before the first of the weeks."""


def read_log(households: int) -> pl.DataFrame:
    """Purchases of the first households: user, item, time in seconds."""
    path = Path(os.environ["SEGUE_TEST_DATA"]) / "complete-journey" / "transactions.parquet"
    frame = pl.read_parquet(path).select(
        user="household_id", item="product_id", time=pl.col("transaction_timestamp").dt.epoch("s")
    )
    kept = frame["user"].unique().sort().head(households)
    return frame.filter(pl.col("user").is_in(kept.implode())).sort("time", maintain_order=True)


def measured(run: Path, seed: int) -> float:
    """NDCG@10 of a run on the test part of its own data."""
    recommender = segue.load(run)
    split = segue.leave_last_out(recommender.dataset)
    judged = segue.evaluate(recommender, split.test, exclude_seen=False, lists=False, resamples=0, seed=seed)
    return float(judged.metrics["ndcg@10"])


def main() -> None:
    """Go through the weeks, measure both ways, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--households", type=int, default=2469)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--refresh-epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    log = read_log(arguments.households)
    week = 7 * 86_400
    first = int(log["time"].max()) + 1 - arguments.weeks * week
    frequent = log.filter(pl.col("time") < first).group_by("item").len().filter(pl.col("len") >= FEWEST)["item"]
    log = log.filter(pl.col("item").is_in(frequent.implode()) | (pl.col("time") >= first))
    training = segue.Training(
        epochs=arguments.epochs, patience=3, validation_exclude_seen=False, seed=arguments.seed, cpu=True
    )
    config, rows, machine = segue.SASRec(), [], common.machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = segue.prepare(log.filter(pl.col("time") < first), out=folder / "data")
        segue.fit(config, segue.leave_last_out(data), training=training, out=folder / "run", quiet=True)
        for number in range(arguments.weeks):
            end = first + (number + 1) * week
            so_far = log.filter(pl.col("time") < end)
            so_far.write_parquet(folder / "whole.parquet")
            so_far.filter(pl.col("time") >= end - week).write_parquet(folder / "week.parquet")
            began = time.process_time()
            segue.refresh(
                folder / "data",
                folder / "run",
                folder / "week.parquet",
                training={"epochs": arguments.refresh_epochs},
                always=True,
                quiet=True,
            )
            refreshed = time.process_time() - began
            began = time.process_time()
            whole = segue.prepare(folder / "whole.parquet", out=folder / "whole")
            segue.fit(
                config,
                segue.leave_last_out(whole),
                training=training,
                out=folder / "fresh",
                quiet=True,
                overwrite=True,
            )
            fresh = time.process_time() - began
            row: dict[str, Any] = {
                "week": number + 1,
                "interactions": whole.n_interactions,
                "items": whole.n_items,
                "refresh": {"ndcg@10": measured(folder / "run", arguments.seed), "cpu_seconds": round(refreshed, 1)},
                "from_nothing": {"ndcg@10": measured(folder / "fresh", arguments.seed), "cpu_seconds": round(fresh, 1)},
            }
            row["share_of_ndcg"] = round(row["refresh"]["ndcg@10"] / row["from_nothing"]["ndcg@10"], 4)
            row["share_of_time"] = round(refreshed / fresh, 4)
            rows.append(row)
            print(row, flush=True)
    result = {
        "what": "segue.refresh week by week against training from nothing, The Complete Journey",
        "date": common.today(),
        "versions": common.versions("polars", "numpy", "torch"),
        "hardware": machine,
        "protocol": {
            "split": "leave-last-out",
            "exclude_seen": False,
            "users": "the first households by id",
            "items": f"at least {FEWEST} purchases before the first of the weeks, or bought in them",
            **{name.replace("-", "_"): value for name, value in vars(arguments).items()},
        },
        "model": config.to_dict(),
        "training": training.to_dict(),
        "weeks": rows,
        "mean_share_of_ndcg": round(sum(row["share_of_ndcg"] for row in rows) / len(rows), 4),
        "mean_share_of_time": round(sum(row["share_of_time"] for row in rows) / len(rows), 4),
    }
    print(common.write("refresh", result).read_text())


if __name__ == "__main__":
    main()
