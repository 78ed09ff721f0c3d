"""The picture of the calibration of rating models."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Parts = Mapping[str, pl.DataFrame]
"""Parts of one evaluation of ratings: "calibration" and, with probabilities, "level"."""

_COLOURS = ("#2f6db3", "#d9822b", "#0b7a75", "#8e5ea2", "#b3412e", "#5d6872")
_GREY = "#8a8f98"


def calibration_figure(models: Mapping[str, Parts]) -> Figure:
    """Ratings given against ratings expected, and the frequency of each level, as given and as expected.

    Parameters
    ----------
    models
        Parts of evaluations of the same ratings, by the name to show. The second panel holds the models with
        probabilities; it is left out if there are none.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    probable = {name: parts for name, parts in models.items() if "level" in parts}
    figure = Figure(figsize=(10.4, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if probable else 1, squeeze=False)[0]
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(models)}
    _draw_tenths(panels[0], models, colours)
    if probable:
        _draw_levels(panels[1], probable, colours)
    for axes in panels:
        axes.grid(axis="y", color=_GREY, alpha=0.25, lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    return figure


def calibration_png(models: Mapping[str, Parts]) -> bytes:
    """`calibration_figure` as the content of a PNG file."""
    content = io.BytesIO()
    calibration_figure(models).savefig(content, format="png")
    return content.getvalue()


def _draw_tenths(axes: Axes, models: Mapping[str, Parts], colours: Mapping[str, str]) -> None:
    """Draw a dot per tenth of the ratings; on the diagonal, users give the rating that is expected."""
    tables = {name: parts["calibration"] for name, parts in models.items()}
    means = np.concatenate([table.select("mean_expected", "mean_true").to_numpy().ravel() for table in tables.values()])
    room = max(0.1, 0.05 * float(np.ptp(means)))
    ends = float(means.min()) - room, float(means.max()) + room
    axes.plot(ends, ends, color=_GREY, lw=1, ls="--", label="as expected")
    for name, table in tables.items():
        given = table["mean_expected"].to_numpy(), table["mean_true"].to_numpy()
        axes.plot(*given, "o-", color=colours[name], ms=5, lw=1.6, label=name)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_title("Ratings given against ratings expected", loc="left", fontsize=11)
    axes.set_xlabel("mean rating expected, in tenths of the questions")
    axes.set_ylabel("mean rating given")


def _draw_levels(axes: Axes, models: Mapping[str, Parts], colours: Mapping[str, str]) -> None:
    """Draw a group of bars per level: its frequency, and the frequency that each model expected."""
    first = next(iter(models.values()))["level"]
    bars = {"given": (first["level"].to_list(), first["questions"].to_numpy(), "#c3c8cd")}
    for name, parts in models.items():
        table = parts["level"]
        bars[name] = (table["level"].to_list(), table["predicted"].to_numpy(), colours[name])
    levels = sorted({level for names, _, _ in bars.values() for level in names}, key=float)
    positions = {level: position for position, level in enumerate(levels)}
    width = 0.8 / len(bars)
    for number, (name, (names, sizes, colour)) in enumerate(bars.items()):
        shift = (number - (len(bars) - 1) / 2) * width
        axes.bar([positions[level] + shift for level in names], sizes / first["questions"].sum(), width, color=colour)
        axes.containers[-1].set_label(name if name == "given" else f"expected by {name}")
    axes.set_xticks(range(len(levels)), levels)
    axes.set_title("Share of each rating", loc="left", fontsize=11)
    axes.set_xlabel("rating")
