"""Speed and memory of SASRec's training step on a GPU, in float32 and bfloat16, one axis at a time.

    python benchmarks/gpu.py                                  # writes results/gpu_<device>.json, some minutes
    python benchmarks/gpu.py --axis items --precision bf16
    python benchmarks/gpu.py --device cpu                     # a trial with small points; nothing is stored

The points are those of `scaling.py`, with larger steps and more heads, because the fast attention kernels take at most
a width of 256 per head. `attention` names the kernel that torch chose: flash, efficient or cudnn, or products and
softmax one by one. Memory is that which torch holds on the device. On the axis of the catalogue, ten items are
recommended to all users, including raw ids (once per size: the loss makes no difference). `share_of_products` compares
the matrix products of a step with a product of two 8192 × 8192 matrices in the same precision. A point that does not
fit is stored as failed. `scaling_pictures.py --name gpu_<device>` draws the result.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import common
import scaling
import torch
from steps import Point

WIDTH_OF_A_HEAD = 64
BASE = Point(device="cuda", length=128, width=128, heads=2, items=100_000, targets=65_536)
WIDTHS = (64, 128, 256, 512, 1_024)
AXES: dict[str, list[Point]] = {
    "length": [replace(BASE, length=length) for length in (32, 64, 128, 256, 512, 1_024, 2_048)],
    "width": [replace(BASE, width=width, heads=width // WIDTH_OF_A_HEAD) for width in WIDTHS],
    "items": [
        replace(BASE, items=items, loss=loss, users=50_000, recommend=loss == "softmax")
        for loss in ("sampled-softmax", "softmax")
        for items in (10_000, 100_000, 1_000_000, 10_000_000)
    ],
}
TRIAL = Point(length=16, items=100, targets=64)
SMALL: dict[str, list[Point]] = {
    "length": [TRIAL],
    "width": [replace(TRIAL, width=width, heads=width // WIDTH_OF_A_HEAD) for width in (64, 128)],
    "items": [replace(TRIAL, loss=loss, recommend=True) for loss in ("sampled-softmax", "softmax")],
}


def in_each(precisions: Sequence[str], axes: dict[str, list[Point]]) -> dict[str, list[Point]]:
    """Every point in every precision."""
    return {
        axis: [replace(point, precision=precision) for precision in precisions for point in points]
        for axis, points in axes.items()
    }


def device_facts() -> dict[str, Any]:
    """Name and properties of the GPU."""
    facts = torch.cuda.get_device_properties(0)
    return {
        "device": facts.name,
        "memory_gb": round(facts.total_memory / 1e9, 1),
        "compute_capability": f"{facts.major}.{facts.minor}",
        "cuda": torch.version.cuda,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def main() -> None:
    """Measure the requested axes and store them beside those already stored for this device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--precision", nargs="+", choices=["no", "bf16"], default=["no", "bf16"])
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of measured steps at each point")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a trial that stores nothing")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        scaling.measure(in_each(arguments.precision, SMALL), arguments.axis, 0.1, arguments.seed)
        return
    if not torch.cuda.is_available():
        raise SystemExit("There is no GPU that PyTorch can use here. --device cpu tries the script without one.")
    facts = common.provenance() | device_facts() | {"seed": arguments.seed, "seconds": arguments.seconds}
    found = scaling.measure(in_each(arguments.precision, AXES), arguments.axis, arguments.seconds, arguments.seed)
    name = "gpu_" + re.sub(r"[^a-z0-9]+", "_", facts["device"].lower()).strip("_")
    axes = common.read(name).get("axes", {}) | {axis: {**facts, "points": found[axis]} for axis in found}
    result = {
        "what": f"SASRec's training step on {facts['device']}: tokens per second and memory, one axis at a time",
        "base": dataclasses.asdict(BASE),
        "config": BASE.config.to_dict(),
        "axes": {axis: axes[axis] for axis in AXES if axis in axes},
    }
    print(common.write(name, result))


if __name__ == "__main__":
    main()
