"""Seconds and memory of a preparation in shards."""

from __future__ import annotations

from typing import Any

from pages.cells import Result, made, none_yet, table, wrapped

_WAYS = {
    "whole": "without shards",
    "alone": "in shards, by one process",
    "shared": "in shards, by two processes",
}


def shards(results: dict[str, Result]) -> str:
    """A row for each way to prepare the log, and one for a larger log."""
    found, large = results.get("shards"), results.get("shards_large")
    if not found:
        return none_yet("shards.py")
    rows = [_row(found, variant) for variant in _WAYS]
    rows += [_row(large, variant) for variant in _WAYS if variant in large] if large else []
    text = (
        "Made ratings in Parquet files, in random order of users; 5-core, eight shards. A process has one core. "
        "Memory is the highest resident memory of the process that prepares, or of its largest worker. *Added* is what "
        "stands beyond a preparation of ten thousand rows: the rest is Python and its packages."
    )
    heads = ["rows", "", "seconds", "of each run", "CPU s", "memory, MB", "added, MB"]
    runs = [one for one in (found, large) if one]
    return "\n\n".join([wrapped(text), table(heads, rows, texts=[1, 3]), made("shards.py", runs)])


def _row(found: dict[str, Any], variant: str) -> list[str]:
    one = found[variant]
    by_workers = one["peak_of_a_worker_mb"] is not None
    memory, few = ("peak_of_a_worker_mb", "few-shared") if by_workers else ("peak_mb", "few")
    return [
        f"{found['options']['rows']:,}",
        _WAYS[variant],
        f"{one['seconds']:.1f}",
        ", ".join(f"{seconds:.1f}" for seconds in one.get("seconds_of_runs", [])),
        f"{one['cpu_seconds']:.1f}",
        f"{one[memory]:,}",
        f"{one[memory] - found[few][memory]:,}",
    ]
