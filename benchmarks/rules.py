"""Time of one user's list with rules over the item table, beside the plain list: 100 thousand items.

    python benchmarks/rules.py

The model is an untrained `SASRec()`; the table has a category, a price and a vector of 32 numbers for each item. The
user has 50 items in the history; k is 10, and seen items are left out. In each round all ways answer one after the
other on the same weights. A ratio is that of the medians over all rounds. The first answer with a rule compiles the
rule, and its time is written apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import common
import numpy as np
import polars as pl
import torch

import segue
from segue.data.dataset import Dataset
from segue.inference.recommender import Recommender

N_ITEMS, USERS, LENGTH, ROUNDS = 100_000, 1_000, 50, 150
_FILTER: dict[str, Any] = {"where": "price < 20 AND category IN ('c1', 'c2', 'c3')"}
_BOOST: dict[str, Any] = {"boost": {"category": {"c1": 0.5}}}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "where": _FILTER,
    "where, boost": _FILTER | _BOOST,
    "where, boost, diversity of the model's vectors": _FILTER | _BOOST | {"diversity": 0.3},
    "where, boost, diversity by category": _FILTER | _BOOST | {"diversity": 0.3, "diversity_by": "category"},
    "where, boost, diversity by vectors, at most 4": _FILTER
    | _BOOST
    | {"diversity": 0.3, "diversity_by": "vector", "at_most": {"category": 4}},
}


def made() -> Dataset:
    """Dataset of users with `LENGTH` random items each, and a table of all items."""
    rng = np.random.default_rng(0)
    log = pl.DataFrame(
        {
            "user": np.repeat(np.arange(1, USERS + 1), LENGTH),
            "item": rng.integers(1, N_ITEMS + 1, USERS * LENGTH),
            "time": np.tile(np.arange(LENGTH), USERS),
        }
    )
    every = pl.DataFrame({"user": np.full(N_ITEMS, USERS + 1), "item": np.arange(1, N_ITEMS + 1), "time": 0})
    table = pl.DataFrame(
        {
            "item": np.arange(1, N_ITEMS + 1),
            "category": [f"c{one}" for one in rng.integers(0, 20, N_ITEMS)],
            "price": rng.exponential(20, N_ITEMS),
            "vector": pl.Series(rng.normal(size=(N_ITEMS, 32)).astype(np.float32)),
        }
    )
    return segue.prepare(pl.concat([log, every.cast(log.schema)]), items=table)


def main() -> None:
    """Measure every way and write the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data = made()
    torch.manual_seed(0)
    answers = Recommender(segue.SASRec().build(data.n_users, data.n_items), data)
    answers.recommend(1)
    first, taken = {}, {name: [] for name in WAYS}  # type: ignore[var-annotated]
    for number in range(-3, ROUNDS):
        for name, options in WAYS.items():
            begun = time.perf_counter()
            answers.recommend(number % USERS + 1, k=10, **options)
            took = time.perf_counter() - begun
            first.setdefault(name, took)
            if number >= 0:
                taken[name].append(took)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    result = {
        "what": "one user's list with rules over the item table, over the plain list",
        "items": N_ITEMS,
        "rounds": ROUNDS,
        "ways": {
            name: {
                "first_ms": round(1e3 * first[name], 3),
                "ms": round(1e3 * median, 3),
                "ratio": round(median / medians["plain"], 2),
            }
            for name, median in medians.items()
        },
        "threads": torch.get_num_threads(),
        **common.provenance(),
    }
    print(common.write("rules", result).read_text())


if __name__ == "__main__":
    main()
