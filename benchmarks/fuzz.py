"""Reading of damaged files: random files of every format, damaged at random, for an hour or as long as one likes.

    python benchmarks/fuzz.py [--minutes 60] [--seed 0]

A fault is an error that is not meant for users, a file that takes more than ten seconds, or a file of which fewer rows
are read than an independent parser keeps. The result goes to benchmarks/results/fuzz.json, with the files of the first
faults, versions and hardware.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import common

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.data.reading import fuzzing

_KEPT = 20
"""Faults whose files are written down."""


def main() -> None:
    """Read damaged files and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the result")
    arguments = parser.parse_args()
    machine = common.machine()
    report = fuzzing.run(arguments.minutes * 60, arguments.seed)
    result = {
        "what": "damaged files of every format, read: faults are errors not meant for users, hangs and lost rows",
        "date": common.today(),
        "versions": common.versions("polars", "numpy"),
        "hardware": machine,
        "options": {"minutes": arguments.minutes, "seed": arguments.seed, "longest_seconds": fuzzing.LONGEST},
        "files": report.cases,
        "read": report.read,
        "refused": report.refused,
        "errors": dict(report.errors.most_common()),
        "rows_compared": report.rows_compared,
        "slowest_seconds": round(report.slowest, 2),
        "by_kind": dict(sorted(report.by_kind.items())),
        "faults": len(report.faults),
        "first_faults": [asdict(fault) for fault in report.faults[:_KEPT]],
    }
    print(common.write("fuzz", result, arguments.out).read_text())
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
