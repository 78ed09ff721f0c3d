"""Figures that describe a Dataset, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segue.data.statistics.distributions import Histogram, Spread
from segue.data.statistics.sessions import SessionStatistics


@dataclass(frozen=True)
class Popularity:
    """Distribution of interactions over items."""

    top_1_percent: float
    """Share of the interactions with the most popular hundredth of the items."""
    top_10_percent: float
    """Share of the interactions with the most popular tenth of the items."""
    gini: float
    """0 if all items are equally popular; near 1 if one item has all interactions."""
    ranks: tuple[int, ...]
    """Some ranks, from the most popular item (1) to the least."""
    counts: tuple[int, ...]
    """Interactions of the items at these ranks."""


@dataclass(frozen=True)
class Times:
    """Times of the interactions."""

    first: str
    """Date and time in UTC, ISO format; the plain number if times are steps or the unit is unknown."""
    last: str
    """The same for the last interaction."""
    days: float | None
    """Time from first to last; None if the unit is unknown."""
    tied: float
    """Share of interactions at the same time as another of the same user; the file decides their order."""
    activity: Histogram
    """Interactions over time, in the Dataset's unit."""


@dataclass(frozen=True)
class Ratings:
    """Distribution of ratings."""

    mean: float
    deviation: float
    """Standard deviation of the ratings."""
    deviation_of_users: float
    """Standard deviation of the mean ratings of users."""
    deviation_of_items: float
    """Standard deviation of the mean ratings of items."""
    distribution: Mapping[str, int]
    """Interactions by rating; by range of ratings if there are more than 20 different ones."""


@dataclass(frozen=True)
class TableFigures:
    """Figures of a table of items or users."""

    coverage: float
    """Share of the items (or users) with an interaction that have a row in the table."""
    cold: float
    """Share of the items in the catalogue that nobody has taken; 0 for users."""
    kinds: Mapping[str, str]
    """Kind of each column."""
    missing: Mapping[str, float]
    """Share of the items (or users) without a value in each column."""
    title: str | None
    """Column with the names that people read."""


@dataclass(frozen=True)
class Figures:
    """Counts and distributions of a Dataset."""

    users: int
    items: int
    interactions: int
    density: float
    """Interactions per cell of the table of users and items; 1 - density is the sparsity."""
    lengths: Spread
    """Lengths of the histories of users."""
    length_histogram: Histogram
    short_users: int
    """Users with fewer than three interactions; a leave-last-out split leaves them in training."""
    item_lengths: Spread
    """Lengths of the histories of items."""
    popularity: Popularity
    repeats: float
    """Share of the interactions whose item the user had taken before."""
    times: Times | None
    ratings: Ratings | None
    steps: tuple[Mapping[str, Any], ...]
    """The steps of preparation, each with the users, items and interactions left after it."""
    sessions: SessionStatistics | None = None
    """Statistics of sessions; None without sessions."""
    item_table: TableFigures | None = None
    user_table: TableFigures | None = None

    @property
    def sparsity(self) -> float:
        """Share of the pairs of user and item without an interaction (a repeat counts as a pair of its own)."""
        return 1 - self.density

    def to_dict(self) -> dict[str, Any]:
        """The figures as dictionaries, lists, numbers and strings, ready for JSON."""
        content: dict[str, Any] = _plain(asdict(self))
        return content | {"sparsity": self.sparsity}


def _plain(value: Any) -> Any:
    """The same value with lists in place of tuples, at all depths."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
