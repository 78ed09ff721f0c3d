"""Speed and accuracy in the setting of Microsoft's SASRec notebook: ten epochs on Amazon Games, and the evaluation.

    OMP_NUM_THREADS=1 python benchmarks/notebook.py     # one core, as the peer was measured
    python benchmarks/notebook.py                       # all cores

The setting is 50 items, 2 blocks, d 100, 1 head, dropout 0.1, learning rate 1e-3, batch 128 and one negative, with
10,000 test users and each target among 100 items. The peer is Microsoft recommenders 1.2.1 (TensorFlow 2.15), measured
on one core of the same kind of machine: 57.4 s per epoch, NDCG@10 .4615 and HR@10 .6686 after ten epochs, 18 users/s in
evaluation. The full evaluation of all users among all items follows. The result goes to
results/notebook_<threads>.json.
"""

from __future__ import annotations

import time
from dataclasses import replace

import common
import torch

import segue

PEER = {"seconds_per_epoch": 57.4, "ndcg@10": 0.4615, "hr@10": 0.6686, "evaluated_users_per_second": 18}


def main() -> None:
    """Train ten epochs, evaluate, and write the result."""
    hardware = common.machine() | {"threads": torch.get_num_threads()}
    split = segue.leave_last_out(common.dataset("games"))
    config = common.NOTEBOOK
    training = replace(common.NOTEBOOK_TRAINING, epochs=10)
    fitted = segue.fit(config, split.train, training=training)
    asked = split.test.sample(10_000, seed=0)
    began = time.perf_counter()
    sampled = segue.evaluate(fitted, asked, k=10, candidates=100, resamples=0)
    sampled_seconds = time.perf_counter() - began
    began = time.perf_counter()
    full = segue.evaluate(fitted, split.test, k=10, lists=False, resamples=0)
    ranks_seconds = time.perf_counter() - began
    began = time.perf_counter()
    segue.evaluate(fitted, split.test, k=10)
    everything_seconds = time.perf_counter() - began
    epoch = fitted.metadata["training"]["seconds_per_epoch"]
    result = {
        "what": "Microsoft's notebook setting on Amazon Games (Video.txt), ten epochs",
        "seconds_per_epoch": round(epoch, 2),
        "sampled": {name: round(sampled[name], 4) for name in ("ndcg@10", "hr@10")},
        "sampled_users_per_second": round(len(asked) / sampled_seconds),
        "full": {name: round(full[name], 4) for name in ("ndcg@10", "hr@10")},
        "full_evaluation_seconds": {
            "ranks": round(ranks_seconds, 2),
            "ranks, lists, intervals": round(everything_seconds, 2),
        },
        "full_evaluation_shape": [len(split.test), split.test.dataset.n_items],
        "peer": PEER,
        "times_faster": {
            "epoch": round(PEER["seconds_per_epoch"] / epoch, 1),
            "sampled evaluation": round(len(asked) / sampled_seconds / PEER["evaluated_users_per_second"]),
        },
        "config": config.to_dict(),
        "training": training.to_dict(),
        "date": common.today(),
        "versions": common.versions("torch", "numpy"),
        "hardware": hardware,
    }
    print(common.write(f"notebook_{torch.get_num_threads()}", result).read_text())


if __name__ == "__main__":
    main()
