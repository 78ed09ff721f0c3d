"""Report page: a single HTML file with the figures of an evaluation, without scripts or outside links."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from segue.errors import ConfigError, StorageError
from segue.evaluation.compare import Comparison
from segue.evaluation.report.examples import Example
from segue.evaluation.tasks.description import Metric
from segue.evaluation.tasks.registry import lower_is_better
from segue.evaluation.tasks.result import Evaluation
from segue.files import FileKind, atomic_file

_FILE = FileKind("a report", (b'<meta name="generator" content="segue">',))
_PNG = b"\x89PNG\r\n\x1a\n"
_LONGEST_LIST = 8


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluations: Mapping[str, Evaluation],
    comparisons: Sequence[Comparison] = (),
    data: Mapping[str, Any] | None = None,
    data_picture: str | Path | None = None,
    curves: Mapping[str, str | Path] | None = None,
    examples: Sequence[Example] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    versions: Mapping[str, str] | None = None,
) -> Path:
    """Write one self-contained HTML page, atomically. All text is escaped; the page runs and loads nothing.

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
    data_picture
        A PNG file of the Dataset's distributions.
    curves
        PNG files of training curves, by the name to show.
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
    StorageError
        A picture is missing or is not a PNG file.
    """
    if not evaluations:
        raise ConfigError("a report needs at least one evaluation.")
    _same_questions(evaluations)
    task = next(iter(evaluations.values())).task
    rankings = {name: found.ranking for name, found in evaluations.items() if found.ranking is not None}
    tested = [part for one in comparisons for part in (one, *one.sessions.values()) if part.differences]
    page = _template().render(
        title=title,
        warnings={name: found.warning for name, found in evaluations.items() if found.warning},
        pictures=[
            {**vars(picture), "png": _data_uri(picture.png)}
            for picture in task.pictures({name: found.parts for name, found in evaluations.items()})
        ],
        ranking=_results(rankings) if len(rankings) == len(evaluations) else None,
        ranking_note=task.ranking_note,
        names=list(evaluations),
        results=_results(evaluations),
        sessions=[_results(way, beside=task.part_titles) for way in _by_way(evaluations)],
        comparisons=tested,
        comparisons_note=_comparisons_note(tested),
        data=list(_facts(data or {})),
        data_picture=None if data_picture is None else _inline(data_picture),
        curves={name: _inline(picture) for name, picture in (curves or {}).items()},
        examples=examples,
        settings={name: list(_facts(values)) for name, values in (settings or {}).items()},
        versions=versions or {},
    )
    with atomic_file(Path(path), _FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> Any:
    """Template of the page; it escapes every value, and a missing value is an error."""
    import jinja2

    source = files("segue.evaluation.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.from_string(source)


def _same_questions(evaluations: Mapping[str, Evaluation]) -> None:
    settings = {name: evaluation.setting for name, evaluation in evaluations.items()}
    if len(set(settings.values())) > 1:
        listed = "; ".join(f"{name}: {setting}" for name, setting in settings.items())
        raise ConfigError(f"the evaluations of one report are of the same questions, but these differ: {listed}.")


def _inline(path: str | Path) -> str:
    """A PNG file as a data URI."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        raise StorageError(f"the picture {path} is missing or cannot be read.") from None
    if not content.startswith(_PNG):
        raise StorageError(f"the picture {path} is not a PNG file.")
    return _data_uri(content)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


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


def _common(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Names of the metrics that all evaluations have, in the order of the first."""
    tables = [evaluation.metrics for evaluation in evaluations.values()]
    return [name for name in tables[0] if all(name in table for table in tables)]


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
    return f"{note} Of {_listed(errors)} a negative difference is better." if errors else note


def _listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "rmse, mae and log_loss"."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def _results(evaluations: Mapping[str, Evaluation], beside: Collection[str] = ()) -> dict[str, Any]:
    """Figures of one task: the setting, the headlines, all metrics, and the parts that are not shown `beside` them."""
    first = next(iter(evaluations.values()))
    headlines = _headline_names(evaluations)
    return {
        "setting": first.remarks if len(evaluations) == 1 else first.setting,
        "note": first.task.note,
        "protocol": first.protocol,
        "candidates": first.candidates,
        "headlines": [_headline(name, evaluations) for name in headlines],
        "metrics": _metric_rows(evaluations),
        "parts": [table for table in _part_tables(evaluations, headlines) if table["part_name"] not in beside],
    }


def _headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The first two headlines of the task that were measured: at k = 10, or else at the longest list."""
    task, common = next(iter(evaluations.values())).task, _common(evaluations)
    by_metric = [[name for name in common if name.partition("@")[0] == headline] for headline in task.headlines]
    chosen = [next((name for name in names if name.endswith("@10")), names[-1]) for names in by_metric if names]
    return chosen[:2]


def _headline(name: str, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """One metric of every model, as positions (%) on a common scale from 0."""
    values = {model: evaluation.metrics[name] for model, evaluation in evaluations.items()}
    best = _best(_metric(name, evaluations), values.values())
    spans = {model: evaluation.intervals.get(name, (values[model],) * 2) for model, evaluation in evaluations.items()}
    scale = 100 / (max(high for _, high in spans.values()) or 1.0)
    rows = [
        {
            "model": model,
            "value": value,
            "low": spans[model][0],
            "high": spans[model][1],
            "bar": value * scale,
            "from": spans[model][0] * scale,
            "width": (spans[model][1] - spans[model][0]) * scale,
            "best": value == best,
        }
        for model, value in values.items()
    ]
    return {"name": name, "rows": rows}


def _metric_rows(evaluations: Mapping[str, Evaluation]) -> list[dict[str, Any]]:
    """A row per metric: each model's value, its interval, and whether it is the best."""
    rows = []
    for name in _common(evaluations):
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
