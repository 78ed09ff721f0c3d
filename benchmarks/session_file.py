"""Seconds from PARSRec's session file to a split Dataset: 1,024 users × 100 sessions (parsrec/synthetic.txt).

    python benchmarks/session_file.py

Reading, preparing to a folder, opening it and splitting run in a fresh process, three times; the fastest counts.
PARSRec's own script converts the same file into a binary one in 217 s of CPU time, on the same kind of machine. The
result goes to benchmarks/results/session_file.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

FILE = "parsrec/synthetic.txt"
REFERENCE = {"cpu_seconds": 217}
RUNS = 3


def measure(source: Path, out: Path) -> dict[str, object]:
    """Prepare and split in this process and report time and memory, including the import of segue."""
    began, phases = time.perf_counter(), {}
    import segue

    segue.prepare(source, out=out)
    phases["prepare"] = round(time.perf_counter() - began, 3)
    dataset = segue.Dataset.open(out)
    phases["open"] = round(time.perf_counter() - began, 3)
    split = segue.last_session_out(dataset)
    return {
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time(), 3),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "done_after_seconds": phases,
        "sizes": {
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": dataset.n_interactions,
            "sessions": len(dataset.sessions),
            "validation_sessions": len(split.validation),
            "test_sessions": len(split.test),
        },
    }


def main() -> None:
    """Measure in fresh processes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    folder = os.environ.get("SEGUE_TEST_DATA")
    if not folder:
        raise SystemExit(f"Set SEGUE_TEST_DATA to the folder that holds {FILE}.")
    source, machine = Path(folder) / FILE, common.machine()
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(RUNS):
            command = [sys.executable, __file__, "--measure", str(source), str(Path(scratch) / str(number))]
            runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    best = min(runs, key=lambda run: run["seconds"])
    result = {
        "what": f"{FILE} ({source.stat().st_size / 1e6:.1f} MB) read, prepared to a folder, opened and split",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        **best,
        "seconds_of_all_runs": [run["seconds"] for run in runs],
        "reference": REFERENCE,
        "target": {"seconds": 3},
    }
    print(common.write("session_file", result).read_text())


if __name__ == "__main__":
    main()
