"""Trainings that tests start in several processes: `torchrun … divided_runs.py FOLDER NAME …`.

Each NAME is a case of `CASES`. It is trained with whole tables into `FOLDER/whole-NAME`, and with divided tables into
`FOLDER/divided-NAME`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from segue.data.dataset import Dataset
from segue.data.simulation.simulate import simulate
from segue.data.splits.by_user import Split, leave_last_out
from segue.models.gru4rec import GRU4Rec
from segue.models.hstu import HSTU
from segue.models.sasrec import SASRec
from segue.models.ssept import SSEPT
from segue.training.config import Training
from segue.training.fit import fit
from segue.training.trainer import Trainer

sys.path.insert(0, str(Path(__file__).parent))
from runs import small_split

SASREC = {"width": 8, "blocks": 1, "max_length": 6, "dropout": 0.2, "transitions": False}
SHARED = {"loss": "sampled-softmax", "negatives": 7}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "shared": (SASRec(**SASREC, **SHARED), {}),
    "softmax": (SASRec(**{**SASREC, "dropout": 0.0}, loss="softmax"), {}),
    "always": (SASRec(**SASREC, **SHARED), {"row_updates": "always"}),
    "clipped": (SASRec(**SASREC, loss="gbce", negatives=3, embedding_l2=0.01), {"clip_norm": 0.05}),
    "repeats": (SASRec(**SASREC, **SHARED, repeats=True), {"optimizer": "adamw", "weight_decay": 0.1}),
    "sampled": (HSTU(width=8, blocks=1, max_length=6, transitions=False, **SHARED), {"validation_candidates": 5}),
    "users": (SSEPT(item_width=8, user_width=4, blocks=1, max_length=6, **SHARED), {"row_updates": "always"}),
    "recurrent": (GRU4Rec(width=8, layers=1, max_length=6, negatives=7), {}),
}


def split_of(name: str) -> Split:
    """The data of a case: walks through 20 items, or sessions with repeats."""
    if name == "repeats":
        data: Dataset = simulate(40, 6).dataset()
        return leave_last_out(data)
    return small_split()


def options(**changes: Any) -> Training:
    """Three epochs of a few steps."""
    plain = {"epochs": 3, "batch_size": 16, "seed": 3, "cpu": True, "averaging": 0.5, "metric": "ndcg@5"}
    return Training(**{**plain, "validation_exclude_seen": False, **changes})


def main(folder: Path, names: list[str]) -> None:
    """Train every case both ways, in the processes of torchrun."""
    torch.set_num_threads(1)
    module = importlib.import_module("segue.training.fit")
    module._leave_together = dist.barrier  # the group is for all trainings
    dist.init_process_group("gloo")
    steps: list[int] = []
    step = Trainer._step

    def interrupting(trainer: Trainer, index: Any, number: int) -> float:
        steps.append(number)
        if len(steps) == 5:
            trainer._stop.set()
        return step(trainer, index, number)

    for name in names:
        config, changes = CASES[name]
        for kind in ("whole", "divided"):
            training = options(divide_tables=kind == "divided", **changes)
            out = folder / f"{kind}-{name}"
            fit(config, split_of(name), training=training, out=out, refit=name == "always", quiet=True)
    if "left" in sys.argv[2:]:
        config, changes = CASES["shared"]
        training = options(divide_tables=True, keep_every=1, **changes)
        fit(config, split_of("shared"), training=training, out=folder / "left", quiet=True, resume=True)
    if "gathered" in sys.argv[2:]:
        config = SASRec(**SASREC, **SHARED)
        split = small_split(n_items=2_000)
        buffers: list[int] = []

        def looking(trainer: Trainer, index: Any, number: int) -> float:
            buffers.append(len(trainer.optimizer._buffers))  # type: ignore[union-attr]
            return step(trainer, index, number)

        Trainer._step = looking  # type: ignore[method-assign]
        for row_updates, expected in (("auto", 1), ("never", 0)):
            buffers.clear()
            fit(config, split, training=options(row_updates=row_updates), out=folder / row_updates, quiet=True)
            assert set(buffers) == {expected}
        Trainer._step = step  # type: ignore[method-assign]
    if "stopped" in sys.argv[2:]:
        config, changes = CASES["shared"]
        training = options(divide_tables=True, keep_every=1, **changes)
        Trainer._step = interrupting  # type: ignore[method-assign]
        try:
            fit(config, split_of("shared"), training=training, out=folder / "stopped", quiet=True)
            raise AssertionError("the training was not interrupted")
        except KeyboardInterrupt:
            Trainer._step = step  # type: ignore[method-assign]
        dist.barrier()
        if dist.get_rank() == 0:
            import shutil

            shutil.copytree(folder / "stopped", folder / "left")
        dist.barrier()
        fit(config, split_of("shared"), training=training, out=folder / "stopped", quiet=True, resume=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [name for name in sys.argv[2:] if name in CASES])
