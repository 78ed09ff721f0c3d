"""Stores by their address."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from segue.errors import ConfigError
from segue.serving.store.base import Store
from segue.serving.store.sqlite import SQLiteStore


def open_store(address: str) -> Store:
    """Open the store at an address: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE.

    Raises
    ------
    ConfigError
        The address has another form, or psycopg is not installed.
    StorageError
        The store cannot be opened.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and rest[1:]:
        return SQLiteStore(Path(rest[1:]))
    if scheme in ("postgresql", "postgres") and rest:
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("a store in PostgreSQL needs psycopg: pip install 'segue[serve]'.")
        from segue.serving.store.postgres import PostgresStore

        return PostgresStore(address)
    raise ConfigError(
        f"store='{scheme}://…' is no address of a store: expected sqlite:///events.db, sqlite:////var/lib/events.db "
        "(an absolute path), or postgresql://user:password@host/database."
    )
