"""Statistics of a Dataset: counts, distributions, times, repeats; for the terminal, as JSON, as a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.statistics.distributions import Histogram, histogram_of, spread_of
from segue.data.statistics.figures import Figures, Popularity, Ratings, TableFigures, Times
from segue.data.statistics.sessions import describe_sessions, per_second_of
from segue.data.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType


Floats = npt.NDArray[np.float64]

_CHUNK = 1 << 22  # interactions per piece, so that memory does not grow with the Dataset
_PERIODS = 60
_POINTS = 200


@dataclass(frozen=True, repr=False)
class Description(Figures):
    """The figures of a Dataset, with the ways to show them.

    `rich.print(description)` and `print(description)` show tables, `to_dict` returns plain data for JSON, and
    `plot` and `picture` draw the distributions.
    """

    def facts(self) -> dict[str, str]:
        """Figures of one number or date, as text: label → text."""
        from segue.data.statistics.views import facts

        return facts(self)

    def table(self) -> RenderableType:
        """Tables for the terminal."""
        from segue.data.statistics.views import table

        return table(self)

    def __rich__(self) -> RenderableType:
        return self.table()

    def __str__(self) -> str:
        from segue.data.statistics.views import text

        return text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from segue.data.statistics.views import tables
        from segue.display import as_html

        return as_html(*tables(self))

    def plot(self) -> Figure:
        """Draw the distributions as a figure of matplotlib, which a notebook shows."""
        from segue.data.statistics.views import plot

        return plot(self)

    def picture(self, path: str | Path) -> Path:
        """Draw the distributions into a file (.png, .svg or .pdf) and return its path."""
        from segue.data.statistics.views import picture

        return picture(self, Path(path))


@checked
def describe(dataset: Dataset) -> Description:
    """Describe the visible interactions of a Dataset.

    Parameters
    ----------
    dataset
        Any Dataset; memory-mapped arrays are read in pieces.

    Returns
    -------
    Description

    Examples
    --------
    >>> description = segue.describe(segue.simulate(40, 6).dataset())
    >>> description.users, description.sessions.sessions
    (40, 240)
    >>> description.picture("shop.png").name
    'shop.png'
    """
    visible = dataset.compact()
    lengths = visible.lengths[1:]
    counts = visible.item_counts()[1:]
    total = len(visible.items)
    cells = visible.n_users * visible.n_items
    repeated, tied = _within_users(visible)
    return Description(
        users=visible.n_users,
        items=visible.n_items,
        interactions=total,
        density=total / cells if cells else 0.0,
        lengths=spread_of(lengths),
        length_histogram=histogram_of(lengths),
        short_users=int((lengths < 3).sum()),
        item_lengths=spread_of(counts),
        popularity=_popularity(counts),
        repeats=repeated / total if total else 0.0,
        times=_times(visible, tied),
        ratings=_ratings(visible),
        steps=tuple(visible.metadata.get("steps", ())),
        sessions=None if visible.session_offsets is None else describe_sessions(visible),
        item_table=_table_figures(dataset.item_table, counts > 0, len(dataset.cold_items)),
        user_table=_table_figures(dataset.user_table, lengths > 0, 0),
    )


def _table_figures(table: Table | None, taken: npt.NDArray[np.bool_], cold: int) -> TableFigures | None:
    if table is None:
        return None
    return TableFigures(
        coverage=float(table.described[taken].mean()) if taken.any() else 0.0,
        cold=cold / max(len(table), 1),
        kinds=dict(table.kinds),
        missing=table.missing(),
        title=table.title,
    )


def _popularity(counts: npt.NDArray[np.int64]) -> Popularity:
    ordered = np.sort(counts)[::-1]
    n, total = len(ordered), max(int(ordered.sum()), 1)
    if not n:
        return Popularity(0.0, 0.0, 0.0, (), ())
    reached = ordered.cumsum()
    # Ranks from the least popular item on, weighted by the counts: the area under the Lorenz curve.
    gini = float(2 * (ordered[::-1] * np.arange(1, n + 1)).sum() / (n * total) - (n + 1) / n)
    ranks = np.unique(np.round(np.geomspace(1, n, min(n, _POINTS))).astype(np.int64))
    return Popularity(
        top_1_percent=float(reached[max(round(n / 100), 1) - 1] / total),
        top_10_percent=float(reached[max(round(n / 10), 1) - 1] / total),
        gini=max(gini, 0.0),
        ranks=tuple(ranks.tolist()),
        counts=tuple(ordered[ranks - 1].tolist()),
    )


def _within_users(dataset: Dataset) -> tuple[int, int]:
    """Numbers of interactions that repeat an item of the same user, and that share their time with another."""
    repeated = tied = 0
    for first, last in _whole_users(dataset.offsets):
        start, end = dataset.offsets[first], dataset.offsets[last]
        user = np.repeat(np.arange(last - first), np.diff(dataset.offsets[first : last + 1]))
        pairs = np.sort(user * (dataset.n_items + 1) + dataset.items[start:end])
        repeated += int((pairs[1:] == pairs[:-1]).sum())
        if dataset.times is not None:
            times = dataset.times[start:end]
            same = (times[1:] == times[:-1]) & (user[1:] == user[:-1])
            tied += int((np.append(same, False) | np.append(False, same)).sum()) if len(same) else 0
    return repeated, tied


def _whole_users(offsets: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of user codes with about `_CHUNK` interactions each."""
    starts = np.searchsorted(offsets, np.arange(0, int(offsets[-1]), _CHUNK), side="right") - 1
    bounds = np.unique(np.append(starts, len(offsets) - 1)).tolist()
    return pairwise(bounds)


def _times(dataset: Dataset, tied: int) -> Times | None:
    if dataset.times is None or not len(dataset.times):
        return None
    first, last = int(dataset.times.min()), int(dataset.times.max())
    per_second = per_second_of(dataset)
    # Histogram of differences: nanoseconds since 1970 lose their last digits as floats.
    periods = min(_PERIODS, last - first + 1)
    end = last - first + (periods < _PERIODS)  # with few times, each gets a period of its own
    counts, edges = np.histogram(dataset.times - first, bins=periods, range=(0, max(end, 1)))
    return Times(
        first=_date(first, per_second),
        last=_date(last, per_second),
        days=(last - first) / per_second / 86_400 if per_second else None,
        tied=tied / len(dataset.times),
        activity=Histogram(tuple((edges + first).tolist()), tuple(counts.tolist())),
    )


def _date(time: int, per_second: int | None) -> str:
    """ISO date and time in UTC; the number itself if the unit is unknown or the date is out of range."""
    if per_second is None:
        return str(time)
    try:
        date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time // per_second)
    except OverflowError:
        return str(time)
    return date.isoformat(sep=" ")


def _ratings(dataset: Dataset) -> Ratings | None:
    if dataset.ratings is None:
        return None
    given = dataset.ratings[~np.isnan(dataset.ratings)]
    if not len(given):
        return None
    values, counts = np.unique(given, return_counts=True)
    if len(values) <= 20:
        names = [f"{value:g}" for value in values.tolist()]
    else:
        counts, edges = np.histogram(given, bins=10)
        names = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges.tolist())]
    of_users, of_items = _mean_ratings(dataset, dataset.ratings)
    return Ratings(
        mean=float(given.mean(dtype=np.float64)),
        deviation=float(given.std(dtype=np.float64)),
        deviation_of_users=float(of_users.std()),
        deviation_of_items=float(of_items.std()),
        distribution=dict(zip(names, counts.tolist(), strict=True)),
    )


def _mean_ratings(dataset: Dataset, ratings: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Mean ratings of the users with ratings, and of the items with ratings."""
    sizes = dataset.n_users + 1, dataset.n_items + 1
    sums, counts = [np.zeros(size) for size in sizes], [np.zeros(size) for size in sizes]
    for first, last in _whole_users(dataset.offsets):
        part = slice(int(dataset.offsets[first]), int(dataset.offsets[last]))
        users = np.repeat(np.arange(first, last), np.diff(dataset.offsets[first : last + 1]))
        rated = ~np.isnan(ratings[part])
        sides: tuple[npt.NDArray[Any], ...] = users[rated], dataset.items[part][rated]
        for side, codes in enumerate(sides):
            sums[side] += np.bincount(codes, weights=ratings[part][rated], minlength=sizes[side])
            counts[side] += np.bincount(codes, minlength=sizes[side])
    of_users, of_items = (total[count > 0] / count[count > 0] for total, count in zip(sums, counts, strict=True))
    return of_users, of_items
