"""The arrays of a Dataset from encoded interactions: filtered, sorted and recoded, range by range of users."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.order import time_order
from segue.data.preparing.filters import without_duplicates
from segue.data.preparing.fingerprint import LogFingerprint
from segue.data.preparing.options import Preparation
from segue.data.preparing.partitions import OLDEST, Encoded, Progress
from segue.data.preparing.steps import Steps
from segue.data.ragged import Int64
from segue.data.reading.read import Log
from segue.data.sessions import SessionOffsets, out_of_order
from segue.data.spool import Spool
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

ARRAYS = {"items": "item", "times": "time", "ratings": "rating"}
"""Column of the log behind each large array of a Dataset; users and sessions become offsets."""


def sort_partitions(
    encoded: Encoded,
    options: Preparation,
    steps: Steps,
    folder: Path,
    report: Progress,
    print_of_log: LogFingerprint,
    *,
    cut: int | None,
    by_session: bool,
) -> tuple[Spool, int, int]:
    """The partitions, filtered and sorted, one after the other.

    Parameters
    ----------
    cut
        Time up to which interactions are let go; None for none.
    by_session
        True if each line of the log is a session: then those that stand behind a later one are counted.

    Returns
    -------
    The interactions, and the numbers of sessions out of order and of sessions that were divided.
    """
    rule, late, divided = options.sessions, 0, 0
    session = {} if rule is None else {"session": np.dtype(np.int64)}
    dtypes = {name: dtype for name, dtype in encoded.partitions[0].dtypes.items() if name != OLDEST}
    flat = Spool(folder / "flat", dtypes | session)
    for number, partition in enumerate(encoded.partitions, 1):
        columns = partition.load()
        partition.remove()
        print_of_log.add(columns)
        steps.count("read", columns["user"], columns["item"])
        if by_session and "time" in columns:
            late += out_of_order(columns["user"], columns["time"])
        if options.oldest is not None:
            columns = take(columns, columns.pop(OLDEST))
            steps.count(f"the oldest {options.oldest:.6g} of the rows", columns["user"], columns["item"])
        if cut is not None:
            columns = take(columns, columns["time"] > cut)
            steps.count(options.newest_name, columns["user"], columns["item"])
        if options.min_rating is not None:
            columns = take(columns, columns["rating"] >= options.min_rating)
            steps.count(f"rating at least {options.min_rating:g}", columns["user"], columns["item"])
        columns = take(columns, time_order(columns["user"], columns.get("time")))
        if rule is not None:
            columns, more = rule.mark(columns)
            divided += more
        if options.duplicates != "keep":
            stay = without_duplicates(columns["user"], columns["item"], columns.get("time"), options.duplicates)
            columns = take(columns, stay)
            steps.count(f"duplicates: {options.duplicates}", columns["user"], columns["item"])
        flat.append(columns)
        report("sorting", number / len(encoded.partitions))
    return flat, late, divided


def recode(
    flat: Spool,
    keep: npt.NDArray[np.bool_] | None,
    new_item: npt.NDArray[np.int32],
    rows: int,
    options: Preparation,
    folder: Path,
    report: Progress,
    size: int | None = None,
) -> tuple[Spool, Int64 | None]:
    """The large arrays of the Dataset as files, and the offsets of its sessions (None without sessions).

    Parameters
    ----------
    flat
        Sorted interactions.
    keep
        Mask of those that stay; None for all.
    new_item
        Final code of each item code.
    rows
        Number of those that stay.
    size
        Number of rows that are in memory at a time.
    """
    dtypes = {name: flat.dtypes[column] for name, column in ARRAYS.items() if column in flat.dtypes}
    final = Spool(folder / "final", dtypes, final_rows=rows)
    sessions = None if options.sessions is None else SessionOffsets()
    for part, columns in flat.pieces(size):
        columns = take(columns, None if keep is None else keep[part])
        if sessions is not None:
            sessions.add(columns)
        columns["item"] = new_item[columns["item"]]
        final.append({name: columns[ARRAYS[name]] for name in dtypes})
        report("recoding", part.stop / flat.rows)
    return final, None if sessions is None else sessions.finish()


def remaining(vocabulary: Vocabulary, counts: Int64) -> Vocabulary:
    """The ids that have interactions; counts are per code (n + 1,)."""
    left = counts[1:] > 0
    return vocabulary if left.all() else Vocabulary.in_order(vocabulary.ids.filter(left))


def take(columns: dict[str, npt.NDArray[Any]], index: npt.NDArray[Any] | None) -> dict[str, npt.NDArray[Any]]:
    """Rows of columns, by positions or a mask; all for None."""
    return columns if index is None else {name: values[index] for name, values in columns.items()}


def left_nothing(source: str, steps: list[dict[str, Any]]) -> DataError:
    """The error for filters that leave no interaction."""
    table = "; ".join(f"{row['step']}: {row['interactions']:,} interactions" for row in steps)
    return DataError(f"{source}: the filters leave nothing ({table}). Lower k_core or min_rating.")


def metadata_of(
    log: Log, options: Preparation, steps: list[dict[str, Any]], notes: list[str], entry: dict[str, Any]
) -> dict[str, Any]:
    """The metadata of a Dataset; `entry` is that of its log (`LogFingerprint.entry`)."""
    return {
        "source": log.source,
        "format": log.format,
        "columns": dict(log.columns),
        "bad_rows_dropped": log.dropped,
        "options": asdict(options),
        "steps": steps,
        "notes": notes,
        "logs": [entry],
    }
