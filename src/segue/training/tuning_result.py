"""Result of a search: the best settings, all trials, and the importance of each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table

from segue.display import as_html, as_text
from segue.evaluation.tasks.registry import lower_is_better
from segue.files import atomic_file
from segue.inference.recommender import Recommender
from segue.models.base import ModelConfig
from segue.training.config import Training

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

_STATES = {"COMPLETE": "done", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "in flight"}


@dataclass(frozen=True, eq=False, repr=False)
class Tuning:
    """Result of `segue.tune`. Printed and in a notebook it is a table.

    Attributes
    ----------
    study
        Name of the search.
    metric
        The metric of validation that chose.
    config, training
        The best settings, ready for `segue.fit`.
    value
        Their metric on validation.
    settings
        The searched settings of the best trial, by full name.
    trials
        A row per trial: number, state, metric, epochs, seconds and the searched settings.
    importance
        Share of each setting in the differences between good and other trials, from 0 to 1; empty with few trials.
    run
        Folder of the best run, an ordinary run; None if the search had no folder.
    recommender
        The Recommender of the best trial; None if it was trained in memory by an earlier call.
    """

    study: str
    metric: str
    config: ModelConfig
    training: Training
    value: float
    settings: Mapping[str, Any]
    trials: pl.DataFrame
    importance: Mapping[str, float]
    run: Path | None
    recommender: Recommender | None

    def __str__(self) -> str:
        return as_text(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.table())

    def to_frame(self) -> pl.DataFrame:
        """All trials: `trials`."""
        return self.trials

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "study": self.study,
            "metric": self.metric,
            "value": self.value,
            "settings": dict(self.settings),
            "trials": dict(self.trials["state"].value_counts().sort("state").iter_rows()),
            "importance": dict(self.importance),
            "run": None if self.run is None else str(self.run),
        }

    def table(self) -> Table:
        """A table for the terminal: a row per setting, with the value as it was, the best one and the importance."""
        first = self.trials.row(0, named=True)
        title = f"{self.metric} {self.value:.4f} on validation, the best of {len(self.trials):,} trials"
        if first["state"] == "done":
            title += f"; {first[self.metric]:.4f} in the first one"
        table = Table(title=title, title_justify="left")
        for heading in ("setting", "first", "best", "importance"):
            table.add_column(heading, justify="left" if heading == "setting" else "right")
        for name in sorted(self.settings, key=lambda name: -self.importance.get(name, 0.0)):
            share = self.importance.get(name)
            table.add_row(
                name, _word(first[name]), _word(self.settings[name]), "–" if share is None else f"{share:.0%}"
            )
        return table

    def plot(self, path: str | Path | None = None) -> Figure:
        """Draw the value of each trial, the importance of each setting, and the value by the most important ones.

        Parameters
        ----------
        path
            File of a PNG to write, too.
        """
        figure = _figure(self)
        if path is not None:
            with atomic_file(Path(path)) as temporary:
                figure.savefig(temporary, format="png")
        return figure


def frame_of(study: optuna.Study, names: list[str], metric: str) -> pl.DataFrame:
    """A row per trial of a study in the order of the trials; lost ones are left out."""
    rows: list[dict[str, Any]] = []
    for trial in study.get_trials(deepcopy=False):
        lost = trial.state.name == "FAIL" and "error" not in trial.user_attrs
        if lost or trial.state.name not in _STATES or "run" not in trial.user_attrs:
            continue
        rows.append(
            {
                "trial": int(trial.user_attrs["run"]),
                "state": _STATES[trial.state.name],
                metric: trial.user_attrs.get("value"),
                "epochs": max(trial.intermediate_values, default=None),
                "seconds": trial.user_attrs.get("seconds"),
                **{name: trial.params.get(name) for name in names},
            }
        )
    rows.sort(key=lambda row: row["trial"])
    schema = {"trial": pl.Int64, "state": pl.String, metric: pl.Float64, "epochs": pl.Int64, "seconds": pl.Float64}
    return pl.DataFrame(rows, schema={**schema, **{name: _dtype(rows, name) for name in names}}, strict=False)


def _dtype(rows: list[dict[str, Any]], name: str) -> Any:
    kinds = {type(row[name]) for row in rows} - {type(None)}
    if kinds <= {int}:
        return pl.Int64
    return pl.Float64 if kinds <= {int, float} else pl.Boolean if kinds == {bool} else pl.String


def importance_of(study: optuna.Study) -> dict[str, float]:
    """Importance of each setting by PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023), the largest first.

    It is empty if there are too few whole trials to say.
    """
    import optuna

    if sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)) < 3:
        return {}
    try:
        shares = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    except (ValueError, RuntimeError):  # all trials are alike
        return {}
    whole = sum(shares.values())
    return {name: float(share) / whole for name, share in shares.items()} if whole > 0 else {}


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


_BLUE, _GREY, _ORANGE = "#2f6db3", "#8a8f98", "#d9822b"


def _figure(tuning: Tuning) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    whole = tuning.trials.filter(pl.col("state") == "done")
    varied = [name for name in tuning.settings if whole[name].drop_nulls().n_unique() > 1]
    names = sorted(varied, key=lambda name: -tuning.importance.get(name, 0.0))[:2]
    panels = 1 + bool(tuning.importance) + len(names)
    figure = Figure(figsize=(4.4 * panels, 3.9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    first, *others = (figure.add_subplot(1, panels, number + 1) for number in range(panels))
    _draw_trials(first, tuning)
    if tuning.importance:
        axes, *others = others
        shares = sorted(tuning.importance.items(), key=lambda one: one[1])
        axes.barh([name for name, _ in shares], [share for _, share in shares], color=_BLUE)
        axes.set_title("What mattered", loc="left", fontsize=11)
        axes.set_xlabel("share of the importance")
    for axes, name in zip(others, names, strict=True):
        values, metric = whole[name].to_list(), whole[tuning.metric].to_list()
        pairs = [(x, y) for x, y in zip(values, metric, strict=True) if x is not None]
        is_word = isinstance(pairs[0][0], str | bool)
        axes.plot(
            [str(x) if is_word else x for x, _ in pairs], [y for _, y in pairs], "o", color=_BLUE, alpha=0.6, ms=5
        )
        numbers = [x for x, _ in pairs if not is_word and x > 0]
        if len(numbers) == len(pairs) and max(numbers) > 30 * min(numbers):
            axes.set_xscale("log")
        axes.set_title(f"{tuning.metric} by {name}", loc="left", fontsize=11)
        axes.set_xlabel(name)
    for axes in figure.axes:
        axes.grid(axis="y", color=_GREY, alpha=0.25, lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_trials(axes: Any, tuning: Tuning) -> None:
    """Draw the value of every trial, and the best one so far."""
    measured = tuning.trials.filter(pl.col(tuning.metric).is_not_null())
    for state, colour, marker in (("done", _BLUE, "o"), ("stopped early", _GREY, "x")):
        part = measured.filter(pl.col("state") == state)
        if len(part):
            axes.plot(part["trial"], part[tuning.metric], marker, color=colour, ms=5, label=state)
    done = measured.filter(pl.col("state") == "done").sort("trial")
    best = pl.col(tuning.metric).cum_min() if lower_is_better(tuning.metric) else pl.col(tuning.metric).cum_max()
    axes.step(done["trial"], done.select(best).to_series(), where="post", color=_ORANGE, lw=1.4, label="best so far")
    axes.set_title(f"{tuning.metric} on validation", loc="left", fontsize=11)
    axes.set_xlabel("trial")
    axes.legend(frameon=False, fontsize=9)
