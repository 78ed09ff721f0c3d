"""Processes as the system sees them."""

from __future__ import annotations

from pathlib import Path


def is_alive(process: int) -> bool:
    """True if a process is there and has not ended; one that has ended may wait for its parent."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
