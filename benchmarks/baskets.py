"""Next baskets of households: every model on the last basket of each, with repeats and new items apart.

    python benchmarks/baskets.py --model popularity markov
    python benchmarks/baskets.py --model sasrec+targets=session parsrec --seeds 0 1 2 --epochs 30 --patience 3
    python benchmarks/baskets.py --run blend=runs/blend-{seed} --seeds 0 1 2

The data are a year of groceries, "The Complete Journey" (84.51°): households and products with five interactions or
more. The last basket of each household is the test and the last but one is validation, which chooses the epoch; there
is no refit. The items of a basket are ranked among all items, and items of the history stay in the ranking. Models have
their defaults, under any name that `segue train --model` takes, with settings behind the name. `--run` measures a saved
run instead of training one, such as a blend; `{seed}` in its folder stands for the seed. Each model and seed has a
process of its own, so that its memory can be measured: the largest resident memory from opening the Dataset to the last
list. Lists are made three times, and the median counts. The result goes to results/baskets.json, or with `--into` to
another file there. PARSRec's shared negatives beside its softmax over all items, for the same number of epochs:

    python benchmarks/baskets.py --into baskets_loss --epochs 4 --model \\
        parsrec+loss=sampled-softmax parsrec+loss=softmax
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

import segue
from segue.evaluation.tasks.baskets import evaluate_baskets
from segue.inference.scoring.ranking import top_k
from segue.models.registry import config_class

WHAT = f"{common.BASKETS}, 5-core, last-session-out, all items ranked, seen items kept, no refit"
KS = (10, 20)


def metrics_of(evaluation: Any) -> dict[str, float]:
    """Metrics of an evaluation, rounded."""
    return {name: round(value, 4) for name, value in evaluation.metrics.items()}


def facts_of(dataset: segue.Dataset) -> dict[str, float]:
    """Size of the data, and the share of items that were in an earlier basket of the household."""
    description = segue.describe(dataset)
    sessions = description.sessions
    assert sessions is not None
    return {
        "users": description.users,
        "items": description.items,
        "interactions": description.interactions,
        "sessions": sessions.sessions,
        "items_per_session": round(sessions.lengths.mean, 2),
        "bought_before": round(sessions.bought_before, 4),
    }


def measure(recommender: segue.Recommender, split: segue.Split) -> dict[str, Any]:
    """Figures of a fitted model on the test and on validation, and the speed of its lists."""
    test = evaluate_baskets(recommender, split.test, k=KS, exclude_seen=False)
    validation = evaluate_baskets(recommender, split.validation, k=KS, exclude_seen=False, lists=False, resamples=0)
    histories = split.test.histories()
    passes = []
    for _ in range(3):
        begun = time.perf_counter()
        top_k(recommender.scorer, histories, 10, exclude_seen=False)
        passes.append(time.perf_counter() - begun)
    return {
        "validation": metrics_of(validation),
        "test": metrics_of(test),
        "intervals": {name: test.intervals[name] for name in ("recall@10", "ndcg@10", "hr@10")},
        "by_kind": test.parts["kind"].to_dicts(),
        "users_per_second": round(len(histories) / statistics.median(passes), 1),
        "protocol": dict(test.protocol) | {"refit": False},
    }


def config_of(name: str) -> Any:
    """Config of a model, as "sasrec" or "sasrec+targets=session"."""
    model, *settings = name.split("+")
    return config_class(model)(**dict(setting.split("=") for setting in settings))


def alone(name: str, seed: int, data: Path, limits: dict[str, int], folder: str | None) -> dict[str, Any]:
    """One model with one seed, in this process."""
    split = segue.last_session_out(segue.Dataset.open(data))
    begun = time.perf_counter()
    if folder is not None:
        recommender = segue.load(folder)
    else:
        recommender = segue.fit(config_of(name), split, training=segue.Training(seed=seed, **limits), quiet=True)
    seconds = time.perf_counter() - begun
    found = measure(recommender, split)
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    notes = recommender.metadata.get("training", {})
    return {
        "model": name,
        "seed": seed,
        "config": recommender.model.config.to_dict(),
        "options": recommender.metadata.get("options") if "epochs" in notes else None,
        "training": notes,
        "data": facts_of(split.dataset),
        "seconds": round(seconds if folder is None else notes.get("seconds", 0.0), 2),
        **found,
        "peak_memory": peak_memory,
        **common.provenance(),
    }


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=[], help="names of models, as of segue train")
    parser.add_argument("--run", nargs="+", default=[], help="saved runs, as name=folder")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="maximum; validation chooses among them")
    parser.add_argument("--patience", type=int, help="validations without a better figure, after which training ends")
    parser.add_argument("--into", default="baskets", help="name of the file of results")
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    named = [(name, None) for name in arguments.model]
    named += [(name, folder) for name, _, folder in (one.rpartition("=") for one in arguments.run)]
    limits = {name: getattr(arguments, name) for name in ("epochs", "patience")}
    limits = {name: value for name, value in limits.items() if value is not None}
    if arguments.alone is not None:
        ((name, folder),) = named
        print(json.dumps(alone(name, arguments.seeds[0], arguments.alone, limits, folder)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        common.basket_dataset().save(data)
        for name, folder in named:
            for seed in arguments.seeds:
                own = None if folder is None else folder.replace("{seed}", str(seed))
                words = ["--model", name] if own is None else ["--run", f"{name}={own}"]
                words += [word for limit, value in limits.items() for word in (f"--{limit}", str(value))]
                command = [sys.executable, __file__, *words, "--seeds", str(seed), "--alone", str(data)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                result = json.loads(done.stdout.splitlines()[-1])
                shown = {metric: result["test"][metric] for metric in ("recall@10", "ndcg@10", "hr@10")}
                print(name, seed, "no refit", shown, flush=True)
                common.add_run(arguments.into, WHAT, result)


if __name__ == "__main__":
    main()
