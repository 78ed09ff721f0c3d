"""Report page: a single HTML file with the figures of an evaluation, without scripts or outside links."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from segue.errors import ConfigError
from segue.evaluation.charts import Chart, Span, svg_of, svg_of_spans
from segue.evaluation.compare import Comparison
from segue.evaluation.report.examples import Example
from segue.evaluation.report.outcome import best_first, common_metrics, headline_names, outcome_of
from segue.evaluation.tasks.description import Metric
from segue.evaluation.tasks.registry import lower_is_better
from segue.evaluation.tasks.result import Evaluation
from segue.files import FileKind, atomic_file

_FILE = FileKind("a report", (b'<meta name="generator" content="segue">',))
_LONGEST_LIST = 8


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluations: Mapping[str, Evaluation],
    comparisons: Sequence[Comparison] = (),
    data: Mapping[str, Any] | None = None,
    data_charts: Sequence[Chart] = (),
    curves: Mapping[str, Sequence[Chart]] | None = None,
    examples: Sequence[Example] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained HTML page, atomically. All text is escaped; the page runs and loads nothing.

    The page begins with a sentence on what came out, and shows the best model first.

    Parameters
    ----------
    path
        The file.
    title
        Title of the page.
    evaluations
        One or several evaluations of the same questions, by the name to show. The tables have a column for each. If all
        of them have `sessions` or `ranking`, those get their own section.
    comparisons
        Tests of pairs of them.
    data
        Description of the Dataset: numbers and texts, also nested. Long lists are left out.
    data_charts
        Distributions of the Dataset.
    curves
        Charts of trainings, by the name to show.
    examples
        Recommendations for some users, with reasons.
    settings
        Settings of each model and of the training, by the name to show.
    versions
        Versions of the software, by name.

    Returns
    -------
    path
        Path of the file.

    Raises
    ------
    ConfigError
        There is no evaluation, or the evaluations are of different questions.
    EvaluationError
        The evaluations are of different users.
    """
    if not evaluations:
        raise ConfigError("a report needs at least one evaluation.")
    _same_questions(evaluations)
    evaluations = best_first(evaluations)
    task = next(iter(evaluations.values())).task
    rankings = {name: found.ranking for name, found in evaluations.items() if found.ranking is not None}
    tested = [part for one in comparisons for part in (one, *one.sessions.values()) if part.differences]
    style = files("segue.evaluation.report").joinpath("page.css").read_text(encoding="utf-8")
    page = _template().render(
        title=title,
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        warnings={name: found.warning for name, found in evaluations.items() if found.warning},
        pictures=task.pictures({name: found.parts for name, found in evaluations.items()}),
        ranking=_results(rankings, tested) if len(rankings) == len(evaluations) else None,
        ranking_note=task.ranking_note,
        names=list(evaluations),
        results=_results(evaluations, comparisons),
        sessions=[_results(way, tested, beside=task.part_titles) for way in _by_way(evaluations)],
        comparisons=tested,
        comparisons_note=_comparisons_note(tested),
        data=list(_facts(data or {})),
        data_charts=data_charts,
        curves=curves or {},
        examples=examples,
        examples_note=_examples_note(examples),
        settings={name: list(_facts(values)) for name, values in (settings or {}).items()},
        versions=versions or {},
    )
    with atomic_file(Path(path), _FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> Any:
    """Template of the page; it escapes every value, and a missing value is an error."""
    import jinja2
    from markupsafe import Markup

    numbers = itertools.count(1)

    def chart(one: Chart) -> Markup:
        return Markup(svg_of(one, f"chart{next(numbers)}"))

    def spans(name: str, rows: Sequence[Span]) -> Markup:
        return Markup(svg_of_spans(name, rows, f"chart{next(numbers)}"))

    def breaks(name: str) -> Markup:
        """A name of a metric that may be folded before "_" and "@"."""
        return Markup(re.sub("(?=[_@])", "<wbr>", str(Markup.escape(name))))

    source = files("segue.evaluation.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": _number, "breaks": breaks}
    environment.globals |= {"chart": chart, "spans": spans}
    return environment.from_string(source)


def _same_questions(evaluations: Mapping[str, Evaluation]) -> None:
    settings = {name: evaluation.setting for name, evaluation in evaluations.items()}
    if len(set(settings.values())) > 1:
        listed = "; ".join(f"{name}: {setting}" for name, setting in settings.items())
        raise ConfigError(f"the evaluations of one report are of the same questions, but these differ: {listed}.")


def _number(value: Any) -> str:
    """A value as text: thousands separated, few digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value and not 0.001 <= abs(value) < 1e7:
            return f"{value:.3g}"
        return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 10 else f"{value:,.1f}"
    return str(value)


def _facts(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """(label, text) of every short value; nested names are joined."""
    for name, value in values.items():
        label = f"{above} · {name}" if above else str(name)
        label = label.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _facts(value, label)
        elif isinstance(value, (list, tuple)):
            if len(value) <= _LONGEST_LIST and not any(isinstance(part, (Mapping, list, tuple)) for part in value):
                yield label, ", ".join(_number(part) for part in value)
        else:
            yield label, _number(value)


def _by_way(evaluations: Mapping[str, Evaluation]) -> Iterator[dict[str, Evaluation]]:
    """Evaluations of the sessions by model, for each way of ranking that all models have."""
    for way in next(iter(evaluations.values())).sessions:
        if all(way in evaluation.sessions for evaluation in evaluations.values()):
            by_model = {name: evaluation.sessions[way] for name, evaluation in evaluations.items()}
            _same_questions(by_model)
            yield by_model


def _comparisons_note(comparisons: Sequence[Comparison]) -> str:
    """Explanation below the table of comparisons."""
    units = list(dict.fromkeys(comparison.unit for comparison in comparisons))
    names = dict.fromkeys(row.metric for comparison in comparisons for row in comparison.differences)
    errors = [name for name in names if lower_is_better(name)]
    note = (
        "Differences are taken user by user. The interval is a paired bootstrap, p a randomisation test (signs flipped "
        f"at random); better, equal and worse count {' or '.join(units)}."
    )
    luck = "Neither interval nor p covers the luck of a training."
    return f"{note} Of {_listed(errors)} a negative difference is better. {luck}" if errors else f"{note} {luck}"


def _examples_note(examples: Sequence[Example]) -> str:
    """Explanation below the examples: of histories, and of reasons if there are any."""
    histories = "Histories are shown oldest first."
    if not any(suggestion.reasons for example in examples for suggestion in example.suggestions):
        return histories
    if any(example.raters for example in examples):
        reason = "A reason is an earlier rating of the item by another user"
    else:
        histories = f"{histories[:-1]}: the newest items, and before them those that a reason names."
        reason = "A reason is an item of the history"
    return f"{histories} {reason}, with how much it adds to the score: the score with it less the score without it."


def _listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "rmse, mae and log_loss"."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _results(
    evaluations: Mapping[str, Evaluation], comparisons: Sequence[Comparison], beside: Collection[str] = ()
) -> dict[str, Any]:
    """Figures of one task: the outcome in words, the headlines, all metrics, and the parts not shown `beside` them."""
    first = next(iter(evaluations.values()))
    headlines = headline_names(evaluations)
    return {
        "outcome": outcome_of(evaluations, comparisons),
        "setting": first.remarks if len(evaluations) == 1 else first.setting,
        "note": _note(first, common_metrics(evaluations)),
        "protocol": first.protocol,
        "candidates": first.candidates,
        "headlines": [{"name": name, "rows": _spans(name, evaluations)} for name in headlines],
        "metrics": _metric_rows(evaluations, headlines),
        "meanings": _meanings(first, common_metrics(evaluations)),
        "parts": [table for table in _part_tables(evaluations, headlines) if table["part_name"] not in beside],
    }


def _note(evaluation: Evaluation, names: Sequence[str]) -> str:
    """The task's explanation, and the metrics on the page that are errors."""
    kinds = dict.fromkeys(name.partition("@")[0] for name in names)
    errors = [kind for kind in kinds if (metric := evaluation.task.metric(kind)) and metric.lower_is_better]
    return f"{evaluation.task.note} Of {_listed(errors)} less is better." if errors else evaluation.task.note


def _meanings(evaluation: Evaluation, names: Sequence[str]) -> dict[str, str]:
    """The meaning of each metric that the page shows, by its name without a length."""
    kinds = dict.fromkeys(name.partition("@")[0] for name in names)
    return {kind: metric.meaning for kind in kinds if (metric := evaluation.task.metric(kind)) is not None}


def _spans(name: str, evaluations: Mapping[str, Evaluation]) -> list[Span]:
    """One metric of every model with its interval, the best one first."""
    spans = []
    for model, evaluation in evaluations.items():
        value = evaluation.metrics[name]
        spans.append(Span(model, value, *evaluation.intervals.get(name, (value, value))))
    metric = _metric(name, evaluations)
    return sorted(spans, key=lambda span: span.value if metric is not None and metric.lower_is_better else -span.value)


def _metric_rows(evaluations: Mapping[str, Evaluation], headlines: Sequence[str]) -> list[dict[str, Any]]:
    """A row per metric, the headlines first: each model's value, its interval, and whether it is the best."""
    rows = []
    for name in dict.fromkeys([*headlines, *common_metrics(evaluations)]):
        values = [evaluation.metrics[name] for evaluation in evaluations.values()]
        best = _best(_metric(name, evaluations), values)
        cells = [
            {"value": value, "interval": evaluation.intervals.get(name), "best": value == best}
            for value, evaluation in zip(values, evaluations.values(), strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _metric(name: str, evaluations: Mapping[str, Evaluation]) -> Metric | None:
    return next(iter(evaluations.values())).task.metric(name)


def _best(metric: Metric | None, values: Collection[float]) -> float | None:
    """The best of several values; None if there is one alone, or if neither more nor less of the metric is better."""
    if len(values) < 2 or metric is None or metric.better is None:
        return None
    return min(values) if metric.lower_is_better else max(values)


def _part_tables(evaluations: Mapping[str, Evaluation], headlines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A table for each of the task's parts, with the first headline that it has: a row per part, a column per model."""
    for name, title in next(iter(evaluations.values())).task.part_titles.items():
        frames = [evaluation.parts[name] for evaluation in evaluations.values() if name in evaluation.parts]
        metric = next((headline for headline in headlines if all(headline in frame.columns for frame in frames)), None)
        if metric is not None and len(frames) == len(evaluations):
            part, unit = frames[0].columns[:2]
            rows = _part_rows(frames, part, unit, metric)
            yield {"part_name": name, "title": title, "metric": metric, "part": part, "unit": unit, "rows": rows}


def _part_rows(frames: Sequence[pl.DataFrame], part: str, unit: str, metric: str) -> list[dict[str, Any]]:
    by_name = [dict(zip(frame[part].to_list(), frame[metric].to_list(), strict=True)) for frame in frames]
    top = max((value for values in by_name for value in values.values()), default=0.0) or 1.0
    return [
        {
            "name": name,
            "size": size,
            "cells": [
                {"value": values.get(name), "share": 100 * (values.get(name) or 0.0) / top} for values in by_name
            ],
        }
        for name, size in frames[0].select(part, unit).iter_rows()
    ]
