"""Seconds and memory of a preparation in shards, by one process and by several, against that of the whole.

    python benchmarks/shards.py [--rows 20000000] [--shards 8] [--processes 2] [--k-core 5] [--folder /data/tmp]
    python benchmarks/shards.py --rows 200000000 --users 2000000 --items 200000 --repeats 1 --only whole shared \
        --name shards_large

The log is a folder of Parquet files in random order of users. Each measurement runs in a fresh process, with one thread
of polars per process, so that a process is a core. The variants take turns, as often as `--repeats` says, and the run
with the median of the seconds stands for each. The merged arrays are compared with those of the whole, byte by
byte. The result goes to benchmarks/results/shards.json, with versions and hardware.

Memory is the highest resident memory of the process that prepares, or of its largest worker, and the same beyond a
process, or a worker, that has prepared a few rows (`added`): that part is Python, polars and its buffers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

USERS, ITEMS = 138_000, 27_000
SPAN = (789_652_009, 1_427_784_002)
MOST_ROWS = 2_500_000
"""Rows of a file."""
ARRAYS = ("items.npy", "offsets.npy", "times.npy", "ratings.npy", "by_item.npy")
VARIANTS = ("few", "few-shared", "whole", "alone", "shared")
"""A few rows; a few rows in shards by several processes; the whole log; shards by one process; shards by several."""


def make_log(folder: Path, rows: int, users: int, items: int) -> None:
    """Write Parquet files of ratings in random order: some items are far more popular than others."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    size = min(MOST_ROWS, -(-rows // 8))
    for number, start in enumerate(range(0, rows, size)):
        n = min(size, rows - start)
        columns = {
            "userId": rng.integers(1, users + 1, n),
            "movieId": (items * rng.random(n) ** 2.5).astype(np.int64) * 7 + 1,
            "rating": rng.integers(1, 11, n) / 2,
            "timestamp": rng.integers(*SPAN, n),
        }
        pl.DataFrame(columns).write_parquet(folder / f"{number:04d}.parquet")


def peak_mb(process: int | str) -> int:
    """Highest resident memory of a process, in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def is_worker(process: str) -> bool:
    """Check that a child has begun its own program: for a moment it is a copy of this process, with all its memory."""
    try:
        return b"spawn_main" in Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


class WorkerPeaks(threading.Thread):
    """Looks at the children of this process ten times a second; `highest` is the highest memory of any, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = 0

    def run(self) -> None:
        """Look until the process ends."""
        while True:
            children = [task.read_text().split() for task in Path("/proc/self/task").glob("*/children")]
            workers = [child for some in children for child in some if is_worker(child)]
            self.highest = max([self.highest, *map(peak_mb, workers)])
            time.sleep(0.1)


def measure(variant: str, arguments: argparse.Namespace) -> dict[str, object]:
    """Prepare the log in this process, or in workers of it, and report time and memory."""
    import segue

    began, phases = time.perf_counter(), {}
    peaks = WorkerPeaks()
    peaks.start()

    def watch(step: str, share: float) -> None:
        phases[step.partition(",")[0].partition(" (")[0]] = round(time.perf_counter() - began, 2)

    log, out = arguments.folder / ("few-log" if variant.startswith("few") else "log"), arguments.folder / variant
    steps: object
    if variant in ("few", "whole"):
        steps = segue.prepare(log, k_core=arguments.k_core, out=out, progress=watch).metadata["steps"]
    else:
        engine = segue.Engine(processes=1 if variant == "alone" else arguments.processes)
        made = segue.prepare_shards(
            log, out, shards=arguments.shards, engine=engine, k_core=arguments.k_core, progress=watch
        )
        steps = made.metadata["steps"]
    seconds = time.perf_counter() - began
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(time.process_time() + workers.ru_utime + workers.ru_stime, 2),
        "peak_mb": peak_mb("self"),
        "peak_of_a_worker_mb": peaks.highest or None,
        "done_after_seconds": phases,
        "steps": steps,
    }


def median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run with the median of the seconds (the slower of two in the middle), with the seconds of all runs."""
    ordered = sorted(runs, key=lambda run: run["seconds"])
    return ordered[len(ordered) // 2] | {"seconds_of_runs": [run["seconds"] for run in runs]}


def equal(folder: Path) -> bool:
    """Return whether the merged shards have the arrays and the ids of the whole."""
    import segue

    segue.Shards.open(folder / "shared").merged(folder / "merged")
    files = [*ARRAYS, "users.parquet", "items.parquet"]
    return all((folder / "whole" / name).read_bytes() == (folder / "merged" / name).read_bytes() for name in files)


def main() -> None:
    """Make the log, measure each variant in a fresh process, write the result."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--k-core", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=VARIANTS[2:], help="some of the ways, without a comparison")
    parser.add_argument("--name", default="shards", help="name of the result")
    parser.add_argument("--folder", type=Path, help="folder to work in; a temporary one when not given")
    parser.add_argument("--measure", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments)))
        return
    import common  # it imports PyTorch, which a preparation does without

    variants = VARIANTS if arguments.only is None else (*VARIANTS[:2], *arguments.only)
    names = ("rows", "users", "items", "shards", "processes", "k_core")
    options = {name: getattr(arguments, name) for name in names}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_log(folder / "few-log", 10_000, 100, 50)
        make_log(folder / "log", arguments.rows, arguments.users, arguments.items)
        machine = common.machine()
        runs: dict[str, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(arguments.repeats):
            for variant in variants:
                command = [sys.executable, __file__, *words, "--folder", name, "--measure", variant]
                environment = os.environ | {"POLARS_MAX_THREADS": "1"}
                printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
                runs[variant].append(json.loads(printed))
                print(variant, runs[variant][-1], file=sys.stderr, flush=True)
        measured = {variant: median(found) for variant, found in runs.items()}
        same = equal(folder) if arguments.only is None else None
        log_mb = sum(file.stat().st_size for file in (folder / "log").iterdir()) >> 20
    result = {
        "what": f"Preparation of {arguments.rows:,} ratings ({log_mb} MB of Parquet) in {arguments.shards} shards",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        "options": options,
        **measured,
    }
    if arguments.only is None:
        worker = measured["shared"]["peak_of_a_worker_mb"] - measured["few-shared"]["peak_of_a_worker_mb"]
        whole = measured["whole"]["peak_mb"] - measured["few"]["peak_mb"]
        result |= {
            "merged_equals_whole": same,
            "times_as_fast_as_one_process": round(measured["alone"]["seconds"] / measured["shared"]["seconds"], 2),
            "added_by_a_worker_mb": worker,
            "added_by_the_whole_mb": whole,
            "memory_of_a_worker_as_share_of_the_whole": round(worker / max(whole, 1), 3),
        }
    print(common.write(arguments.name, result).read_text())


if __name__ == "__main__":
    main()
