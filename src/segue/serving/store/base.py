"""The protocol of stores, and the rows that go in and out.

Rows are numbered by `seq`, in the order in which they became visible. Readers ask for all changes behind the last
number that they know, so several servers on one store see the same events in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

TOOK, SHOWN, CLICKED, RETRACTED, FORGOTTEN = range(5)
KINDS = {"took": TOOK, "shown": SHOWN, "clicked": CLICKED, "retracted": RETRACTED}
"""Numbers of the types of events. Rows of kind FORGOTTEN name a user whose earlier rows were deleted."""
NAMES = {number: name for name, number in KINDS.items()}

VERSION = 2
"""Version of the tables."""


class NewEvent(NamedTuple):
    """Event to store. Times are microseconds since 1970."""

    event_id: str
    kind: int
    user: str
    item: str
    time: int
    session: str | None
    rating: float | None
    recommendation_id: str | None
    received: int
    named: bool
    """True if the client gave the event_id."""


class Row(NamedTuple):
    """Stored event."""

    seq: int
    event_id: str
    kind: int
    user: str
    item: str
    time: int
    session: str | None
    rating: float | None
    recommendation_id: str | None
    received: int


class Change(NamedTuple):
    """Change of histories: an event of kind TOOK, one that was taken back (RETRACTED), or a user (FORGOTTEN)."""

    seq: int
    kind: int
    user: str
    item: str
    time: int
    session: str | None
    received: int


class TookPart(NamedTuple):
    """Columns of n events of kind TOOK.

    Attributes
    ----------
    last
        Number of the last row that was looked at, of any kind.
    users, items, sessions
        (n,) texts; an empty text stands for no session.
    times
        (n,) int64 microseconds since 1970.
    """

    last: int
    users: pl.Series
    items: pl.Series
    sessions: pl.Series
    times: npt.NDArray[np.int64]

    @classmethod
    def of_rows(cls, last: int, rows: Sequence[tuple[str, str, str, int]]) -> TookPart:
        """Columns of rows (user, item, session, time)."""
        users, items, sessions, times = zip(*rows, strict=True) if rows else ((), (), (), ())
        people, taken, within = (pl.Series(column, dtype=pl.String) for column in (users, items, sessions))
        return cls(last, people, taken, within, np.array(times, dtype=np.int64))


@dataclass
class Outcome:
    """Numbers of events that were new, known before, and taken back."""

    stored: int = 0
    repeated: int = 0
    retracted: int = 0


class Store(Protocol):
    """Store of events. Methods may be called by any thread, one at a time for each method."""

    def append(self, requests: Sequence[Sequence[NewEvent]]) -> list[Outcome]:
        """Store the events of several requests in one transaction; they are on the disk when it returns."""
        ...

    def changes(self, after: int, received_from: int | None = None) -> Iterator[list[Change]]:
        """Changes behind the row `after`, of one moment, in order and in parts.

        An event that was taken back in the meantime is left out, and so is the taking back.
        """
        ...

    def took(
        self, received_from: int | None = None, *, times: bool = True, sessions: bool = True
    ) -> Iterator[TookPart]:
        """All events of kind TOOK that count, of one moment, in order and in parts; much faster than `changes`.

        Without `times` all times are 0, and without `sessions` no event has one: less is read.
        """
        ...

    def last(self) -> int:
        """Number of the last row; 0 in an empty store."""
        ...

    def of_user(self, user: str, limit: int) -> list[Row]:
        """Newest events of a user that count, newest first."""
        ...

    def forget(self, user: str, time: int) -> int:
        """Delete all rows of a user, remember to leave out the user's earlier interactions, return their number."""
        ...

    def forgotten(self) -> list[tuple[str, int]]:
        """Users that were forgotten, and the times."""
        ...

    def export(self, received_from: int | None, kinds: Sequence[int]) -> Iterator[list[Row]]:
        """Events of these kinds that count, in the order of rows and in parts."""
        ...

    def put_items(self, items: Sequence[tuple[str, str]], time: int) -> None:
        """Store raw ids of items and their documents (JSON); a document takes the place of an earlier one."""
        ...

    def items(self, after: int) -> list[tuple[int, str, str]]:
        """Rows behind the row `after`: number, raw id and document of the items that were put."""
        ...

    def reachable(self) -> bool:
        """True if the store answers."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class Writing(Protocol):
    """Connection for one transaction, whose statements use `?` for values."""

    def execute(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """Run a statement and return its rows."""
        ...

    def insert(self, rows: Sequence[tuple[object, ...]]) -> int:
        """Insert events whose event_id is new, and return their number."""
        ...


COLUMNS = "event_id, kind, user_id, item_id, time, session, rating, recommendation_id, received"


def write(connection: Writing, requests: Sequence[Sequence[NewEvent]]) -> list[Outcome]:
    """Write the events of several requests within a transaction."""
    outcomes = []
    for events in requests:
        outcome = Outcome()
        pending: list[tuple[object, ...]] = []
        for event in events:
            if event.kind == RETRACTED:
                _insert(connection, pending, outcome)
                _retract(connection, event, outcome)
            else:
                pending.append(event[:-1])
        _insert(connection, pending, outcome)
        outcomes.append(outcome)
    return outcomes


def _insert(connection: Writing, pending: list[tuple[object, ...]], outcome: Outcome) -> None:
    if pending:
        stored = connection.insert(pending)
        outcome.stored += stored
        outcome.repeated += len(pending) - stored
        pending.clear()


def _retract(connection: Writing, event: NewEvent, outcome: Outcome) -> None:
    """Take back the event with this event_id, or the newest one of the user with the item.

    If the event_id is not there yet, the row keeps its place, so that the event changes nothing when it arrives.
    """
    if event.named:
        rows = connection.execute(
            "SELECT seq, kind, user_id, item_id, time, retracted FROM events WHERE event_id = ?", (event.event_id,)
        )
    else:
        rows = connection.execute(
            "SELECT seq, kind, user_id, item_id, time, retracted FROM events "
            "WHERE user_id = ? AND item_id = ? AND kind = ? AND retracted = 0 ORDER BY time DESC, seq DESC LIMIT 1",
            (event.user, event.item, TOOK),
        )
    if not rows:
        if event.named:
            connection.insert([event[:-1]])
        return
    seq, kind, user, item, time, retracted = rows[0]
    if user != event.user or retracted or kind in (RETRACTED, FORGOTTEN):
        outcome.repeated += 1
        return
    connection.execute("UPDATE events SET retracted = 1 WHERE seq = ?", (seq,))
    connection.execute(
        f"INSERT INTO events ({COLUMNS}, target) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (f"retracted:{seq}", RETRACTED, user, item, time, None, None, None, event.received, seq),
    )
    outcome.retracted += 1


def delete_user(connection: Writing, user: str, time: int) -> int:
    """Delete all rows of a user within a transaction, and leave one that says so; return the number of events."""
    ((number,),) = connection.execute("SELECT count(*) FROM events WHERE user_id = ? AND kind <> 4", (user,))
    connection.execute("DELETE FROM events WHERE user_id = ?", (user,))
    connection.execute(
        f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (f"forgotten:{user}", FORGOTTEN, user, "", time, None, None, None, time),
    )
    assert isinstance(number, int)
    return number


def write_items(connection: Writing, items: Sequence[tuple[str, str]], time: int) -> None:
    """Write items within a transaction."""
    for item, document in items:
        connection.execute("DELETE FROM items WHERE item_id = ?", (item,))
        connection.execute("INSERT INTO items (item_id, document, received) VALUES (?, ?, ?)", (item, document, time))


ITEMS = "SELECT seq, item_id, document FROM items WHERE seq > ? ORDER BY seq"

CHANGES = f"""
SELECT seq, kind, user_id, item_id, time, session, received FROM events
WHERE seq > ? AND (
    (kind = {TOOK} AND retracted = 0 AND received >= ?)
    OR (kind = {RETRACTED} AND target <= ?)
    OR kind = {FORGOTTEN}
) ORDER BY seq
"""
"""Statement of `Store.changes`. A taking back counts only if its event was read by an earlier call."""

SESSION = "coalesce(session, '')"
"""Session of an event as a text."""

ROWS = "seq, event_id, kind, user_id, item_id, time, session, rating, recommendation_id, received"

OF_USER = f"SELECT {ROWS} FROM events WHERE user_id = ? AND retracted = 0 AND kind < 3 ORDER BY seq DESC LIMIT ?"

PART = 50_000
"""Rows that are read at once."""

FORGOTTEN_USERS = f"SELECT user_id, time FROM events WHERE kind = {FORGOTTEN} ORDER BY seq"


def earliest(received_from: int | None) -> int:
    """Time of arrival from which rows count; before all others for None."""
    return -(2**62) if received_from is None else received_from


def took_statement(times: bool, sessions: bool) -> str:
    """Statement of `Store.took`, row by row; its value is the time of arrival from which rows count."""
    session, time = SESSION if sessions else "''", "time" if times else "0"
    return (
        f"SELECT seq, user_id, item_id, {session}, {time} FROM events "
        f"WHERE kind = {TOOK} AND retracted = 0 AND received >= ? ORDER BY seq"
    )


def export_statement(kinds: Sequence[int]) -> str:
    """Statement of `Store.export`; its value is the time of arrival from which rows count."""
    listed = ", ".join(str(int(kind)) for kind in kinds)
    return f"SELECT {ROWS} FROM events WHERE retracted = 0 AND kind IN ({listed}) AND received >= ? ORDER BY seq"


Transaction = AbstractContextManager[Writing]


class SQLReads(ABC):
    """Reads that are the same statements in every database."""

    @abstractmethod
    def _read(self, statement: str, values: tuple[object, ...] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Return the rows of a statement in parts, all of one moment."""

    def changes(self, after: int, received_from: int | None = None) -> Iterator[list[Change]]:
        """Changes behind the row `after`, of one moment."""
        make: Any = Change._make
        for rows in self._read(CHANGES, (after, earliest(received_from), after)):
            yield list(map(make, rows))

    def of_user(self, user: str, limit: int) -> list[Row]:
        """Newest events of a user that count, newest first."""
        return [Row._make(row) for rows in self._read(OF_USER, (user, limit)) for row in rows]

    def forgotten(self) -> list[tuple[str, int]]:
        """Users that were forgotten, and the times."""
        return [(str(user), int(time)) for rows in self._read(FORGOTTEN_USERS) for user, time in rows]

    def export(self, received_from: int | None, kinds: Sequence[int]) -> Iterator[list[Row]]:
        """Events of these kinds that count."""
        for rows in self._read(export_statement(kinds), (earliest(received_from),)):
            yield [Row._make(row) for row in rows]

    def items(self, after: int) -> list[tuple[int, str, str]]:
        """Items that were put."""
        return [(int(seq), item, text) for rows in self._read(ITEMS, (after,)) for seq, item, text in rows]
