"""Time and memory of ARERec on a simulated log of 20 million ratings, the size of MovieLens 20M.

    python benchmarks/rating_size.py                          # 138,000 users, 27,000 items, one epoch
    python benchmarks/rating_size.py --ratings 2000000        # fewer ratings by as many users, to see the growth

Popularity of items and activity of users fall off as in real logs. Ratings are levels from 0.5 to 5 made of biases, a
few factors and noise. The log is written as Parquet, prepared and split in time. One epoch is trained without
validation, in its own process, which reports its peak memory. The result goes to results/rating_size_<ratings>.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import polars as pl

import segue

USERS, ITEMS = 138_000, 27_000


def made(n: int, seed: int = 0) -> pl.DataFrame:
    """Log of about n ratings (repeated pairs are dropped)."""
    rng = np.random.default_rng(seed)
    activity = np.minimum(rng.lognormal(0.0, 1.1, USERS), 60.0)
    popularity = 1 / np.arange(10, ITEMS + 10) ** 0.9
    users = rng.choice(USERS, n, p=activity / activity.sum()).astype(np.int32)
    items = rng.choice(ITEMS, n, p=popularity / popularity.sum()).astype(np.int32)
    likes, is_like = (rng.normal(0, 0.5, (size, 4)).astype(np.float32) for size in (USERS, ITEMS))
    expected = 3.5 + rng.normal(0, 0.4, USERS)[users] + rng.normal(0, 0.4, ITEMS)[items]
    expected += np.einsum("nd,nd->n", likes[users], is_like[items])
    levels = np.clip(np.round(2 * (expected + rng.normal(0, 0.8, n))), 1, 10) / 2
    times = rng.integers(0, 10**9, n)
    frame = pl.DataFrame({"user": users, "item": items, "rating": levels.astype(np.float32), "time": times})
    return frame.unique(subset=["user", "item"], keep="first", maintain_order=True)


def train(folder: str) -> dict[str, float]:
    """Train one epoch on the prepared Dataset in `folder`, in this process, and report time and memory."""
    opened = time.perf_counter()
    split = segue.time_cut(segue.Dataset.open(folder, verify=False))
    divided = time.perf_counter()
    fitted = segue.fit(segue.ARERec(), split.train, training=segue.Training(epochs=1))
    trained = time.perf_counter()
    asked = segue.evaluate_ratings(fitted, split.test, k=10, users=10_000, resamples=0)
    measured = time.perf_counter()
    seconds = fitted.metadata["training"]["seconds_per_epoch"]
    return {
        "ratings": split.train.n_interactions,
        "split_seconds": round(divided - opened, 1),
        "seconds_per_epoch": round(seconds, 1),
        "seconds_per_million": round(seconds / split.train.n_interactions * 1e6, 1),
        "before_and_after_seconds": round(trained - divided - seconds, 1),
        "predictions_per_second": round(asked.per_user["questions"].sum() / (measured - trained)),
        "rmse": round(asked.metrics["rmse"], 4),
        "parameters": sum(parameter.numel() for parameter in fitted.model.parameters()),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def main() -> None:
    """Make, prepare and train; or only train, in the measured process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        print(json.dumps(train(arguments.train)))
        return
    with tempfile.TemporaryDirectory() as folder:
        log, data = Path(folder) / "log.parquet", Path(folder) / "data"
        made(arguments.ratings).write_parquet(log)
        begun = time.perf_counter()
        segue.prepare(log, out=data)
        prepared = time.perf_counter() - begun
        command = [sys.executable, __file__, "--train", str(data)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result = {
        "what": f"ARERec on {arguments.ratings:,} made ratings by {USERS:,} users of {ITEMS:,} items",
        "prepare_seconds": round(prepared, 1),
        **json.loads(done.stdout.splitlines()[-1]),
        "config": segue.ARERec().to_dict(),
        **common.provenance(),
    }
    print(common.write(f"rating_size_{arguments.ratings}", result).read_text())


if __name__ == "__main__":
    main()
