"""Memory of the process: large buffers are kept for reuse."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


@cache
def keep_buffers() -> None:
    """Ask glibc to keep freed buffers of up to 32 MB instead of returning them to the system.

    Training and evaluation allocate and free buffers of some megabytes at every step. By default the system maps and
    zeroes new pages for each, which took up to a third of the time of a step. Does nothing with other C libraries.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
