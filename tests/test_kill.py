"""A short run of benchmarks/kill.py: one kill of each command, in a process that forks others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "kill.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks, and counts file events")
def test_nothing_is_lost_and_nothing_stays(tmp_path: Path) -> None:
    words = ["--kills", "6", "--print-only", "--only", "prepare", "recommend", "save", "simulate"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False, env=environment
    )
    result = json.loads(done.stdout)
    assert result["faults"] == [] and done.returncode == 0
    assert result["killed_before_the_end"] > 0
    assert not list(tmp_path.iterdir())
