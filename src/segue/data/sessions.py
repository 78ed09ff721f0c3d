"""Sessions: consecutive slices of a user's history, such as baskets or visits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from segue.data.order import time_order
from segue.data.ragged import Int64, offsets_of, rows_of
from segue.errors import ConfigError

Columns = dict[str, npt.NDArray[Any]]
UNITS_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
RULES = ("column", "day", "none")

_DAY = 86_400


@dataclass(frozen=True, eq=False)
class Sessions:
    """All visible sessions, in the order of users, then of time; slices of one flat array.

    Attributes
    ----------
    items
        (any,) int32 item codes, those of the Dataset.
    starts, ends
        (n,) int64; session s is `items[starts[s]:ends[s]]`, never empty.
    offsets
        (n_users + 2,) int64; user u has the sessions `offsets[u]` to `offsets[u + 1] - 1`.

    Examples
    --------
    >>> data = segue.simulate(4, 3).dataset()
    >>> sessions = data.sessions
    >>> len(sessions.starts), sessions.counts.tolist()
    (12, [0, 3, 3, 3, 3])
    """

    items: npt.NDArray[np.int32]
    starts: Int64
    ends: Int64
    offsets: Int64

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        return f"Sessions({len(self):,} sessions of {int((self.counts > 0).sum()):,} users)"

    @property
    def lengths(self) -> Int64:
        """(n,) number of interactions in each session."""
        return self.ends - self.starts

    @property
    def counts(self) -> Int64:
        """(n_users + 1,) number of sessions of each user; 0 for user 0."""
        return np.diff(self.offsets)

    @cached_property
    def users(self) -> Int64:
        """(n,) user code of each session."""
        return rows_of(self.offsets[:-1], self.offsets[1:])


def visible_sessions(items: npt.NDArray[np.int32], session_offsets: Int64, offsets: Int64, ends: Int64) -> Sessions:
    """The sessions that begin before the end of their user's visible history, cut at that end.

    Parameters
    ----------
    items, session_offsets, offsets, ends
        The arrays of a Dataset.
    """
    firsts = np.searchsorted(session_offsets, offsets)  # (n_users + 2,) the first session of each user
    users = rows_of(firsts[:-1], firsts[1:])
    starts, limits = np.asarray(session_offsets[:-1]), ends[users]
    seen = starts < limits
    counts = np.bincount(users[seen], minlength=len(ends))
    return Sessions(items, starts[seen], np.minimum(session_offsets[1:], limits)[seen], offsets_of(counts))


@dataclass(frozen=True)
class SessionRule:
    """Rule that says where sessions begin.

    Attributes
    ----------
    kind
        "column": as a column says. "gap": after a pause longer than `gap`. "day": with each day, in UTC.
    gap
        Length of the pause, in units of the times.
    day
        Length of a day, in units of the times.
    """

    kind: Literal["column", "gap", "day"]
    gap: float = 0.0
    day: int = _DAY

    def mark(self, columns: Columns) -> tuple[Columns, int]:
        """Number the sessions of interactions that are sorted by user and time.

        Parameters
        ----------
        columns
            `user` and, for all but "column", `time` (n,); for "column" also `session`, any integers.

        Returns
        -------
        The columns with `session` (n,) int64, which changes within a user exactly when a session begins; and the
        number of sessions that were divided because those of one user overlap in time.
        """
        user, time = columns["user"], columns.get("time")
        if not len(user):
            return columns | {"session": np.zeros(0, dtype=np.int64)}, 0
        if self.kind == "column":
            return _by_column(columns)
        assert time is not None
        if self.kind == "gap":
            begins = np.diff(time) > self.gap
        else:
            day = time // self.day
            begins = day[1:] != day[:-1]
        return columns | {"session": np.concatenate([[0], np.cumsum(begins)]).astype(np.int64)}, 0


def _by_column(columns: Columns) -> tuple[Columns, int]:
    """Sort interactions at equal times by session, so that sessions stay together."""
    user, time = columns["user"], columns.get("time")
    pairs = (user.astype(np.int64) - int(user.min())) * (int(columns["session"].max()) + 1) + columns["session"]
    # A session is numbered by the position of its first interaction: sessions that begin earlier come first.
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    marked = columns | {"session": first[inverse].astype(np.int64)}
    if time is None:
        order = time_order(marked["session"], None)  # by user still, since first positions rise with the user
    else:
        same_time = np.concatenate([[0], np.cumsum((np.diff(time) != 0) | (np.diff(user) != 0))])
        order = time_order(same_time, marked["session"])
    if order is not None:
        marked = {name: values[order] for name, values in marked.items()}
    return marked, int(_begins(marked).sum()) - len(first)


def out_of_order(user: npt.NDArray[Any], time: Int64) -> int:
    """Number of interactions that are earlier than the same user's previous one in the log.

    >>> out_of_order(np.array([1, 2, 1, 2]), np.array([5, 5, 4, 6]))
    1
    """
    order = np.argsort(user, kind="stable")
    user, time = user[order], time[order]
    return int(((user[1:] == user[:-1]) & (time[1:] < time[:-1])).sum())


def _begins(columns: Columns) -> npt.NDArray[np.bool_]:
    """Mask (n,) of the interactions that begin a user or a session; the first always does."""
    user, session = columns["user"], columns["session"]
    begins = np.ones(len(user), dtype=bool)
    begins[1:] = (user[1:] != user[:-1]) | (session[1:] != session[:-1])
    return begins


def notes_on(late: int, divided: int) -> list[str]:
    """Notes for the user on sessions out of order, and on sessions that were divided."""
    notes = []
    if late:
        notes.append(f"{late:,} sessions stood behind a later one of their user; they were sorted by time.")
    if divided:
        notes.append(f"sessions of one user overlap in time: they were divided {divided:,} times, where another began.")
    return notes


class SessionOffsets:
    """Offsets of sessions, collected from sorted and marked interactions piece by piece."""

    def __init__(self) -> None:
        self._rows = 0
        self._starts: list[Int64] = []
        self._last: tuple[int, int] | None = None

    def add(self, columns: Columns) -> None:
        """Add the next piece: `user` and `session`, (n,) each, as `SessionRule.mark` returns them."""
        begins = _begins(columns)
        if not len(begins):
            return
        user, session = columns["user"], columns["session"]
        begins[0] = self._last != (int(user[0]), int(session[0]))
        self._starts.append(np.flatnonzero(begins) + self._rows)
        self._rows += len(begins)
        self._last = (int(user[-1]), int(session[-1]))

    def finish(self) -> Int64:
        """Return `Dataset.session_offsets` (n_sessions + 1,)."""
        return np.concatenate([*self._starts, [self._rows]]).astype(np.int64)


def rule_of(
    sessions: str | None, gap: float | None, columns: Mapping[str, str], time_unit: str | None
) -> SessionRule | None:
    """The rule that the options of `prepare` describe; None for no sessions.

    Raises
    ------
    ConfigError
        The options contradict each other, or need a column that the log does not have.
    """
    if sessions is not None and sessions not in RULES:
        raise ConfigError(f"sessions='{sessions}': expected {', '.join(RULES)}, or a gap in seconds as session_gap.")
    if gap is not None and sessions is not None:
        raise ConfigError(f"sessions='{sessions}' and session_gap={gap:g} are two rules: give one.")
    if gap is None and sessions is None:
        return SessionRule("column") if "session" in columns else None
    if sessions == "none":
        return None
    if sessions == "column":
        if "session" not in columns:
            raise ConfigError("sessions='column' needs a column of sessions: name it with session=….")
        return SessionRule("column")
    if "time" not in columns:
        raise ConfigError("sessions by gap or day need times, and the log has none.")
    second = UNITS_PER_SECOND[time_unit or "s"]
    if gap is None:
        return SessionRule("day", day=_DAY * second)
    if not gap > 0:
        raise ConfigError(f"session_gap={gap:g} is a time in seconds: expected more than 0.")
    return SessionRule("gap", gap=gap * second)


def converted(times: Int64, unit: str, wanted: str) -> Int64:
    """Times in the unit `wanted`, rounded down."""
    old, new = UNITS_PER_SECOND[unit], UNITS_PER_SECOND[wanted]
    return np.asarray(times * (new // old) if new >= old else times // (old // new), dtype=np.int64)
