"""Write a folder of saved things, and the answers that they give: `python -m tests.saved.make FOLDER`.

Folders of one storage format are made once, by the last commit that writes it, and never again: `test_saved.py` opens
them with the current code. `format-1` was made before the rooms got inner rooms. A new format gets a new folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import segue
from segue.models.base import ModelConfig

START, DAY = 1_700_000_000, 86_400
USERS, ITEMS = ["u03", "u11", "u19"], ["i03", "i17", "i29"]
COUNTS = {"markov", "popularity", "recent-popularity"}
RATES = {"arerec", "rating-bias", "matrix-factorization"}
UNEXPLAINED = {"rating-bias", "matrix-factorization"}

CONFIGS: dict[str, ModelConfig] = {
    "sasrec": segue.SASRec(width=8, blocks=1, max_length=10, frequency=0.0, transitions=False),
    "sasrec-times": segue.SASRec(
        width=8,
        blocks=2,
        heads=2,
        max_length=10,
        norm="ligr",
        feed_forward="swiglu",
        positions="both",
        time_bias=True,
        frequency=0.0,
        transitions=False,
    ),
    "sasrec-published": segue.SASRec.as_published(width=8, max_length=10),
    "ssept": segue.SSEPT(item_width=6, user_width=6, max_length=10),
    "parsrec": segue.PARSRec(user_width=6, item_width=6),
    "markov": segue.Markov(),
    "popularity": segue.Popularity(),
    "recent-popularity": segue.RecentPopularity(),
    "arerec": segue.ARERec(),
    "rating-bias": segue.RatingBias(),
    "matrix-factorization": segue.MatrixFactorization(width=4),
}
"""Name of the folder → the model saved there."""


def made_log() -> pl.DataFrame:
    """A log of 24 users and 30 items, with times, sessions and ratings."""
    rng = np.random.default_rng(7)
    rows = []
    for user in range(24):
        time = START + int(rng.integers(0, 10**6))
        for session in range(int(rng.integers(3, 6))):
            shelf = int(rng.integers(0, 6)) * 5
            time += DAY * int(rng.integers(1, 5))
            for item in rng.permutation(5)[: int(rng.integers(2, 5))]:
                time += int(rng.integers(20, 200))
                rows.append((f"u{user:02}", f"i{shelf + int(item):02}", time, session, int(rng.integers(1, 6))))
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "session_id", "rating"], orient="row")


def make_shards(folder: Path) -> segue.Shards:
    """Write the log in two shards; `shards-1` was made by the first version of that format."""
    return segue.prepare_shards(made_log(), folder, shards=2, k_core=2)


def split_for(name: str, data: segue.Dataset) -> segue.Split:
    """The split that a model of `CONFIGS` was fitted on."""
    if name in RATES:
        return segue.random_rows(data)
    return segue.last_session_out(data) if name == "parsrec" else segue.leave_last_out(data)


def training(**changes: Any) -> segue.Training:
    """The options of every training."""
    return segue.Training(**{"epochs": 2, "cpu": True, **changes})


def answers_of(name: str, recommender: segue.Recommender) -> dict[str, Any]:
    """Question → rows of the answer, as JSON holds them."""
    frames = {
        "recommend": recommender.recommend(USERS, k=4),
        "score": recommender.score(USERS, ITEMS, long=True),
        "as_of": recommender.recommend(USERS, k=3, as_of=START + 6 * DAY),
    }
    if name not in COUNTS | RATES:
        frames["given"] = recommender.recommend(histories=[["i01", "i02"], ["i20"]], k=3)
        frames["basket"] = recommender.recommend(USERS, basket={"u03": ["i00"]}, k=3)
    if name not in UNEXPLAINED:
        frames["explain"] = recommender.explain("u03", "i17")
    return {question: json.loads(frame.write_json()) for question, frame in frames.items()}


def main(out: Path) -> None:
    """Write the log, its Dataset, a Recommender of every model with its answers, and a run."""
    out.mkdir(parents=True)
    made_log().write_csv(out / "log.csv")
    data = segue.prepare(out / "log.csv")
    data.save(out / "dataset")
    answers = {}
    for name, config in CONFIGS.items():
        segue.fit(config, split_for(name, data), training=training(), quiet=True).save(out / name)
        answers[name] = answers_of(name, segue.load(out / name))
    (out / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    split = segue.leave_last_out(data)
    segue.fit(CONFIGS["sasrec"], split, training=training(keep_every=1), out=out / "run", quiet=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
