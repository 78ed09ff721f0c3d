"""`segue.Results`: evaluations of models on data sets with several seeds, as one table with tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.table import Table

from segue.arguments import checked, require
from segue.display import as_html, as_text
from segue.errors import ConfigError, nearest
from segue.evaluation.charts import Span
from segue.evaluation.compare import compare
from segue.evaluation.report.outcome import common_metrics, headline_names
from segue.evaluation.report.results import write_results_page
from segue.evaluation.tasks.registry import lower_is_better, title_of
from segue.evaluation.tasks.result import Evaluation
from segue.files import atomic_file
from segue.settings import ShareWithin

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Key = tuple[str, str, int]

FILES = ("results.md", "results.tex", "results.csv", "results.html", "results.png")
"""Files that `Results.write` writes."""

_LEVEL = 0.05
_RESAMPLES = 10_000
_MARK = "†"
_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"} | {
    sign: f"\\{sign}" for sign in "&%$#_{}"
}


class Results:
    """Evaluations of models on data sets with several seeds. Printed and in a notebook it is a table.

    A figure is the mean over the seeds, and ± its standard deviation (n − 1). Models are compared with one of them on
    the same users: each user's value is first averaged over the seeds, then tested as `segue.compare` does. So a test
    covers the differences between users, and the standard deviation the luck of the trainings. The p-values of one
    metric are corrected together, over all models and data sets, by the method of Holm (1979).

    Parameters
    ----------
    evaluations
        Evaluation by (data set, model, seed). All of a data set are of the same questions.
    metrics
        Metrics to show; the task's headlines when None.
    baseline
        Model that the others are compared with; when None, the best one of each data set by the first metric.
    level
        Level of significance.

    Raises
    ------
    ConfigError
        There is no evaluation, or a metric or the baseline is unknown.
    EvaluationError
        Evaluations of a data set are of different questions.

    Examples
    --------
    >>> import polars as pl
    >>> rows = range(80)
    >>> log = pl.DataFrame({"user": [n // 4 for n in rows], "item": [n // 4 + n % 4 for n in rows], "time": rows})
    >>> split = segue.leave_last_out(segue.prepare(log))
    >>> fitted = {name: segue.fit(name, split) for name in ("markov", "popularity")}
    >>> evaluations = {("shop", name, 0): segue.evaluate(one, split.test, k=10) for name, one in fitted.items()}
    >>> results = segue.Results(evaluations, metrics="ndcg@10")
    >>> results.models, results.metrics
    (['markov', 'popularity'], ['ndcg@10'])
    >>> latex = results.to_latex()
    """

    @checked
    def __init__(
        self,
        evaluations: Mapping[Any, Any],
        *,
        metrics: str | Sequence[str] | None = None,
        baseline: str | None = None,
        level: ShareWithin = _LEVEL,
    ) -> None:
        if not evaluations:
            raise ConfigError("a table of results needs at least one evaluation.")
        for key, one in evaluations.items():
            if not (isinstance(key, tuple) and len(key) == 3 and [type(part) for part in key] == [str, str, int]):
                raise ConfigError(f"evaluations: the key {key!r}: expected (data set, model, seed).")
            require(f"the evaluation of {key}", one, Evaluation)
        self.evaluations: dict[Key, Evaluation] = dict(evaluations)
        self.data = list(dict.fromkeys(data for data, _, _ in self.evaluations))
        self.models = list(dict.fromkeys(model for _, model, _ in self.evaluations))
        self.level = level
        if baseline is not None and baseline not in self.models:
            raise ConfigError(f"baseline={baseline!r} is none of the models; {nearest(baseline, self.models)}")
        wanted = [metrics] if isinstance(metrics, str) else metrics
        self.metrics = list(self._usual() if wanted is None else wanted)
        known = common_metrics({str(key): one for key, one in self.evaluations.items()})
        for name in self.metrics:
            if name not in known:
                raise ConfigError(f"metrics: not every evaluation has {name!r}; {nearest(name, known)}")
        if not self.metrics:
            raise ConfigError("metrics=[]: expected at least one metric.")
        self._means = {key: _over_seeds(list(seeds.values())) for key, seeds in self._by_seed().items()}
        self.references = {one: self._best_of(one) if baseline is None else baseline for one in self.data}
        self._frame = self._made()

    def _usual(self) -> list[str]:
        """Headlines of the task of the first evaluation that all evaluations have."""
        return headline_names({str(key): one for key, one in self.evaluations.items()})

    def _by_seed(self) -> dict[tuple[str, str], dict[int, Evaluation]]:
        groups: dict[tuple[str, str], dict[int, Evaluation]] = {}
        for (data, model, seed), evaluation in self.evaluations.items():
            groups.setdefault((data, model), {})[seed] = evaluation
        return groups

    def _best_of(self, data: str) -> str:
        name = self.metrics[0]
        sign = -1 if lower_is_better(name) else 1
        return max(
            (model for model in self.models if (data, model) in self._means),
            key=lambda model: sign * self._means[data, model].metrics[name],
        )

    def _made(self) -> pl.DataFrame:
        """The table in long form."""
        rows: list[dict[str, Any]] = []
        for (data, model), seeds in self._by_seed().items():
            reference = self.references[data]
            tested: dict[str, Any] = {}
            if model != reference and (data, reference) in self._means:
                mean, other = self._means[data, model], self._means[data, reference]
                both = [name for name in self.metrics if mean.terms(name) is not None and other.terms(name) is not None]
                if both:
                    comparison = compare(other, mean, metric=both, names=(reference, model), resamples=_RESAMPLES)
                    tested = {row.metric: row for row in comparison.differences}
            for name in self.metrics:
                values = np.array([one.metrics[name] for one in seeds.values()])
                row = tested.get(name)
                rows.append(
                    {
                        "data": data,
                        "model": model,
                        "metric": name,
                        "mean": float(values.mean()),
                        "sd": float(values.std(ddof=1)) if len(values) > 1 else None,
                        "seeds": len(values),
                        "reference": reference,
                        "difference": None if row is None else row.difference,
                        "low": None if row is None else row.low,
                        "high": None if row is None else row.high,
                        "p": None if row is None else row.p_value,
                    }
                )
        frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
            pl.col("sd", "difference", "low", "high", "p").cast(pl.Float64)
        )
        corrected = np.full(len(frame), np.nan)
        for name in self.metrics:
            family = ((frame["metric"] == name) & frame["p"].is_not_null()).to_numpy()
            corrected[family] = holm(frame["p"].to_numpy()[family])
        return frame.with_columns(p_holm=pl.Series(corrected).fill_nan(None))

    # ---- as tables --------------------------------------------------------------------------------------------------

    def to_frame(self) -> pl.DataFrame:
        """A row per data set, model and metric.

        Columns: mean, sd (null with one seed), seeds, reference, difference from it with the interval low to high, p,
        and p_holm.
        """
        return self._frame

    def __str__(self) -> str:
        return as_text(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return as_html(self.table())

    def table(self) -> Table:
        """A table for the terminal: a row per model, a column per data set and metric."""
        table = Table(caption=self.note, caption_justify="left")
        table.add_column("model")
        for data in self.data:
            for name in self.metrics:
                table.add_column(f"{data}\n{title_of(name)}", justify="right")
        for model in self.models:
            table.add_row(model, *(self._text(data, model, name) for data in self.data for name in self.metrics))
        return table

    @property
    def note(self) -> str:
        """Explanation of the table."""
        seeds = max(self._frame["seeds"].to_list())
        several = f"Mean ± standard deviation over {seeds} seeds. " if seeds > 1 else ""
        names = sorted(set(self.references.values()))
        against = names[0] if len(names) == 1 else "the best model of the data set"
        return (
            f"{several}{_MARK} differs from {against} on the same users: randomisation test, "
            f"p < {self.level:g} after Holm's correction over {self._tests()} tests."
        )

    def _tests(self) -> int:
        tested = self._frame.filter(pl.col("p").is_not_null())["metric"].to_list()
        return max((tested.count(name) for name in self.metrics), default=0)

    def _row(self, data: str, model: str, name: str) -> dict[str, Any] | None:
        found = self._frame.filter((pl.col("data") == data) & (pl.col("model") == model) & (pl.col("metric") == name))
        return found.row(0, named=True) if len(found) else None

    def _text(self, data: str, model: str, name: str) -> str:
        row = self._row(data, model, name)
        if row is None:
            return "–"
        spread = "" if row["sd"] is None else f" ± {row['sd']:.4f}"
        return f"{row['mean']:.4f}{spread}{_MARK if self._is_significant(row) else ''}"

    def _is_significant(self, row: Mapping[str, Any]) -> bool:
        return row["p_holm"] is not None and row["p_holm"] < self.level

    def _is_best(self, data: str, model: str, name: str) -> bool:
        means = self._frame.filter((pl.col("data") == data) & (pl.col("metric") == name))
        best = means["mean"].min() if lower_is_better(name) else means["mean"].max()
        row = self._row(data, model, name)
        return row is not None and len(means) > 1 and row["mean"] == best

    def to_markdown(self) -> str:
        """The table in Markdown; the best figure of each column is bold."""
        heads = [f"{data}: {title_of(name)}" for data in self.data for name in self.metrics]
        lines = [" | ".join(["| model", *map(_piped, heads)]) + " |", "|---|" + "---:|" * len(heads)]
        for model in self.models:
            cells = [
                f"**{self._text(data, model, name)}**"
                if self._is_best(data, model, name)
                else self._text(data, model, name)
                for data in self.data
                for name in self.metrics
            ]
            lines.append(" | ".join([f"| {_piped(model)}", *cells]) + " |")
        return "\n".join([*lines, "", self.note, ""])

    def to_latex(self) -> str:
        """The table in LaTeX with the package booktabs; the best figure of each column is bold."""
        n = len(self.metrics)
        groups = " & ".join(f"\\multicolumn{{{n}}}{{c}}{{{_escaped(data)}}}" for data in self.data)
        rules = " ".join(f"\\cmidrule(lr){{{2 + n * at}-{1 + n * (at + 1)}}}" for at in range(len(self.data)))
        heads = " & ".join(_escaped(title_of(name)) for _ in self.data for name in self.metrics)
        body = [
            " & ".join(
                [_escaped(model), *(self._latex(data, model, name) for data in self.data for name in self.metrics)]
            )
            for model in self.models
        ]
        note = _escaped(self.note).replace("±", "$\\pm$").replace(_MARK, "$^\\dagger$").replace("<", "$<$")
        return "\n".join(
            [
                "% \\usepackage{booktabs}",
                "\\begin{table}",
                "\\centering",
                f"\\caption{{{note}}}",
                f"\\begin{{tabular}}{{l{'r' * n * len(self.data)}}}",
                "\\toprule",
                f" & {groups} \\\\",
                rules,
                f"Model & {heads} \\\\",
                "\\midrule",
                *(f"{row} \\\\" for row in body),
                "\\bottomrule",
                "\\end{tabular}",
                "\\end{table}",
                "",
            ]
        )

    def _latex(self, data: str, model: str, name: str) -> str:
        row = self._row(data, model, name)
        if row is None:
            return "--"
        mean = f"{row['mean']:.4f}"
        mean = f"\\mathbf{{{mean}}}" if self._is_best(data, model, name) else mean
        spread = "" if row["sd"] is None else f" \\pm {row['sd']:.4f}"
        mark = "^\\dagger" if self._is_significant(row) else ""
        return f"${mean}{spread}{mark}$"

    # ---- as pictures and files --------------------------------------------------------------------------------------

    def plot(self) -> Figure:
        """Draw the mean of each model with its standard deviation: a panel per data set and metric."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows, columns = len(self.data), len(self.metrics)
        size = (4.6 * columns, (0.9 + 0.34 * len(self.models)) * rows)
        figure = Figure(figsize=size, dpi=130, layout="constrained")
        FigureCanvasAgg(figure)
        for at, (data, name) in enumerate((data, name) for data in self.data for name in self.metrics):
            axes = figure.add_subplot(rows, columns, at + 1)
            found = [(model, self._row(data, model, name)) for model in reversed(self.models)]
            kept = [(model, row) for model, row in found if row is not None]
            means, spreads = [row["mean"] for _, row in kept], [row["sd"] or 0.0 for _, row in kept]
            colours = ["#d9822b" if self._is_best(data, model, name) else "#2f6db3" for model, _ in kept]
            axes.barh([model for model, _ in kept], means, xerr=spreads, color=colours, ecolor="#3c434b", capsize=2)
            axes.set_title(f"{data}: {title_of(name)}", loc="left", fontsize=11)
            axes.spines[["top", "right"]].set_visible(False)
        return figure

    def write(self, folder: str | Path) -> list[Path]:
        """Write the table as Markdown, LaTeX, CSV and an HTML page, and the picture; return the paths."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        paths = [place / name for name in FILES]
        texts = {
            "results.md": self.to_markdown(),
            "results.tex": self.to_latex(),
            "results.csv": self._frame.write_csv(),
        }
        for path in paths[:3]:
            with atomic_file(path) as temporary:
                temporary.write_text(texts[path.name], encoding="utf-8")
        self.report(paths[3])
        with atomic_file(paths[4]) as temporary:
            self.plot().savefig(temporary, format="png")
        return paths

    def report(self, path: str | Path, title: str = "Models side by side") -> Path:
        """Write one HTML page with the table, charts and tests; return its path."""
        charts = [(f"{data}: {title_of(name)}", self._spans(data, name)) for data in self.data for name in self.metrics]
        table = [
            (
                model,
                [
                    (self._text(data, model, name), self._is_best(data, model, name))
                    for data in self.data
                    for name in self.metrics
                ],
            )
            for model in self.models
        ]
        tested = self._frame.filter(pl.col("p").is_not_null()).to_dicts()
        return write_results_page(
            path,
            title=title,
            heads=[f"{data}: {title_of(name)}" for data in self.data for name in self.metrics],
            table=table,
            note=self.note,
            charts=charts,
            tests=tested,
            settings={data: self._means[data, self.references[data]].setting for data in self.data},
        )

    def _spans(self, data: str, name: str) -> list[Span]:
        rows = [row for model in self.models if (row := self._row(data, model, name)) is not None]
        sign = 1 if lower_is_better(name) else -1
        rows.sort(key=lambda row: sign * row["mean"])
        return [
            Span(row["model"], row["mean"], row["mean"] - (row["sd"] or 0.0), row["mean"] + (row["sd"] or 0.0))
            for row in rows
        ]

    @classmethod
    def load(cls, folder: str | Path, **options: Any) -> Results:
        """Results of the evaluations in the folder of `segue experiment`, as far as they are done.

        Parameters
        ----------
        folder
            The folder.
        options
            As of `Results`.
        """
        found = {}
        for file in sorted(Path(folder).glob("*/*/seed-*.json")):
            seed = file.stem.removeprefix("seed-")
            if seed.isdecimal():
                found[file.parent.parent.name, file.parent.name, int(seed)] = Evaluation.load(file)
        if not found:
            raise ConfigError(f"{folder} holds no evaluation: expected files such as DATA/MODEL/seed-0.json.")
        return cls(found, **options)


def holm(p_values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """P-values (n,) of a family of tests, corrected by Holm's step-down method (1979).

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return corrected


def _over_seeds(evaluations: Sequence[Evaluation]) -> Evaluation:
    """One evaluation with each user's values averaged over the seeds.

    Raises
    ------
    EvaluationError
        The evaluations are of different questions.
    """
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    for other in evaluations[1:]:
        compare(first, other, metric=[], resamples=1)  # an error, if the questions differ
    frames = [one.per_user.with_columns(row=pl.int_range(pl.len())) for one in evaluations]
    order = frames[0].select("user", "row")
    shared = [name for name in first.per_user.columns if all(name in one.per_user.columns for one in evaluations)]
    numbers = [name for name in shared if name != "user" and first.per_user[name].dtype.is_numeric()]
    whole = pl.concat([one.select("user", *(pl.col(name).cast(pl.Float64) for name in numbers)) for one in frames])
    mean = whole.group_by("user").agg(pl.col(numbers).mean())
    per_user = order.join(mean, on="user", how="left", maintain_order="left").drop("row")
    metrics = {
        name: float(np.mean([one.metrics[name] for one in evaluations]))
        for name in first.metrics
        if all(name in one.metrics for one in evaluations)
    }
    return replace(first, per_user=per_user, metrics=metrics, intervals={}, sessions={}, ranking=None)


def _escaped(text: str) -> str:
    return re.sub(r"[\\^~&%$#_{}]", lambda match: _LATEX[match[0]], text)


def _piped(text: str) -> str:
    return text.replace("|", "\\|")
