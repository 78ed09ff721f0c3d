"""Lists for millions of users in one file, written in parts: memory stays small, and a killed run continues."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.sources import HistorySource
from segue.data.times import Moment, to_timestamp
from segue.errors import ConfigError, StorageError
from segue.files import (
    FileKind,
    atomic_file,
    check_file,
    contents,
    exclusive,
    failures_name,
    make_readable,
    read_json,
    real,
    write_json,
)
from segue.inference.asking.ids import warn_unrated
from segue.inference.asking.users import RequestedUsers
from segue.inference.scorer import Scorer
from segue.inference.scoring.lists import best_lists, list_frame, with_columns
from segue.inference.scoring.popular import Rules, Scores
from segue.locks import collect, is_temporary, put, temporary_folder
from segue.models.base import Model

Progress = Callable[[int, int], None]
"""Function of the number of users done and the number of all users."""

_NOTE = "export.json"
_PART = re.compile(r"export\.json|part-\d{6,}\.parquet")
_COLUMNS = ["user", "item", "score", "rank", "model"]
LISTS = FileKind(
    "a file of lists",
    (",".join(_COLUMNS).encode(),),
    (b"PAR1", *(name.encode() for name in _COLUMNS)),
    tuple(f'"{name}":'.encode() for name in _COLUMNS),
)
_SUFFIXES = (".parquet", ".csv", ".jsonl")


@dataclass(frozen=True, eq=False)
class Export:
    """Target file of an export.

    Attributes
    ----------
    path
        A path that ends in .parquet, .csv or .jsonl. An existing file is replaced at the end, in one step.
    chunk
        Number of users in a part.
    overwrite
        False refuses to replace lists that are there already.

    Raises
    ------
    ConfigError
        The path ends otherwise, or the chunk is below 1.
    """

    path: Path
    chunk: int
    overwrite: bool | None = None

    def __post_init__(self) -> None:
        if self.path.suffix not in _SUFFIXES:
            raise ConfigError(
                f"{self.path} ends in {self.path.suffix or 'nothing'!r}: expected one of {', '.join(_SUFFIXES)}."
            )
        if self.chunk < 1:
            raise ConfigError(f"chunk={self.chunk} is a number of users: expected 1 or more.")

    def write(
        self,
        n_users: int,
        identity: Mapping[str, Any],
        lists: Callable[[slice], pl.DataFrame],
        progress: Progress | None,
    ) -> Path:
        """Write `lists(slice)` for all slices of the users.

        The folder `<path>.parts` holds finished parts until all are finished. A run that finds parts of the same
        `identity` writes only the missing ones; parts of another identity are deleted.

        Parameters
        ----------
        n_users
            Number of users.
        identity
            Plain data that the lists depend on.
        lists
            Function that makes the frame of a slice of users.
        progress
            Called before each part and at the end.

        Raises
        ------
        StorageError
            The path or `<path>.parts` holds something that segue did not write for an export, or another process is
            writing there.
        """
        check_file(self.path, LISTS, self.overwrite)
        target = real(self.path)
        folder = target.with_name(f"{target.name}.parts")
        with exclusive(self.path):
            _open_parts(folder, {**identity, "n": n_users, "chunk": self.chunk})
            starts = range(0, max(n_users, 1), self.chunk)
            files = [folder / f"part-{number:06d}.parquet" for number in range(len(starts))]
            for start, file in zip(starts, files, strict=True):
                if progress:
                    progress(start, n_users)
                if not _is_part(file):
                    frame = lists(slice(start, min(start + self.chunk, n_users)))
                    with atomic_file(file) as temporary:
                        frame.write_parquet(temporary)
            with atomic_file(self.path, LISTS, self.overwrite) as temporary:
                _join(files, temporary, self.path.suffix)
            _remove_parts(folder)
        if progress:
            progress(n_users, n_users)
        return self.path


def write_lists(
    target: Export,
    scorer: Scorer,
    source: HistorySource,
    users: RequestedUsers,
    rules: Rules,
    shares: Scores,
    as_of: Moment | None,
    progress: Progress | None,
    columns: pl.DataFrame | None = None,
) -> Path:
    """Write the best lists of users to a file.

    Parameters
    ----------
    target
        The file.
    scorer, source
        The model, and the source of histories and raw item ids.
    users, rules, shares
        As for `best_lists`.
    as_of
        End of the histories, if they were cut.
    progress
        Called with the number of users done and the number of all users.
    columns
        Columns (n_items,) of the item table to add, in the order of the codes.
    """

    listed = np.zeros(scorer.n_items + 1, dtype=np.bool_)

    def lists(part: slice) -> pl.DataFrame:
        chunk = users.select(part)
        codes, scores = best_lists(scorer, chunk, rules, shares)
        listed[codes] = True
        return with_columns(list_frame(scorer, chunk, source.catalogue, codes, scores), source.catalogue, columns)

    names = [] if columns is None else columns.columns
    timestamp = None if as_of is None else to_timestamp(source, as_of)
    path = target.write(len(users), _identity(scorer, source, users, rules, timestamp, names), lists, progress)
    warn_unrated(scorer, source.catalogue, np.flatnonzero(listed))
    return path


def _identity(
    scorer: Scorer,
    source: HistorySource,
    users: RequestedUsers,
    rules: Rules,
    as_of: int | None,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """Plain data that the lists depend on; finished parts are used again only if it is the same."""
    return {
        "model": fingerprint(scorer.model),
        "dataset": source.fingerprint,
        "people": digest(users.ids.hash(seed=0).to_numpy()),
        "k": rules.k,
        "exclude_seen": rules.exclude_seen,
        "allowed": None if rules.allowed is None else digest(rules.allowed),
        "as_of": as_of,
        **({} if rules.offset is None else {"offset": digest(rules.offset)}),
        **({} if rules.reranking is None else {"reranking": rules.reranking.label}),
        **({} if not columns else {"columns": list(columns)}),
        **{name: lists.fingerprint for name, lists in users.own_items.items()},
    }


def fingerprint(model: Model) -> str:
    """Hash of a model's config and weights."""
    total = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, tensor in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def digest(array: npt.NDArray[Any]) -> str:
    """Hash of an array."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _open_parts(folder: Path, identity: dict[str, Any]) -> None:
    """Make `folder` with a note of `identity`; parts of another identity are deleted."""
    note = folder / _NOTE
    collect(folder.parent)
    if folder.is_dir():
        collect(folder)
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} exists and was not written by segue: remove it, or choose another path.")
    if folder.is_dir() and any(folder.iterdir()):
        foreign = [name for name in sorted(contents(folder)) if not (_PART.fullmatch(name) or is_temporary(name))]
        if foreign or not note.is_file():
            name = (foreign or [next(folder.iterdir()).name])[0]
            raise StorageError(
                f"{folder} holds {name}, which was not written by segue for an export: remove it, or choose another "
                "path."
            )
        if _is_note_of(note, identity):
            return
        _remove_parts(folder)
    # The folder and its note appear in one step.
    with failures_name(folder), temporary_folder(folder.parent, folder.name) as made:
        write_json(made / _NOTE, identity)
        make_readable(made)
        put(made, folder)


def _is_note_of(note: Path, identity: dict[str, Any]) -> bool:
    """Return whether the parts beside a note are of the same lists; parts of a damaged note are not."""
    try:
        return bool(read_json(note) == identity)
    except StorageError:
        return False


def _is_part(file: Path) -> bool:
    """Return whether a file is a whole part."""
    if not file.is_file():
        return False
    try:
        return list(pl.read_parquet_schema(file))[: len(_COLUMNS)] == _COLUMNS
    except (pl.exceptions.PolarsError, OSError):
        return False


def _remove_parts(folder: Path) -> None:
    """Remove the folder of parts in one step: a process that is killed in between leaves it whole or hidden."""
    with temporary_folder(folder.parent, folder.name) as empty:
        folder.replace(empty)


def _join(files: list[Path], target: Path, suffix: str) -> None:
    """Write the frames of `files` to `target` as one file."""
    frame = pl.scan_parquet(files)
    if suffix == ".parquet":
        frame.sink_parquet(target)
    elif suffix == ".csv":
        frame.sink_csv(target)
    else:
        frame.sink_ndjson(target)
