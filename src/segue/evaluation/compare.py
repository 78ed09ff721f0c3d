"""Comparison of two evaluations on the same users, with intervals and p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from segue.arguments import checked
from segue.display import as_html, as_text
from segue.errors import ConfigError, EvaluationError, nearest
from segue.evaluation.charts import Span
from segue.evaluation.metrics import Floats
from segue.evaluation.resampling import bootstrap_figure, bootstrap_interval, sign_flip_p_value
from segue.evaluation.tasks.description import Metric
from segue.evaluation.tasks.registry import lower_is_better
from segue.evaluation.tasks.result import Evaluation
from segue.settings import Range, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Difference:
    """Difference of two models in one metric, user by user."""

    metric: str
    """Name of the metric."""

    a: float
    """Mean of the first model."""

    b: float
    """Mean of the second model."""

    difference: float
    """b − a: positive if the second model is better; negative for an error (rmse, mae, log_loss)."""

    low: float
    """Lower end of the 95 % paired bootstrap interval of the difference."""

    high: float
    """Upper end of it."""

    p_value: float
    """Two-sided p-value of the paired randomisation test (signs flipped at random)."""

    wins: int
    """Number of users with a better value of the second model."""

    ties: int
    """Number of users with equal values."""

    losses: int
    """Number of users with a better value of the first model."""

    better: Literal["a", "b"] | None = None
    """The better model, if the interval excludes 0; for an error the one with less of it."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two models on the same questions. Printed and in a notebook it is a table.

    Attributes
    ----------
    a, b
        Names of the models.
    users
        Number of users.
    differences
        One for each metric.
    unit
        The units that were compared pair by pair: "users", or "sessions", one of each user.
    candidates
        Items that the targets were ranked among, in words.
    sessions
        Comparisons of the users' sessions, for each way of ranking in which both were evaluated.
    warnings
        Reasons to mistrust the figures of a model.
    """

    a: str
    b: str
    users: int
    differences: tuple[Difference, ...]
    unit: str
    candidates: str
    sessions: Mapping[str, Comparison] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> Difference:
        """The difference in that metric; an unknown one is an EvaluationError that names the nearest."""
        by_metric = {difference.metric: difference for difference in self.differences}
        if metric not in by_metric:
            raise EvaluationError(f"{metric!r} was not compared; {nearest(metric, by_metric)}")
        return by_metric[metric]

    def __str__(self) -> str:
        return as_text(self.table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = [as_html(self.table())]
        parts += [as_html(other.table(), caption=way) for way, other in self.sessions.items()]
        return "".join(parts)

    def plot(self, metrics: Sequence[str] | None = None) -> Figure:
        """Draw the differences with their intervals.

        Parameters
        ----------
        metrics
            Names of the metrics; all that were compared when None.

        Returns
        -------
        figure
            A figure of matplotlib. A notebook shows it, and `figure.savefig("figure.svg")` writes it.

        Raises
        ------
        EvaluationError
            A metric was not compared; the message names the nearest.
        """
        from segue.evaluation.plots import plot_differences

        rows = list(self.differences) if metrics is None else [self[name] for name in metrics]
        names = [f"{row.metric} ↓" if lower_is_better(row.metric) else row.metric for row in rows]
        spans = [Span(name, row.difference, row.low, row.high) for name, row in zip(names, rows, strict=True)]
        better = [None if row.better is None else self.a if row.better == "a" else self.b for row in rows]
        return plot_differences(f"{self.users:,} {self.unit}", (self.a, self.b), spans, better)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": "comparison",
            "a": self.a,
            "b": self.b,
            "users": self.users,
            "unit": self.unit,
            "among": self.candidates,
            "differences": [asdict(difference) for difference in self.differences],
            **({"cautions": list(self.warnings)} if self.warnings else {}),
            **({"sessions": {way: other.to_dict() for way, other in self.sessions.items()}} if self.sessions else {}),
        }

    def table(self) -> Table:
        """A table for the terminal: a row per metric."""
        title = f"{self.b} against {self.a}, {self.users:,} {self.unit}, among {self.candidates}"
        errors = any(lower_is_better(row.metric) for row in self.differences)
        notes = ["* the interval excludes 0", *(["↓ less is better"] if errors else []), *self.warnings]
        table = Table(title=title, title_justify="left", caption="\n".join(notes), caption_justify="left")
        table.add_column("metric")
        for heading in (self.a, self.b, "difference [95 %]", "p", "better / equal / worse"):
            table.add_column(heading, justify="right")
        table.add_column("is better")
        for row in self.differences:
            mark = "*" if row.better else " "
            table.add_row(
                f"{row.metric} ↓" if lower_is_better(row.metric) else row.metric,
                f"{row.a:.4f}",
                f"{row.b:.4f}",
                f"{row.difference:+.4f}  [{row.low:+.4f}, {row.high:+.4f}]{mark}",
                f"{row.p_value:.4f}",
                f"{row.wins:,} / {row.ties:,} / {row.losses:,}",
                "" if row.better is None else self.a if row.better == "a" else self.b,
            )
        return table


@checked
def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    metric: str | Sequence[str] | None = None,
    names: tuple[str, str] | None = None,
    resamples: Annotated[int, Range(1, 1_000_000)] = 10_000,
    seed: Seed = 0,
) -> Comparison:
    """Test whether two models differ on the same users.

    Differences are taken user by user, so hard users do not blur them. The interval is a percentile bootstrap of their
    mean. The p-value is that of a randomisation test, as Smucker, Allan and Carterette (2007, "A comparison of
    statistical significance tests for information retrieval evaluation") recommend. Neither covers the luck of a
    training: to compare methods rather than two trained models, train with several seeds.

    Parameters
    ----------
    a, b
        Evaluations on the same Holdout with the same candidates. If both have `sessions`, those are compared too.
    metric
        Names of the metrics, of the evaluations or of their sessions; all that both have when None.
    names
        Names to show; the models' names when None.
    resamples
        Number of resamples of users for the interval, and of signs for the p-value.
    seed
        Seed of both.

    Returns
    -------
    comparison
        Differences b − a.

    Raises
    ------
    ConfigError
        One of the evaluations lacks a metric, or an argument has a wrong type or is out of range.
    EvaluationError
        The users or the settings differ.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> models = segue.Popularity(), segue.PersonalFrequency()
    >>> a, b = (segue.evaluate(segue.fit(one, split), split.test, k=10, exclude_seen=False) for one in models)
    >>> comparison = segue.compare(a, b, metric="ndcg@10")
    >>> comparison["ndcg@10"].better
    'b'
    """
    ways = [way for way in a.sessions if way in b.sessions]
    known = dict.fromkeys(_common(a, b) + [name for way in ways for name in _common(a.sessions[way], b.sessions[way])])
    wanted = list(known) if metric is None else [metric] if isinstance(metric, str) else list(metric)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"both evaluations have no metric {name!r} per user; {nearest(name, known)}")
    labels = (a.model, b.model) if names is None else names
    main, *sessions = (
        _compared(one, other, wanted, labels, resamples, seed)
        for one, other in [(a, b), *((a.sessions[way], b.sessions[way]) for way in ways)]
    )
    return replace(main, sessions=dict(zip(ways, sessions, strict=True)))


def _common(a: Evaluation, b: Evaluation) -> list[str]:
    """Names of the metrics that can be compared user by user."""
    return [name for name in a.metrics if a.terms(name) is not None and b.terms(name) is not None]


def _compared(
    a: Evaluation, b: Evaluation, wanted: Sequence[str], names: tuple[str, str], resamples: int, seed: int
) -> Comparison:
    """Comparison of two evaluations in those of the metrics `wanted` that both have."""
    _same_questions(a, b)
    numbered = b.per_user.select("user").with_row_index("row")
    rows = a.per_user.select("user").join(numbered, on="user", maintain_order="left")["row"].to_numpy()
    measured = _common(a, b)
    differences = tuple(_difference(name, a, b, rows, resamples, seed) for name in wanted if name in measured)
    warnings = tuple(f"{name}: {one.warning}" for name, one in zip(names, (a, b), strict=True) if one.warning)
    return Comparison(*names, len(rows), differences, a.task.unit, a.candidates, warnings=warnings)


def _difference(
    name: str, a: Evaluation, b: Evaluation, rows: npt.NDArray[np.uint32], resamples: int, seed: int
) -> Difference:
    """Difference in one metric. User i of `a` is user `rows[i]` of `b`; the weights of both models are the same.

    The p-value of a root (rmse) is that of the squares. Exchanging the models for a user does not change the sum over
    both models. For a given sum, the difference of the roots grows with the difference of the squares.
    """
    metric, terms_a, terms_b = a.task.metric(name), a.terms(name), b.terms(name)
    assert metric is not None and terms_a is not None and terms_b is not None
    (first, weights), second = terms_a, terms_b[0][rows]
    if weights is not None:
        measured = weights > 0
        first, second, weights = first[measured], second[measured], weights[measured]
    change = second - first
    change[np.isclose(first, second, rtol=1e-12, atol=0.0)] = 0.0
    more, less = int((change > 0).sum()), int((change < 0).sum())
    wins, losses = (less, more) if metric.lower_is_better else (more, less)
    whole = float(len(change) if weights is None else weights.sum())
    mean_a, mean_b = (float(metric.combined(float(values.sum()), whole)) for values in (first, second))
    if metric.root:
        per_user = np.ones_like(first) if weights is None else weights
        low, high = bootstrap_figure([first, second, per_user], _difference_of_roots, resamples, seed)
    else:
        low, high = bootstrap_interval(change, resamples, seed, per=weights)
    return Difference(
        metric=name,
        a=mean_a,
        b=mean_b,
        difference=mean_b - mean_a if metric.root else float(change.sum()) / whole,
        low=low,
        high=high,
        p_value=sign_flip_p_value(change, resamples, seed),
        wins=wins,
        ties=len(change) - wins - losses,
        losses=losses,
        better=_better(metric, low, high),
    )


def _difference_of_roots(first: Floats, second: Floats, weights: Floats) -> Floats:
    """Second root mean square minus the first, from means over users."""
    return np.sqrt(second / weights) - np.sqrt(first / weights)


def _better(metric: Metric, low: float, high: float) -> Literal["a", "b"] | None:
    if low <= 0 <= high:
        return None
    return "b" if (low > 0) is not metric.lower_is_better else "a"


def _same_questions(a: Evaluation, b: Evaluation) -> None:
    """Raise an EvaluationError that names the difference, if the users or the settings differ."""
    users_a, users_b = a.per_user["user"], b.per_user["user"]
    same_type = users_a.dtype == users_b.dtype
    shared = len(a.per_user.join(b.per_user, on="user", how="semi")) if same_type else 0
    if shared != len(users_a) or shared != len(users_b):
        raise EvaluationError(
            f"the evaluations are of different users: {len(users_a):,} and {len(users_b):,}, of whom {shared:,} are in "
            "both. Evaluate both models on the same Holdout, with the same number of users and seed."
        )
    own = (*a.task.settings, *b.task.settings)
    for key in dict.fromkeys(("task", "split", "items", *own, "ties", "questions")):
        one, other = a.protocol.get(key), b.protocol.get(key)
        if one != other:
            raise EvaluationError(
                f"the evaluations cannot be compared: {key} is {one!r} in one and {other!r} in the other. "
                "Evaluate both models in the same way."
            )
