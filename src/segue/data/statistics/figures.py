"""Figures that describe a Dataset, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segue.data.statistics.distributions import Histogram, Spread
from segue.data.statistics.sessions import SessionStatistics


@dataclass(frozen=True)
class Popularity:
    """How interactions are spread over items."""

    top_1_percent: float
    """Share of the interactions that the most popular hundredth of the items has."""
    top_10_percent: float
    """Share of the interactions that the most popular tenth of the items has."""
    gini: float
    """0 when all items are equally popular; near 1 when one item has everything."""
    ranks: tuple[int, ...]
    """Some ranks, from the most popular item (1) to the least."""
    counts: tuple[int, ...]
    """Interactions of the items at these ranks."""


@dataclass(frozen=True)
class Times:
    """When it happened."""

    first: str
    """Date and time in UTC, ISO format; the plain number where times are steps, or the unit is unknown."""
    last: str
    """The same for the last interaction."""
    days: float | None
    """From first to last; None where the unit is unknown."""
    tied: float
    """Share of interactions at the same time as another of the same user; the order of the file decides among them."""
    activity: Histogram
    """Interactions over time, in the Dataset's unit."""


@dataclass(frozen=True)
class Ratings:
    """How ratings are distributed."""

    mean: float
    deviation: float
    """Standard deviation of the ratings."""
    deviation_of_users: float
    """Standard deviation of the mean ratings of users: how differently they use the scale."""
    deviation_of_items: float
    """Standard deviation of the mean ratings of items."""
    distribution: Mapping[str, int]
    """Interactions by rating; by range of ratings where there are more than 20 different ones."""


@dataclass(frozen=True)
class Figures:
    """Counts and distributions of a Dataset."""

    users: int
    items: int
    interactions: int
    density: float
    """Interactions per cell of the table of users and items; 1 - density is the sparsity."""
    lengths: Spread
    """Of the histories of users: the number of their interactions."""
    length_histogram: Histogram
    short_users: int
    """Users with fewer than three interactions, who can only be trained on in a leave-last-out split."""
    item_lengths: Spread
    """Of the histories of items: the number of their interactions."""
    popularity: Popularity
    repeats: float
    """Share of the interactions whose item the user had taken before."""
    times: Times | None
    ratings: Ratings | None
    steps: tuple[Mapping[str, Any], ...]
    """The steps of preparation, each with the users, items and interactions left after it."""
    sessions: SessionStatistics | None = None
    """What a Dataset with sessions has more."""

    @property
    def sparsity(self) -> float:
        """Share of the pairs of user and item without an interaction (repeats counted apart)."""
        return 1 - self.density

    def to_dict(self) -> dict[str, Any]:
        """All of it as dictionaries, lists, numbers and strings, ready for JSON."""
        content: dict[str, Any] = _plain(asdict(self))
        return content | {"sparsity": self.sparsity}


def _plain(value: Any) -> Any:
    """Tuples as lists, all the way down."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
