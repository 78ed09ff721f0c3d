"""What the tables of measured results are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Result = dict[str, Any]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: texts to the left, the columns between to the right."""
    marks = ["---", *("---:" for _ in heads[1:-1]), "---"]
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
