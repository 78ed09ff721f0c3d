"""What the process gives back to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from segue.memory import keep_buffers, return_buffers


def resident_mb() -> float:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_buffers_go_back_to_the_system_when_asked() -> None:
    keep_buffers()  # otherwise glibc may return some of them by itself
    many = [np.ones(10_000) for _ in range(2_000)]  # 160 MB in pieces that share pages with their neighbours
    last = many[-1]  # nothing behind it: what is free lies in the middle
    held = resident_mb()
    del many
    kept = resident_mb()
    return_buffers()
    assert held - kept < 80
    assert held - resident_mb() > 120
    assert last.sum() == 10_000
