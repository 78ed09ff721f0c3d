"""Seconds of an epoch of PARSRec in its published setting, and of its arithmetic alone.

    OMP_NUM_THREADS=1 python benchmarks/parsrec_speed.py     # one core, as the peer was measured
    python benchmarks/parsrec_speed.py --groceries           # the defaults on a year of groceries, all cores

The data is `synthetic.txt` (1,024 users, 98 training sessions each). The setting is batch 256, widths 128 and 128, one
block, two heads, dropout 0.1, gradient norm 30, and a softmax over all 2,000 items at every step. The peer is PARSRec's
program (commit 8d2a5ae) with anomaly detection off, measured on one core of an AMD EPYC: 121.4 s per epoch (167.6 s as
shipped); only a run on such a core is compared with it. Floating-point operations are those of the matrix products of
the forward and backward pass. The speed of the machine is that of a product of two 1024 × 1024 matrices, before and
after. The newest run of each processor stands in results/parsrec_speed.json, and those with `--groceries` in
results/parsrec_groceries.json: shared negatives, repeats, and the usual size of a batch.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import common
import torch

import segue

PEER = {"seconds_per_epoch": 121.4, "as_shipped": 167.6, "processor": "AMD EPYC"}
CONFIG = segue.PARSRec.as_published()


def flops(split: segue.Split) -> float:
    """Floating-point operations of all matrix products of an epoch; a backward pass costs two forward passes."""
    sessions = split.train.sessions
    steps, first, last = int(sessions.lengths.sum()), len(sessions), len(sessions)  # first and last steps of sessions
    user, item, width = CONFIG.user_width, CONFIG.item_width, CONFIG.user_width + CONFIG.item_width
    catalogue = steps * split.dataset.n_items * item
    asking = (steps - first) * item * CONFIG.heads * item
    answering = (steps - first) * CONFIG.heads * item * width
    linear = steps * width * item
    moving = (2 * steps - last) * 2 * item * item
    users = first * user * (CONFIG.heads * item + 2 * item)
    return 3 * 2.0 * (catalogue + asking + answering + linear + moving + users)


def add(name: str, what: str, more: dict[str, Any], run: dict[str, Any]) -> None:
    """Write a run, beside those of other processors."""
    run["processor"] = run["hardware"]["cpu"]
    others = [one for one in common.read(name).get("runs", []) if one["processor"] != run["processor"]]
    runs = sorted([*others, run], key=lambda one: str(one["processor"]))
    print(common.write(name, {"what": what, **more, "runs": runs}).read_text())


def published(epochs: int) -> None:
    """Measure the published setting."""
    hardware = common.machine() | {"threads": torch.get_num_threads()}
    split = segue.last_session_out(common.session_dataset())
    training = segue.Training(epochs=epochs, batch_size=256, clip_norm=30.0, beta2=0.999)
    before = common.speed_of_products()
    epoch = segue.fit(CONFIG, split.train, training=training).metadata["training"]["seconds_per_epoch"]
    peak = statistics.mean([before, common.speed_of_products()])
    run = {
        "seconds_per_epoch": round(epoch, 1),
        "epochs": epochs,
        "teraflop_per_epoch": round(flops(split) / 1e12, 2),
        "gigaflop_per_second_at_peak": round(peak / 1e9),
        "seconds_at_peak": round(flops(split) / peak, 1),
        "config": CONFIG.to_dict(),
        "training": training.to_dict(),
        "date": common.today(),
        "versions": common.versions("torch", "numpy"),
        "hardware": hardware,
    }
    what = f"PARSRec in its published setting on {common.SESSIONS}, seconds per epoch"
    add("parsrec_speed", what, {"peer": PEER}, run)


def groceries(epochs: int) -> None:
    """Measure the defaults on a large catalogue."""
    hardware = common.machine() | {"threads": torch.get_num_threads()}
    split = segue.last_session_out(common.basket_dataset())
    recommender = segue.fit(segue.PARSRec(), split.train, training=segue.Training(epochs=epochs))
    run = {
        "seconds_per_epoch": round(recommender.metadata["training"]["seconds_per_epoch"], 1),
        "epochs": epochs,
        "items": split.dataset.n_items,
        "sessions": len(split.train.sessions),
        "config": recommender.model.config.to_dict(),
        "training": recommender.metadata["options"],
        "date": common.today(),
        "versions": common.versions("torch", "numpy"),
        "hardware": hardware,
    }
    add("parsrec_groceries", f"PARSRec with its defaults on {common.BASKETS}, seconds per epoch", {}, run)


def main() -> None:
    """Train some epochs without validation and write the seconds of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--groceries", action="store_true")
    options = parser.parse_args()
    (groceries if options.groceries else published)(options.epochs)


if __name__ == "__main__":
    main()
