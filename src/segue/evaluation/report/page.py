"""One page that tells what was done and what came of it: a single HTML file without scripts or outside links."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from segue.errors import ConfigError, StorageError
from segue.evaluation.compare import Comparison
from segue.evaluation.metrics import lower_is_better
from segue.evaluation.report.calibration import calibration_png
from segue.evaluation.report.examples import Example
from segue.evaluation.result import Evaluation
from segue.files import atomic_file

_PNG = b"\x89PNG\r\n\x1a\n"
_LONGEST_LIST = 8
_HEADLINES = ("ndcg", "hr")
_SESSION_HEADLINES = ("sess_prec", "step_ndcg")
_RATING_HEADLINES = ("rmse", "own_ndcg", "mae")
_OTHER_HEADLINES = (_SESSION_HEADLINES, _RATING_HEADLINES)
_PARTS = {
    "history_length": "By length of history",
    "popularity": "By popularity of the target",
    "item_ratings": "By number of ratings of the item",
    "step": "By step",
}


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
        What the page is about.
    evaluations
        One or several evaluations by the name shown; the tables have a column for each. They are of the same questions.
        Where all of them carry `sessions` or `ranking`, those have a section of their own.
    comparisons
        Tests of pairs of them.
    data
        Description of the Dataset: numbers and text, nested where wanted. Long lists are left out.
    data_picture
        A PNG file of the Dataset's distributions.
    curves
        PNG files of training curves, by the name shown.
    examples
        Recommendations for some users, with reasons.
    settings
        Settings by the name shown (of each model, of training).
    versions
        Versions of the software, by name.

    Returns
    -------
    path
        Of the file written.

    Raises
    ------
    ConfigError
        There is no evaluation to report, or they are of different questions.
    StorageError
        A picture is missing or no PNG file.
    """
    if not evaluations:
        raise ConfigError("a report needs at least one evaluation.")
    _same_questions(evaluations)
    ranked = {name: found.ranking for name, found in evaluations.items() if found.ranking is not None}
    of_ratings = all(found.of_ratings for found in evaluations.values())
    page = _template().render(
        title=title,
        cautions={name: found.caution for name, found in evaluations.items() if found.caution},
        calibration=_data_uri(calibration_png(evaluations)) if of_ratings else None,
        ranking=_results(ranked) if len(ranked) == len(evaluations) else None,
        names=list(evaluations),
        results=_results(evaluations),
        sessions=[_results(of_way) for of_way in _by_way(evaluations)],
        comparisons=[part for one in comparisons for part in (one, *one.sessions.values()) if part.differences],
        data=list(_facts(data or {})),
        data_picture=None if data_picture is None else _inline(data_picture),
        curves={name: _inline(picture) for name, picture in (curves or {}).items()},
        examples=examples,
        settings={name: list(_facts(values)) for name, values in (settings or {}).items()},
        versions=versions or {},
    )
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def _template() -> Any:
    """The page's template; every value put into it is escaped, and a name it does not get is an error."""
    import jinja2

    source = files("segue.evaluation.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.from_string(source)


def _same_questions(evaluations: Mapping[str, Evaluation]) -> None:
    asked = {name: evaluation.asked for name, evaluation in evaluations.items()}
    if len(set(asked.values())) > 1:
        shown = "; ".join(f"{name}: {what}" for name, what in asked.items())
        raise ConfigError(f"the evaluations of one report are of the same questions, but these differ: {shown}.")


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
    """A value as a reader wants it: thousands apart, few digits."""
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
    """(label, text) of every short value, nested names joined."""
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
    """Metrics that all evaluations have, in the order of the first."""
    tables = [evaluation.metrics for evaluation in evaluations.values()]
    return [name for name in tables[0] if all(name in table for table in tables)]


def _by_way(evaluations: Mapping[str, Evaluation]) -> Iterator[dict[str, Evaluation]]:
    """The evaluations of sessions, for each way of ranking in which all models have one."""
    for way in next(iter(evaluations.values())).sessions:
        if all(way in evaluation.sessions for evaluation in evaluations.values()):
            of_way = {name: evaluation.sessions[way] for name, evaluation in evaluations.items()}
            _same_questions(of_way)
            yield of_way


def _results(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """All figures of one kind: what was asked, the most important ones, all of them, and those of parts."""
    first = next(iter(evaluations.values()))
    headlines = _headline_names(evaluations)
    return {
        "asked": first.describe() if len(evaluations) == 1 else first.asked,
        "of_ratings": first.of_ratings,
        "protocol": first.protocol,
        "among": first.among,
        "headlines": [_headline(name, evaluations) for name in headlines],
        "metrics": _metric_rows(evaluations),
        "breakdowns": list(_breakdowns(evaluations, headlines)),
    }


def _headline_names(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """NDCG@10 and HR@10 (of sessions and ratings their counterparts), or what there is of them at the longest list."""
    common = _common(evaluations)
    of_sessions, of_ratings = (any(name.startswith(kinds) for name in common) for kinds in _OTHER_HEADLINES)
    kinds = _SESSION_HEADLINES if of_sessions else _RATING_HEADLINES if of_ratings else _HEADLINES
    at_any = [[name for name in common if name.partition("@")[0] == kind] for kind in kinds]
    chosen = [next((name for name in names if name.endswith("@10")), names[-1]) for names in at_any if names]
    return chosen[:2]


def _headline(name: str, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """One metric of every model, as places (%) on a common scale from 0."""
    values = {model: evaluation.metrics[name] for model, evaluation in evaluations.items()}
    best = _best(name, values.values())
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
    """A row per metric: each model's value, its interval, and whether it is the best (of the metrics of accuracy)."""
    rows = []
    for name in _common(evaluations):
        values = [evaluation.metrics[name] for evaluation in evaluations.values()]
        accuracy = not name.startswith(("novelty", "coverage", "gini"))
        cells = [
            {
                "value": value,
                "interval": evaluation.intervals.get(name),
                "best": accuracy and value == _best(name, values),
            }
            for value, evaluation in zip(values, evaluations.values(), strict=True)
        ]
        rows.append({"name": name, "cells": cells})
    return rows


def _best(name: str, values: Collection[float]) -> float | None:
    """The best of several values of a metric; None of a single one."""
    if len(values) < 2:
        return None
    return min(values) if lower_is_better(name) else max(values)


def _breakdowns(evaluations: Mapping[str, Evaluation], headlines: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The first headline that the parts have, for each kind of part: a row per part, a column per model."""
    for kind, title in _PARTS.items():
        frames = [evaluation.parts[kind] for evaluation in evaluations.values() if kind in evaluation.parts]
        metric = next((name for name in headlines if all(name in frame.columns for frame in frames)), None)
        if metric is not None and len(frames) == len(evaluations):
            part, unit = frames[0].columns[:2]
            rows = _parts(frames, part, unit, metric)
            yield {"title": title, "metric": metric, "part": part, "unit": unit, "rows": rows}


def _parts(frames: Sequence[pl.DataFrame], part: str, unit: str, metric: str) -> list[dict[str, Any]]:
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
