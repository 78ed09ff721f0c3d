"""Stored events as a log that `segue prepare` and `segue.read` understand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from segue.errors import ConfigError
from segue.files import atomic_file
from segue.serving.store.base import TOOK, Row, Store

_SCHEMA: dict[str, Any] = {
    "user": pl.String,
    "item": pl.String,
    "time": pl.Datetime("us"),
    "session": pl.String,
    "rating": pl.Float64,
}


def export_events(store: Store, path: Path, received_from: int | None = None) -> tuple[int, int]:
    """Write the events that join histories as a log: user, item, time, and session and rating if there are any.

    Parameters
    ----------
    store
        The store.
    path
        A path that ends in .parquet or .csv.
    received_from
        Time of arrival, in microseconds since 1970, from which events are written; None for all.

    Returns
    -------
    events
        Number of events.
    last
        Time of arrival of the last one; 0 without events. The next export may begin there.

    Raises
    ------
    ConfigError
        The path has another ending.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ConfigError(f"{path}: expected a file that ends in .parquet or .csv.")
    last = 0

    def frames() -> Iterator[pl.DataFrame]:
        nonlocal last
        for rows in store.export(received_from, (TOOK,)):
            last = max(last, rows[-1].received)
            yield pl.DataFrame(list(map(_values, rows)), schema=_SCHEMA, orient="row")

    log = pl.concat([pl.DataFrame(schema=_SCHEMA), *frames()])
    log = log.drop([name for name in ("session", "rating") if log[name].null_count() == len(log)])
    with atomic_file(path) as file:
        if path.suffix == ".csv":
            log.write_csv(file)
        else:
            log.write_parquet(file)
    return len(log), last


def _values(row: Row) -> tuple[Any, ...]:
    return row.user, row.item, row.time, row.session, row.rating
