"""Accuracy of models that complete sessions step by step, on the simulated data of PARSRec's program.

    python benchmarks/sessions.py --model popularity recent-popularity markov sasrec parsrec --seeds 0 1 2

Every model completes the same last sessions with the same code. At each step the best of the session's remaining items
is ranked among all 2,000 items, and among those that remain and 99 sampled ones (the protocol of the PARSRec paper).
Validation sessions, the last but one of each user, choose the epoch by session precision among sampled items. PARSRec
has the settings that its program ships with, but a learning rate twice as high that falls to zero; it reads the whole
history. SASRec reads the newest items, basket included. The result goes to results/sessions.json. With --runs the runs
are saved as folders and can be resumed; `segue evaluate` and benchmarks/explanations.py read them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import common

import segue
from segue.evaluation.tasks.sessions import both_ways

CONFIGS = {
    "popularity": segue.Popularity(),
    "recent-popularity": segue.RecentPopularity(),
    "markov": segue.Markov(),
    "sasrec": segue.SASRec(max_length=200, dropout=0.2, loss="softmax"),
    "parsrec": segue.PARSRec(),
}
CHOOSING = segue.Training(
    metric="sess_prec@10", validation_users=None, validation_candidates=99, validation_exclude_seen=False
)
TRAINING = {
    "sasrec": replace(CHOOSING, batch_size=16, learning_rate=2e-3, validate_every=2, patience=8),
    "parsrec": replace(
        CHOOSING,
        epochs=64,
        batch_size=256,
        learning_rate=2e-3,
        schedule="linear",
        beta2=0.999,
        clip_norm=30.0,
        patience=None,
        watch_test=True,
    ),
}
METRICS = ("sess_prec@10", "step_hr@10", "step_ndcg@10")


def run(name: str, seed: int, split: segue.Split, epochs: int | None, runs: Path | None) -> dict[str, object]:
    """Fit one model with one seed and complete the test sessions with it."""
    config, training = CONFIGS[name], replace(TRAINING.get(name, CHOOSING), seed=seed)
    training = training if epochs is None else replace(training, epochs=epochs)
    out = None if runs is None else runs / f"{name}-{seed}"
    fitted = segue.fit(config, split, training=training, out=out, resume=out is not None)
    begun = time.perf_counter()
    found = both_ways(fitted, split.test, k=10, seed=0)  # the same candidates for every seed of the training
    seconds = time.perf_counter() - begun
    return {
        "model": name,
        "seed": seed,
        "config": config.to_dict(),
        "options": training.to_dict(),
        "training": fitted.metadata["training"],
        "test": {f"{way} {metric}": round(one[metric], 4) for way, one in found.items() for metric in METRICS},
        "intervals": {f"{way} {metric}": one.intervals[metric] for way, one in found.items() for metric in METRICS},
        "by_step": {way: one.by_step.to_dicts() for way, one in found.items()},
        "evaluation_seconds": round(seconds, 2),
        "protocol": {way: dict(one.protocol) for way, one in found.items()},
        **common.provenance(),
    }


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="maximum; validation chooses among them")
    parser.add_argument("--runs", type=Path, help="save each run in this folder")
    arguments = parser.parse_args()
    split = segue.last_session_out(common.session_dataset())
    what = f"{common.SESSIONS}, last-session-out, step by step, among all items and among 99 sampled ones"
    for name in arguments.model:
        for seed in arguments.seeds:
            result = run(name, seed, split, arguments.epochs, arguments.runs)
            print(name, seed, result["test"], flush=True)
            common.add_run("sessions", what, result)


if __name__ == "__main__":
    main()
