"""Views of a Description: tables for the terminal, and a picture."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segue.display import as_text
from segue.errors import ConfigError
from segue.plots import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table

    from segue.data.statistics.distributions import Histogram, Spread
    from segue.data.statistics.figures import Figures, Popularity, Ratings, TableFigures, Times
    from segue.data.statistics.sessions import SessionStatistics

_SUFFIXES = (".png", ".svg", ".pdf")


def tables(description: Figures) -> list[Table]:
    """Tables of counts, distributions and preparation steps."""
    parts = [_table(("", ""), list(facts(description).items())), _distribution_table(description)]
    if description.ratings is not None:
        parts.append(_rating_table(description.ratings))
    for role, figures in (("item", description.item_table), ("user", description.user_table)):
        if figures is not None:
            parts.append(_column_table(role, figures))
    if description.steps:
        parts.append(_step_table(description))
    return parts


def table(description: Figures) -> RenderableType:
    """The same tables as one for the terminal."""
    from rich.console import Group

    return Group(*tables(description))


def text(description: Figures) -> str:
    """The same tables as plain text, 100 columns wide or as wide as they need."""
    lines = as_text(table(description), width=100).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def facts(description: Figures) -> dict[str, str]:
    """Figures of one number or date, as text: label → text."""
    texts = {
        "users": f"{description.users:,}",
        "items": f"{description.items:,}",
        "interactions": f"{description.interactions:,}",
        "sparsity": f"{description.sparsity:.3%}",
        "users with fewer than 3": f"{description.short_users:,}",
        "repeats of an item by its user": f"{description.repeats:.1%}",
        "interactions with the top 1 % of items": f"{description.popularity.top_1_percent:.1%}",
        "interactions with the top 10 % of items": f"{description.popularity.top_10_percent:.1%}",
        "Gini of item popularity": f"{description.popularity.gini:.3f}",
    }
    times = description.times
    if times is None:
        texts |= {"times": "none"}
    else:
        texts |= {"first": times.first.replace("+00:00", " UTC"), "last": times.last.replace("+00:00", " UTC")}
        texts |= {} if times.days is None else {"time span": f"{times.days:,.1f} days"}
        texts |= {"at the same time as another of the user": f"{times.tied:.1%}"}
    texts |= _table_facts(description)
    return texts if description.sessions is None else texts | _session_facts(description.sessions)


def _session_facts(sessions: SessionStatistics) -> dict[str, str]:
    texts = {
        "sessions": f"{sessions.sessions:,}",
        "users with one session": f"{sessions.single:,}",
        "sessions with one item": f"{sessions.one_item:.1%}",
        "repeats of an item in its session": f"{sessions.repeats:.1%}",
        "items of a session taken in an earlier one": f"{sessions.bought_before:.1%}",
    }
    pause = sessions.median_pause
    return texts if pause is None else texts | {"median pause between sessions": _duration(pause)}


def _distribution_table(description: Figures) -> Table:
    def row(name: str, spread: Spread) -> tuple[str, ...]:
        numbers = (spread.mean, spread.median, spread.p90, spread.p99)
        return (name, f"{spread.min:,}", *(f"{number:,.1f}" for number in numbers), f"{spread.max:,}")

    rows = [
        row("history length of users", description.lengths),
        row("history length of items", description.item_lengths),
    ]
    if description.sessions is not None:
        rows.append(row("sessions of users", description.sessions.per_user))
        rows.append(row("session length", description.sessions.lengths))
    return _table(("", "min", "mean", "median", "90 %", "99 %", "max"), rows)


def _duration(days: float) -> str:
    """A duration in the largest unit that fits."""
    for unit, size in (("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= size:
            return f"{days / size:,.1f} {unit}"
    return f"{days * 86_400:,.0f} seconds"


def _rating_table(ratings: Ratings) -> Table:
    total = sum(ratings.distribution.values())
    rows = [(name, f"{count:,}", f"{count / total:.1%}") for name, count in ratings.distribution.items()]
    summary = {
        "mean": ratings.mean,
        "standard deviation": ratings.deviation,
        "of the means of users": ratings.deviation_of_users,
        "of the means of items": ratings.deviation_of_items,
    }
    rows += [(name, f"{value:.2f}", "") for name, value in summary.items()]
    return _table(("rating", "interactions", "share"), rows)


def _column_table(role: str, figures: TableFigures) -> Table:
    rows = [
        (name, f"{kind} (title)" if name == figures.title else kind, f"{figures.missing[name]:.1%}")
        for name, kind in figures.kinds.items()
    ]
    return _table((f"{role} table", "kind", "missing"), rows)


def _table_facts(description: Figures) -> dict[str, str]:
    texts = {}
    if description.item_table is not None:
        texts["items with a row in the item table"] = f"{description.item_table.coverage:.1%}"
        texts["items that nobody has taken"] = f"{description.item_table.cold:.1%}"
    if description.user_table is not None:
        texts["users with a row in the user table"] = f"{description.user_table.coverage:.1%}"
    return texts


def _step_table(description: Figures) -> Table:
    columns = ("users", "items", "interactions")
    rows = [
        (str(step.get("step", "")), *(f"{step[c]:,}" if c in step else "" for c in columns))
        for step in description.steps
    ]
    return _table(("preparation", *columns), rows)


def _table(columns: tuple[str, ...], rows: list[Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(box=SIMPLE_HEAD, show_header=any(columns), pad_edge=False)
    for position, name in enumerate(columns):
        grid.add_column(name, justify="right" if position else "left", no_wrap=bool(position))
    for row in rows:
        grid.add_row(*row)
    return grid


def picture(description: Figures, path: Path) -> Path:
    """Draw history lengths, item popularity and, if there are any, session lengths, times and ratings.

    Raises
    ------
    ConfigError
        The ending of `path` is not that of a picture.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"{path}: a picture ends in {', '.join(_SUFFIXES)}.")
    from segue.files import write_picture

    drawn = io.BytesIO()
    plot(description).savefig(drawn, format=path.suffix.lower()[1:])
    write_picture(path, drawn.getvalue())
    return path


def plot(description: Figures) -> Figure:
    """The figure that `picture` writes."""
    panels = 2 + sum(part is not None for part in (description.sessions, description.times, description.ratings))
    rows, columns = (1, panels) if panels < 4 else (2, -(-panels // 2))
    figure = new_figure(max(11, 4.8 * columns), 3.7 * rows)
    figure.suptitle(
        f"{description.users:,} users · {description.items:,} items · {description.interactions:,} interactions",
        fontsize=13,
        fontweight="bold",
    )
    axes = iter([figure.add_subplot(rows, columns, number) for number in range(1, panels + 1)])
    labels = "How long are histories?", "interactions of a user", "users"
    _draw_lengths(next(axes), description.lengths, description.length_histogram, labels)
    _draw_popularity(next(axes), description.popularity)
    if description.sessions is not None:
        labels = "How long are sessions?", "interactions of a session", "sessions"
        _draw_lengths(next(axes), description.sessions.lengths, description.sessions.length_histogram, labels)
    if description.times is not None:
        _draw_times(next(axes), description.times)
    if description.ratings is not None:
        _draw_ratings(next(axes), description.ratings)
    return figure


def _draw_lengths(axes: Axes, spread: Spread, histogram: Histogram, labels: tuple[str, str, str]) -> None:
    """Draw equal bins of whole numbers. The legend states the longest hundredth, which is not drawn."""
    from matplotlib.ticker import MaxNLocator

    edges, counts = histogram.edges, histogram.counts
    longer = counts[-1] if len(counts) > 1 and edges[-1] - edges[-2] > edges[1] - edges[0] else 0
    drawn = len(counts) - (longer > 0)
    width = edges[1] - edges[0]
    axes.bar([edge - 0.5 for edge in edges[:drawn]], counts[:drawn], width=width, align="edge", color=BLUE, lw=0)
    axes.axvline(spread.median, color=ORANGE, lw=1.5, label=f"median {spread.median:g}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, *labels)
    axes.legend(frameon=False, title=f"{longer:,} longer, up to {spread.max:,}" if longer else None)


def _draw_popularity(axes: Axes, popularity: Popularity) -> None:
    points = [(rank, count) for rank, count in zip(popularity.ranks, popularity.counts, strict=True) if count]
    axes.plot([rank for rank, _ in points], [count for _, count in points], color=BLUE, lw=2)
    if points:
        axes.set_xscale("log")
        axes.set_yscale("log")
    note = f"top 1 %: {popularity.top_1_percent:.0%} of interactions\ntop 10 %: {popularity.top_10_percent:.0%}"
    axes.text(0.04, 0.06, note, transform=axes.transAxes, color=GREY)
    _finish(axes, "How popular are items?", "rank of the item, the most popular first", "interactions")


def _draw_times(axes: Axes, times: Times) -> None:
    dates = _dates(times)
    edges: Any = times.activity.edges if dates is None else dates
    axes.stairs(times.activity.counts, edges, fill=True, color=BLUE)
    axes.set_ylim(bottom=0)
    if dates is not None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    span = f"time, in {len(times.activity.counts)} equal periods"
    _finish(axes, "When did it happen?", span, "interactions")


def _dates(times: Times) -> list[datetime] | None:
    """Edges of the periods as dates between first and last; None if the unit is unknown."""
    if times.days is None or not times.first.endswith("+00:00") or not times.last.endswith("+00:00"):
        return None
    first = datetime.fromisoformat(times.first)
    periods = len(times.activity.counts)
    return [first + timedelta(days=max(times.days, 1 / 86_400) * number / periods) for number in range(periods + 1)]


def _draw_ratings(axes: Axes, ratings: Ratings) -> None:
    names = list(ratings.distribution)
    axes.bar(names, list(ratings.distribution.values()), color=BLUE, width=0.8)
    axes.tick_params(axis="x", rotation=30 if max(map(len, names)) > 4 else 0)
    _finish(axes, f"Which ratings? (mean {ratings.mean:.2f})", "rating", "interactions")


def _finish(axes: Axes, title: str, across: str, up: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.7)
    axes.set_axisbelow(True)
    thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(thousands)
    for axis, scale, (low, high) in (
        (axes.xaxis, axes.get_xscale(), axes.get_xlim()),
        (axes.yaxis, axes.get_yscale(), axes.get_ylim()),
    ):
        if scale == "log":
            axis.set_major_formatter(thousands)
            axis.set_minor_formatter(NullFormatter())
            if high < 100 * low:  # powers of ten would leave an axis with a single number
                axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
