"""Memory of the process: large buffers are kept for reuse, and sizes are compared with what there is."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from segue.errors import ConfigError

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files with the memory that a container may use."""


@cache
def keep_buffers() -> None:
    """Ask glibc to keep freed buffers of up to 32 MB instead of returning them to the system.

    Training and evaluation allocate and free buffers of some megabytes at every step. By default the system maps and
    zeroes new pages for each, which took up to a third of the time of a step. Does nothing with other C libraries.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def return_buffers() -> None:
    """Ask glibc to return all freed memory to the system, so that it does not add to what the next part needs.

    Does nothing with other C libraries.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt, library.malloc_trim  # noqa: B018 - AttributeError where there are none
    except (OSError, AttributeError):
        return None
    return library


@cache
def total_memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or of its container; 2⁶² if unknown."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        total = 1 << 62
    for file in _LIMITS:
        try:
            total = min(total, int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return total


def require_memory(size: float, noun: str, way_out: str) -> None:
    """Check that the memory can hold something, before it is made.

    Parameters
    ----------
    size
        Bytes that are needed.
    noun
        Name of it in the message: "the model with its gradients".
    way_out
        Choice that needs less memory, as the end of the message.

    Raises
    ------
    ConfigError
        There is less memory.
    """
    if size > total_memory():
        raise ConfigError(
            f"{noun} would take {_readable(size)} of memory, and there are {_readable(total_memory())}: {way_out}."
        )


def _readable(size: float) -> str:
    """A size in words: 3.2 GB."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB")
    power = min(int(max(len(f"{size:.0f}") - 1, 0) // 3), len(units) - 1)
    return f"{size / 1000**power:,.3g} {units[power]}" if size < 1e21 else "more than 1,000,000 PB"
