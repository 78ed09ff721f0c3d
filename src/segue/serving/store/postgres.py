"""Store in a PostgreSQL database: for several servers behind a balancer.

A lock makes writers take turns, so the numbers of rows are in the order in which rows become visible, and no reader
misses one. A lost connection is opened again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from segue.errors import StorageError
from segue.serving.store import base
from segue.serving.store.base import NewEvent, Outcome, TookPart
from segue.serving.store.migrations import steps

_TURN = 7_261_536
"""Number of the lock that writers hold, the same in all servers."""

_INSERT = f"""
INSERT INTO events ({base.COLUMNS})
SELECT * FROM unnest(%s::text[], %s::smallint[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::float8[],
                     %s::text[], %s::bigint[])
ON CONFLICT (event_id) DO NOTHING
"""


class _Connection:
    """Connection in the form of `base.Writing`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[object] = ()) -> Sequence[tuple[object, ...]]:
        """Run a statement and return its rows."""
        cursor = self._connection.execute(_placeholders(statement), tuple(values))
        return cursor.fetchall() if cursor.description else []

    def insert(self, rows: Sequence[tuple[object, ...]]) -> int:
        """Insert events whose event_id is new, and return their number."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        return self._connection.execute(_INSERT, columns).rowcount


class PostgresStore(base.SQLReads):
    """Events in a PostgreSQL database, which any number of servers may share.

    Parameters
    ----------
    address
        postgresql://USER:PASSWORD@HOST/DATABASE, as libpq reads it.

    Raises
    ------
    StorageError
        The database cannot be reached, or was written by a newer segue.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._readers = threading.local()
        self._writer: psycopg.Connection[Any] | None = None
        with self._errors("the database cannot be used as a store of events"), self._transaction() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS segue_version (version INTEGER NOT NULL)")
            rows = connection.execute("SELECT version FROM segue_version")
            version = rows[0][0] if rows else 0
            assert isinstance(version, int)
            for number, statements in steps(version, "postgresql", "the database"):
                for statement in statements:
                    connection.execute(statement)
                connection.execute("DELETE FROM segue_version")
                connection.execute("INSERT INTO segue_version VALUES (?)", (number,))

    def __repr__(self) -> str:
        return "PostgresStore()"

    def append(self, requests: Sequence[Sequence[NewEvent]]) -> list[Outcome]:
        """Store the events of several requests in one transaction."""
        with self._errors("the store did not take the events"), self._transaction() as connection:
            return base.write(connection, requests)

    def took(
        self, received_from: int | None = None, *, times: bool = True, sessions: bool = True
    ) -> Iterator[TookPart]:
        """All events of kind TOOK that count."""
        for rows in self._read(base.took_statement(times, sessions), (base.earliest(received_from),)):
            yield TookPart.of_rows(int(rows[-1][0]), [row[1:] for row in rows])

    def last(self) -> int:
        """Number of the last row."""
        (rows,) = self._read("SELECT coalesce(max(seq), 0) FROM events")
        return int(rows[0][0])

    def forget(self, user: str, time: int) -> int:
        """Delete all rows of a user."""
        with self._errors("the store did not forget the user"), self._transaction() as connection:
            return base.delete_user(connection, user, time)

    def put_items(self, items: Sequence[tuple[str, str]], time: int) -> None:
        """Store items and their documents."""
        with self._errors("the store did not take the items"), self._transaction() as connection:
            base.write_items(connection, items, time)

    def reachable(self) -> bool:
        """True if the database answers."""
        try:
            self.last()
        except StorageError:
            return False
        return True

    def close(self) -> None:
        """Close the connection that writes."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()

    def _read(self, statement: str, values: tuple[object, ...] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of a statement in parts, all of one moment."""
        with self._errors("the store cannot be read"):
            connection = self._reader()
            with connection.transaction(), connection.cursor(name="reader") as cursor:
                cursor.execute(_placeholders(statement), values)
                while rows := cursor.fetchmany(base.PART):
                    yield rows

    def _reader(self) -> psycopg.Connection[Any]:
        """Connection of this thread for reading."""
        connection: psycopg.Connection[Any] | None = getattr(self._readers, "connection", None)
        if connection is None or connection.closed:
            connection = self._readers.connection = psycopg.connect(self._address, connect_timeout=5)
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[_Connection]:
        with self._lock:
            if self._writer is None or self._writer.closed:
                self._writer = psycopg.connect(self._address, connect_timeout=5)
            with self._writer.transaction():
                self._writer.execute("SELECT pg_advisory_xact_lock(%s)", (_TURN,))
                yield _Connection(self._writer)

    @contextmanager
    def _errors(self, consequence: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):  # a lost connection is opened again
                for connection in (self._writer, getattr(self._readers, "connection", None)):
                    if connection is not None:
                        connection.close()
            words = " ".join(str(error).split()).rstrip(".")
            raise StorageError(f"{consequence}: {words}.") from error


def _placeholders(statement: str) -> Any:
    return statement.replace("?", "%s")
