"""A log, encoded and divided into ranges of users small enough to sort in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.preparing.encoding import IntegerIds, TextIds, ids_of
from segue.data.preparing.filters import Oldest
from segue.data.ragged import Int64
from segue.data.reading.read import SUSPECT, Log
from segue.data.spool import Spool, scatter
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

Progress = Callable[[str, float], None]

_BATCH = 1 << 20  # rows parsed at a time
_PARTITION = 1 << 19  # rows sorted at a time: so few that user, time and position fit into one integer
_MOST_PARTITIONS = 1_000

OLDEST = "oldest"
"""Name of the column that marks the oldest interactions of the log."""

_NUMBERS: dict[str, np.dtype[Any]] = {"time": np.dtype(np.int64), "rating": np.dtype(np.float32)}


class SuspectRow(Exception):
    """Raised if a row calls for the pass that names the first bad row. Never leaves `prepare`."""


@dataclass(frozen=True)
class Encoded:
    """All interactions with codes for ids (also of sessions), in partitions by user, each in the order of the log.

    If only the oldest interactions stay, the column `OLDEST` marks them.
    """

    users: Vocabulary
    catalogue: Vocabulary
    partitions: list[Spool]


def encode(log: Log, folder: Path, report: Progress, oldest: float | None = None) -> Encoded:
    """Read the log once into flat files; then divide them into ranges of users small enough to sort.

    Parameters
    ----------
    log
        The log to read.
    folder
        Folder of the files; the caller removes it.
    report
        Called with the name of the step and the share that is done.
    oldest
        Share of the rows to mark as the oldest; None marks none.

    Raises
    ------
    DataError
        The log has changed since it was checked.
    SuspectRow
        The log is checked while it is read, and holds a row that may be bad.
    """
    raw, ids = read_raw(log, folder, report)
    is_checked = SUSPECT not in log.frame.collect_schema()
    if not is_checked and not raw.rows:
        raise SuspectRow
    if is_checked and raw.rows != log.rows:
        raise DataError(f"{log.source} changed while it was read: it had {log.rows:,} usable rows, now {raw.rows:,}.")
    vocabularies = {name: collector.finish() for name, collector in ids.items()}
    rows = None if oldest is None else max(1, round(raw.rows * oldest))
    oldest_rows = None if rows is None else Oldest(lambda: raw.column("time"), rows)
    partitions = _divide(raw, ids, oldest_rows, len(vocabularies["user"]), folder, report)
    raw.remove()
    return Encoded(vocabularies["user"], vocabularies["item"], partitions)


def read_raw(
    log: Log,
    folder: Path,
    report: Progress,
    batch_size: int | None = None,
    frames: Iterable[pl.LazyFrame] | None = None,
) -> tuple[Spool, dict[str, IntegerIds | TextIds]]:
    """Read a log into flat files; ids are as their collectors keep them.

    Parameters
    ----------
    log, folder, report
        As in `encode`. `log.rows` is only the measure of the progress.
    batch_size
        Number of rows that are parsed at a time.
    frames
        Parts of the log's frame, in their order, each of which is read before the next is made; the frame as a whole
        when None.

    Returns
    -------
    The columns, and the collectors of the ids of users, items and sessions, before their `finish`.

    Raises
    ------
    SuspectRow
        The log is checked while it is read, and holds a row that may be bad.
    """
    schema = log.frame.collect_schema()
    ids = {name: ids_of(schema[name]) for name in ("user", "item", "session") if name in log.columns}
    dtypes: dict[str, np.dtype[Any]] = {name: collector.dtype for name, collector in ids.items()}
    dtypes |= {name: _NUMBERS[name] for name in ("time", "rating") if name in log.columns}
    raw = Spool(folder / "log", dtypes)
    size = batch_size or _BATCH
    parts = (log.frame,) if frames is None else frames
    for batch in chain.from_iterable(map(partial(_batches, size), parts)):
        if SUSPECT in schema and batch[SUSPECT].any():
            raise SuspectRow
        columns = {name: batch[name].to_numpy() for name in dtypes if name not in ids}
        raw.append(columns | {name: collector.add(batch[name]) for name, collector in ids.items()})
        report("reading", min(raw.rows / log.rows, 1.0) if log.rows else 0.0)
    report("reading", 1.0)
    return raw, ids


def _batches(size: int, frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    return frame.collect_batches(chunk_size=size, maintain_order=True, engine="streaming")


def ranges_of(counts: Int64, rows: int, size: int | None = None) -> npt.NDArray[np.int16]:
    """Number of the range (n,) of each user or item, for ranges small enough to sort.

    Parameters
    ----------
    counts
        (n,) interactions of each.
    rows
        Their sum.
    size
        Interactions of a range; `_PARTITION` when None, and always so many that there are not too many ranges.
    """
    size = max(size or _PARTITION, rows // _MOST_PARTITIONS)
    return ((np.cumsum(counts) - counts) // size).astype(np.int16)


def _divide(
    raw: Spool,
    ids: Mapping[str, IntegerIds | TextIds],
    oldest: Oldest | None,
    n_users: int,
    folder: Path,
    report: Progress,
) -> list[Spool]:
    counts = np.zeros(n_users + 1, dtype=np.int64)
    for kept in raw.column("user"):
        counts += np.bincount(ids["user"].codes(kept), minlength=n_users + 1)
    partition_of = ranges_of(counts, raw.rows)
    dtypes = raw.dtypes | dict.fromkeys(ids, np.dtype(np.int32))
    dtypes |= {} if oldest is None else {OLDEST: np.dtype(np.bool_)}
    spools = [Spool(folder / f"users-{number}", dtypes) for number in range(int(partition_of[-1]) + 1)]
    for part, columns in raw.pieces():
        columns |= {name: collector.codes(columns[name]) for name, collector in ids.items()}
        columns |= {} if oldest is None else {OLDEST: oldest.next(columns["time"])}
        scatter(columns, partition_of[columns["user"]], spools)
        report("dividing", part.stop / raw.rows)
    return spools
