"""Lists for millions of users, written in parts by any engine: memory stays small, and a killed run continues."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.sources import HistorySource
from segue.data.times import Moment, to_timestamp
from segue.data.vocabulary import Vocabulary
from segue.engines.engine import Engine
from segue.engines.workers import holding, run_parts
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
    sha256,
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
_MANIFEST = "lists.json"
_PART = re.compile(r"export\.json|lists\.json|part-\d{6,}\.parquet")
_CHUNK_OF_FILES, _CHUNK_OF_FOLDERS = 50_000, 10_000
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
    """Target of an export: one file, or a folder of Parquet files.

    Attributes
    ----------
    path
        A path that ends in .parquet, .csv or .jsonl is a file. A path without an ending, or one that is a folder
        already, is a folder. An existing file is replaced at the end, in one step.
    chunk
        Number of users in a part; None for 50,000 in a file, and 10,000 in a folder.
    shards
        Number of parts instead; no more than users.
    overwrite
        False refuses to replace lists that are there already.

    Raises
    ------
    ConfigError
        The path has another ending, chunk or shards are below 1, or both are given.
    """

    path: Path
    chunk: int | None = None
    shards: int | None = None
    overwrite: bool | None = None

    def __post_init__(self) -> None:
        if not self.is_folder and self.path.suffix not in _SUFFIXES:
            raise ConfigError(
                f"{self.path} ends in {self.path.suffix!r}: expected one of {', '.join(_SUFFIXES)}, or no ending for a "
                "folder of Parquet files."
            )
        if self.chunk is not None and self.shards is not None:
            raise ConfigError(f"chunk={self.chunk} and shards={self.shards} both divide the users: give one of them.")
        for name, value in (("chunk", self.chunk), ("shards", self.shards)):
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: expected 1 or more.")

    @property
    def is_folder(self) -> bool:
        """True if the lists become a folder of Parquet files."""
        return not self.path.suffix or (self.path.suffix not in _SUFFIXES and self.path.is_dir())

    def slices(self, n_users: int) -> list[slice]:
        """Users of each part."""
        if self.shards is not None:
            number = max(1, min(self.shards, n_users))
            ends = [n_users * part // number for part in range(number + 1)]
            return [slice(start, end) for start, end in pairwise(ends)]
        chunk = self._chunk
        return [slice(start, min(start + chunk, n_users)) for start in range(0, max(n_users, 1), chunk)]

    @property
    def division(self) -> dict[str, int]:
        """Choice that decides the parts, as plain data."""
        return {"chunk": self._chunk} if self.shards is None else {"shards": self.shards}

    @property
    def _chunk(self) -> int:
        return self.chunk or (_CHUNK_OF_FOLDERS if self.is_folder else _CHUNK_OF_FILES)


@dataclass(frozen=True, eq=False)
class ListMaker:
    """Everything but users that lists depend on: a worker holds one for all of its parts.

    Attributes
    ----------
    scorer, rules, shares
        As for `best_lists`.
    catalogue
        Raw ids of the items.
    columns
        Columns (n_items,) of the item table to add, in the order of the codes; None for none.
    """

    scorer: Scorer
    rules: Rules
    shares: Scores
    catalogue: Vocabulary
    columns: pl.DataFrame | None


@dataclass(frozen=True, eq=False)
class _Part:
    """Users of a part, and the file for their lists."""

    file: Path
    users: RequestedUsers


@dataclass(frozen=True)
class _Written:
    """Facts of the file of a part: size, checksum, rows, and the items in it as a packed mask (n_items + 1,)."""

    size: int
    sha256: str
    rows: int
    listed: bytes


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
    engine: Engine | None = None,
) -> Path:
    """Write the best lists of users to a file or a folder, part by part.

    Finished parts are in the folder, or in `<path>.parts` until the file is written. A run that finds parts of the same
    lists writes only the missing ones.

    Parameters
    ----------
    target
        The file or the folder.
    scorer, source
        The model, and the source of histories and raw item ids.
    users, rules, shares
        As for `best_lists`.
    as_of
        End of the histories, if they were cut.
    progress
        Called with the number of users done and the number of all users: at the start, and after each part.
    columns
        Columns (n_items,) of the item table to add, in the order of the codes.
    engine
        Workers that make the parts; this process when None.

    Raises
    ------
    StorageError
        The path or `<path>.parts` holds something that segue did not write for an export, another process is writing
        there, or workers of another machine write to another folder of the same name.
    """
    timestamp = None if as_of is None else to_timestamp(source, as_of)
    identity = _identity(scorer, source, users, rules, timestamp, [] if columns is None else columns.columns)
    identity |= {"n": len(users), **target.division}
    maker = ListMaker(scorer, rules, shares, source.catalogue, columns)
    place = real(target.path)
    folder = place if target.is_folder else place.with_name(f"{place.name}.parts")
    if not target.is_folder:
        check_file(target.path, LISTS, target.overwrite)
    with exclusive(target.path):
        if target.is_folder:
            _check_folder(target.path, folder, target.overwrite)
        _open_parts(folder, identity, tell=target.is_folder)
        slices = target.slices(len(users))
        files = [folder / f"part-{number:06d}.parquet" for number in range(len(slices))]
        written = _write_parts(files, slices, users, maker, engine or Engine(), progress)
        if target.is_folder:
            _write_manifest(folder, identity, files, written)
        else:
            with atomic_file(target.path, LISTS, target.overwrite) as temporary:
                _join(files, temporary, target.path.suffix)
            _remove_parts(folder)
    masks = [np.frombuffer(one.listed, dtype=np.uint8) for one in written.values()]
    if masks:
        warn_unrated(scorer, source.catalogue, np.flatnonzero(np.unpackbits(np.bitwise_or.reduce(masks))))
    return target.path


def _write_parts(
    files: list[Path],
    slices: list[slice],
    users: RequestedUsers,
    maker: ListMaker,
    engine: Engine,
    progress: Progress | None,
) -> dict[Path, _Written]:
    """Write the parts that are missing, and return the facts of those."""
    missing = [number for number, file in enumerate(files) if not _is_part(file)]
    done = len(users) - sum(slices[number].stop - slices[number].start for number in missing)
    if progress:
        progress(done, len(users))

    def parts() -> Iterator[_Part]:
        for number in missing:
            chosen = users.select(slices[number])
            yield _Part(files[number], chosen if engine.alone else chosen.compact())

    written: dict[Path, _Written] = {}
    if not missing:
        return written
    for index, facts in run_parts(_write_part, parts(), engine, holding(maker)):
        number = missing[index]
        if not files[number].is_file():
            raise StorageError(
                f"a worker wrote {files[number]}, and it is not on this machine: choose a folder on a file system that "
                "all nodes share."
            )
        written[files[number]] = facts
        done += slices[number].stop - slices[number].start
        if progress:
            progress(done, len(users))
    return written


def _write_part(maker: ListMaker, part: _Part) -> _Written:
    """Write the lists of a part."""
    codes, scores = best_lists(maker.scorer, part.users, maker.rules, maker.shares)
    frame = list_frame(maker.scorer, part.users, maker.catalogue, codes, scores)
    with atomic_file(part.file) as temporary:
        with_columns(frame, maker.catalogue, maker.columns).write_parquet(temporary)
        size, checksum = temporary.stat().st_size, sha256(temporary)
    listed = np.zeros(maker.scorer.n_items + 1, dtype=np.bool_)
    listed[codes] = True
    return _Written(size, checksum, len(frame), np.packbits(listed).tobytes())


def _check_folder(path: Path, folder: Path, overwrite: bool | None) -> None:
    """Raise a StorageError if finished lists are there and must stay."""
    if overwrite is False and (folder / _MANIFEST).is_file():
        raise StorageError(
            f"{path} already holds lists, and overwrite=False keeps them: choose another place, or leave that out."
        )


def _write_manifest(
    folder: Path, identity: Mapping[str, Any], files: list[Path], written: Mapping[Path, _Written]
) -> None:
    """Write the manifest of a finished folder: the lists are complete if it is there."""
    entries, rows = {}, 0
    for file in files:
        facts = written.get(file)
        size, checksum = (file.stat().st_size, sha256(file)) if facts is None else (facts.size, facts.sha256)
        rows += pl.scan_parquet(file).select(pl.len()).collect().item() if facts is None else facts.rows
        entries[file.name] = {"bytes": size, "sha256": checksum}
    content = {"kind": "lists", "format_version": 1, "segue": version("segue"), **identity, "rows": rows}
    write_json(folder / _MANIFEST, {**content, "files": entries})


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


def _open_parts(folder: Path, identity: dict[str, Any], tell: bool) -> None:
    """Make `folder` with a note of `identity`; parts of another identity are deleted, and `tell` warns of that."""
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
        others = _differences(note, identity)
        if not others:
            return
        if tell:
            warnings.warn(
                f"{folder} held other lists (of {', '.join(others)}): they were deleted, and all parts are made anew.",
                stacklevel=2,
            )
        _remove_parts(folder)
    # The folder and its note appear in one step.
    with failures_name(folder), temporary_folder(folder.parent, folder.name) as made:
        write_json(made / _NOTE, identity)
        make_readable(made)
        put(made, folder)


_WORDS = {"model": "another model", "dataset": "other data", "people": "other users", "n": "another number of users"}


def _differences(note: Path, identity: dict[str, Any]) -> list[str]:
    """Differences, in words, between a note and what the lists depend on now; parts of a damaged note differ."""
    try:
        noted = read_json(note)
    except StorageError:
        noted = None
    if not isinstance(noted, dict):
        return ["a damaged note"]
    names = [name for name in {**identity, **noted} if noted.get(name) != identity.get(name)]
    return [_WORDS.get(name, f"another {name}") for name in names]


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
