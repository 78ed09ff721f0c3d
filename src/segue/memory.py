"""How the process holds on to memory."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20


@cache
def keep_buffers() -> None:
    """Ask glibc to keep freed buffers of up to 32 MB instead of giving them back to the system.

    Training and evaluation make and drop buffers of some megabytes at every step. By default each is mapped anew,
    and its pages faulted in and zeroed anew, which took up to a third of the time of a step. Does nothing on other C
    libraries.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
