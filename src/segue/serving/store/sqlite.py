"""Store in an SQLite file: the embedded default.

The journal is a write-ahead log with `synchronous=FULL`, so a transaction is on the disk when it returns. Deleted rows
are overwritten.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from segue.errors import StorageError
from segue.serving.store import base
from segue.serving.store.base import NewEvent, Outcome, TookPart
from segue.serving.store.migrations import steps

_INSERT = f"INSERT INTO events ({base.COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING"
_TOOK = f"""
SELECT count(*), {{joined}} FROM events NOT INDEXED
WHERE seq > ? AND seq <= ? AND kind = {base.TOOK} AND retracted = 0 AND received >= ?
"""
"""A search by the primary key, so rows are joined in its order; a sorted subquery would take half as long again."""
_JOINED = 1_000_000
"""Rows whose values are joined."""
_WAIT = 30.0
"""Seconds to wait while another process writes."""


class _Connection:
    """Connection in the form of `base.Writing`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """Run a statement and return its rows."""
        return self._connection.execute(statement, tuple(values)).fetchall()

    def insert(self, rows: Sequence[tuple[object, ...]]) -> int:
        """Insert events whose event_id is new, and return their number."""
        return self._connection.executemany(_INSERT, rows).rowcount


class SQLiteStore(base.SQLReads):
    """Events in one SQLite file, which several processes of one machine may share.

    Parameters
    ----------
    path
        The file. It is made if it is not there.

    Raises
    ------
    StorageError
        The file cannot be opened, is no SQLite file, or was written by a newer segue.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._readers = threading.local()
        try:
            self._writer = self._connect()
            self._migrate()
        except sqlite3.Error as error:
            raise StorageError(f"{path} cannot be used as a store of events: {error}.") from None

    def __repr__(self) -> str:
        return f"SQLiteStore({str(self.path)!r})"

    def append(self, requests: Sequence[Sequence[NewEvent]]) -> list[Outcome]:
        """Store the events of several requests in one transaction."""
        with self._transaction() as connection:
            return base.write(connection, requests)

    def took(
        self, received_from: int | None = None, *, times: bool = True, sessions: bool = True
    ) -> Iterator[TookPart]:
        """All events of kind TOOK that count.

        SQLite joins the values of many rows to one text, since a Python object for each of them would take minutes. No
        id holds the null character that stands between them.
        """
        earliest = base.earliest(received_from)
        columns = ["user_id", "item_id", *([base.SESSION] if sessions else []), *(["time"] if times else [])]
        statement = _TOOK.format(joined=", ".join(f"group_concat({column}, char(0))" for column in columns))
        reader = self._reader
        reader.execute("BEGIN")
        try:
            last = self.last()
            for first in range(0, last, _JOINED):
                end = min(first + _JOINED, last)
                ((number, *texts),) = reader.execute(statement, (first, end, earliest)).fetchall()
                if not number:
                    yield TookPart.of_rows(end, [])
                    continue
                users, items, *others = (pl.Series([text]).str.split("\0").explode() for text in texts)
                if not all(len(column) == number for column in (users, items, *others)):
                    raise StorageError(f"{self.path} holds an id with a null character in the rows {first}-{end}.")
                yield TookPart(
                    end,
                    users,
                    items,
                    others[0] if sessions else pl.repeat("", number, dtype=pl.String, eager=True),
                    others[-1].cast(pl.Int64).to_numpy() if times else np.zeros(number, dtype=np.int64),
                )
        finally:
            reader.execute("ROLLBACK")

    def last(self) -> int:
        """Number of the last row."""
        rows = self._reader.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchall()
        return int(rows[0][0]) if rows else 0

    def forget(self, user: str, time: int) -> int:
        """Delete all rows of a user, also from the write-ahead log."""
        with self._transaction() as connection:
            number = base.delete_user(connection, user, time)
        with self._lock:
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return number

    def put_items(self, items: Sequence[tuple[str, str]], time: int) -> None:
        """Store items and their documents."""
        with self._transaction() as connection:
            base.write_items(connection, items, time)

    def reachable(self) -> bool:
        """True if the file can be read."""
        try:
            self.last()
        except sqlite3.Error:
            return False
        return True

    def close(self) -> None:
        """Close the connection that writes."""
        with self._lock:
            self._writer.close()

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of a statement in parts, all of one moment."""
        with closing(self._reader.cursor()) as cursor:
            cursor.execute(statement, values)
            while rows := cursor.fetchmany(base.PART):
                yield rows

    @property
    def _reader(self) -> sqlite3.Connection:
        """Connection of this thread for reading."""
        if not hasattr(self._readers, "connection"):
            self._readers.connection = self._connect()
        connection: sqlite3.Connection = self._readers.connection
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        with self._lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield _Connection(self._writer)
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise StorageError(f"the store did not take the events: {error}.") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        return connection

    def _migrate(self) -> None:
        self._writer.execute("PRAGMA journal_mode = WAL")
        with self._transaction() as connection:
            ((version,),) = connection.execute("PRAGMA user_version")
            assert isinstance(version, int)
            for number, statements in steps(version, "sqlite", str(self.path)):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
