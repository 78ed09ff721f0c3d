"""Stores by their address."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from segue.errors import ConfigError, StorageError
from segue.serving.store.base import Store
from segue.serving.store.sqlite import SQLiteStore


def open_store(address: str, existing: bool = False) -> Store:
    """Open the store at an address: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE.

    Parameters
    ----------
    address
        The address.
    existing
        Refuse a file that is not there, in place of making it.

    Raises
    ------
    ConfigError
        The address has another form, or psycopg is not installed.
    StorageError
        The store cannot be opened.
    """
    scheme, _, rest = address.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and rest[1:]:
        path = Path(rest[1:])
        if existing and not path.exists():
            raise StorageError(f"{path}: there is no such store of events.")
        return SQLiteStore(path)
    if scheme in ("postgresql", "postgres") and rest:
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("a store in PostgreSQL needs psycopg: pip install 'segue[serve]'.")
        from segue.serving.store.postgres import PostgresStore

        return PostgresStore(address)
    raise ConfigError(
        f"store='{scheme}://…' is no address of a store: expected sqlite:///events.db, sqlite:////var/lib/events.db "
        "(an absolute path), or postgresql://user:password@host/database."
    )
