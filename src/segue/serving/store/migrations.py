"""Versions of the tables, and the statements that lead from one to the next.

A store is brought to the newest version when it is opened. A released version never changes; a change of the tables is
a new entry.
"""

from __future__ import annotations

from segue.errors import StorageError
from segue.serving.store.base import VERSION

_TABLE = """
CREATE TABLE events (
    seq {serial},
    event_id TEXT NOT NULL UNIQUE,
    kind {small} NOT NULL,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    time {large} NOT NULL,
    session TEXT,
    rating {real},
    recommendation_id TEXT,
    received {large} NOT NULL,
    retracted {small} NOT NULL DEFAULT 0,
    target {large}
)
"""

_ITEMS = """
CREATE TABLE items (
    seq {serial},
    item_id TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL,
    received {large} NOT NULL
)
"""

_TYPES = {
    "sqlite": {"serial": "INTEGER PRIMARY KEY AUTOINCREMENT", "small": "INTEGER", "large": "INTEGER", "real": "REAL"},
    "postgresql": {
        "serial": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "small": "SMALLINT",
        "large": "BIGINT",
        "real": "DOUBLE PRECISION",
    },
}

_STEPS: dict[int, tuple[str, ...]] = {
    1: (_TABLE, "CREATE INDEX events_of_user ON events (user_id, seq)"),
    2: (_ITEMS,),
}


def steps(version: int, backend: str, place: str) -> list[tuple[int, list[str]]]:
    """Statements that lead from a version to the newest, version by version.

    Raises
    ------
    StorageError
        The store was written by a newer segue.
    """
    if version > VERSION:
        raise StorageError(
            f"{place} has tables of version {version}, and this segue knows {VERSION}: it was written by a newer one. "
            "Update segue."
        )
    types = _TYPES[backend]
    return [(step, [text.format(**types) for text in _STEPS[step]]) for step in range(version + 1, VERSION + 1)]
