"""Results as plain text and as HTML, the same in a terminal, a file and a notebook."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDTH = 160
_STYLE = "text-align: {}; white-space: nowrap"


def as_text(content: RenderableType, width: int = _WIDTH) -> str:
    """A table or a group of tables as plain text, without colours.

    The text is `width` columns wide, or as wide as the content needs, so that no cell is cut. It is the same in a
    notebook, where rich would send its output to the cell instead.
    """
    from rich.console import Console
    from rich.measure import Measurement

    options: dict[str, Any] = {"color_system": None, "force_terminal": False, "force_jupyter": False, "_environ": {}}
    options |= {"markup": False, "emoji": False, "highlight": False}
    wide = Console(file=io.StringIO(), width=10_000, **options)
    needed = Measurement.get(wide, wide.options, content).maximum
    file = io.StringIO()
    Console(file=file, width=max(width, needed), **options).print(content)
    return file.getvalue().rstrip()


def as_html(*tables: Table, caption: str | None = None) -> str:
    """Tables of rich as tables of HTML, below a caption."""
    parts = [] if caption is None else [f"<p>{_escaped(caption)}</p>"]
    return "<div>" + "".join([*parts, *map(_html_table, tables)]) + "</div>"


def pairs_as_html(title: str, pairs: Mapping[str, object]) -> str:
    """Names and values in two columns, below a title."""
    rows = "".join(_row([(name, "left"), (value, "left")]) for name, value in pairs.items())
    return f"<div><p><strong>{_escaped(title)}</strong></p><table><tbody>{rows}</tbody></table></div>"


def _html_table(table: Table) -> str:
    aligned = [column.justify if column.justify in ("left", "right", "center") else "left" for column in table.columns]
    titles = [part for part in (table.title,) if part]
    head = "".join(f"<p>{_escaped(title)}</p>" for title in titles)
    names = [str(column.header) for column in table.columns]
    header = f"<thead>{_row(zip(names, aligned, strict=True), 'th')}</thead>" if any(names) else ""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = "".join(_row(zip(row, aligned, strict=True)) for row in rows)
    foot = f"<p><small>{_escaped(table.caption)}</small></p>" if table.caption else ""
    return f"{head}<table>{header}<tbody>{body}</tbody></table>{foot}"


def _row(cells: Iterable[tuple[object, str]], tag: str = "td") -> str:
    written = (f'<{tag} style="{_STYLE.format(side)}">{_escaped(cell)}</{tag}>' for cell, side in cells)
    return f"<tr>{''.join(written)}</tr>"


def _escaped(text: object) -> str:
    return html.escape(str(text)).replace("\n", "<br>")
