"""Seconds and peak memory of `segue.prepare` on a CSV file of 20 million ratings (138,000 users, 27,000 items).

    python benchmarks/prepare.py [--rows 20000000] [--k-core 5]

The file is made anew, and the preparation runs in a fresh process. The result goes to benchmarks/results/prepare.json,
with versions and hardware.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import polars as pl

USERS, ITEMS = 138_000, 27_000


def make_log(path: Path, rows: int) -> None:
    """Write a ratings file in random order: some items are far more popular than others, times span twenty years."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "userId": rng.integers(1, USERS + 1, rows),
            "movieId": (ITEMS * rng.random(rows) ** 2.5).astype(np.int64) * 7 + 1,
            "rating": rng.integers(1, 11, rows) / 2,
            "timestamp": rng.integers(789_652_009, 1_427_784_002, rows),
        }
    )
    frame.write_csv(path)


def measure(path: Path, out: Path, k_core: int) -> dict[str, object]:
    """Prepare the file in this process and report time and memory."""
    import segue

    began, phases = time.perf_counter(), {}

    def watch(what: str, share: float) -> None:
        what = what.partition(" (")[0]
        phases[what] = round(time.perf_counter() - began, 2)

    dataset = segue.prepare(path, k_core=k_core, out=out, progress=watch)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "done_after_seconds": phases,
        "steps": dataset.metadata["steps"],
        "dataset_mb": sum(file.stat().st_size for file in out.iterdir()) >> 20,
    }


def main() -> None:
    """Make the file, measure in a fresh process, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--k-core", type=int, default=5)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.k_core)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "ratings.csv", Path(folder) / "dataset"
        make_log(path, arguments.rows)
        machine = common.machine()
        command = [sys.executable, __file__, "--k-core", str(arguments.k_core), "--measure", str(path), str(out)]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = path.stat().st_size >> 20
    result = {
        "what": f"segue.prepare of a CSV file of {arguments.rows:,} ratings, {size} MB, to a Dataset folder",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        "options": {"rows": arguments.rows, "users": USERS, "items": ITEMS, "k_core": arguments.k_core},
        **measured,
    }
    print(common.write("prepare", result).read_text())


if __name__ == "__main__":
    main()
