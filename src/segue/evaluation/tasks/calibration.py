"""Charts of the calibration of rating models."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from segue.evaluation.charts import Bars, Chart, Line

Parts = Mapping[str, pl.DataFrame]
"""Parts of one evaluation of ratings: "calibration" and, with probabilities, "level"."""


def calibration_charts(models: Mapping[str, Parts]) -> tuple[Chart, ...]:
    """Ratings given against ratings expected, and the frequency of each level, as given and as expected.

    Parameters
    ----------
    models
        Parts of evaluations of the same ratings, by the name to show. The second chart holds the models with
        probabilities; it is left out if there are none.
    """
    probable = {name: parts["level"] for name, parts in models.items() if "level" in parts}
    styles = {name: number for number, name in enumerate(models)}
    tenths = _tenths({name: parts["calibration"] for name, parts in models.items()}, styles)
    return (tenths, _levels(probable, styles)) if probable else (tenths,)


def _tenths(tables: Mapping[str, pl.DataFrame], styles: Mapping[str, int]) -> Chart:
    """A dot per tenth of the ratings; on the diagonal, users give the rating that is expected."""
    means = np.concatenate([table.select("mean_expected", "mean_true").to_numpy().ravel() for table in tables.values()])
    ends = float(means.min()), float(means.max())
    lines = [
        Line(name, table.select("mean_expected", "mean_true").rows(), style=styles[name])
        for name, table in tables.items()
    ]
    return Chart(
        "Ratings given against ratings expected",
        across="mean rating expected, in tenths of the questions",
        up="mean rating given",
        series=[Line("as expected", [(end, end) for end in ends], style="guide"), *lines],
        same_scale=True,
    )


def _levels(tables: Mapping[str, pl.DataFrame], styles: Mapping[str, int]) -> Chart:
    """A group of bars per level: its frequency, and the frequency that each model expected."""
    first = next(iter(tables.values()))
    total = float(first["questions"].sum())
    bars = {"given": (first["level"].to_list(), first["questions"].to_list(), max(styles.values()) + 1)}
    for name, table in tables.items():
        bars[f"expected by {name}"] = table["level"].to_list(), table["predicted"].to_list(), styles[name]
    levels = sorted({level for names, _, _ in bars.values() for level in names}, key=float)
    positions = {level: float(position) for position, level in enumerate(levels)}
    width = 0.8 / len(bars)
    series = []
    for number, (name, (names, sizes, style)) in enumerate(bars.items()):
        start = -0.4 + number * width
        heights = [
            (positions[level] + start, positions[level] + start + width, size / total)
            for level, size in zip(names, sizes, strict=True)
        ]
        series.append(Bars(name, heights, style))
    ticks = [(position, level) for level, position in positions.items()]
    return Chart("Share of each rating", across="rating", up="share", series=series, ticks=ticks)
