"""Output of commands: results on standard output, as tables or JSON; everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from segue.cli.printable import json_safe, printable

if TYPE_CHECKING:
    import polars as pl

    from segue.data.dataset import Dataset

_WIDE = 200
"""Width of the output if it is no terminal, so that tables in files and pipes are not folded."""


def write_json(content: Any) -> None:
    """Write one JSON document to standard output; values that JSON does not know become texts."""
    sys.stdout.write(json_safe(json.dumps(content, indent=2, ensure_ascii=False, default=str)) + "\n")


def write_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Write a table to standard output: texts to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for position, column in enumerate(columns):
        is_number = all(isinstance(row[position], int | float) or row[position] in ("", None) for row in rows)
        table.add_column(column, justify="right" if rows and is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(readable, row))
    console().print(table, highlight=False, markup=False)


def write_frame(frame: pl.DataFrame, as_json: bool) -> None:
    """Write a frame with raw ids: as a table, or as a JSON list of rows."""
    if as_json:
        write_json(frame.to_dicts())
        return
    # Ids are names even if they are numbers: no separators.
    ids = {"user", "item", "similar", "because"}
    rows = [[str(row[name]) if name in ids else row[name] for name in frame.columns] for row in frame.to_dicts()]
    write_table(frame.columns, rows)


def with_titles(frame: pl.DataFrame, dataset: Dataset, show: Sequence[str] | None = None) -> pl.DataFrame:
    """The same frame with columns of the item table behind each column of items.

    Parameters
    ----------
    frame
        An answer.
    dataset
        The Dataset with the item table.
    show
        Columns to show; None shows the titles, if there are any.
    """
    import polars as pl

    from segue.inference.scoring.rules import shown_columns

    shown = None if dataset.titles is None else dataset.titles.alias("title").to_frame()
    if show is not None:
        shown = shown_columns(dataset, show)
    if shown is None:
        return frame
    columns: list[pl.Series] = []
    for column in frame:
        columns.append(column)
        if column.name in ("item", "similar") or (column.name == "because" and _are_items(frame)):
            codes = pl.Series(dataset.catalogue.encode(column))
            rows = codes.set(codes == 0, None) - 1
            for values in shown:
                name = values.name if column.name == "item" else f"{column.name} ({values.name})"
                columns.append(values.gather(rows).alias(name))
    return pl.DataFrame(columns)


def _are_items(frame: pl.DataFrame) -> bool:
    """Return whether the reasons of an explanation are items, not users."""
    return "kind" not in frame.columns or not bool((frame["kind"] == "neighbour").any())


def write_pairs(pairs: Mapping[str, object], title: str | None = None) -> None:
    """Write names and values in two columns."""
    width = max(map(len, pairs), default=0)
    lines = [f"{printable(name, one_line=True):<{width}}  {readable(value)}" for name, value in pairs.items()]
    sys.stdout.write("\n".join([*([printable(title)] if title else []), *lines]) + "\n")


def note(text: str) -> None:
    """Write a message to standard error, apart from results."""
    Console(stderr=True, soft_wrap=True).print(printable(text), highlight=False, markup=False)


def console() -> Console:
    """Console of standard output."""
    return _SafeConsole(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE)


def readable(value: object) -> str:
    """A value for readers: 1,234,567 and 0.1235."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) >= 1000 or 0 < abs(value) < 0.001 else f"{value:.4f}"
    return printable(str(value), one_line=True)


class _SafeConsole(Console):
    """A console that writes no control characters but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of anything that can be printed, with the control characters of its texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Show a progress bar on standard error; it is called with the name of a step and the share that is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda step, share: bar.update(task, description=step, completed=share)
