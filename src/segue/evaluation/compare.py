"""Comparison of two evaluations on the same users: is one model really better, or was it luck with these users?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from segue.errors import ConfigError, EvaluationError, nearest
from segue.evaluation.metrics import Floats, combined, lower_is_better
from segue.evaluation.resampling import bootstrap_figure, bootstrap_interval, sign_flip_p_value
from segue.evaluation.result import Evaluation, as_text

_PROTOCOL = (
    "task",
    "split",
    "items",
    "basket_k",
    "candidates",
    "drawn_by",
    "drawn_from_seed",
    "exclude_seen",
    "ties",
    "cutoff",
    "arg_max",
    "questions",
)
"""What has to be the same in two evaluations."""


@dataclass(frozen=True)
class Difference:
    """How two models differ in one metric, user by user."""

    metric: str
    """Name of the metric."""

    a: float
    """Mean of the first model."""

    b: float
    """Mean of the second model."""

    difference: float
    """b − a: positive where the second model is better, of an error (rmse, mae, log_loss) negative."""

    low: float
    """Lower end of the 95 % paired bootstrap interval of the difference."""

    high: float
    """Upper end of it."""

    p_value: float
    """Two-sided p-value of the paired randomisation test (signs flipped at random)."""

    wins: int
    """Users for whom the second model is better."""

    ties: int
    """Users for whom both are equal."""

    losses: int
    """Users for whom the first model is better."""

    better: Literal["a", "b"] | None = None
    """Which model is better, if the interval excludes 0; of an error the one that has less."""


@dataclass(frozen=True)
class Comparison:
    """Two models on the same questions.

    Attributes
    ----------
    a, b
        Names of the models.
    users
        How many users both were asked about.
    differences
        One for each metric.
    unit
        What was compared pair by pair: "users", or "sessions", of which each user has one.
    among
        What the targets were ranked among, in words.
    sessions
        The same of the users' sessions, for each way of ranking in which both were evaluated.
    cautions
        What a reader must know before believing the figures of one of them.
    """

    a: str
    b: str
    users: int
    differences: tuple[Difference, ...]
    unit: str
    among: str
    sessions: Mapping[str, Comparison] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> Difference:
        """The difference in that metric; an unknown one is an EvaluationError naming the nearest."""
        found = {difference.metric: difference for difference in self.differences}
        if metric not in found:
            raise EvaluationError(f"{metric!r} was not compared; {nearest(metric, found)}")
        return found[metric]

    def __str__(self) -> str:
        return as_text(self.table())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": "comparison",
            "a": self.a,
            "b": self.b,
            "users": self.users,
            "unit": self.unit,
            "among": self.among,
            "differences": [asdict(difference) for difference in self.differences],
            **({"cautions": list(self.cautions)} if self.cautions else {}),
            **({"sessions": {way: found.to_dict() for way, found in self.sessions.items()}} if self.sessions else {}),
        }

    def table(self) -> Table:
        """A table for the terminal: a row per metric."""
        title = f"{self.b} against {self.a}, {self.users:,} {self.unit}, among {self.among}"
        errors = any(lower_is_better(row.metric) for row in self.differences)
        notes = ["* the interval excludes 0", *(["↓ less is better"] if errors else []), *self.cautions]
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


def compare(
    a: Evaluation,
    b: Evaluation,
    *,
    metric: str | Sequence[str] | None = None,
    names: tuple[str, str] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Test whether two models differ on the same users.

    Differences are taken user by user, so that how hard a user is does not matter. The interval is a percentile
    bootstrap of their mean; the p-value is that of a randomisation test, which Smucker, Allan and Carterette (2007, "A
    comparison of statistical significance tests for information retrieval evaluation") recommend. Neither knows how
    lucky a training was: to speak of methods rather than of two trained models, train with several seeds.

    Parameters
    ----------
    a, b
        Evaluations on the same Holdout with the same candidates. Where both carry `sessions`, those are compared too.
    metric
        Names to compare; all that both have when None. A name is looked for in the evaluations and their sessions.
    names
        What to call the two; the models' names when None.
    resamples
        Of users for the interval, and of signs for the p-value.
    seed
        Draws both.

    Returns
    -------
    comparison
        Differences b − a.

    Raises
    ------
    ConfigError
        A metric was measured by neither kind of evaluation in both, or `resamples` is not positive.
    EvaluationError
        The users, or what they were asked, differ.
    """
    if resamples < 1:
        raise ConfigError(f"resamples is {resamples}: expected 1 or more.")
    ways = [way for way in a.sessions if way in b.sessions]
    known = dict.fromkeys(_common(a, b) + [name for way in ways for name in _common(a.sessions[way], b.sessions[way])])
    wanted = list(known) if metric is None else [metric] if isinstance(metric, str) else list(metric)
    for name in wanted:
        if name not in known:
            raise ConfigError(f"both evaluations have no metric {name!r} per user; {nearest(name, known)}")
    called = (a.model, b.model) if names is None else names
    main, *sessions = (
        _compared(one, other, wanted, called, resamples, seed)
        for one, other in [(a, b), *((a.sessions[way], b.sessions[way]) for way in ways)]
    )
    return replace(main, sessions=dict(zip(ways, sessions, strict=True)))


def _common(a: Evaluation, b: Evaluation) -> list[str]:
    """The metrics that can be compared user by user."""
    return [name for name in a.metrics if a.terms(name) is not None and b.terms(name) is not None]


def _compared(
    a: Evaluation, b: Evaluation, wanted: Sequence[str], names: tuple[str, str], resamples: int, seed: int
) -> Comparison:
    """Two evaluations of the same questions, in those of the metrics `wanted` that they have."""
    _same_questions(a, b)
    numbered = b.per_user.select("user").with_row_index("row")
    rows = a.per_user.select("user").join(numbered, on="user", maintain_order="left")["row"].to_numpy()
    measured = _common(a, b)
    found = (_difference(name, a, b, rows, resamples, seed) for name in wanted if name in measured)
    unit = "sessions" if "basket_k" in a.protocol else "users"
    cautions = tuple(f"{name}: {one.caution}" for name, one in zip(names, (a, b), strict=True) if one.caution)
    return Comparison(*names, len(rows), tuple(found), unit, a.among, cautions=cautions)


def _difference(
    name: str, a: Evaluation, b: Evaluation, rows: npt.NDArray[np.uint32], resamples: int, seed: int
) -> Difference:
    """One metric; user i of `a` is user `rows[i]` of `b`. Weights, where a metric has any, are the same for both.

    For the p-value of rmse squared errors may stand for it: exchanging the models for a user leaves the sum over both
    as it is, and with that sum given the difference of the roots grows with the difference of the squares.
    """
    of_a, of_b = a.terms(name), b.terms(name)
    assert of_a is not None and of_b is not None
    (first, per), second = of_a, of_b[0][rows]
    if per is not None:
        measured = per > 0
        first, second, per = first[measured], second[measured], per[measured]
    change = second - first
    change[np.isclose(first, second, rtol=1e-12, atol=0.0)] = 0.0
    more, less = int((change > 0).sum()), int((change < 0).sum())
    wins, losses = (less, more) if lower_is_better(name) else (more, less)
    whole = float(len(change) if per is None else per.sum())
    mean_a, mean_b = (combined(name, float(values.sum()), whole) for values in (first, second))
    if name == "rmse" and per is not None:
        low, high = bootstrap_figure([first, second, per], _roots_apart, resamples, seed)
    else:
        low, high = bootstrap_interval(change, resamples, seed, per=per)
    return Difference(
        metric=name,
        a=mean_a,
        b=mean_b,
        difference=mean_b - mean_a if name == "rmse" else float(change.sum()) / whole,
        low=low,
        high=high,
        p_value=sign_flip_p_value(change, resamples, seed),
        wins=wins,
        ties=len(change) - wins - losses,
        losses=losses,
        better=_better(name, low, high),
    )


def _roots_apart(first: Floats, second: Floats, questions: Floats) -> Floats:
    """How much larger the second root mean square is, of means over users."""
    return np.sqrt(second / questions) - np.sqrt(first / questions)


def _better(name: str, low: float, high: float) -> Literal["a", "b"] | None:
    if low <= 0 <= high:
        return None
    return "b" if (low > 0) is not lower_is_better(name) else "a"


def _same_questions(a: Evaluation, b: Evaluation) -> None:
    """Raise an EvaluationError that says what differs."""
    users_a, users_b = a.per_user["user"], b.per_user["user"]
    same_type = users_a.dtype == users_b.dtype
    shared = len(a.per_user.join(b.per_user, on="user", how="semi")) if same_type else 0
    if shared != len(users_a) or shared != len(users_b):
        raise EvaluationError(
            f"the evaluations are of different users: {len(users_a):,} and {len(users_b):,}, of whom {shared:,} are in "
            "both. Evaluate both models on the same Holdout, with the same number of users and seed."
        )
    for key in _PROTOCOL:
        one, other = a.protocol.get(key), b.protocol.get(key)
        if one != other:
            raise EvaluationError(
                f"the evaluations cannot be compared: {key} is {one!r} in one and {other!r} in the other. "
                "Evaluate both models in the same way."
            )
