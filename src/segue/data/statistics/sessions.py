"""Statistics of the sessions of a Dataset."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from segue.data.ragged import positions, rows_of
from segue.data.sessions import UNITS_PER_SECOND, Sessions
from segue.data.statistics.distributions import Histogram, Spread, histogram_of, spread_of

if TYPE_CHECKING:
    from segue.data.dataset import Dataset

REPEATING = 0.1
"""Share of repeated items from which people are said to repeat themselves."""

_DAY = 86_400
_SESSIONS = 1 << 18  # sessions per piece


@dataclass(frozen=True)
class SessionStatistics:
    """Statistics of sessions."""

    sessions: int
    per_user: Spread
    """Numbers of sessions of the users with sessions."""
    single: int
    """Users with one session; a last-session-out split leaves them in training."""
    lengths: Spread
    """Numbers of interactions of a session."""
    length_histogram: Histogram
    repeats: float
    """Share of the interactions that repeat an item of the same session."""
    one_item: float
    """Share of the sessions with one interaction, from which no order can be learnt."""
    median_pause: float | None
    """Median days from the end of a session to the user's next one; None without times, or with time steps."""
    bought_before: float = 0.0
    """Share of the items of a session that its user took in an earlier one, over all sessions but the users' first."""

    @property
    def baskets(self) -> bool:
        """True if sessions hold two items or more on average, so that a session is a set of items."""
        return self.lengths.mean >= 2

    @property
    def repeating(self) -> bool:
        """True if people repeat themselves: a tenth or more of the items were taken in an earlier session."""
        return self.bought_before >= REPEATING


def per_second_of(dataset: Dataset) -> int | None:
    """Units of time in a second; None without times, or if they are steps (0, 1, 2, …) rather than dates.

    Times that are all in the first day of 1970 count as steps.
    """
    if dataset.times is None or not len(dataset.times) or dataset.time_unit is None:
        return None
    per_second = UNITS_PER_SECOND[dataset.time_unit]
    return per_second if int(dataset.times.max()) >= _DAY * per_second else None


def describe_sessions(dataset: Dataset) -> SessionStatistics:
    """Describe the visible sessions of a Dataset."""
    sessions = dataset.sessions
    lengths, counts = sessions.lengths, sessions.counts
    present = counts[counts > 0]
    return SessionStatistics(
        sessions=len(sessions),
        per_user=spread_of(present),
        single=int((counts == 1).sum()),
        lengths=spread_of(lengths),
        length_histogram=histogram_of(lengths),
        repeats=_repeats(sessions, dataset.n_items) / max(int(lengths.sum()), 1),
        one_item=float((lengths == 1).mean()) if len(sessions) else 0.0,
        median_pause=_median_pause(dataset),
        bought_before=_bought_before(sessions, dataset.n_items),
    )


def _repeats(sessions: Sessions, n_items: int) -> int:
    """Number of interactions that repeat an item of their session."""
    repeated = 0
    for start in range(0, len(sessions), _SESSIONS):
        starts, ends = sessions.starts[start : start + _SESSIONS], sessions.ends[start : start + _SESSIONS]
        pairs = np.sort(rows_of(starts, ends) * (n_items + 1) + sessions.items[positions(starts, ends)])
        repeated += int((pairs[1:] == pairs[:-1]).sum())
    return repeated


def _bought_before(sessions: Sessions, n_items: int) -> float:
    """Share of the distinct items of the sessions after each user's first that an earlier session holds, too.

    A pair of user and item that occurs in s sessions is repeated in s − 1 of them.
    """
    repeated = total = 0
    bounds = np.searchsorted(sessions.offsets, np.arange(0, len(sessions), _SESSIONS), side="right") - 1
    for low, high in pairwise(np.unique(np.append(bounds, len(sessions.offsets) - 1)).tolist()):
        part = slice(int(sessions.offsets[low]), int(sessions.offsets[high]))
        starts, ends = sessions.starts[part], sessions.ends[part]
        numbers = rows_of(starts, ends)
        items = sessions.items[positions(starts, ends)]
        in_sessions = np.unique(numbers * (n_items + 1) + items)
        numbers, items = np.divmod(in_sessions, n_items + 1)
        users = sessions.users[part]
        repeated += len(in_sessions) - len(np.unique(users[numbers] * (n_items + 1) + items))
        first = np.append(True, users[1:] != users[:-1]) if len(users) else np.zeros(0, dtype=bool)
        total += int((~first[numbers]).sum())
    return repeated / max(total, 1)


def _median_pause(dataset: Dataset) -> float | None:
    per_second = per_second_of(dataset)
    if dataset.times is None or per_second is None:
        return None
    sessions = dataset.sessions
    same = sessions.users[1:] == sessions.users[:-1]
    pauses = (dataset.times[sessions.starts[1:]] - dataset.times[sessions.ends[:-1] - 1])[same]
    return float(np.median(pauses)) / per_second / _DAY if len(pauses) else None
