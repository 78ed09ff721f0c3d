"""Speed and memory of training against histories, width, catalogue and log, one axis at a time.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py                  # all axes, less than ten minutes on one core
    OMP_NUM_THREADS=1 python benchmarks/scaling.py --axis items     # one of them; the others stay as they are stored
    OMP_NUM_THREADS=1 python benchmarks/scaling.py --small          # a trial of a minute; nothing is stored

The steps are those of the trainer that `segue.fit` uses, on simulated data with popular and rare items. Each point runs
in its own process (`steps.py`). A token is a real input that a step learns from. `share_of_products` is the time of the
matrix products of a step, forward and backward, at the speed of a product of two 1024 × 1024 matrices in the same
process, divided by the time of the step. The result goes to results/scaling.json; `scaling_pictures.py` draws it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import common
from steps import Point, in_own_process

Runs = dict[str, list[dict[str, Any]]]

BASE = Point()
AXES: dict[str, list[Point]] = {
    "length": [replace(BASE, length=length) for length in (16, 32, 64, 128, 256, 512)],
    "width": [replace(BASE, width=width) for width in (32, 64, 128, 256, 512)],
    "items": [
        replace(BASE, items=items, loss=loss)
        for loss in ("sampled-softmax", "softmax")
        for items in (1_000, 10_000, 100_000, 1_000_000)
    ],
    "interactions": [replace(BASE, interactions=10**5 * times) for times in (1, 5, 20, 50, 200)],
}
SMALL: dict[str, list[Point]] = {
    "length": [replace(BASE, length=length) for length in (16, 64)],
    "width": [replace(BASE, width=width) for width in (32, 64)],
    "items": [
        replace(BASE, items=items, loss=loss) for loss in ("sampled-softmax", "softmax") for items in (1_000, 5_000)
    ],
    "interactions": [replace(BASE, interactions=n) for n in (20_000, 100_000)],
}


def measure(axes: dict[str, list[Point]], chosen: Sequence[str], seconds: float, seed: int) -> Runs:
    """Measure every point of the requested axes, one after the other."""
    found: Runs = {}
    for axis in chosen:
        found[axis] = []
        for point in axes[axis]:
            begun, load = time.perf_counter(), common.machine()["load_before"]
            asked = replace(point, seconds=seconds, seed=seed)
            row = {axis: getattr(point, axis), "loss": point.loss, "precision": point.precision}
            row |= in_own_process(asked)
            found[axis].append(row | {"load_before": load, "took_seconds": round(time.perf_counter() - begun, 1)})
            print(json.dumps(found[axis][-1]), flush=True)
    return found


def main() -> None:
    """Measure the requested axes and store them beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--seconds", type=float, default=BASE.seconds, help="seconds of measured steps at each point")
    parser.add_argument("--seed", type=int, default=BASE.seed)
    parser.add_argument("--small", action="store_true", help="small points; nothing is stored")
    arguments = parser.parse_args()
    facts = common.provenance()
    found = measure(SMALL if arguments.small else AXES, arguments.axis, arguments.seconds, arguments.seed)
    if arguments.small:
        return
    facts |= {"seed": arguments.seed, "seconds": arguments.seconds}
    axes = common.read("scaling").get("axes", {}) | {axis: {**facts, "points": found[axis]} for axis in found}
    result = {
        "what": "SASRec's training step: tokens (real inputs learnt from) per second and memory, one axis at a time",
        "base": dataclasses.asdict(BASE),
        "config": BASE.config.to_dict(),
        "axes": {axis: axes[axis] for axis in AXES if axis in axes},
    }
    print(common.write("scaling", result))


if __name__ == "__main__":
    main()
