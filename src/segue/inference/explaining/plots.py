"""Figure of an explanation: a bar for the effect of each reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from segue.plots import BLUE, ORANGE, draw_bars, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_reasons(reasons: pl.DataFrame, labels: Sequence[str], title: str) -> Figure:
    """Draw the effects of the reasons for one score, strongest on top.

    Parameters
    ----------
    reasons
        Reasons of one pair, as from `Recommender.explain`.
    labels
        Name of each reason.
    title
        Heading of the figure.
    """
    effects = reasons["effect"].cast(pl.Float64).to_list()
    figure = new_figure(6.6, 1.4 + 0.34 * len(effects))
    axes = figure.subplots()
    colours = [BLUE if effect >= 0 else ORANGE for effect in effects]
    draw_bars(axes, labels, effects, [None] * len(effects), colours, digits=3)
    axes.set_xlabel("effect on the score; orange speaks against the item")
    figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=11)
    return figure


def reason_label(reason: Mapping[str, Any], name: str | None) -> str:
    """Name of a reason beside its bar.

    Parameters
    ----------
    reason
        A row of `Recommender.explain`.
    name
        Title or id of the item that was left out, or id of the neighbour; None for sessions and the user.
    """
    kind = reason["kind"]
    if kind == "user":
        return "who the user is"
    if kind == "session":
        return f"session {reason['position']} ({reason['items']} items)"
    if kind == "neighbour":
        return f"{name} rated {reason['rating']:g}" if reason.get("rating") is not None else f"a session of {name}"
    times = reason.get("times")
    return f"{name} (taken {times} times)" if times is not None and times > 1 else str(name)
