"""Counting models on the baskets of The Complete Journey: accuracy, seconds, users a second and memory.

The last basket of each household is the test part, the one before it the validation part, after a 5-core. Lists are
made among all items, with items of the history. Settings are chosen on the validation part; the test figures are of the
model fitted without the validation part, whose histories then include it. Run it with one thread, as
`OMP_NUM_THREADS=1 python benchmarks/counting.py`; each model runs in a process of its own, so that its peak memory is
its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import time
from typing import Any

import common
import numpy as np

import segue
from segue.evaluation.metrics import user_metrics
from segue.inference.scorer import Scorer
from segue.inference.scoring.ranking import top_k
from segue.models.base import CountingModel
from segue.models.registry import config_class

K = 10
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "popularity": [{}],
    "markov": [{}],
    "personal-frequency": [
        {"decay": 1.0, "smoothing": 1e-3},
        *({"decay": decay} for decay in (0.95, 0.96, 0.97, 0.98, 0.99)),
        *({"decay": decay, "half_life": days} for decay in (0.98, 0.99, 1.0) for days in (90.0, 120.0, 180.0)),
    ],
    "tifu-knn": [
        {},
        *({"alpha": alpha} for alpha in (0.2, 0.3, 0.5, 0.9)),
        *({"alpha": 0.4, "group_decay": decay} for decay in (0.6, 0.8)),
        *({"alpha": 0.4, "group_size": size} for size in (3, 15)),
        *({"alpha": 0.4, "neighbours": k} for k in (100, 900)),
    ],
    "up-cf": [
        {},
        {"recency": 50},
        {"recency": 50, "locality": 10.0},
        {"recency": 50, "asymmetry": 0.5},
        {"recency": 10},
    ],
    "vsknn": [{}, {"neighbours": 500}, {"neighbours": 500, "unit": "history"}],
    "vstan": [
        {},
        {"age_scale": 100.0, "idf": 0.0, "distance_scale": 50.0, "position_scale": 5.0, "match_scale": 5.0},
    ],
    "item-knn": [{}, {"within": "session"}],
    "ease": [{"items": 3000}, {"items": 3000, "reg": 200.0}],
}


def baskets() -> segue.Split:
    """Split of the baskets by household."""
    return segue.last_session_out(common.basket_dataset())


def measure(name: str, settings: dict[str, Any], split: segue.Split, on: str) -> dict[str, Any]:
    """Metrics, and the speed of fit and lists, of one model on one part of the split."""
    begun = time.perf_counter()
    config = config_class(name)(**settings).resolved(split.train)
    model = config.build(split.dataset.n_users, split.dataset.n_items)
    assert isinstance(model, CountingModel)
    model.count(split.train)
    fitted = time.perf_counter() - begun
    scorer, holdout = Scorer.of(model), split.test if on == "test" else split.validation
    histories, targets = holdout.histories(), holdout.targets()
    top_k(scorer, histories.select(slice(0, 64)), K, exclude_seen=False)  # the first call imports and caches
    begun = time.perf_counter()
    codes, _ = top_k(scorer, histories, K, exclude_seen=False)
    seconds = time.perf_counter() - begun
    rows, items = targets.seen()
    side = split.dataset.n_items + 1
    wanted = np.unique(rows * side + items)
    lengths = np.bincount(wanted // side, minlength=len(targets))
    found = np.isin(np.arange(len(targets))[:, None] * side + codes, wanted)
    # Targets outside of the list are behind it, in any order.
    ranks = np.concatenate([_ranks(hits, length) for hits, length in zip(found, lengths, strict=True)])
    metrics = user_metrics(ranks, lengths, [K])
    return {
        "model": name,
        "settings": config.to_dict(),
        on: {key: round(float(metrics[f"{key}@{K}"].mean()), 4) for key in ("recall", "ndcg", "hr", "precision")},
        "fit_seconds": round(fitted, 2),
        "users_per_second": round(len(histories) / seconds),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def _ranks(hits: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    within = np.flatnonzero(hits) + 1
    return np.concatenate([within, K + 1 + np.arange(length - len(within))])


def _measured(arguments: tuple[str, dict[str, Any], str]) -> dict[str, Any]:
    name, settings, on = arguments
    return measure(name, settings, baskets(), on)


def main() -> None:
    """Measure the models that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--first", type=int, help="try only so many settings of each model")
    arguments = parser.parse_args()
    what = f"{common.BASKETS}, 5-core, last basket out, among all items with those of the history, one thread"
    context = multiprocessing.get_context("spawn")
    split = baskets()
    for name in arguments.model:
        trials = [measure(name, settings, split, "validation") for settings in SETTINGS[name][: arguments.first]]
        for trial in trials:
            print(json.dumps(trial), flush=True)
        best = max(range(len(trials)), key=lambda number: trials[number]["validation"]["ndcg"])
        with context.Pool(1) as pool:
            (run,) = pool.map(_measured, [(name, SETTINGS[name][best], "test")])
        run["validation"] = trials[best]["validation"]
        run["trials"] = [{"settings": trial["settings"], **trial["validation"]} for trial in trials]
        print(name, run["test"], run["fit_seconds"], "s", run["users_per_second"], "users/s", flush=True)
        common.add_run("counting", what, {**run, **common.provenance()}, key=("model",))


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "set OMP_NUM_THREADS=1"
    main()
