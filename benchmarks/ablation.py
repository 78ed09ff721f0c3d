"""Value of each option of SASRec and of its training: the defaults with one option changed, on public data.

    python benchmarks/ablation.py --data ml-100k --variant defaults ligr logq --seeds 0 1 2 --epochs 60

Every variant is trained until validation stops it, or for `--epochs`. Validation targets (the last but one item of each
user) choose the epoch, and conclusions should follow them too. `test` is measured with that model. With `--refit`,
`refit_test` is measured after a refit on everything but the last item, for the chosen number of epochs. Targets are
ranked among all items, seen ones left out. Runs are added to results/ablation_<data>.json when they end.

With `--split time-cut` all users are cut at the same two moments instead, and runs are added to
results/ablation_<data>_time-cut.json.

Variants are left out if the data has no times for them (Beauty, Games) or if they change nothing, unless they are
requested by name.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import common

import segue

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "bce": {"loss": "bce", "negatives": 1},
    "gbce": {"loss": "gbce", "negatives": 128},
    "softmax": {"loss": "softmax"},
    "sampled-softmax": {"loss": "sampled-softmax"},
    "dot": {"similarity": "dot"},
    "temperature-0.05": {"temperature": 0.05},
    "learn-temperature": {"learn_temperature": True},
    "no-logq": {"logq": False},
    "in-batch": {"in_batch": 0.5},
    "newest-window": {"windows": "newest"},
    "no-averaging": {"averaging": 0.0},
    "paper-norm": {"norm": "paper"},
    "ligr": {"norm": "ligr"},
    "swiglu": {"feed_forward": "swiglu"},
    "ligr-swiglu-wide": {"norm": "ligr", "feed_forward": "swiglu", "inner_width": 256},
    "relative": {"positions": "relative"},
    "both-positions": {"positions": "both"},
    "time": {"time_bias": True},
    "relative-time": {"positions": "relative", "time_bias": True},
    "no-frequency": {"frequency": 0.0, "transitions": False},
    "transitions": {"transitions": True},
    "no-transitions": {"transitions": False},
    "heads-2": {"heads": 2},
    "blocks-4": {"blocks": 4},
    "ligr-blocks-4": {"norm": "ligr", "blocks": 4},
    "dropout-0.2": {"dropout": 0.2},
    "dropout-0.5": {"dropout": 0.5},
    "width-128": {"width": 128},
    "length-100": {"max_length": 100},
    "length-200": {"max_length": 200},
}
METRICS = ("ndcg@10", "hr@10")
SPLITS: dict[str, Callable[[segue.Dataset], segue.Split]] = {
    "leave-last-out": segue.leave_last_out,
    "time-cut": segue.time_cut,
}


def configured(name: str) -> tuple[segue.SASRec, dict[str, Any]]:
    """Model of the variant, and the options of its training."""
    of_model = {field.name for field in dataclasses.fields(segue.SASRec)}
    model = {option: value for option, value in VARIANTS[name].items() if option in of_model}
    training = {option: value for option, value in VARIANTS[name].items() if option not in of_model}
    return dataclasses.replace(segue.SASRec(), **model), training


def run(name: str, seed: int, split: segue.Split, epochs: int, refit: bool) -> dict[str, Any]:
    """Train one variant with one seed and measure it."""
    config, options = configured(name)
    chosen = segue.fit(config, split, training=segue.Training(epochs=epochs, seed=seed, **options), quiet=True)
    notes, batch_size = chosen.metadata["training"], chosen.metadata["options"]["batch_size"]
    result: dict[str, Any] = {
        "model": name,
        "seed": seed,
        "changed": VARIANTS[name],
        "config": chosen.model.config.to_dict(),
        "options": chosen.metadata["options"],
        "epochs_at_most": epochs,
        "validation": {metric: round(notes["validation"][metric], 4) for metric in METRICS},
    }
    models = {"test": chosen}
    if refit:
        again = segue.Training(epochs=notes["best_epoch"], batch_size=batch_size, patience=None, seed=seed, **options)
        models["refit_test"] = segue.fit(config, split.refit, training=again, quiet=True)
    for part, model in models.items():
        found = segue.evaluate(model, split.test, k=10)
        result[part] = {metric: round(found[metric], 4) for metric in METRICS}
        result[f"{part}_intervals"] = {metric: found.intervals[metric] for metric in METRICS}
    return result | {"training": notes, "protocol": dict(found.protocol), **common.provenance()}


def possible(name: str, split: segue.Split) -> bool:
    """Check that the data has what the variant needs, and that the variant differs from the defaults there."""
    changed = VARIANTS[name]
    if split.dataset.times is None and changed.get("time_bias"):
        return False
    config, options = configured(name)
    other, usual = config.resolved(split.dataset), segue.SASRec().resolved(split.dataset)
    sampled = other.loss == "sampled-softmax"
    differs = other != usual and (sampled or not changed.keys() <= {"logq", "in_batch"})
    return name == "defaults" or bool(options) or differs


def main() -> None:
    """Run the requested models and seeds; each run is saved when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=common.DATA, default="ml-100k")
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, help="all that the data allows if not given")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=200, help="maximum; validation chooses among them")
    parser.add_argument("--refit", action="store_true", help="measure the refit as well")
    parser.add_argument("--split", choices=SPLITS, default="leave-last-out")
    arguments = parser.parse_args()
    split = SPLITS[arguments.split](common.dataset(arguments.data))
    what = f"{common.DATA[arguments.data]}: SASRec() with one option changed; {arguments.split}, all items ranked"
    into = f"ablation_{arguments.data}" + ("" if arguments.split == "leave-last-out" else f"_{arguments.split}")
    for name in arguments.variant or [name for name in VARIANTS if possible(name, split)]:
        for seed in arguments.seeds:
            result = run(name, seed, split, arguments.epochs, arguments.refit)
            print(name, seed, result["validation"], result["test"], result.get("refit_test", ""), flush=True)
            common.add_run(into, what, result)


if __name__ == "__main__":
    main()
