"""Predicted ratings on MovieLens 100K: ARERec, its published form with and without its leak, and baselines.

    python benchmarks/ratings.py --setting all                 # a random fifth of all rows is the test
    python benchmarks/ratings.py --setting published           # the preparation of ARERec's program

There are two settings. "all" has all rows, 20 % of them drawn for the test and 10 % for validation. "published"
prepares as ARERec's program does (commit e46bd9d): it removes users, then items, with fewer than 20 ratings, once each,
and drops test rows with an item that is not in training.

Seeds draw the split and train the model. Validation chooses settings and epochs; then the baselines and the default
form are refit on all but the test. ARERec is measured with its defaults, with a local context unit per rating instead
of shared ones ("per rating"), and as published (learning rate 1e-4, batches of 128 ratings, no biases, no ratings of
neighbours). The published form looks back at training only or, with the leak, at everything.

Beside the usual figures there are the published metrics HR@10 and NDCG@10 among a user's own test ratings, ranked by
the expected rating, and by the most probable one as the program does. Results go to results/ratings_all.json and
results/ratings_published.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import common

import segue
from segue.models.base import ModelConfig

DEFAULTS = segue.ARERec()
PUBLISHED = segue.ARERec(
    contexts="interaction",
    look_back="train",
    history_length="mean",
    keep="oldest",
    biases=False,
    neighbour_ratings=False,
    dropout_user=0.0,
    dropout_neighbour=0.0,
    dropout_item=0.0,
    dropout_k_ui=0.0,
    dropout_k_iu=0.0,
    dropout_user_rating=0.0,
)
MODELS: dict[str, ModelConfig] = {
    "global-mean": segue.GlobalMean(),
    "rating-bias": segue.RatingBias(),
    "matrix-factorization": segue.MatrixFactorization(),
    "arerec": DEFAULTS,
    "arerec, per rating": replace(DEFAULTS, contexts="interaction"),
    "arerec, published": PUBLISHED,
    "arerec, published with its leak": replace(PUBLISHED, look_back="reference"),
}
TRAINING = segue.Training()
AS_PUBLISHED = segue.Training(
    epochs=100, learning_rate=1e-4, batch_size=8, beta2=0.999, patience=5
)  # 8 units of 16 ratings
AGAIN = ("global-mean", "rating-bias", "matrix-factorization", "arerec")
METRICS = ("rmse", "mae", "log_loss", "own_hr@10", "own_ndcg@10")


def split_of(setting: str, seed: int) -> segue.Split:
    """MovieLens 100K, prepared and split as the setting says."""
    if setting == "all":
        return segue.random_rows(common.dataset("ml-100k"), test=0.2, validation=0.1, seed=seed)
    data = common.dataset("ml-100k", min_per_user=20, min_per_item=20, rounds=1, first="users")
    return segue.random_rows(data, test=0.2, validation=0.1, seed=seed, known_items=True)


def figures(recommender: segue.Recommender, split: segue.Split) -> dict[str, float]:
    """Figures of the test part."""
    found = segue.evaluate_ratings(recommender, split.test, k=10)
    kept = {name: found.metrics[name] for name in METRICS if name in found.metrics}
    if "log_loss" in kept:  # the model has probabilities
        ranked = segue.evaluate_ratings(recommender, split.test, k=10, arg_max=True, resamples=0)
        kept |= {f"{name} by class": ranked.metrics[name] for name in ("own_hr@10", "own_ndcg@10")}
    return {name: round(value, 4) for name, value in kept.items()}


def run(name: str, setting: str, seed: int, runs: Path | None) -> dict[str, Any]:
    """Fit one model, once to choose the epoch and once as the refit, and measure both."""
    split = split_of(setting, seed)
    training = replace(AS_PUBLISHED if "published" in name else TRAINING, seed=seed)
    out = None if runs is None else runs / f"{setting}-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    chosen = segue.fit(MODELS[name], split, training=training, out=out, resume=out is not None)
    notes = chosen.metadata["training"]
    result = {
        "model": name,
        "seed": seed,
        "config": chosen.model.config.to_dict(),
        "options": training.to_dict(),
        "training": notes,
        "test": figures(chosen, split),
        "test_ratings": int(split.test.n_targets.sum()),
        **common.provenance(),
    }
    if name in AGAIN:
        again = replace(training, epochs=notes.get("best_epoch", 1), patience=None)
        result["refit_test"] = figures(segue.fit(MODELS[name], split.refit, training=again), split)
    return result


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=("all", "published"), default="all")
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--runs", type=Path, help="save each run in this folder, and resume it from there")
    arguments = parser.parse_args()
    what = "MovieLens 100K, a random fifth of the ratings is the test"
    if arguments.setting == "published":
        what += ", prepared as ARERec's program does"
    for seed in arguments.seeds:
        for name in arguments.model:
            result = run(name, arguments.setting, seed, arguments.runs)
            print(name, seed, result["test"], result.get("refit_test"), flush=True)
            common.add_run(f"ratings_{arguments.setting}", what, result)


if __name__ == "__main__":
    main()
