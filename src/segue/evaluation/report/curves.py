"""Charts of a training, from the `metrics.csv` of its run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from segue.errors import StorageError
from segue.evaluation.charts import Chart, Line
from segue.evaluation.tasks.registry import title_of

_TEST = "test "
_NOT_METRICS = ("epoch", "loss", "seconds")
_MOST_DOTS = 40


def curve_charts(path: str | Path, metric: str | None = None, best_epoch: int = 0) -> tuple[Chart, ...]:
    """A chart of the training loss, and one of each metric; lists of all lengths share a chart.

    Parameters
    ----------
    path
        The `metrics.csv` of a run.
    metric
        Name of the metric that chose the best epoch; its chart comes first.
    best_epoch
        The epoch to mark; 0 = none.

    Raises
    ------
    StorageError
        The file is missing or is no table of epochs.
    """
    try:
        table = pl.read_csv(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError):
        raise StorageError(f"the table of epochs {path} is missing or cannot be read.") from None
    if not {"epoch", "loss"} <= set(table.columns) or not len(table):
        raise StorageError(f"{path} is no table of epochs: expected columns epoch and loss, and a row per epoch.")
    by_metric: dict[str, list[str]] = {}
    for name in table.columns:
        if name not in _NOT_METRICS and not name.startswith(_TEST) and table[name].count():
            by_metric.setdefault(name.partition("@")[0], []).append(name)
    charts = [_chart("Training loss per target", "loss", [("loss", "loss")], table, 0)]
    chosen = (metric or "").partition("@")[0]
    for kind, names in sorted(by_metric.items(), key=lambda one: one[0] != chosen):
        single = len(names) == 1
        named = [("validation" if single else name, name) for name in names]
        named += [("test" if single else _TEST + name, _TEST + name) for name in names if _TEST + name in table.columns]
        title = title_of(names[0] if single else kind)
        charts.append(_chart(f"{title} on validation", title, named, table, best_epoch))
    return tuple(charts)


def _chart(title: str, up: str, named: list[tuple[str, str]], table: pl.DataFrame, best_epoch: int) -> Chart:
    lines = []
    for style, (label, name) in enumerate(named):
        points = table.select(pl.col("epoch", name).cast(pl.Float64)).drop_nulls().rows()
        lines.append(Line(label, points, dots=len(points) <= _MOST_DOTS, style=style))
    marks = [(float(best_epoch), f"best epoch {best_epoch}")] if best_epoch else []
    ends = 1.0, max(2.0, float(len(table)))
    return Chart(title, across="epoch", up=up, series=lines, ends=ends, marks=marks)
