"""The first sentences of a report: the best model, the runner-up, and the significance of their difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segue.evaluation.compare import Comparison, Difference, compare
from segue.evaluation.tasks.description import Metric, Wording, number_word
from segue.evaluation.tasks.result import Evaluation

_SIGNIFICANT = 0.05
_MOST_DIGITS = 4


@dataclass(frozen=True)
class Outcome:
    """Plain words on evaluations of the same questions."""

    lead: str
    """The figures of the best model, the runner-up and the last one."""

    rest: str
    """Significance of the difference, and a second metric that says otherwise."""


def headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The first two headlines of the task that were measured: at k = 10, or else at the longest list."""
    task, common = next(iter(evaluations.values())).task, common_metrics(evaluations)
    by_metric = [[name for name in common if name.partition("@")[0] == headline] for headline in task.headlines]
    chosen = [next((name for name in names if name.endswith("@10")), names[-1]) for names in by_metric if names]
    return chosen[:2]


def common_metrics(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Names of the metrics that all evaluations have, in the order of the first."""
    tables = [evaluation.metrics for evaluation in evaluations.values()]
    return [name for name in tables[0] if all(name in table for table in tables)]


def best_first(evaluations: Mapping[str, Evaluation]) -> dict[str, Evaluation]:
    """The evaluations by their first headline, the best one first; the second headline decides between equal ones."""
    signs = [(name, _sign(_metric(evaluations, name))) for name in headline_names(evaluations)]
    order = sorted(evaluations, key=lambda model: [-sign * evaluations[model].metrics[name] for name, sign in signs])
    return {model: evaluations[model] for model in order}


def outcome_of(evaluations: Mapping[str, Evaluation], comparisons: Sequence[Comparison] = ()) -> Outcome | None:
    """Say in plain words what came out.

    Parameters
    ----------
    evaluations
        Evaluations of the same questions, by the name to show.
    comparisons
        Tests of pairs of them under the same names. If the best model and the runner-up are not among them, they are
        tested here.

    Returns
    -------
    outcome
        None if no headline of the task was measured.
    """
    names = headline_names(evaluations)
    if not names:
        return None
    ordered = best_first(evaluations)
    name, first = names[0], next(iter(ordered.values()))
    wording = first.task.wording(name, first.protocol)
    if len(ordered) == 1:
        return _alone(next(iter(ordered)), name, first, wording)
    second = list(ordered)[1]
    row = _difference(ordered, name, comparisons)
    words = _tested(next(iter(ordered)), second, name, row, first, wording)
    return Outcome(_lead(ordered, name, wording), " ".join([words, *_disagreements(ordered, names[1:])]))


def _alone(model: str, name: str, evaluation: Evaluation, wording: Wording) -> Outcome:
    figure = _figures([evaluation.metrics[name]], wording)[0]
    interval = ""
    if name in evaluation.intervals:
        low, high = _figures(evaluation.intervals[name], wording, whole=False)
        interval = f" (95 % interval {low} to {high})"
    rest = "It was measured alone; a second model, such as popularity, gives the figure a scale."
    return Outcome(f"{model} {wording.predicate.format(figure)}{interval}.", rest)


def _lead(ordered: Mapping[str, Evaluation], name: str, wording: Wording) -> str:
    """The figures of the best model, the runner-up and, of three or more, the last one."""
    models = list(ordered)
    told = [*models[:2], *models[2:][-1:]]
    best, second, *last = _figures([ordered[model].metrics[name] for model in told], wording)
    text = f"{models[0]} {wording.predicate.format(best)}, {models[1]} {second}"
    return (
        f"{text}, and {models[-1]}, the last of {number_word(len(models))} models, {last[0]}." if last else f"{text}."
    )


def _difference(
    ordered: Mapping[str, Evaluation], name: str, comparisons: Sequence[Comparison]
) -> tuple[Difference, bool] | None:
    """Difference of the best model and the runner-up, and True if the best one is `b`; None if users have no values."""
    (best, first), (second, other), *_ = ordered.items()
    for comparison in comparisons:
        for row in comparison.differences:
            if row.metric == name and {comparison.a, comparison.b} == {best, second}:
                return row, comparison.b == best
    if first.terms(name) is None or other.terms(name) is None:
        return None
    plain = (replace(one, sessions={}, ranking=None) for one in (other, first))
    return compare(*plain, metric=name, names=(second, best))[name], True


def _tested(
    best: str, second: str, name: str, found: tuple[Difference, bool] | None, evaluation: Evaluation, wording: Wording
) -> str:
    """Sentence on the significance of the difference of the best model and the runner-up."""
    if found is None:
        return f"The difference between {best} and {second} was not tested: there are no values of {name} by user."
    row, best_is_b = found
    sign = _sign(evaluation.task.metric(name))
    low, high = (row.low, row.high) if best_is_b is (sign > 0) else (-row.high, -row.low)
    unit = f"the same {row.wins + row.ties + row.losses:,} {evaluation.task.unit}"
    if not row.wins and not row.losses:
        return f"{best} and {second} are equal for each of {unit}."
    p = "p < 0.001" if row.p_value < 0.001 else f"p = {row.p_value:.3f}"
    ends = _figures([low, high], wording, whole=False)
    per = " of 100" if wording.per_100 else ""
    more = "more" if sign > 0 else "less"
    if low > 0 and row.p_value < _SIGNIFICANT:
        return (
            f"The difference is real: {ends[0]} to {ends[1]}{per} {more} than {second} (95 % interval, {p}, on {unit})."
        )
    return (
        f"The difference between {best} and {second} may be chance: from {ends[0]} to {ends[1]}{per} {more} "
        f"(95 % interval, {p}, on {unit}). Neither is shown to be better."
    )


def _disagreements(ordered: Mapping[str, Evaluation], names: Sequence[str]) -> list[str]:
    """Sentences on further headlines that are best in another model."""
    texts = []
    best = next(iter(ordered))
    for name in names:
        metric = _metric(ordered, name)
        values = {model: _sign(metric) * evaluation.metrics[name] for model, evaluation in ordered.items()}
        ahead = max(values, key=lambda model: values[model])
        if metric is not None and metric.better is not None and values[ahead] > values[best]:
            title = metric.title.format("@" + name.partition("@")[2] if "@" in name else "")
            figures = _figures([ordered[one].metrics[name] for one in (ahead, best)], Wording("", per_100=False))
            texts.append(f"By {title}, {ahead} is ahead: {figures[0]} against {figures[1]}.")
    return texts


def _figures(values: Sequence[float], wording: Wording, whole: bool = True) -> list[str]:
    """Values with as few digits as tell different ones apart, and that make none of them a false 0 or 100."""
    scaled = [100 * value if wording.per_100 else value for value in values]
    least = (0 if whole else 1) if wording.per_100 else 2
    for digits in range(least, _MOST_DIGITS + 1):
        texts = [f"{value:.{digits}f}" for value in scaled]
        bounds = {0.0, 100.0} if wording.per_100 else {0.0}
        true = all(value in bounds or float(text) not in bounds for value, text in zip(scaled, texts, strict=True))
        if true and len(set(texts)) == len(set(scaled)):
            break
    return [text.replace("-", "\u2212") if float(text) else text.removeprefix("-") for text in texts]


def _metric(evaluations: Mapping[str, Evaluation], name: str) -> Metric | None:
    return next(iter(evaluations.values())).task.metric(name)


def _sign(metric: Metric | None) -> int:
    return -1 if metric is not None and metric.lower_is_better else 1
