"""Appending one percent to a log of 20 million interactions, against preparing all of it; and its peak memory.

    python benchmarks/append.py [--rows 20000000] [--share 0.01] [--ratings]

The log has as many users and items as MovieLens 20M. The appended interactions are newer than all others, of random
known users, with one percent of new users and items among them. Each measurement runs in a fresh process. The result
goes to benchmarks/results/append.json, with versions and hardware.
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
SPAN = (789_652_009, 1_427_784_002)
DAY = 86_400


def make_logs(folder: Path, rows: int, share: float, ratings: bool) -> None:
    """Write `old.csv`, `new.csv` and `all.csv`."""
    rng = np.random.default_rng(0)
    added = round(rows * share)

    def frame(n: int, users: int, items: int, times: tuple[int, int]) -> pl.DataFrame:
        columns = {
            "userId": rng.integers(1, users + 1, n),
            "movieId": (items * rng.random(n) ** 2.5).astype(np.int64) * 7 + 1,
            "timestamp": rng.integers(*times, n),
        }
        return pl.DataFrame(columns | ({"rating": rng.integers(1, 11, n) / 2} if ratings else {}))

    old = frame(rows, USERS, ITEMS, SPAN)
    new = frame(added, round(USERS * 1.01), round(ITEMS * 1.01), (SPAN[1], SPAN[1] + DAY))
    for name, log in (("old", old), ("new", new), ("all", pl.concat([old, new]))):
        log.write_csv(folder / f"{name}.csv")


def measure(folder: Path, what: str) -> dict[str, object]:
    """Prepare or append in this process and report time and memory."""
    import segue

    began, phases = time.perf_counter(), {}

    def watch(step: str, share: float) -> None:
        phases[step.partition(" (")[0]] = round(time.perf_counter() - began, 2)

    if what == "append":
        data = segue.Dataset.open(folder / "old").append(folder / "new.csv", out=folder / "grown", progress=watch)
    else:
        data = segue.prepare(folder / f"{what}.csv", out=folder / what, progress=watch)
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "done_after_seconds": phases,
        "interactions": data.n_interactions,
    }


def main() -> None:
    """Make the logs, measure in fresh processes, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--ratings", action="store_true")
    parser.add_argument("--folder", type=Path, help="folder to work in; a temporary one when not given")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.folder, arguments.measure)))
        return
    measured = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_logs(folder, arguments.rows, arguments.share, arguments.ratings)
        machine = common.machine()
        for what in ("old", "all", "append"):
            command = [sys.executable, __file__, "--folder", str(folder), "--measure", what]
            measured[what] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    name = "append_ratings" if arguments.ratings else "append"
    result = {
        "what": f"Appending {arguments.share:.0%} to {arguments.rows:,} interactions, against preparing all of them",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        "options": {"rows": arguments.rows, "share": arguments.share, "users": USERS, "items": ITEMS},
        "prepare_all": measured["all"],
        "append": measured["append"],
        "share_of_the_time": round(measured["append"]["seconds"] / measured["all"]["seconds"], 4),
    }
    print(common.write(name, result).read_text())


if __name__ == "__main__":
    main()
