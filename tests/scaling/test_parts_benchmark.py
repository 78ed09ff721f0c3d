"""A short run of benchmarks/parts.py: every way of this machine writes the same lists."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "parts.py"


def test_every_way_writes_the_same_lists(tmp_path: Path) -> None:
    words = ["--users", "50", "--items", "60", "--length", "4", "--repeats", "1", "--print-only"]
    words += ["--ways", "bare", "alone", "processes-1", "processes-2"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result["median_seconds"]) == {"bare", "alone", "processes-1", "processes-2"}
    assert "gain of two workers: processes-1 over processes-2" in result["ratios"]
    assert not list(tmp_path.iterdir())
