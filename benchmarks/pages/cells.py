"""Parts that the tables of all pages share: rows, cells, wrapped text, and the source line below a table."""

from __future__ import annotations

import json
import textwrap
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
    """Results by file name, without the suffix."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def none_yet(*scripts: str) -> str:
    """Sentence to show in place of a table that has no results yet."""
    return "No results yet: run " + " and ".join(f"`benchmarks/{script}`" for script in scripts) + "."


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = (0, -1)) -> str:
    """Markdown table: the columns at the positions `texts` are left-aligned, all others right-aligned."""
    left = {column % len(heads) for column in texts}
    marks = ["---" if column in left else "---:" for column in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows))


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines of at most 120 characters; `indent` precedes all lines but the first."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def mean(row: Result, metric: str) -> str:
    """Mean over seeds, ± the standard deviation if there is any."""
    if metric not in row:
        return ""
    deviation = row.get(f"{metric} sd", 0.0)
    return decimal(row[metric]) + (f" ± {decimal(deviation)}" if deviation else "")


def decimal(value: float) -> str:
    """Number with four decimals and no leading zero: .0531."""
    return f"{value:.4f}".removeprefix("0")


def number(value: float) -> str:
    """Number with three significant digits, or with all digits before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seeds(count: int) -> str:
    """Number of seeds in words."""
    return "one seed" if count == 1 else f"{count} seeds"


def cores(count: int) -> str:
    """Number of cores in words."""
    return "one core" if count == 1 else f"{count} cores"


def made(script: str, runs: Sequence[Result]) -> str:
    """Source line of a table: script, machine, versions and date."""
    machines = sorted({hardware(run) for run in runs})
    dates = sorted({run["date"] for run in runs})
    versions = sorted({f"segue {run['versions']['segue']}" + torch_of(run) for run in runs})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return wrapped(f"<sub>`benchmarks/{script}` · {'; '.join(machines)} · {'; '.join(versions)} · {when}</sub>")


def torch_of(run: Result) -> str:
    """PyTorch version of a run, if it used PyTorch."""
    return f", PyTorch {run['versions']['torch']}" if "torch" in run["versions"] else ""


def hardware(run: Result) -> str:
    """Machine of a run: processor, cores, and cores used."""
    machine = run["hardware"]
    used = f", {machine['threads']} used" if "threads" in machine else ""
    return f"{machine['cpu']}, {machine['cores']} cores{used}"
