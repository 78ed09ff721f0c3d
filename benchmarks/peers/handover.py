"""Files that pass between segue and the script of another library; runs in its environment, without segue.

The script is called with a folder that holds `request.json`, `train.csv` (user, item, time: codes from 1, by user,
oldest first; times are positions in the history) and, for each part, `<part>_histories.csv` of the same form and
`<part>_users.csv`. The script writes `<part>_<epoch>.csv` (user, item, rank) and `report.json`: seconds of each epoch,
seconds to recommend, memory, CPU time, versions. It needs only NumPy.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Ints = np.ndarray


@dataclass
class Log:
    """Interactions by user, oldest first."""

    users: Ints
    """(n,) user codes, ascending."""
    items: Ints
    """(n,) item codes."""
    times: Ints
    """(n,) position in the user's history, from 1."""

    def histories(self) -> dict[int, Ints]:
        """Items of each user."""
        codes, starts = np.unique(self.users, return_index=True)
        return dict(zip(codes.tolist(), np.split(self.items, starts[1:]), strict=True))


@dataclass
class Part:
    """Users who need a list, and their histories."""

    name: str
    users: Ints
    log: Log


@dataclass
class Request:
    """Request to the script of another library."""

    folder: Path
    setting: str
    """Setting of the script."""
    data: str
    """Name of the dataset, because published settings differ between them."""
    epochs: int
    """Epochs of training."""
    checks: list[int]
    """Epochs after which to recommend."""
    n_users: int
    n_items: int
    seed: int
    k: int
    train: Log
    parts: list[Part]


@dataclass
class Job:
    """Request and the growing report."""

    request: Request
    report: dict[str, Any] = field(default_factory=dict)

    def epoch_ended(self, epoch: int, seconds: float, recommend: Callable[[Part], Ints]) -> None:
        """Record the time of epoch `epoch` (from 1), and write all lists after the requested epochs.

        `recommend` takes a Part and returns item codes (users of the part, k), best first, 0 = none.
        """
        self.report.setdefault("epoch_seconds", []).append(round(seconds, 3))
        print(f"epoch {epoch}: {seconds:.1f} s", file=sys.stderr, flush=True)
        if epoch not in self.request.checks:
            return
        self.report["peak_memory_training"] = max(self.report.get("peak_memory_training", 0), peak_memory())
        for part in self.request.parts:
            seconds = []
            for _ in range(GOES if epoch == self.request.epochs else 1):
                began = time.perf_counter()
                codes = np.asarray(recommend(part))
                seconds.append(round(time.perf_counter() - began, 3))
            self.report.setdefault("recommending", []).append(
                {"part": part.name, "epoch": epoch, "users": len(part.users), "seconds": seconds}
            )
            self._write(part, epoch, codes)

    def finish(self, settings: dict[str, Any], packages: list[str], **more: Any) -> None:
        """Write the report: settings, versions of the packages, and other measurements."""
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
        self.report |= {
            "peak_memory": peak_memory(),
            "cpu_seconds": round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 1),
            "threads": int(os.environ.get("OMP_NUM_THREADS", 0)),
            "settings": settings,
            "versions": versions,
            **more,
        }
        (self.request.folder / "report.json").write_text(json.dumps(self.report, indent=2))

    def _write(self, part: Part, epoch: int, codes: Ints) -> None:
        rows, columns = np.nonzero(codes)
        table = np.stack([part.users[rows], codes[rows, columns], columns + 1], axis=1).astype(np.int64)
        np.savetxt(self.request.folder / f"{part.name}_{epoch}.csv", table, "%d", ",", header=LIST, comments="")


GOES = 3
"""Passes over the lists at the end. The fastest counts, because other work on the machine only adds time."""
LIST = "user,item,rank"
LOG = "user,item,time"


def open_job() -> Job:
    """Request in the folder that the command line names."""
    folder = Path(sys.argv[1])
    asked = json.loads((folder / "request.json").read_text())
    parts = [
        Part(name, _table(folder / f"{name}_users.csv").reshape(-1), _log(folder / f"{name}_histories.csv"))
        for name in asked.pop("parts")
    ]
    return Job(Request(folder=folder, train=_log(folder / "train.csv"), parts=parts, **asked))


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes, plus that of its living children.

    On Linux it is read from /proc, because `getrusage` of a started process begins with the peak of its parent.
    """
    import multiprocessing

    children = [child.pid for child in multiprocessing.active_children()]
    peaks = [_high_water(pid) for pid in (os.getpid(), *children)]
    if peaks[0] is None:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return sum(peak or 0 for peak in peaks)


def _high_water(pid: int | None) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def best_unseen(scores: Ints, seen: list[Ints], k: int) -> Ints:
    """Item codes (n, k) of the best scores (n, items + 1), without column 0 and seen items; `scores` is changed."""
    scores[:, 0] = -np.inf
    rows = np.repeat(np.arange(len(seen)), [len(items) for items in seen])
    scores[rows, np.concatenate(seen)] = -np.inf
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def padded(histories: list[Ints], length: int, fill: int = 0) -> Ints:
    """Newest items (n, length) of each history, padded in front."""
    table = np.full((len(histories), length), fill, dtype=np.int64)
    for row, items in enumerate(histories):
        newest = items[-length:]
        table[row, length - len(newest) :] = newest
    return table


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover 0 … n − 1."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _log(path: Path) -> Log:
    return Log(*_table(path).T.copy())


def _table(path: Path) -> Ints:
    return np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=1, ndmin=2)
