"""Page about many models and data sets: one table, a chart per figure, and the tests."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from segue.evaluation.charts import Span, svg_of_spans
from segue.files import FileKind, atomic_file

_FILE = FileKind("a report", (b'<meta name="generator" content="segue">',))


def write_results_page(
    path: str | Path,
    *,
    title: str,
    heads: Sequence[str],
    table: Sequence[tuple[str, Sequence[tuple[str, bool]]]],
    note: str,
    charts: Sequence[tuple[str, Sequence[Span]]],
    tests: Sequence[Mapping[str, Any]],
    settings: Mapping[str, str],
) -> Path:
    """Write one self-contained HTML page, atomically. All text is escaped; the page runs and loads nothing.

    Parameters
    ----------
    path
        The file.
    title
        Title of the page.
    heads
        Headings of the columns of the table.
    table
        Name of each model with its cells: text, and True for the best one of the column.
    note
        Explanation below the table.
    charts
        Title and bars of each chart.
    tests
        Rows of the table of tests: data, model, metric, reference, difference, low, high, p and p_holm.
    settings
        Line on the questions of each data set.
    """
    import jinja2
    from markupsafe import Markup

    numbers = itertools.count(1)
    folder = files("segue.evaluation.report")
    style = folder.joinpath("page.css").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["spans"] = lambda name, rows: Markup(svg_of_spans(name, rows, f"chart{next(numbers)}"))
    page = environment.from_string(folder.joinpath("results.html.jinja").read_text(encoding="utf-8")).render(
        title=title,
        style=style,
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        heads=heads,
        table=table,
        note=note,
        charts=charts,
        tests=tests,
        settings=settings,
    )
    with atomic_file(Path(path), _FILE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)
