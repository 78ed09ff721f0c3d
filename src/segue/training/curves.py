"""Table and curves of a run: `metrics.csv` and `curves.png`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.evaluation.tasks.registry import title_of
from segue.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, float]

TEST = "test "
"""Prefix of the metrics of the test part, which choose nothing."""
NOT_METRICS = ("epoch", "loss", "seconds")
"""Columns of every row. All other columns are metrics of validation or, with the prefix `TEST`, of the test part."""

_BLUE, _GREY, _ORANGE = "#2f6db3", "#8a8f98", "#d9822b"


def write_metrics(path: Path, history: list[Row]) -> None:
    """Write one line per epoch: epoch, loss, seconds, and the validation metrics, if the epoch was validated."""
    frame = pl.DataFrame(history, infer_schema_length=None).with_columns(pl.col("epoch").cast(pl.Int64))
    with atomic_file(path) as temporary:
        frame.write_csv(temporary)


def draw_curves(path: Path, history: list[Row], metric: str, best_epoch: int) -> None:
    """Draw a PNG with a panel for the training loss and one for each metric; all its list lengths share a panel.

    Parameters
    ----------
    path
        File to write.
    history
        One row per epoch. "ndcg@10" is measured on the validation part; "test ndcg@10", if the test part was watched,
        is drawn in the same panel.
    metric
        Name of the metric that chose the best epoch.
    best_epoch
        The epoch to mark; 0 = none.
    """
    with atomic_file(path) as temporary:
        figure_of(history, metric, best_epoch).savefig(temporary, format="png")


def figure_of(history: list[Row], metric: str, best_epoch: int) -> Figure:
    """Return the figure of `draw_curves` without writing it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns_seen = dict.fromkeys(name for row in history for name in row)
    by_metric: dict[str, list[str]] = {}
    for name in columns_seen:
        if name not in NOT_METRICS and not name.startswith(TEST):
            by_metric.setdefault(name.partition("@")[0], []).append(name)
    panels = 1 + len(by_metric)
    rows, columns = (1, panels) if panels < 4 else (2, -(-panels // 2))
    figure = Figure(figsize=(max(5.2, 4.4 * columns), 3.5 * rows + 0.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = (figure.add_subplot(rows, columns, number + 1) for number in range(panels))
    first.plot(*_points(history, "loss"), color="#3c434b", **_line_style(history))
    _finish(first, "Training loss per target", len(history), best_epoch if by_metric else 0)
    for axes, names in zip(others, by_metric.values(), strict=True):
        main = metric if metric in names else names[-1]
        _draw_metric(axes, history, main, best_epoch)
        _draw_others(axes, history, [name for name in names if name != main])
        _finish(axes, title_of(main), len(history), best_epoch, bold=main == metric)
    if by_metric:
        by_label = dict(zip(*reversed(others[0].get_legend_handles_labels()), strict=True))
        order = [label for label in ("validation", "test", "best epoch") if label in by_label]
        handles = [by_label[label] for label in order]
        figure.legend(handles, order, loc="outside lower center", ncols=len(order), frameon=False)
        if best_epoch:
            figure.suptitle(f"Best epoch: {best_epoch} of {len(history)}, by {metric} on validation", fontsize=12)
    return figure


def _draw_metric(axes: Axes, history: list[Row], name: str, best_epoch: int) -> None:
    """Draw a metric of the validation part and of the test part, if watched, with the values at the best epoch."""
    anchor: dict[str, Any] = {"xy": (1.0, 1.02), "xycoords": "axes fraction"}
    for part, key, colour in reversed((("validation", name, _BLUE), ("test", TEST + name, _ORANGE))):
        epochs, values = _points(history, key)
        if not epochs:
            continue
        axes.plot(epochs, values, color=colour, label=part, **_line_style(history))
        if best_epoch in epochs:
            value = values[epochs.index(best_epoch)]
            axes.plot(best_epoch, value, "o", ms=9, mfc="none", mec=colour, mew=1.4)
            words = axes.annotate(f"  {value:.4f}", **anchor, ha="right", va="bottom", color=colour, fontsize=9.5)
            anchor = {"xy": (0.0, 0.0), "xycoords": words}  # the next one to its left


def _draw_others(axes: Axes, history: list[Row], names: list[str]) -> None:
    """Draw the metric for other list lengths as thin lines that end with the length."""
    for name in names:
        epochs, values = _points(history, name)
        axes.plot(epochs, values, color=_BLUE, alpha=0.4, lw=1.1)
        end: dict[str, Any] = {
            "xy": (epochs[-1], values[-1]),
            "xytext": (3, 0),
            "textcoords": "offset points",
            "va": "center",
        }
        axes.annotate("@" + name.partition("@")[2], color=_GREY, fontsize=8, annotation_clip=False, **end)


def _finish(axes: Axes, title: str, epochs: int, best_epoch: int, bold: bool = False) -> None:
    from matplotlib.ticker import MaxNLocator

    values = np.concatenate([np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines])
    if best_epoch:
        axes.axvline(best_epoch, color=_GREY, ls="--", lw=1, zorder=0, label="best epoch")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold" if bold else "normal")
    axes.set_xlabel("epoch")
    margin = 0.5 if epochs < 10 else 0.02 * epochs
    axes.set_xlim(1 - margin, epochs + margin)
    axes.set_ylim(*_limits(values))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=_GREY, alpha=0.25, lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Limits of the y-axis, with a margin around the values. The margin keeps small noise from looking large.

    >>> _limits(np.array([0.5]))
    (0.47, 0.53)
    """
    low, high = float(values.min()), float(values.max())
    margin = max(0.12 * (high - low), 0.06 * abs(high), 1e-3)
    return max(0.0, low - margin) if low >= 0 else low - margin, high + margin


def _points(history: list[Row], name: str) -> tuple[list[float], list[float]]:
    """Epochs in which a metric was measured, and its values."""
    measured = [row for row in history if name in row]
    return [row["epoch"] for row in measured], [row[name] for row in measured]


def _line_style(history: list[Row]) -> dict[str, Any]:
    """Line style; with dots if the epochs are few enough to tell the dots apart."""
    return {"lw": 2.0, "marker": "o" if len(history) < 40 else "", "ms": 4}
