"""Two limits: top-k beside the bare arithmetic that it needs, and memory of a full-softmax step beside its parameters.

    OMP_NUM_THREADS=1 python benchmarks/limits.py

Top-k runs over all items with seen items left out, for 20 items per user. It is compared with `torch.mm` and
`torch.topk` alone, on the same shapes and in the same chunks. Each figure is the best process time of several runs,
which take turns.

Memory is that of a training step of SASRec with one million items of width 64 and full softmax, in its own process. The
rise of its peak from just before the model is made is compared with the bytes of parameters, their gradients and Adam's
two moments. Both ratios must stay below 1.5. The result goes to results/limits.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import common
import numpy as np
import torch
from accelerate import Accelerator

import segue
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.vocabulary import Vocabulary
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS
from segue.inference.scoring.ranking import top_k
from segue.memory import keep_buffers
from segue.models.base import Model
from segue.models.scores import ProductScores
from segue.training.trainer import Trainer

SHAPES = {"games": (2048, 23_715), "beauty": (1024, 57_289), "a million": (128, 1_000_000)}
WIDTH, K, SEEN, RUNS = 64, 20, 9, 3
USERS, BATCH, ITEMS, LENGTH = 256, 128, 1_000_000, 9


class Users(NamedTuple):
    """Codes (n,) of users."""

    codes: torch.Tensor


class Vectors(Model):
    """Model with ready-made queries, so that only scoring and ranking take time."""

    max_history = 1

    def __init__(self, users: int, items: int) -> None:
        super().__init__(None, users, items)  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        self.users = torch.randn(users + 1, WIDTH, generator=generator)
        self.items = torch.randn(items + 1, WIDTH, generator=generator)

    def inputs(self, histories: Histories) -> Users:
        """Users of the histories."""
        return Users(torch.from_numpy(histories.users))

    def encode(self, inputs: Users) -> torch.Tensor:
        """Vectors (n, width) of the users."""
        return self.users[inputs.codes]

    def scores(self) -> ProductScores:
        """Products with the item vectors."""
        return ProductScores(self.items)


def bare(model: Vectors) -> None:
    """Matrix products and top-k in the chunks of `top_k`, and nothing else."""
    columns = model.n_items + 1
    width = min(columns, LIMITS.chunk_items)
    rows = max(1, min(LIMITS.histories, LIMITS.buffer_bytes // (4 * width)))
    buffer = torch.empty(rows * width)
    for first in range(1, model.n_users + 1, rows):
        queries = model.users[first : first + rows]
        for start in range(0, columns, width):
            stop = min(start + width, columns)
            scores = buffer[: len(queries) * (stop - start)].view(len(queries), -1)
            torch.mm(queries, model.items[start:stop].T, out=scores)
            scores.topk(K)


def ranking(users: int, items: int) -> dict[str, float]:
    """Seconds of both ways for a number of users and items, and their ratio."""
    model = Vectors(users, items)
    scorer = Scorer.of(model)
    generator = np.random.default_rng(0)
    ends = SEEN * np.arange(1, users + 1)
    seen = generator.integers(1, items + 1, SEEN * users).astype(np.int32)
    histories = Histories(np.arange(1, users + 1), seen, ends - SEEN, ends)
    seconds: dict[str, list[float]] = {"top_k": [], "bare": []}
    for _ in range(RUNS):
        for name, run in (("top_k", lambda: top_k(scorer, histories, K)), ("bare", lambda: bare(model))):
            begun = time.process_time()
            with torch.inference_mode():
                run()
            seconds[name].append(time.process_time() - begun)
    best = {name: min(found) for name, found in seconds.items()}
    return {
        "users": users,
        "items": items,
        **{f"{name}_seconds": round(value, 3) for name, value in best.items()},
        "ratio": round(best["top_k"] / best["bare"], 2),
    }


def peak_bytes() -> int:
    """Highest memory of this process so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def memory_of_a_step() -> dict[str, float]:
    """Memory of two full-softmax steps, to be run in its own process; the memory of a small catalogue is subtracted."""
    keep_buffers()
    many = _dataset(ITEMS)
    two_steps(_dataset(100))
    before = peak_bytes()
    model = two_steps(many)
    needed = 4 * sum(4 * parameter.numel() for parameter in model.parameters())
    used = peak_bytes() - before
    return {
        "items": ITEMS,
        "width": WIDTH,
        "targets_per_step": BATCH * (LENGTH - 1),
        "parameters_gradients_moments_mb": round(needed / 2**20),
        "peak_mb": round(used / 2**20),
        "ratio": round(used / needed, 2),
    }


def two_steps(dataset: Dataset) -> Model:
    """Model after two steps."""
    model = segue.SASRec(width=WIDTH, max_length=50, loss="softmax").build(USERS, dataset.n_items)
    training = segue.Training(batch_size=BATCH, cpu=True)
    trainer = Trainer(model, model.examples(dataset), training, None, None, {}, Accelerator(cpu=True))
    model.train()
    for step in range(2):
        trainer._step(np.arange(BATCH) + BATCH * step, step)
    return model


def _dataset(n_items: int) -> Dataset:
    offsets = np.concatenate([[0], np.arange(USERS + 1) * LENGTH])
    items = np.random.default_rng(0).integers(1, n_items + 1, USERS * LENGTH).astype(np.int32)
    return Dataset(items, offsets, Vocabulary(range(USERS)), Vocabulary(range(n_items)))


def main() -> None:
    """Measure both limits and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="measure only the memory of a step, in this process")
    if parser.parse_args().memory:
        print(json.dumps(memory_of_a_step()))
        return
    keep_buffers()
    ranked = {name: ranking(*shape) for name, shape in SHAPES.items()}
    child = subprocess.run(
        [sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True, env=os.environ
    )
    result = {
        "what": "top_k over the bare matrix product and top-k; peak memory of a full-softmax step over its parameters",
        "top_k": ranked,
        "memory": json.loads(child.stdout.splitlines()[-1]),
        **common.provenance(),
    }
    print(common.write("limits", result).read_text())


if __name__ == "__main__":
    main()
