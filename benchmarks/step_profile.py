"""Time of each part of a training step of SASRec, and its share of the machine's peak speed.

    OMP_NUM_THREADS=1 python benchmarks/step_profile.py --setting notebook     # benchmarks/notebook.py's, on Games
    OMP_NUM_THREADS=1 python benchmarks/step_profile.py --setting defaults

The parts of the forward pass and the operators come from torch's profiler; seconds are process time without it. The
time of a part is that of its operators, without its own parts. Floating-point operations are those of the matrix
products, counted by torch. The peak is that of a product of two 1024 × 1024 matrices, measured here. The result goes to
results/step_profile_<setting>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

import segue
from segue.memory import keep_buffers
from segue.models.next_item import NextItemLoss
from segue.nn.dropout import Dropout
from segue.nn.transformer import CausalAttention, Encoder, FeedForward
from segue.training.batches import plan_epoch
from segue.training.trainer import Trainer

CONFIGS = {
    "notebook": common.NOTEBOOK,
    "defaults": segue.SASRec(),
}
MODULES: dict[type[nn.Module], str] = {
    Encoder: "encoder, rest",
    CausalAttention: "attention",
    FeedForward: "feed-forward",
    nn.LayerNorm: "layer norm",
    Dropout: "dropout",
    nn.Embedding: "lookup",
}
STEPS, WARM, GOES = 30, 5, 20
"""Measured steps, warm-up steps before the first pass, and passes; the fastest pass of each step counts."""


def ranged(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Function with a profiler range of this name."""

    def within(*arguments: Any, **named: Any) -> Any:
        with record_function(f"part: {name}"):
            return call(*arguments, **named)

    return within


def mark(trainer: Trainer) -> None:
    """Name the parts of a step."""
    for module in trainer.model.modules():
        for kind, name in MODULES.items():
            if isinstance(module, kind):
                module.forward = ranged(name, module.forward)
    trainer.examples.batch = ranged("drawing the batch", trainer.examples.batch)
    NextItemLoss.__call__ = ranged("loss", NextItemLoss.__call__)
    trainer.accelerator.backward = ranged("backward", trainer.accelerator.backward)
    trainer.optimizer.step = ranged("optimizer", trainer.optimizer.step)


def profiled(trainer: Trainer, plan: list[Any]) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Shares of the parts, and the ten operators that take most time."""
    mark(trainer)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for step in range(STEPS):
            with record_function("part: rest"):
                trainer._step(plan[step], step)
    own: dict[str, float] = {}
    for event in found.events():
        if event.name.startswith("part: "):
            above = event.cpu_parent
            while above is not None and not above.name.startswith("part: "):
                above = above.cpu_parent
            own[event.name[6:]] = own.get(event.name[6:], 0.0) + event.cpu_time_total
            if above is not None:
                own[above.name[6:]] = own.get(above.name[6:], 0.0) - event.cpu_time_total
    whole = sum(own.values())
    operators = [one for one in found.key_averages() if one.key.startswith("aten::")]
    costly = sorted(operators, key=lambda one: -one.self_cpu_time_total)[:10]
    shares = {name: round(value / whole, 3) for name, value in sorted(own.items(), key=lambda pair: -pair[1])}
    return shares, [
        {"operator": one.key, "share": round(one.self_cpu_time_total / whole, 3), "calls": one.count // STEPS}
        for one in costly
    ]


def main() -> None:
    """Profile one setting and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=CONFIGS, default="notebook")
    setting = parser.parse_args().setting
    keep_buffers()
    train = segue.leave_last_out(common.dataset("games")).train
    config = CONFIGS[setting].resolved(train)
    chosen = dataclasses.replace(common.NOTEBOOK_TRAINING if setting == "notebook" else segue.Training(), cpu=True)
    torch.manual_seed(0)
    model = config.build(train.n_users, train.n_items)
    examples = model.examples(train)
    trainer = Trainer(model, examples, chosen, None, None, {}, Accelerator(cpu=True))
    plan = plan_epoch(examples.lengths, examples.weights, trainer.batch_size, np.random.default_rng(0))
    model.train()
    best = np.full(STEPS, np.inf)
    for go in range(GOES):
        for step in range(STEPS):
            begun = time.process_time()
            trainer._step(plan[step], step)
            if go or step >= WARM:
                best[step] = min(best[step], time.process_time() - begun)
    with FlopCounterMode(display=False) as counter:
        for step in range(STEPS):
            trainer._step(plan[step], step)
    flops, fastest = counter.get_total_flops() / STEPS, common.speed_of_products()
    shares, operators = profiled(trainer, plan)
    padded = sum(len(batch) * int(examples.lengths[batch].max()) for batch in plan)
    result = {
        "what": f"a training step of SASRec on Games, setting: {setting}",
        "seconds_per_step": round(float(best.mean()), 4),
        "steps_per_epoch": len(plan),
        "seconds_per_epoch": round(float(best.mean()) * len(plan), 2),
        "shares": shares,
        "costliest_operators": operators,
        "gigaflop_per_step": round(flops / 1e9, 2),
        "gigaflop_per_second": round(flops / best.mean() / 1e9, 1),
        "gigaflop_per_second_at_peak": round(fastest / 1e9, 1),
        "share_of_peak": round(flops / best.mean() / fastest, 2),
        "padding": round(1 - float(examples.lengths.sum()) / padded, 4),
        "config": config.to_dict(),
        "training": chosen.to_dict(),
        **common.provenance(),
    }
    print(common.write(f"step_profile_{setting}", result).read_text())


if __name__ == "__main__":
    main()
