"""Cores that this process may use, and how long its threads wait for one because other programs use them."""

from __future__ import annotations

import math
import os
import time
from functools import cache
from pathlib import Path

_PROCESS = Path("/proc/self")
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_QUOTA_1, _PERIOD_1 = (Path("/sys/fs/cgroup/cpu") / name for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
"""Microseconds of cores that a container may use in each period: of control groups 2, and 1."""


@cache
def usable_cores() -> int:
    """Number of cores that this process may use: those of the machine, its affinity, or its container; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def threads_of_each(processes: int) -> int:
    """Number of threads of each of several processes that share the usable cores; at least 1."""
    return max(1, usable_cores() // processes)


def limit_threads() -> None:
    """Let PyTorch have no more threads than a container may use cores, unless OMP_NUM_THREADS is set.

    By itself it takes one for each core of the machine. If they are more than the quota of the container, they wait for
    each other most of the time.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > usable_cores():
        torch.set_num_threads(usable_cores())


class Waiting:
    """Share of a time that each thread of this process waited for a core, from the creation on."""

    def __init__(self) -> None:
        self._started, self._before = time.perf_counter(), _waited()

    def share(self, threads: int) -> float:
        """Share, from 0 to 1, for a number of threads that compute; 0 if the system does not tell."""
        now = _waited()
        if now is None or self._before is None:
            return 0.0
        seconds = (time.perf_counter() - self._started) * threads
        return min(1.0, max(0.0, now - self._before) / seconds)


def _waited() -> float | None:
    """Seconds that the threads of this process were ready to run and had no core; None if the system does not tell."""
    total = 0
    try:
        for thread in (_PROCESS / "task").iterdir():
            try:
                total += int((thread / "schedstat").read_text(encoding="ascii").split()[1])
            except ProcessLookupError:  # it has just ended
                continue
    except (OSError, IndexError, ValueError):
        return None
    return total / 1e9


def _quota() -> float | None:
    """Number of cores that the container may use at a time, also a fraction; None without a limit."""
    try:
        quota, period = map(float, _QUOTA.read_text(encoding="ascii").split())
    except (OSError, ValueError):  # "max" is no number
        try:
            quota, period = (float(file.read_text(encoding="ascii")) for file in (_QUOTA_1, _PERIOD_1))
        except (OSError, ValueError):
            return None
    return quota / period if quota > 0 and period > 0 else None
