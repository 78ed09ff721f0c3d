"""Figures of evaluations, comparisons and explanations, from plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from segue.evaluation.charts import Span
from segue.plots import BLUE, GREY, ORANGE, draw_bars, new_figure, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PartBars:
    """A panel with a metric by part."""

    title: str
    """Heading of the panel."""

    names: Sequence[str]
    """Names of the parts, with their sizes."""

    values: Sequence[float]
    """Value of the metric in each part."""


def plot_metrics(title: str, spans: Sequence[Span], parts: Sequence[PartBars]) -> Figure:
    """Draw metrics as bars with intervals and, beside them, a panel for each division into parts.

    Parameters
    ----------
    title
        Heading of the figure.
    spans
        Metrics with their intervals; without one, both ends are the value.
    parts
        Panels beside them.
    """
    rows = max([len(spans), *(len(part.names) for part in parts)])
    figure = new_figure(4.6 * (1 + len(parts)), 1.3 + 0.34 * rows)
    panels = figure.subplots(1, 1 + len(parts), squeeze=False)[0]
    intervals = [(span.low, span.high) if span.high > span.low else None for span in spans]
    names, values = [span.name for span in spans], [span.value for span in spans]
    draw_bars(panels[0], names, values, intervals, [BLUE] * len(spans), rows=rows)
    panels[0].set_title("all, with 95 % intervals", loc="left", fontsize=10)
    for axes, part in zip(panels[1:], parts, strict=True):
        draw_bars(axes, part.names, part.values, [None] * len(part.names), [GREY] * len(part.names), rows=rows)
        axes.set_title(part.title, loc="left", fontsize=10)
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11)
    return figure


def plot_differences(title: str, names: Sequence[str], spans: Sequence[Span], better: Sequence[str | None]) -> Figure:
    """Draw differences of two models with their intervals around 0.

    Parameters
    ----------
    title
        Heading of the figure.
    names
        Names of the two models.
    spans
        Differences by metric, second minus first.
    better
        Name of the better model for each metric; None if the interval holds 0.
    """
    figure = new_figure(7.2, 1.7 + 0.36 * len(spans))
    axes = figure.subplots()
    colours = [GREY if one is None else ORANGE if one == names[0] else BLUE for one in better]
    for place, (span, colour) in enumerate(zip(spans, colours, strict=True)):
        axes.plot((span.low, span.high), (place, place), color=colour, lw=2.2, solid_capstyle="butt")
        axes.plot(span.value, place, "o", color=colour, ms=7)
    axes.axvline(0.0, color="#1d232b", lw=1.0)
    axes.set_yticks(range(len(spans)), [span.name for span in spans])
    axes.set_ylim(len(spans) - 0.4, -0.6)
    axes.set_xlabel("difference [95 %]; grey: the interval holds 0")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.7)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.1 * high), max(high, -0.1 * low))
    axes.annotate(f"← {shortened(names[0])}", (0, 1.02), xycoords="axes fraction", color=ORANGE, fontsize=9)
    axes.annotate(f"{shortened(names[1])} →", (1, 1.02), xycoords="axes fraction", color=BLUE, fontsize=9, ha="right")
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11)
    return figure
