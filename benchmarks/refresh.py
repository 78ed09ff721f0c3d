"""Weekly `segue.refresh` against training from nothing, on the last weeks of The Complete Journey.

    SEGUE_TEST_DATA=… python benchmarks/refresh.py [--households 300] [--refresh-epochs 2] [--windows newest]

The log has products with at least five purchases in all of the year, and the product table is there from the first day,
so a product that nobody has bought yet is a cold item. The log ends before the last weeks, and each week is appended in
turn. From nothing: the whole log so far is prepared, and SASRec is trained on it for `--epochs`, as the first run was.
Refresh: the week is appended, and the training starts from the last run, for `--refresh-epochs`. Validation chooses
among the epochs of each training. Both are measured on the test part of leave-last-out of the data so far, with items
of the history in the ranking, since households buy again. Times are CPU seconds of all steps. The result goes to
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

FEWEST = 5
"""Fewest purchases of a product in the whole log."""
COLUMNS = ("department", "product_category", "brand")
"""Columns of the product table that the model reads."""
WEEK = 7 * 86_400


def read(households: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Purchases of the first households (user, item, time in seconds), and the products."""
    folder = Path(os.environ["SEGUE_TEST_DATA"]) / "complete-journey"
    log = pl.read_parquet(folder / "transactions.parquet").select(
        user="household_id",
        item="product_id",
        time=pl.col("transaction_timestamp").dt.epoch("s"),
    )
    kept = log["user"].unique().sort().head(households)
    log = log.filter(pl.col("user").is_in(kept.implode())).sort("time", maintain_order=True)
    frequent = log.group_by("item").len().filter(pl.col("len") >= FEWEST)["item"]
    products = pl.read_parquet(folder / "products.parquet").select(pl.col("product_id").alias("item"), *COLUMNS)
    return (
        log.filter(pl.col("item").is_in(frequent.implode())),
        products.filter(pl.col("item").is_in(frequent.cast(pl.Int64).implode())),
    )


def prepare(log: Path, products: pl.DataFrame, out: Path) -> segue.Dataset:
    """A Dataset whose catalogue is the product table."""
    return segue.prepare(log, items=products, item_key="item", out=out, overwrite=True)


def measured(run: Path) -> float:
    """NDCG@10 of a run on the last interactions of its own data."""
    recommender = segue.load(run)
    test = segue.leave_last_out(recommender.dataset).test
    judged = segue.evaluate(recommender, test, exclude_seen=False, lists=False, resamples=0)
    return float(judged.metrics["ndcg@10"])


def listed(run: Path, items: pl.Series) -> int:
    """Number of households whose ten best items hold one of `items`."""
    recommender = segue.load(run)
    lists = recommender.recommend(recommender.dataset.users.ids, k=10, exclude_seen=False)
    return int(lists.filter(pl.col("item").is_in(items.implode()))["user"].n_unique())


def from_nothing(config: Any, training: Any, folder: Path, products: pl.DataFrame) -> dict[str, Any]:
    """Prepare and train on the whole log so far; return what it reaches and costs."""
    began = time.process_time()
    whole = prepare(folder / "whole.parquet", products, folder / "whole")
    split = segue.leave_last_out(whole)
    fresh = segue.fit(config, split, training=training, out=folder / "fresh", quiet=True, overwrite=True)
    return {
        "cpu_seconds": round(time.process_time() - began, 1),
        "ndcg@10": measured(folder / "fresh"),
        "best_epoch": fresh.metadata["training"]["best_epoch"],
    }


def kept(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Weeks of the last result, whose trainings from nothing were those of this run."""
    result = common.read("refresh")
    for name in ("weeks", "households", "epochs", "seed"):
        if result["protocol"][name] != getattr(arguments, name):
            raise SystemExit(f"the last result has another {name}: leave --keep out.")
    return list(result["weeks"])


def main() -> None:
    """Go through the weeks, measure both ways, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=8)
    parser.add_argument("--households", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--refresh-epochs", type=int, default=2)
    parser.add_argument("--windows", choices=("all", "newest"), default="all", help="of a refresh")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="keep the trainings from nothing of the last result")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    log, products = read(arguments.households)
    first = int(log["time"].max()) + 1 - arguments.weeks * WEEK  # type: ignore[arg-type]
    training = segue.Training(
        epochs=arguments.epochs, patience=None, validation_exclude_seen=False, seed=arguments.seed, cpu=True
    )
    config = segue.SASRec(features=COLUMNS)
    rows, machine = [], common.machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log.filter(pl.col("time") < first).write_parquet(folder / "whole.parquet")
        data = prepare(folder / "whole.parquet", products, folder / "data")
        segue.fit(config, segue.leave_last_out(data), training=training, out=folder / "run", quiet=True)
        for number in range(arguments.weeks):
            end = first + (number + 1) * WEEK
            so_far = log.filter(pl.col("time") < end)
            so_far.write_parquet(folder / "whole.parquet")
            week = so_far.filter(pl.col("time") >= end - WEEK)
            week.write_parquet(folder / "week.parquet")
            former = so_far.filter(pl.col("time") < end - WEEK)["item"]
            new = week.filter(~pl.col("item").is_in(former.implode()))["item"].unique()
            began = time.process_time()
            segue.refresh(
                folder / "data",
                folder / "run",
                folder / "week.parquet",
                model={"windows": arguments.windows},
                training={"epochs": arguments.refresh_epochs},
                always=True,
                quiet=True,
            )
            refreshed = time.process_time() - began
            dataset = segue.load(folder / "run").dataset
            if arguments.keep:
                fresh = kept(arguments)[number]["from_nothing"]
            else:
                fresh = from_nothing(config, training, folder, products)
            row: dict[str, Any] = {
                "week": number + 1,
                "interactions": dataset.n_interactions,
                "items": dataset.n_items,
                "targets": len(segue.leave_last_out(dataset).test.histories()),
                "new_products": len(new),
                "households_with_new_products": listed(folder / "run", new),
                "refresh": {"ndcg@10": measured(folder / "run"), "cpu_seconds": round(refreshed, 1)},
                "from_nothing": fresh,
            }
            row["share_of_ndcg"] = round(row["refresh"]["ndcg@10"] / fresh["ndcg@10"], 4)
            row["share_of_time"] = round(refreshed / fresh["cpu_seconds"], 4)
            rows.append(row)
            print(row, flush=True)
    result = {
        "what": "segue.refresh week by week against training from nothing, The Complete Journey with its products",
        "date": common.today(),
        "versions": common.versions("polars", "numpy", "torch"),
        "hardware": machine,
        "protocol": {
            "split": "leave-last-out",
            "exclude_seen": False,
            "users": "the first households by id",
            "items": f"at least {FEWEST} purchases in the whole log; all have a row in the product table",
            **{name: value for name, value in vars(arguments).items() if name != "keep"},
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
