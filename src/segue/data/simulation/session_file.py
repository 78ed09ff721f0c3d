"""Writer of PARSRec's session file: `user,time,n,item1,…,itemn`, one line per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import polars as pl

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.ragged import positions
from segue.data.reading.formats.session_file import SESSION_HEADER, types_beside
from segue.errors import ConfigError, DataError
from segue.files import FileKind, atomic_file, write_json

_SESSIONS = 1 << 18  # sessions written at a time
_SESSION_FILE = FileKind("a session file", (SESSION_HEADER.encode(),))
TYPES = FileKind("the types of a session file", (b'"session_items"', b'"user_id"'))
_SMALLEST_ID = 2  # 0 and 1 mark the begin and end of a basket


class SessionWriter:
    """Writes a session file piece by piece, atomically, and its `_columns_dtype.json` beside it.

    Parameters
    ----------
    path
        The file.

    Examples
    --------
    >>> with SessionWriter(Path("toy.txt")) as writer:  # doctest: +SKIP
    ...     writer.write(pl.DataFrame({"user": [0, 0], "session": [0, 0], "time": [0, 0], "item": [5, 2]}))
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = atomic_file(path, _SESSION_FILE)
        self._bytes = 0
        self._largest = 0

    def __enter__(self) -> SessionWriter:
        self._stream = self._file.__enter__().open("wb")
        self._stream.write(f"{SESSION_HEADER}\n".encode())
        return self

    def write(self, log: pl.DataFrame) -> None:
        """Add the sessions of a log with the columns user, session, time and item, each session in one piece."""
        together = log.group_by("user", "session", maintain_order=True).agg(
            pl.col("time").first(), pl.len().alias("n"), pl.col("item").cast(pl.String).str.join(",")
        )
        lines = together.select(pl.concat_str("user", "time", "n", "item", separator=","))
        lines.write_csv(self._stream, include_header=False, quote_style="never")
        if log["user"].dtype.is_integer() and len(log):
            self._largest = max(self._largest, int(log["user"].abs().max()))  # type: ignore[arg-type]

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._file.__exit__(error_type, error, trace)
        if error is None:
            types = {
                "session_length": "int32",
                "session_items": "object",
                "history": "object",
                "time": "int64",
                "user_id": "int32" if self._largest < 1 << 31 else "int64",
            }
            write_json(types_beside(self._path), types, TYPES)


@checked
def write_session_file(dataset: Dataset, path: str | Path, ids: Literal["raw", "codes"] = "raw") -> Path:
    """Write the visible sessions of a Dataset as PARSRec reads them, and `<name>_columns_dtype.json` beside the file.

    A session has one time: that of its first interaction or, if the Dataset has no times, its number among the user's
    sessions, from 0. Sessions are in the order of user codes.

    Parameters
    ----------
    dataset
        A Dataset with sessions.
    path
        The file.
    ids
        "raw": the ids of the log, which must be integers; item ids must be 2 or more. "codes": user codes from 1, and
        item codes plus 1, from 2.

    Returns
    -------
    The path.

    Raises
    ------
    DataError
        The Dataset has no sessions, or raw ids that the file cannot hold.
    ConfigError
        `ids` is neither.

    Examples
    --------
    >>> data = segue.simulate(users=4, sessions=2).dataset()
    >>> segue.write_session_file(data, "sessions.txt", ids="codes").name
    'sessions.txt'
    """
    if ids not in ("raw", "codes"):
        raise ConfigError(f'ids is "raw" or "codes", not {ids!r}.')
    whole = dataset.compact()
    if ids == "raw":
        _check(whole)
    with SessionWriter(Path(path)) as writer:
        for piece in _pieces(whole, ids):
            writer.write(piece)
    return Path(path)


def _check(dataset: Dataset) -> None:
    way_out = "Write codes in their place with ids='codes'."
    for vocabulary, noun in ((dataset.users, "users"), (dataset.catalogue, "items")):
        if vocabulary.ids.dtype != pl.Int64 and len(vocabulary):
            raise DataError(f"a session file holds integers, and {noun} are called {vocabulary.ids[0]!r}. {way_out}")
    smallest = int(dataset.catalogue.ids.min()) if len(dataset.catalogue) else _SMALLEST_ID  # type: ignore[arg-type]
    if smallest < _SMALLEST_ID:
        raise DataError(
            f"a session file holds item ids from {_SMALLEST_ID} (0 and 1 mark the begin and end of a basket), and "
            f"there is an item {smallest}. {way_out}"
        )


def _pieces(dataset: Dataset, ids: str) -> Iterator[pl.DataFrame]:
    """Some sessions at a time, as a log."""
    sessions = dataset.sessions
    for start in range(0, len(sessions), _SESSIONS):
        part = slice(start, start + _SESSIONS)
        starts, ends, users = sessions.starts[part], sessions.ends[part], sessions.users[part]
        number = np.arange(start, start + len(starts))
        time = number - sessions.offsets[users] if dataset.times is None else dataset.times[starts]
        items = dataset.items[positions(starts, ends)]
        lengths = ends - starts
        yield pl.DataFrame(
            {
                "user": pl.Series(users if ids == "codes" else dataset.users.decode(users)).gather(_rows(lengths)),
                "session": np.repeat(number, lengths),
                "time": np.repeat(time, lengths),
                "item": items + 1 if ids == "codes" else dataset.catalogue.decode(items),
            }
        )


def _rows(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> pl.Series:
    return pl.Series(np.repeat(np.arange(len(lengths)), lengths))
