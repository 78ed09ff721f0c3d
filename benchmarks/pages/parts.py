"""Seconds of lists for everyone, by workers."""

from __future__ import annotations

from pages.cells import Result, made, none_yet, table, wrapped

_WAYS = {
    "bare": "a loop, and nothing else",
    "alone": "this process, with locks, checksums and a manifest",
    "processes-1": "one process",
    "processes-2": "two processes",
    "ray-1": "one worker of Ray",
    "ray-2": "two workers of Ray",
}


def parts(results: dict[str, Result]) -> str:
    """A row for each way to write the lists."""
    found = results.get("parts")
    if not found:
        return none_yet("parts.py")
    rows = [
        [
            name,
            f"{found['median_seconds'][way]:.1f}",
            ", ".join(f"{run['seconds']:.1f}" for run in found["runs"][way]),
            f"{found['median_seconds'][way] / found['median_seconds']['bare']:.2f}",
        ]
        for way, name in _WAYS.items()
        if way in found["median_seconds"]
    ]
    gains = {kind: found["ratios"][f"gain of two workers: {kind}-1 over {kind}-2"] for kind in ("processes", "ray")}
    text = (
        f"Lists of ten among {found['items']:,} items for {found['users']:,} users, SASRec of width "
        f"{found['model']['width']}, one core for each worker. The start of processes counts; that of Ray, some three "
        f"seconds, does not. Two processes take 1/{gains['processes']:.2f} of the time of one, two workers of Ray "
        f"1/{gains['ray']:.2f}."
    )
    heads = ["", "seconds, median", "of each run", "of the loop"]
    return "\n\n".join([wrapped(text), table(heads, rows, texts=[0, 2]), made("parts.py", [found])])
