"""`segue tune` beside the defaults: validation and test after the time of twenty full trainings.

    python benchmarks/tuning.py --data journey --model markov vsknn
    python benchmarks/tuning.py --data synthetic --model tifu-knn vsknn --seeds 0 1 2

The data are a year of groceries, "The Complete Journey" (84.51°), and the sessions that come with PARSRec's program.
The last session of each user is the test, the last but one is validation; all items are ranked, and those of the
history stay. The metric is NDCG@10.

The first trial has the defaults. Its processor time, training and validation, is one full training. The search goes on
trial by trial until it has used twenty of them: a trial that ends later does not count. Nothing looks at the test part
until the search is over. Then the model of the defaults and the best one are evaluated on it once, and compared on the
same users. `--seeds` are those of the search. The result goes to results/tuning.json, a run for each data set, model
and seed.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from typing import Any

import common

import segue
from segue.evaluation.tasks.task import EvaluationOptions, measure
from segue.models.registry import config_class
from segue.training.search_space import applied

WHAT = "segue tune against the defaults, last-session-out, all items ranked, seen items kept, NDCG@10"
METRIC, FULL_TRAININGS, MOST_TRIALS = "ndcg@10", 20, 200
TRAINING = segue.Training(metric=METRIC, validation_exclude_seen=False)
DATA = {"journey": common.basket_dataset, "synthetic": common.session_dataset}


class Over(Exception):
    """Raised when the time of the search is used up."""


def searched(config: Any, split: segue.Split, seed: int) -> list[dict[str, Any]]:
    """The trials within twenty full trainings' time, with the processor seconds of each."""
    segue.tune(config, split, trials=1, training=TRAINING)  # imports and the first use of all parts
    trials: list[dict[str, Any]] = []
    begun = time.process_time()

    def add(trial: dict[str, Any]) -> None:
        nonlocal begun
        now = time.process_time()
        used = sum(one["seconds"] for one in trials) + now - begun
        if trials and used > FULL_TRAININGS * trials[0]["seconds"]:
            raise Over
        trials.append({**trial, "seconds": now - begun})
        begun = now
        print(f"trial {len(trials)}: {trials[-1]['seconds']:.2f} s, {trial[METRIC]:.4f}", flush=True)

    with suppress(Over):
        segue.tune(config, split, trials=MOST_TRIALS, training=TRAINING, seed=seed, on_trial=add)
    return trials


def tuned(data: str, split: segue.Split, model: str, seed: int) -> dict[str, Any]:
    """Validation and test of the defaults and of the best trial."""
    config = config_class(model)()
    trials = searched(config, split, seed)
    first, best = trials[0], max(trials, key=lambda one: one[METRIC])
    tests = {}
    for name, settings in (("defaults", first["settings"]), ("tuned", best["settings"])):
        chosen, training = applied(config, TRAINING, settings)
        fitted = segue.fit(chosen, split, training=training, quiet=True)
        tests[name] = measure(fitted, split.test, EvaluationOptions(k=(10,), exclude_seen=False))
    change = segue.compare(tests["defaults"], tests["tuned"])[METRIC]
    return {
        "data": data,
        "part": data,
        "model": model,
        "seed": seed,
        "trials": len(trials),
        "seconds_of_defaults": round(first["seconds"], 2),
        "full_trainings": round(sum(one["seconds"] for one in trials) / first["seconds"], 1),
        "users": len(split.test),
        "settings": {"defaults": first["settings"], "tuned": best["settings"]},
        "validation": {"defaults": round(first[METRIC], 5), "tuned": round(best[METRIC], 5)},
        "test": {name: round(one[METRIC], 5) for name, one in tests.items()},
        "test_difference": {
            "interval": [round(change.low, 5), round(change.high, 5)],
            "p_value": round(change.p_value, 5),
        },
        **common.provenance(),
    }


def main() -> None:
    """Search with every seed, and add each run to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, required=True)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    split = segue.last_session_out(DATA[arguments.data]())
    for model in arguments.model:
        for seed in arguments.seeds:
            run = tuned(arguments.data, split, model, seed)
            common.add_run("tuning", WHAT, run, key=("data", "model", "seed"))
            print(run["validation"], run["test"], run["settings"], flush=True)


if __name__ == "__main__":
    main()
