"""Seconds of an epoch of ARERec in its published setting.

    OMP_NUM_THREADS=1 python benchmarks/arerec_speed.py       # one core, as the peer was measured

The data is MovieLens 100K as ARERec's program prepares it: users, then items, with fewer than 20 ratings removed, and a
random fifth held out for the test. The model has two local context units per rating, region size 7, width 64, 2 heads,
histories of at most 101 and batches of 128 ratings. The peer is ARERec's program (commit e46bd9d, TensorFlow), measured
on one core of the same kind of machine: 896 s per epoch. The same setting with shared units is measured beside it. The
result goes to results/arerec_speed.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import common
import torch
from ratings import AS_PUBLISHED, PUBLISHED, split_of

import segue

PEER_SECONDS = 896
CONFIG = replace(PUBLISHED, history_length=101)


def main() -> None:
    """Train some epochs without validation and write the seconds of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    epochs = parser.parse_args().epochs
    hardware = common.machine() | {"threads": torch.get_num_threads()}
    train = split_of("published", 0).refit
    training = replace(AS_PUBLISHED, epochs=epochs)
    seconds, parameters = {}, {}
    for name, config in {"per rating": CONFIG, "shared": replace(CONFIG, contexts="shared")}.items():
        fitted = segue.fit(config, train, training=training)
        seconds[name] = round(fitted.metadata["training"]["seconds_per_epoch"], 1)
        parameters[name] = sum(parameter.numel() for parameter in fitted.model.parameters())
    result = {
        "what": "ARERec in its published setting on MovieLens 100K, seconds per epoch",
        "seconds_per_epoch": seconds,
        "parameters": parameters,
        "ratings": train.n_interactions,
        "epochs": epochs,
        "peer_seconds_per_epoch": PEER_SECONDS,
        "times_faster": round(PEER_SECONDS / seconds["per rating"], 1),
        "config": CONFIG.to_dict(),
        "training": training.to_dict(),
        "date": common.today(),
        "versions": common.versions("torch", "numpy"),
        "hardware": hardware,
    }
    print(common.write("arerec_speed", result).read_text())


if __name__ == "__main__":
    main()
