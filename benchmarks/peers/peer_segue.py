"""segue beside the other libraries: from the same files, with its defaults or in the notebook's setting.

The part of a run between two validations is resumed exactly, so validation changes nothing.
`sampled_evaluation_users_per_second` follows Microsoft's protocol: each target among 100 sampled items.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import handover
import numpy as np
import polars as pl
from handover import Job, Log, Part

sys.path.insert(0, str(Path(__file__).parent.parent))
import common

import segue

SETTINGS = {
    "defaults": (segue.SASRec(), segue.Training(patience=None)),
    "notebook": (common.NOTEBOOK, common.NOTEBOOK_TRAINING),
}


def dataset_of(log: Log) -> segue.Dataset:
    """Dataset of the handed data."""
    frame = pl.DataFrame({"user": log.users, "item": log.items, "time": log.times})
    return segue.prepare(frame, duplicates="keep")


class Trained:
    """Run that continues from validation to validation."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder
        self.config, self.training = SETTINGS[job.request.setting]
        self.data = dataset_of(job.request.train)

    def train(self) -> segue.Recommender:
        """Train for the requested epochs, with validation after the requested ones."""
        done = 0
        for end in self.job.request.checks:
            training = dataclasses.replace(self.training, epochs=end, seed=self.job.request.seed)
            fitted = segue.fit(self.config, self.data, training=training, out=self.folder, resume=done > 0, quiet=True)
            with (self.folder / "metrics.csv").open() as lines:
                rows = list(csv.DictReader(lines))[done:]
            for epoch, row in enumerate(rows, done + 1):
                self.job.epoch_ended(epoch, float(row["seconds"]), lambda part, of=fitted: self.recommend(of, part))
            done = end
        return fitted

    def recommend(self, fitted: segue.Recommender, part: Part) -> np.ndarray:
        """Best items of each user."""
        k, histories = self.job.request.k, part.log.histories()
        asked = {user: histories[user] for user in part.users.tolist()}
        found = fitted.recommend(histories=asked, k=k, exclude_seen=True)
        codes = np.zeros((len(part.users), k), dtype=np.int64)
        rows = np.searchsorted(part.users, found["user"].to_numpy())
        codes[rows, found["rank"].to_numpy() - 1] = found["item"].to_numpy()
        return codes


def sampled_speed(fitted: segue.Recommender, data: segue.Dataset) -> float:
    """Users per second if each target is ranked among 100 sampled items, with the drawing included."""
    asked = segue.leave_last_out(data).test.sample(10_000)
    candidates = min(100, data.n_items // 4)
    began = time.perf_counter()
    segue.evaluate(fitted, asked, k=10, candidates=candidates, resamples=0)
    return len(asked) / (time.perf_counter() - began)


def main() -> None:
    """Train and recommend as requested."""
    job = handover.open_job()
    with tempfile.TemporaryDirectory() as folder:
        run = Trained(job, Path(folder) / "run")
        fitted = run.train()
    shown = {**fitted.model.config.to_dict(), **fitted.metadata["options"]}
    speed = round(sampled_speed(fitted, run.data), 1)
    job.finish(shown, ["segue", "torch", "numpy"], sampled_evaluation_users_per_second=speed)


if __name__ == "__main__":
    main()
