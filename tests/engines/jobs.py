"""Functions of parts, which workers import by their name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from segue.errors import DataError


def squared(part: int) -> int:
    return part * part


def with_process(part: int) -> tuple[int, int]:
    time.sleep(0.05)
    return part, os.getpid()


def failing(part: int) -> int:
    if part == 2:
        raise DataError("part 2 holds nothing: expected rows.")
    return part


class AwkwardError(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


def awkward(part: int) -> int:
    raise AwkwardError(part, part)


def killed_once(folder: Path, part: int) -> int:
    """The worker kills itself at part 3, once."""
    mark = folder / f"killed-{part}"
    if part == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"done-{part}-{time.monotonic_ns()}").touch()
    return part


def deadly(part: int) -> int:
    if part == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def set_up(folder: Path) -> dict[str, Any]:
    (folder / f"setup-{os.getpid()}-{time.monotonic_ns()}").touch()
    return {"process": os.getpid()}


def of_state(state: dict[str, Any], part: int) -> tuple[int, bool]:
    time.sleep(0.02)
    return state["process"], state["process"] == os.getpid()


def broken_set_up() -> None:
    raise DataError("the state cannot be made.")


def slow(folder: Path, part: int) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)
    return part


def threads(part: int) -> str | None:
    return os.environ.get("POLARS_MAX_THREADS")
