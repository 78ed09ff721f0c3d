"""Seconds and peak memory of simulating one million sessions: 10,000 users × 100, 2,000 items, to a Parquet file.

    python benchmarks/simulate.py [--users 10000] [--sessions 100]

The simulation runs in a fresh process. The result goes to benchmarks/results/simulate.json, with versions and hardware.
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

CATEGORIES, PRODUCTS = 20, 100


def measure(path: Path, users: int, sessions: int) -> dict[str, object]:
    """Simulate in this process and report time and memory, including the import of segue."""
    began = time.perf_counter()
    import segue

    made = segue.simulate(
        users, sessions, categories=CATEGORIES, products=PRODUCTS, price_effect=0.1, shortest=3, longest=10
    )
    made.save(path)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Measure in a fresh process, count the written sessions, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.users, arguments.sessions)))
        return
    import polars as pl

    with tempfile.TemporaryDirectory() as folder:
        path, machine = Path(folder) / "shop.parquet", common.machine()
        sizes = ["--users", str(arguments.users), "--sessions", str(arguments.sessions)]
        command = [sys.executable, __file__, *sizes, "--measure", str(path)]
        measured = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        log = pl.scan_parquet(path)
        counts = log.select(
            interactions=pl.len(),
            sessions=pl.struct("user", "session").n_unique(),
            items_taken=pl.col("item").n_unique(),
        )
        found = counts.collect().row(0, named=True)
    result = {
        "what": f"segue.simulate of {found['sessions']:,} sessions, {found['interactions']:,} rows, to Parquet",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        "options": {"users": arguments.users, "sessions": arguments.sessions, "items": CATEGORIES * PRODUCTS},
        "written": found,
        **measured,
        "target": {"seconds": 60, "peak_mb": 2000},
    }
    print(common.write("simulate", result).read_text())


if __name__ == "__main__":
    main()
