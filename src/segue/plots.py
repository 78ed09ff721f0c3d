"""Figures of matplotlib for Python and notebooks, in one style."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, GREY, ORANGE = "#2f6db3", "#8a8f98", "#d9822b"
_LONGEST = 34
"""Characters of a name beside a bar."""


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that a notebook shows by itself, without pyplot and without a window.

    Parameters
    ----------
    width, height
        Size in inches.
    """
    return _figure_class()(figsize=(width, height), dpi=110, layout="constrained")


@functools.cache
def _figure_class() -> type[Figure]:
    """A Figure with a canvas for files that notebooks know how to show; made with matplotlib's first use."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        def __init__(self, **options: object) -> None:
            super().__init__(**options)  # type: ignore[arg-type]
            FigureCanvasAgg(self)

        def _repr_png_(self) -> bytes:
            drawn = io.BytesIO()
            self.savefig(drawn, format="png")
            return drawn.getvalue()

    return NotebookFigure


def draw_bars(
    axes: Axes,
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float] | None],
    colours: Sequence[str],
    digits: int = 4,
    rows: int = 0,
) -> None:
    """Draw horizontal bars from 0, the first one on top, with intervals across their ends and figures beside them.

    Parameters
    ----------
    axes
        The panel.
    names, values, colours
        One for each bar.
    intervals
        Lower and upper end for each bar; None draws none.
    digits
        Digits behind the point of the figures.
    rows
        Number of bars that the panel has room for, if more than there are.
    """
    places = range(len(names))
    axes.barh(list(places), list(values), height=0.62, color=list(colours))
    for place, pair in zip(places, intervals, strict=True):
        if pair is not None:
            axes.plot(pair, (place, place), color="#1d232b", lw=1.6, solid_capstyle="butt")
    ends = [max(value, 0.0 if pair is None else pair[1], 0.0) for value, pair in zip(values, intervals, strict=True)]
    for place, value, end in zip(places, values, ends, strict=True):
        axes.annotate(f"{value:.{digits}f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(list(places), [shortened(name) for name in names])
    axes.set_ylim(max(rows, len(names)) - 0.4, -0.6)
    lows = [0.0, *values, *(pair[0] for pair in intervals if pair is not None)]
    low, high = min(lows), max([0.0, *ends])
    room = (high - low) or 1.0
    axes.set_xlim(low - 0.03 * room * (low < 0), high + 0.2 * room)
    axes.axvline(0.0, color=GREY, lw=1.0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.7)
    axes.set_axisbelow(True)


def shortened(name: str) -> str:
    """The name, without its middle if it is too long; a dollar sign stays one, as matplotlib would take it for math."""
    half = _LONGEST // 2
    short = name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"
    return short.replace("$", r"\$")
