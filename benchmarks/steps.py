"""Speed and memory of SASRec's training step at one point of an axis, measured in the trainer of `segue.fit`.

`python benchmarks/steps.py '<point as JSON>'` measures one point in its own process, so that the peak memory is the
point's, and prints the result. `scaling.py` and `gpu.py` start it.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import common
import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

import segue
from segue.data.ragged import Int64, offsets_of
from segue.data.vocabulary import Vocabulary
from segue.memory import keep_buffers
from segue.models.sasrec import SASRecModel
from segue.training.batches import plan_epoch
from segue.training.deferred import PERIOD
from segue.training.trainer import Trainer

HISTORY = 50
"""Mean interactions of a user in a log of a given size."""


@dataclass(frozen=True)
class Point:
    """Point of an axis; everything else is a default of `segue.SASRec` and `segue.Training`."""

    length: int = 64
    """Inputs of every history."""
    width: int = 64
    """Width of the item vectors and of the hidden states."""
    heads: int = 1
    """Attention heads."""
    items: int = 20_000
    """Items in the catalogue."""
    loss: Literal["sampled-softmax", "softmax"] = "sampled-softmax"
    """Shared negatives, or all items."""
    targets: int = 4_096
    """Targets per step, and as many real inputs."""
    users: int | None = None
    """Number of histories; if not given, enough for four steps."""
    interactions: int | None = None
    """Interactions of a log with histories of all lengths, which is made and prepared; if not given, histories have one
    length."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of the training."""
    precision: Literal["no", "bf16"] = "no"
    """Value of `Training.precision`."""
    recommend: bool = False
    """Also recommend ten items to all users."""
    seconds: float = 3.0
    """Seconds of measurement after a few warm-up steps: at least two steps, or one that takes very long."""
    seed: int = 0
    """Seed of the log, the weights and the training."""

    @property
    def config(self) -> segue.SASRec:
        """Config of the model."""
        sizes = {"width": self.width, "heads": self.heads, "max_length": self.length}
        return segue.SASRec(**sizes, loss=self.loss, frequency=0.0, transitions=False)


def in_own_process(point: Point) -> dict[str, Any]:
    """Result of `measured` in its own process, which shares standard error."""
    command = [sys.executable, __file__, json.dumps(dataclasses.asdict(point))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(point: Point) -> dict[str, Any]:
    """All measurements at one point, in this process."""
    keep_buffers()
    dtype = torch.bfloat16 if point.precision == "bf16" else torch.float32
    size = 8_192 if point.device != "cpu" else 1_024 if dtype == torch.float32 else 128  # CPUs may emulate bfloat16
    peak = common.speed_of_products(size, point.device, dtype)
    dataset, found = made_histories(point), {}
    if point.interactions:
        dataset, found = prepared(point)
    forget_peak(point.device)
    before = resident(point.device)
    try:
        trainer, speed = trained(point, dataset)
        found |= speed
        found |= in_memory(trainer, before, peak_memory(point.device))
        if point.interactions:
            del found["added_mb"]  # training reuses the memory that preparing has left
        if point.recommend:
            found |= recommended(trainer, dataset)
    except torch.OutOfMemoryError:
        return found | {"failed": "out of memory"}
    peak = statistics.mean([peak, common.speed_of_products(size, point.device, dtype)])
    return found | {"products_gflops": round(peak / 1e9, 1), "share_of_products": _share(found, peak)}


def _share(found: dict[str, Any], peak: float) -> float | None:
    """Speed of the step relative to a large matrix product; None if steps have different shapes."""
    if "gflop_per_step" not in found:
        return None
    return round(found["gflop_per_step"] * 1e9 / found["seconds_per_step"] / peak, 3)


# ---- training --------------------------------------------------------------------------------------------------------


def trained(point: Point, dataset: segue.Dataset) -> tuple[Trainer, dict[str, Any]]:
    """Trainer after some steps, and their speed."""
    torch.manual_seed(point.seed)
    model = point.config.resolved(dataset).build(dataset.n_users, dataset.n_items)
    begun = time.perf_counter()
    examples = model.examples(dataset)
    per_step = max(1, round(point.targets / examples.weights.mean()))
    batches = plan_epoch(examples.lengths, examples.weights, per_step, np.random.default_rng(point.seed))
    planned = time.perf_counter() - begun
    # A log of such a large catalogue would be many times as long as this one, and so would its epochs.
    large = point.items >= 100_000 and point.loss == "sampled-softmax" and point.device == "cpu"
    settings = segue.Training(
        batch_size=per_step,
        precision=point.precision,
        cpu=point.device == "cpu",
        seed=point.seed,
        row_updates="always" if large else "auto",
    )
    accelerator = Accelerator(cpu=settings.cpu, mixed_precision=settings.precision)
    trainer = Trainer(model, examples, settings, None, None, {}, accelerator)
    trainer.wrapped.train()
    begun = time.perf_counter()
    counted = matrix_operations(trainer, batches[0])
    very_long = time.perf_counter() - begun > 10 * point.seconds
    _steps(trainer, batches, 0 if very_long else point.seconds / 3, least=0)
    seconds, terms = _steps(trainer, batches, point.seconds, least=1 if very_long else 2)
    generator = np.random.default_rng(point.seed)
    begun = time.perf_counter()
    examples.batch(batches[0], generator)
    batch_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    trainer.optimizer.settle()
    settling = (time.perf_counter() - begun) / PERIOD  # each step's part of the periodic work
    found: dict[str, Any] = {
        "tokens_per_second": round(statistics.median(n / (s + settling) for n, s in zip(terms, seconds, strict=True))),
        "seconds_per_step": round(statistics.median(seconds) + settling, 5),
        "seconds_to_make_a_batch": round(batch_seconds, 5),
        "steps": len(seconds),
        "targets_per_step": round(statistics.mean(terms)),
    }
    if point.interactions:
        return trainer, found | {"seconds_to_plan_an_epoch": round(planned, 2)}
    return trainer, found | {
        "gflop_per_step": round(sum(counted.values()) / 1e9, 3),
        "attention": attention_kernel(counted),
    }


def _steps(trainer: Trainer, batches: Sequence[Int64], seconds: float, least: int) -> tuple[list[float], list[int]]:
    """Times and real inputs of the steps through batches for a number of seconds."""
    device, taken, terms = trainer.accelerator.device.type, list[float](), list[int]()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < least:
        index, step = batches[len(taken) % len(batches)], trainer.state.step
        common.settle(device)
        begun = time.perf_counter()
        trainer._step(index, step)
        common.settle(device)
        taken.append(time.perf_counter() - begun)
        terms.append(int(trainer.examples.weights[index].sum()))
        trainer.state.step += 1
    return taken, terms


def matrix_operations(trainer: Trainer, index: Int64) -> dict[str, int]:
    """Floating-point operations of a step, forward and backward, by operator of a matrix product.

    Products of attention count in full, though half of each is masked. So do scores that a full softmax over a large
    catalogue makes a second time to save memory.
    """
    with FlopCounterMode(display=False) as counter:
        trainer._step(index, 0)
    return {str(operator): count for operator, count in counter.get_flop_counts()["Global"].items()}


def attention_kernel(counted: dict[str, int]) -> str:
    """Torch kernel that computed the attention."""
    for kernel in ("flash", "cudnn", "efficient"):
        if any(f"scaled_dot_product_{kernel}" in operator for operator in counted):
            return kernel
    return "products and softmax, one by one"


# ---- recommending ----------------------------------------------------------------------------------------------------


def recommended(trainer: Trainer, dataset: segue.Dataset) -> dict[str, Any]:
    """Users per second of ten items for all users, including raw ids, in the second of two passes."""
    assert isinstance(trainer.model, SASRecModel)
    recommender = segue.Recommender(trainer.model, dataset, {})
    for _ in range(2):
        begun = time.perf_counter()
        lists = recommender.recommend(segue.EVERYONE, k=10)
        seconds = time.perf_counter() - begun
    assert len(lists) == 10 * dataset.n_users
    return {"users": dataset.n_users, "recommended_users_per_second": round(dataset.n_users / seconds)}


# ---- memory ----------------------------------------------------------------------------------------------------------


def in_memory(trainer: Trainer, before: float, peak: float) -> dict[str, Any]:
    """Megabytes: the highest overall, those that the model and its steps add, and the least that they need."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in trainer.model.parameters()) / 1e6
    return {
        "peak_mb": round(peak),
        "added_mb": round(peak - before),
        "weights_gradients_moments_mb": round(4 * weights, 1),
    }


def forget_peak(device: str) -> None:
    """Reset the peak of memory, if the system can."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory(device: str) -> float:
    """Highest megabytes of this process, or of its GPU memory."""
    return torch.cuda.max_memory_allocated() / 1e6 if device != "cpu" else _status("VmHWM")


def resident(device: str) -> float:
    """Current megabytes."""
    return torch.cuda.memory_allocated() / 1e6 if device != "cpu" else _status("VmRSS")


def _status(name: str) -> float:
    """Value of a line of /proc/self/status; outside Linux the highest resident memory so far.

    `ru_maxrss` would not do on Linux: a new process begins with the peak of its parent.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1_024 / 1e6


# ---- simulated data --------------------------------------------------------------------------------------------------


def made_histories(point: Point) -> segue.Dataset:
    """Dataset of histories of one length, made directly from arrays."""
    rng = np.random.default_rng(point.seed)
    users = point.users or 4 * max(1, round(point.targets / point.length))
    drawn = popular_items(rng, users * (point.length + 1), point.items)
    lengths = np.full(users + 1, point.length + 1)
    lengths[0] = 0
    ids = (Vocabulary(np.arange(1, size + 1)) for size in (users, point.items))
    return segue.Dataset(drawn, offsets_of(lengths), *ids)


def made_log(point: Point) -> pl.DataFrame:
    """Log in random order; users differ in activity, items in popularity."""
    rng = np.random.default_rng(point.seed)
    n = point.interactions or 0
    activity = np.cumsum(np.minimum(rng.lognormal(0.0, 1.1, max(2, n // HISTORY)), 60.0))
    users = np.searchsorted(activity, rng.random(n, dtype=np.float32) * activity[-1]).astype(np.int32)
    times = rng.integers(0, 10**9, n)
    return pl.DataFrame({"user": users, "item": popular_items(rng, n, point.items), "time": times})


def popular_items(rng: np.random.Generator, n: int, items: int) -> npt.NDArray[np.int32]:
    """Codes (n,) from 1, nearly Zipf-distributed; popular codes are anywhere in the catalogue."""
    popularity = np.cumsum(1 / np.arange(10, items + 10) ** 0.9)
    ranks = np.searchsorted(popularity, rng.random(n) * popularity[-1])
    return (rng.permutation(items).astype(np.int32) + 1)[ranks]


def prepared(point: Point) -> tuple[segue.Dataset, dict[str, Any]]:
    """Dataset of a simulated log, and the time and memory of `segue.prepare`."""
    frame = made_log(point)
    forget_peak("cpu")
    before, begun = resident("cpu"), time.perf_counter()
    dataset = segue.prepare(frame)
    seconds = time.perf_counter() - begun
    kept = [dataset.items, dataset.times, dataset.offsets]
    size = sum(array.nbytes for array in kept if array is not None)
    size += dataset.users.ids.estimated_size() + dataset.catalogue.ids.estimated_size()
    return dataset, {
        "users": dataset.n_users,
        "prepare_seconds": round(seconds, 2),
        "prepare_added_mb": round(peak_memory("cpu") - before),
        "bytes_per_interaction": round(size / dataset.n_interactions, 2),
    }


if __name__ == "__main__":
    print(json.dumps(measured(Point(**json.loads(sys.argv[1])))))
