"""Picture of docs/benchmarks.md: NDCG@10 on validation of every system against seconds of training.

    python benchmarks/curves.py            # draw it from benchmarks/results/peers_*.json
    python benchmarks/curves.py --check    # compare only; exit code 1 if the picture shows other results

The picture has a panel per dataset and a line per system with a chosen epoch, marked by a ring. The time of validation
does not count as training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from pages.cells import DATA, Result, number, read_results
from pages.rivals import NDCG, SYSTEMS, only, runs_by_data
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).resolve().parent.parent
PICTURE, RESULTS = ROOT / "docs" / "images" / "peers-curves.png", ROOT / "benchmarks" / "results"
DRAWN_FROM = "Source"
"""Metadata key of the file for the digest of its data."""
GREY = "#8a8f98"
STYLES: dict[str, dict[str, Any]] = {
    "segue": {"color": "#2f6db3", "lw": 2.6, "zorder": 4},
    "segue-notebook": {"color": "#2f6db3", "lw": 1.8, "ls": (0, (4, 1.5)), "zorder": 4},
    "rectools-bce": {"color": "#d9822b", "ls": (0, (4, 1.5))},
    "rectools-softmax": {"color": "#d9822b"},
    "rectools-ligr": {"color": "#a3531a", "ls": (0, (1, 1))},
    "replay-sasrec": {"color": "#3f8f5b"},
    "recommenders-sasrec": {"color": "#8659a8", "ls": (0, (4, 1.5))},
    "recommenders-ssept": {"color": "#8659a8", "ls": (0, (1, 1))},
    "recbole-sasrec": {"color": "#3c434b"},
}
"""One colour per library; broken lines are the notebook's setting."""


def curves(results: dict[str, Result]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Validation metrics of each system by dataset, for systems with a chosen epoch."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for data, runs in runs_by_data(results).items():
        for peer in SYSTEMS:
            run = only([run for run in runs if "curve" in run], peer)
            if run:
                found.setdefault(data, {})[peer] = run["curve"]
    return found


def digest(shown: dict[str, Any]) -> str:
    """Digest of the data in a picture."""
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()


def figure_of(shown: dict[str, dict[str, list[dict[str, float]]]]) -> Figure:
    """Figure with a panel per dataset and one legend."""
    figure = Figure(figsize=(max(6.4, 5.2 * len(shown)), 5.0), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (data, by_system) in zip(panels, shown.items(), strict=True):
        for peer, rows in by_system.items():
            draw(axes, peer, rows)
        finish(axes, DATA[data])
    panels[0].set_ylabel("NDCG@10 on validation")
    handles = {label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = [label for peer in SYSTEMS if (label := plain(peer)) in handles]
    columns = 2 * len(shown) if len(shown) < 3 else 5
    figure.legend([handles[label] for label in order], order, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def draw(axes: Axes, peer: str, rows: list[dict[str, float]]) -> None:
    """Draw the line of one system and a ring at its chosen epoch."""
    style = {"lw": 1.8, "zorder": 3} | STYLES[peer]
    seconds, values = [row["seconds"] for row in rows], [row[NDCG] for row in rows]
    axes.plot(seconds, values, marker="o", ms=3, label=plain(peer), **style)
    best = max(rows, key=lambda row: row[NDCG])
    axes.plot(best["seconds"], best[NDCG], "o", ms=9, mfc="none", mec=style["color"], mew=1.5, zorder=5)


def finish(axes: Axes, title: str) -> None:
    """Style the axes; seconds are logarithmic, because ratios of time matter."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value).removesuffix(".0")))
    axes.set_ylim(bottom=0)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("seconds of training")
    axes.grid(color=GREY, alpha=0.25, lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def plain(peer: str) -> str:
    """Name of a system without Markdown."""
    return SYSTEMS[peer].replace("*", "")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw or check; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="compare only; exit code 1 if the picture shows other results"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args(argv)
    shown = curves(read_results(arguments.results))
    if not shown:
        print("no curves yet: run benchmarks/peers/run.py", file=sys.stderr)
        return 0
    if arguments.check:
        there = Image.open(arguments.out).info.get(DRAWN_FROM) if arguments.out.exists() else None
        if there != digest(shown):
            print(f"{arguments.out.name} shows other results: run `python benchmarks/curves.py`.", file=sys.stderr)
            return 1
        return 0
    figure_of(shown).savefig(arguments.out, metadata={DRAWN_FROM: digest(shown)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
