"""What the tables of all pages share: rows, cells, and the line that says what made a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]

DATA = {"beauty": "Amazon Beauty", "games": "Amazon Games", "ml-100k": "MovieLens 100K"}
MODELS = {
    "sasrec": "SASRec",
    "ssept": "SSE-PT",
    "parsrec": "PARSRec",
    "markov": "Markov",
    "popularity": "Popularity",
    "recent-popularity": "RecentPopularity",
}


def read_results(folder: Path) -> dict[str, Result]:
    """Every result by the name of its file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def none_yet(*scripts: str) -> str:
    """What stands where results are still to be made."""
    return "No results yet: run " + " and ".join(f"`benchmarks/{script}`" for script in scripts) + "."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = (0, -1)) -> str:
    """A Markdown table: columns of text, by their place, to the left, figures to the right."""
    left = {place % len(heads) for place in texts}
    marks = ["---" if place in left else "---:" for place in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows))


def mean(row: Result, metric: str) -> str:
    """Mean over seeds, ± the standard deviation where seeds differ."""
    if metric not in row:
        return ""
    deviation = row.get(f"{metric} sd", 0.0)
    return decimal(row[metric]) + (f" ± {decimal(deviation)}" if deviation else "")


def decimal(value: float) -> str:
    """Four digits behind the point and none before it: .0531."""
    return f"{value:.4f}".removeprefix("0")


def number(value: float) -> str:
    """Three digits that count, or all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seeds(count: int) -> str:
    """In words."""
    return "one seed" if count == 1 else f"{count} seeds"


def cores(count: int) -> str:
    """In words."""
    return "one core" if count == 1 else f"{count} cores"


def made(script: str, runs: Sequence[Result]) -> str:
    """What made it, on what, when."""
    machines = sorted({hardware(run) for run in runs})
    dates = sorted({run["date"] for run in runs})
    versions = sorted({f"segue {run['versions']['segue']}" + torch_of(run) for run in runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"<sub>`benchmarks/{script}` · {'; '.join(machines)} · {'; '.join(versions)} · {when}</sub>"


def torch_of(run: Result) -> str:
    """Its PyTorch, where it had one."""
    return f", PyTorch {run['versions']['torch']}" if "torch" in run["versions"] else ""


def hardware(run: Result) -> str:
    """The machine in a few words."""
    machine = run["hardware"]
    used = f", {machine['threads']} used" if "threads" in machine else ""
    return f"{machine['cpu']}, {machine['cores']} cores{used}"
