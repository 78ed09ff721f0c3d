"""Content in the item vectors: figures with features against without, and of items that training never sees.

    python benchmarks/content.py warm --seeds 0 1 2
    python benchmarks/content.py cold --seeds 0 1 2

The data are Amazon Beauty with the categories and brands of its items. `warm` splits by leave-last-out and ranks the
last item of each user among all items: SASRec with its defaults, without features and with them, and the counting
models. `cold` keeps a random tenth of the items out of training and ranks the last item of each user: among all items
and, for targets among the cold items, among these alone. Validation chooses the epoch; there is no refit. The result
goes to results/content.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import common

import segue
from segue.models.registry import config_class

ATTRIBUTES = "amazon-beauty/Beauty_item2attributes.json"
COUNTING = ("category-popularity", "content-neighbours")
WHAT = f"{common.DATA['beauty']} with {ATTRIBUTES}, all items ranked, seen items left out, no refit"


def config_of(name: str) -> Any:
    """Config of a model, as "sasrec" or "sasrec+features"."""
    name, _, features = name.partition("+")
    return config_class(name)(**({"features": "auto"} if features else {}))


def run(part: str, name: str, seed: int, split: segue.Split, epochs: int | None) -> dict[str, Any]:
    """Fit and measure one model with one seed."""
    training = segue.Training(seed=seed) if epochs is None else segue.Training(seed=seed, epochs=epochs)
    begun = time.perf_counter()
    recommender = segue.fit(config_of(name), split, training=training, quiet=True)
    seconds = time.perf_counter() - begun
    test = segue.evaluate(recommender, split.test, k=(10, 20))
    names = [metric for metric in test.metrics if metric.startswith(("hr", "ndcg", "cold", "coverage"))]
    return {
        "part": part,
        "model": name,
        "seed": seed,
        "epochs": epochs or recommender.metadata["options"]["epochs"],
        "config": recommender.model.config.to_dict(),
        "test": {metric: round(test[metric], 5) for metric in names},
        "intervals": {metric: test.intervals[metric] for metric in names if metric in test.intervals},
        "by_popularity": test.parts["popularity"].to_dicts(),
        "seconds": round(seconds, 1),
        "training": recommender.metadata["training"],
        "protocol": dict(test.protocol) | {"refit": False},
        **common.provenance(),
    }


def main() -> None:
    """Run the requested part; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("warm", "cold"))
    parser.add_argument("--model", nargs="+", default=["sasrec", "sasrec+features", *COUNTING])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="epochs of the trainings; those of the defaults when not given")
    arguments = parser.parse_args()
    dataset = common.dataset("beauty", items=common.data_folder() / ATTRIBUTES)
    split = segue.leave_last_out(dataset) if arguments.part == "warm" else segue.cold_items(dataset)
    for name in arguments.model:
        for seed in arguments.seeds[:1] if name in COUNTING else arguments.seeds:
            result = run(arguments.part, name, seed, split, arguments.epochs)
            print(arguments.part, name, seed, result["test"], f"{result['seconds']} s", flush=True)
            common.add_run("content", WHAT, result, key=("part", "model", "seed", "epochs"))


if __name__ == "__main__":
    main()
