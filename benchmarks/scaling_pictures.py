"""Picture of the scaling curves, made from results/scaling.json alone.

    python benchmarks/scaling_pictures.py                    # draws docs/images/scaling.png
    python benchmarks/scaling_pictures.py --name gpu_<device> # from results/gpu_<device>.json

The picture has a column for each axis, with tokens per second above and memory below. Percentages are the share of the
speed of a large matrix product that the step reaches.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
DARK, GREY = "#3c434b", "#8a8f98"
COLOURS = ("#2f6db3", "#d9822b", "#4f9a68", "#8458a8")
TITLES = {
    "length": "items per history",
    "width": "width of the vectors",
    "items": "items in the catalogue",
    "interactions": "interactions in the log",
}
NAMES = {
    "sampled-softmax": "shared negatives",
    "softmax": "full softmax",
    "no": "float32",
    "bf16": "bfloat16",
}
NEEDED = "weights_gradients_moments_mb"

Rows = list[dict[str, Any]]


def figure_of(result: dict[str, Any]) -> Figure:
    """Picture of one result: tokens per second above, memory below, a column per axis."""
    axes = [name for name in TITLES if name in result["axes"]]
    figure = Figure(figsize=(3.3 * len(axes) + 0.4, 6.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(axes), sharex="col", squeeze=False)
    for name, (above, below) in zip(axes, panels.T, strict=True):
        lines = lines_of(result["axes"][name]["points"])
        for colour, (label, rows) in zip(COLOURS, lines.items(), strict=False):
            _speed(above, name, rows, colour, label)
            _memory(below, name, rows, colour, label)
        _needed(below, name, result["axes"][name]["points"])
        _finish(above, below, name)
    speeds = [row["tokens_per_second"] for rows in result["axes"].values() for row in rows["points"] if _done(row)]
    for above in panels[0]:
        above.set_ylim(min(speeds) / 1.8, max(speeds) * 1.8)
    highest = max(below.get_ylim()[1] for below in panels[1])
    lowest = min(below.get_ylim()[0] for below in panels[1])
    for below in panels[1]:
        below.set_ylim(lowest, highest)
    panels[0][0].set_ylabel("tokens per second", fontsize=10)
    panels[1][0].set_ylabel("memory added", fontsize=10)
    return figure


def lines_of(points: Rows) -> dict[str, Rows]:
    """Points that worked, in a line for each loss and precision; a single line has no name."""
    lines: dict[str, Rows] = {}
    for row in filter(_done, points):
        names = [NAMES[row[key]] for key in ("loss", "precision") if len({other.get(key) for other in points}) > 1]
        lines.setdefault(", ".join(names), []).append(row)
    return lines


def _done(row: dict[str, Any]) -> bool:
    return "failed" not in row


def _speed(axes: Axes, name: str, rows: Rows, colour: str, label: str) -> None:
    values = [row["tokens_per_second"] for row in rows]
    axes.plot([row[name] for row in rows], values, "o-", color=colour, lw=2.0, ms=4, label=label)
    for row in rows:
        if row.get("share_of_products") is not None:
            share: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
            text = f"{100 * row['share_of_products']:.0f}%"
            axes.annotate(text, (row[name], row["tokens_per_second"]), color=colour, fontsize=7.5, **share)


def _memory(axes: Axes, name: str, rows: Rows, colour: str, label: str) -> None:
    where = [row[name] for row in rows]
    if "added_mb" in rows[0]:
        axes.plot(where, [row["added_mb"] for row in rows], "o-", color=colour, lw=2.0, ms=4, label=label or "training")
    if "prepare_added_mb" in rows[0]:
        axes.plot(where, [row["prepare_added_mb"] for row in rows], "s-", color=DARK, lw=1.4, ms=4, label="preparing")


def _needed(axes: Axes, name: str, points: Rows) -> None:
    """Draw the least memory that training can need, which is the same for all lines."""
    least = dict(sorted((row[name], row[NEEDED]) for row in points if NEEDED in row))
    axes.plot(list(least), list(least.values()), "--", color=GREY, lw=1.3, label="weights, gradients,\nmoments")


def _finish(above: Axes, below: Axes, name: str) -> None:
    for axes in (above, below):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.margins(x=0.1)  # room for the shares beside the first and the last point
        axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.tick_params(labelsize=8.5)
    if above.get_legend_handles_labels()[1]:
        above.legend(frameon=False, fontsize=8, loc="lower left")
    below.legend(frameon=False, fontsize=8, loc="upper left")
    below.set_ylim(top=below.get_ylim()[1] * 4)  # room for the legend
    above.set_title(TITLES[name], loc="left", fontsize=11)
    below.set_xlabel(TITLES[name], fontsize=9)
    below.set_xticks(sorted({x for line in below.lines for x in line.get_xdata()}))
    below.xaxis.set_minor_locator(NullLocator())
    below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    below.yaxis.set_major_formatter(FuncFormatter(lambda value, _: megabytes(value)))


def short(number: float) -> str:
    """Number with as few digits as needed.

    >>> short(64), short(20_000), short(1_000_000)
    ('64', '20k', '1M')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def megabytes(number: float) -> str:
    """Megabytes with their unit.

    >>> megabytes(30), megabytes(3_000)
    ('30 MB', '3 GB')
    """
    return f"{number / 1e3:g} GB" if number >= 1e3 else f"{number:g} MB"


def main() -> None:
    """Draw the stored result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="scaling", help="name of the result")
    name = parser.parse_args().name
    result = common.read(name)
    if not result:
        raise SystemExit(f"There is no {common.RESULTS / name}.json yet: run the benchmark that writes it.")
    path = IMAGES / f"{name}.png"
    figure_of(result).savefig(path, format="png")
    print(path)


if __name__ == "__main__":
    main()
