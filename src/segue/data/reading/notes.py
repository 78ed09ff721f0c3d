"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings


def warn(message: str) -> None:
    """Warn the user; the warning names the line outside segue that called it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("segue."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
