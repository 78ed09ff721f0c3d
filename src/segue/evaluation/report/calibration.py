"""The picture of how well calibrated models of ratings are."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from segue.evaluation.result import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#2f6db3", "#d9822b", "#0b7a75", "#8e5ea2", "#b3412e", "#5d6872")
_GREY = "#8a8f98"


def calibration_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """What was given against what was expected, and how often each level was given and was expected to be.

    Parameters
    ----------
    evaluations
        Of ratings, of the same questions, by the name shown. The second panel holds those with probabilities; it is
        left out if none has any.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    probable = {name: found for name, found in evaluations.items() if "level" in found.parts}
    figure = Figure(figsize=(10.4, 4.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if probable else 1, squeeze=False)[0]
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(evaluations)}
    _draw_tenths(panels[0], evaluations, colours)
    if probable:
        _draw_levels(panels[1], probable, colours)
    for axes in panels:
        axes.grid(axis="y", color=_GREY, alpha=0.25, lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    return figure


def calibration_png(evaluations: Mapping[str, Evaluation]) -> bytes:
    """`calibration_figure` as the content of a PNG file."""
    written = io.BytesIO()
    calibration_figure(evaluations).savefig(written, format="png")
    return written.getvalue()


def _draw_tenths(axes: Axes, evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> None:
    """A dot per tenth of the questions; on the diagonal people give what is expected of them."""
    tables = {name: found.parts["calibration"] for name, found in evaluations.items()}
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


def _draw_levels(axes: Axes, evaluations: Mapping[str, Evaluation], colours: Mapping[str, str]) -> None:
    """A group of bars per level: how many gave it, and how many each model expected to."""
    first = next(iter(evaluations.values())).parts["level"]
    bars = {"given": (first["level"].to_list(), first["questions"].to_numpy(), "#c3c8cd")}
    for name, found in evaluations.items():
        table = found.parts["level"]
        bars[name] = (table["level"].to_list(), table["predicted"].to_numpy(), colours[name])
    levels = sorted({level for names, _, _ in bars.values() for level in names}, key=float)
    places = {level: place for place, level in enumerate(levels)}
    width = 0.8 / len(bars)
    for number, (name, (names, sizes, colour)) in enumerate(bars.items()):
        shift = (number - (len(bars) - 1) / 2) * width
        axes.bar([places[level] + shift for level in names], sizes / first["questions"].sum(), width, color=colour)
        axes.containers[-1].set_label(name if name == "given" else f"expected by {name}")
    axes.set_xticks(range(len(levels)), levels)
    axes.set_title("Share of each rating", loc="left", fontsize=11)
    axes.set_xlabel("rating")
