"""Memory and traffic of SASRec with tables divided over processes, against one process that holds everything.

    OMP_NUM_THREADS=1 python benchmarks/divided_tables.py --items 1000000
    OMP_NUM_THREADS=1 python benchmarks/divided_tables.py --items 10000000 --processes 4
    OMP_NUM_THREADS=1 python benchmarks/divided_tables.py --items 10000000 --processes 1
    OMP_NUM_THREADS=1 python benchmarks/divided_tables.py --items 1000000 --processes 2 --whole

Each run is a whole `segue.fit` with a folder, for one epoch of few steps, on made data: users with 64 interactions with
popular and rare items, width 64, 2 blocks, 512 shared negatives, about 4,096 targets per step, all options of the
training at their defaults. It runs in a network namespace of its own, if the system allows it, so that the bytes on its
loopback interface are those of the training. With --whole every process holds the whole tables, as without
`divide_tables`; the gradients of their rows then travel to all. The result goes to results/divided_tables.json, a row
for each number of items and processes:

- peak_mb: highest resident memory of the process that takes most, files that it has mapped included;
- anonymous_mb: the same without mapped files, read every 20 ms;
- sent_kb: bytes that a process sends for divided tables in a step, codes and numbers of rows included, and rows_kb:
  those of the rows read from other processes and of their gradients alone, means over processes and steps;
- dense_kb: bytes that a process sends in a step to add up the gradients of all other weights;
- network_kb: bytes on the interface per step and process, with all headers, for steps alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

import segue

WIDTH, LENGTH, NEGATIVES, TARGETS = 64, 64, 512, 4_096
STEPS = 12


def made_dataset(items: int, seed: int) -> segue.Dataset:
    """Users of 64 interactions; the popularity of items falls as a power of their rank."""
    from segue.data.dataset import Dataset
    from segue.data.vocabulary import Vocabulary

    generator = np.random.default_rng(seed)
    users = STEPS * TARGETS // (LENGTH - 1)
    drawn = (items ** generator.random(users * LENGTH)).astype(np.int64)  # log-uniform: a power law
    codes = (drawn * 7_919 % items + 1).astype(np.int32)  # popular items anywhere among the codes
    offsets = np.concatenate([[0], np.arange(users + 1) * LENGTH])
    return Dataset(codes, offsets, Vocabulary(range(users)), Vocabulary(range(items)))


def train(folder: Path, items: int, seed: int, negatives: int, whole: bool) -> None:
    """Train in this process, as one of those that the environment names, and write the figures of this process."""
    import torch

    from segue.nn.divided import DividedTable
    from segue.training.trainer import Trainer

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    anonymous: list[int] = [0]
    threading.Thread(target=_watch, args=(anonymous,), daemon=True).start()
    data = segue.Dataset.open(folder / "data", verify=False)
    before = _status("VmHWM")
    steps: list[dict[str, float]] = []
    step = Trainer._step

    def counted(trainer: Trainer, index: Any, number: int) -> float:
        tables = [part for part in trainer.model.modules() if isinstance(part, DividedTable)]
        for table in tables:
            table.division.traffic.clear()
        network, begun, first = _network(), time.perf_counter(), time.process_time()
        loss = step(trainer, index, number)
        row = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - first, "loss": loss}
        row |= {"network": _network() - network}
        for table in tables:
            row |= {"sent": table.division.traffic.sent, "rows": table.division.traffic.rows}
        held = {id(table.weight) for table in tables}
        dense = [one for one in trainer.model.parameters() if id(one) not in held]
        row["dense"] = 2 * sum(one.nbytes for one in dense) * (world - 1) / world
        steps.append(row)
        return loss

    Trainer._step = counted  # type: ignore[method-assign]
    config = segue.SASRec(width=WIDTH, max_length=LENGTH, negatives=negatives, repeats=False, loss="sampled-softmax")
    training = segue.Training(
        epochs=1, batch_size=max(1, TARGETS // (LENGTH - 1)), divide_tables=world > 1 and not whole, cpu=True, seed=seed
    )
    segue.fit(config, data, training=training, out=folder / "run", quiet=True)
    figures = {
        "peak_mb": _status("VmHWM"),
        "anonymous_mb": anonymous[0] / 1000,
        "before_mb": before,
        "steps": steps,
        "threads": torch.get_num_threads(),
    }
    (folder / f"rank-{rank}.json").write_text(json.dumps(figures))


def _watch(highest: list[int]) -> None:
    """Keep the highest anonymous memory in kB."""
    while True:
        highest[0] = max(highest[0], int(_status("RssAnon") * 1000))
        time.sleep(0.02)


def _status(name: str) -> float:
    """A size of this process in MB (10⁶ bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1.024 / 1000
    return 0.0


def _network() -> int:
    """Bytes sent on the loopback interface of this network namespace."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split()[9])
    return 0


def measured(items: int, processes: int, seed: int, negatives: int, whole: bool, folder: Path) -> dict[str, Any]:
    """Train in fresh processes, and return the row of the result."""
    made_dataset(items, seed).save(folder / "data")
    words = [__file__, "--train", str(folder), "--items", str(items), "--seed", str(seed)]
    words += ["--negatives", str(negatives), *(["--whole"] if whole else [])]
    command = [sys.executable, *words]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launcher, "--master-addr", "127.0.0.1", "--master-port", "29500", *words]
    apart = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    alone = subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0
    if processes > 1 and not alone:
        raise SystemExit("this system allows no network namespace (unshare -rn): the bytes cannot be counted.")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    begun = time.perf_counter()
    subprocess.run([*(apart if alone else []), *command], check=True, env=environment)
    seconds = time.perf_counter() - begun
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(processes)]
    row = {name: round(max(rank[name] for rank in ranks), 1) for name in ("peak_mb", "anonymous_mb", "before_mb")}
    row |= {"items": items, "processes": processes, "negatives": negatives, "seed": seed}
    row["divided"] = processes > 1 and not whole
    row["took_seconds"] = round(seconds, 1)
    row["cpu_seconds_per_step"] = round(sum(_mean(rank, "cpu") for rank in ranks), 3)
    row["first_loss"] = float(np.mean([rank["steps"][0]["loss"] for rank in ranks]))
    row["table_mb"] = (items + 1) * WIDTH * 4 / 1e6
    if processes > 1:
        for name in ("sent", "rows", "dense") if row["divided"] else ():
            row[f"{name}_kb"] = round(float(np.mean([_mean(rank, name) for rank in ranks])) / 1000, 1)
        # Every process reads the counter of all; steps wait for each other.
        row["network_kb"] = round(float(np.mean([_mean(rank, "network") for rank in ranks])) / processes / 1000, 1)
    if row["divided"]:
        row["sent_over_rows"] = round(row["sent_kb"] / row["rows_kb"], 3)
    return row


def _mean(rank: dict[str, Any], name: str) -> float:
    """Mean over the steps of a process but the first, which connects the processes."""
    return float(np.mean([step[name] for step in rank["steps"][1:]]))


def main() -> None:
    """Measure one number of items with one number of processes, or with 1 and 4."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--negatives", type=int, default=NEGATIVES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", action="store_true", help="whole tables in every process")
    parser.add_argument("--trial", action="store_true", help="store nothing")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train is not None:
        train(arguments.train, arguments.items, arguments.seed, arguments.negatives, arguments.whole)
        return
    for processes in arguments.processes:
        folder = Path(tempfile.mkdtemp(prefix="divided-"))
        try:
            row = measured(arguments.items, processes, arguments.seed, arguments.negatives, arguments.whole, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(row), flush=True)
        if not arguments.trial:
            facts = common.provenance()
            what = "SASRec with divided tables: memory of the largest process, and bytes sent per step and process"
            common.add_run("divided_tables", what, row | facts, key=("items", "processes", "negatives", "divided"))


if __name__ == "__main__":
    main()
