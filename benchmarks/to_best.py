"""How long `segue.SASRec()` trains on Beauty until validation is at its best, and until early stopping ends it.

    python benchmarks/to_best.py --seeds 0 1 2                  # all cores
    OMP_NUM_THREADS=1 python benchmarks/to_best.py              # one core

All items are ranked after each epoch, for ten thousand users, as the defaults have it; the seconds are those of the
whole call, looking included. An epoch is as long as any other, so the best one of n is reached after its share of
them. Each run goes to results/to_best_<threads>.json.
"""

from __future__ import annotations

import argparse

import common
import torch

import segue


def main() -> None:
    """Train with each seed; each run is kept as it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    split = segue.leave_last_out(common.dataset("beauty"))
    for seed in arguments.seeds:
        about = common.provenance()
        notes = segue.fit(segue.SASRec(), split, training=segue.Training(seed=seed)).metadata["training"]
        run = {
            "seed": seed,
            "best_epoch": notes["best_epoch"],
            "epochs": notes["epochs"],
            "seconds": round(notes["seconds"], 1),
            "seconds_to_best": round(notes["seconds"] * notes["best_epoch"] / notes["epochs"], 1),
            "validation": notes["validation"],
            **about,
        }
        print(run, flush=True)
        what = "SASRec() on amazon-beauty/Beauty.txt, leave-last-out, until early stopping ends the training"
        common.add_run(f"to_best_{torch.get_num_threads()}", what, run, key=("seed",))


if __name__ == "__main__":
    main()
