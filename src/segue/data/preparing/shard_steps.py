"""Steps of a preparation in shards. Each is a function of one part: it reads and leaves files, and returns numbers.

A step can be run again, by any process that sees the folder: its files are complete when they get their final name.

1. `read_piece` reads a piece of the log, gives codes to its ids and divides its rows by the shard of their user.
2. `number_items` gives the items of a piece the codes that all shards share.
3. `sort_shard` gathers a shard from all pieces, filters and sorts it, range by range of its users.
4. `drop_rare` does one round of the k-core in a shard; the counts of items are summed between rounds.
5. `write_shard` writes the Dataset of a shard.
"""

from __future__ import annotations

import pickle
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset, save_moving
from segue.data.preparing.building import recode, remaining, sort_partitions
from segue.data.preparing.filters import Core, counts_in_bins
from segue.data.preparing.fingerprint import LogFingerprint
from segue.data.preparing.options import Preparation
from segue.data.preparing.partitions import OLDEST, Encoded, SuspectRow, ranges_of, read_raw
from segue.data.preparing.prepare import suspect_word
from segue.data.preparing.steps import Steps
from segue.data.preparing.tables import TableSource, joined
from segue.data.ragged import Int64, offsets_of
from segue.data.reading.files import Scratch
from segue.data.reading.layout import UNREADABLE
from segue.data.reading.pieces import Piece
from segue.data.reading.read import SUSPECT, Log
from segue.data.shards import shard_name
from segue.data.spool import Spool, scatter
from segue.data.tables.table import Table
from segue.data.user_hash import shards_of
from segue.data.vocabulary import Vocabulary

ROWS_AT_A_TIME = 1 << 17
"""Rows in memory at a time: fewer than elsewhere, since several workers share a machine."""

ROW = "row"
"""Column with the position of an interaction in its piece, if only the oldest are kept."""

_LISTS = ("user", "session")
"""Roles whose ids are listed for each shard; those of items are common."""


@dataclass(frozen=True)
class ShardJob:
    """Facts that every step knows.

    Attributes
    ----------
    folder
        Folder of the files of all steps, which all workers see.
    shards
        Number of shards.
    options
        Options of the preparation.
    columns
        Column of the log behind each role.
    format, time_unit
        Format of the log, and unit of its times.
    """

    folder: Path
    shards: int
    options: Preparation
    columns: Mapping[str, str]
    format: str
    time_unit: str | None

    @property
    def catalogue_file(self) -> Path:
        """File of the common vocabulary of items, before and after the filters."""
        return self.folder / "catalogue.parquet"


@dataclass(frozen=True)
class PieceRead:
    """Numbers about a piece that was read.

    Attributes
    ----------
    number, rows
        Number of the piece, and its rows.
    of_shard
        Rows in each shard.
    dtypes
        Types of the columns of its files.
    times
        Oldest and newest time; None without times or rows.
    words
        First id that may stand for a missing value, by role.
    """

    number: int
    rows: int
    of_shard: tuple[int, ...] = ()
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    times: tuple[int, int] | None = None
    words: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardSorted:
    """Numbers about a shard that was filtered and sorted.

    Attributes
    ----------
    rows, dtypes
        Interactions, and types of the columns of its files.
    late, divided
        Sessions out of order, and sessions that were divided.
    steps
        Users and interactions after each step; the items are in a file.
    entry
        Entry of the shard's part of the log (`LogFingerprint.entry`).
    """

    rows: int
    dtypes: Mapping[str, np.dtype[Any]]
    late: int
    divided: int
    steps: list[dict[str, Any]]
    entry: dict[str, Any]


@dataclass(frozen=True)
class Oldest:
    """The oldest rows of a log: those before `cut`, and at the cut those up to a row in each piece."""

    cut: int
    last_rows: tuple[int, ...]


@contextmanager
def complete(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`, whose name it gets once it is complete; a former one is replaced."""
    temporary = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


# ---- 1: pieces of the log -------------------------------------------------------------------------------------------


def read_piece(job: ShardJob, part: tuple[int, Piece]) -> PieceRead:
    """Read a piece of the log, give codes to its ids, and divide its rows by the shard of their user.

    Raises
    ------
    SuspectRow
        The log is checked while it is read, and holds a row that may be bad.
    """
    number, piece = part
    with complete(_piece_folder(job, number)) as folder:
        scratch = Scratch()
        frames = piece.open(folder, scratch)
        first = next(frames)
        is_checked = SUSPECT not in first.collect_schema()
        log = Log(first, "", job.format, job.columns, 0, 0, job.time_unit, scratch)
        try:
            raw, ids = read_raw(log, folder, _silent, ROWS_AT_A_TIME, chain([first], frames))
        except UNREADABLE:
            if is_checked:
                raise
            raise SuspectRow from None
        (folder / "lines.txt").unlink(missing_ok=True)
        if not raw.rows:
            return PieceRead(number, 0, (0,) * job.shards)
        vocabularies = {role: collector.finish() for role, collector in ids.items()}
        words = {role: suspect_word(vocabularies[role]) for role in ("user", "item")} if not is_checked else {}
        shard_of_user = np.append(0, shards_of(vocabularies["user"].ids, job.shards)).astype(np.int16)
        dtypes = raw.dtypes | dict.fromkeys(ids, np.dtype(np.int32))
        dtypes |= {} if job.options.oldest is None else {ROW: np.dtype(np.int64)}
        spools = [Spool(folder / shard_name(shard), dtypes) for shard in range(job.shards)]
        counts = np.zeros(len(vocabularies["user"]) + 1, dtype=np.int64)
        times: list[tuple[int, int]] = []
        for rows, columns in raw.pieces(ROWS_AT_A_TIME):
            if "time" in columns:
                times.append((int(columns["time"].min()), int(columns["time"].max())))
            columns |= {role: collector.codes(columns[role]) for role, collector in ids.items()}
            columns |= {ROW: np.arange(rows.start, rows.stop)} if ROW in dtypes else {}
            counts += np.bincount(columns["user"], minlength=len(counts))
            scatter(columns, shard_of_user[columns["user"]], spools)
        raw.remove()
        vocabularies["item"].save(folder / "items.parquet")
        by_shard = np.argsort(shard_of_user[1:], kind="stable") + 1
        bounds = offsets_of(np.bincount(shard_of_user[1:], minlength=job.shards))
        for shard, spool in enumerate(spools):
            used = by_shard[bounds[shard] : bounds[shard + 1]]
            _list_ids(folder, "user", shard, used, vocabularies["user"], counts)
            if "session" in ids:
                used = _used(spool, "session", len(vocabularies["session"]))
                _list_ids(folder, "session", shard, used, vocabularies["session"], None)
        return PieceRead(
            number,
            raw.rows,
            tuple(spool.rows for spool in spools),
            dtypes,
            (min(low for low, _ in times), max(high for _, high in times)) if times else None,
            {role: word for role, word in words.items() if word is not None},
        )


def _used(spool: Spool, column: str, largest: int) -> Int64:
    """Codes, ascending, that occur in a column."""
    seen = np.zeros(largest + 1, dtype=np.bool_)
    for codes in spool.column(column):
        seen[codes] = True
    return np.flatnonzero(seen)


def _list_ids(folder: Path, role: str, shard: int, used: Int64, vocabulary: Vocabulary, counts: Int64 | None) -> None:
    """Write the ids of a shard beside their codes in the piece and, for users, their interactions."""
    columns = {"code": pl.Series(used, dtype=pl.Int64), "id": vocabulary.ids[used - 1]}
    columns |= {} if counts is None else {"count": pl.Series(counts[used])}
    pl.DataFrame(columns).write_parquet(folder / f"{role}-{shard:05d}.parquet")


def remove_piece(job: ShardJob, number: int) -> None:
    """Delete the files of a piece, after all shards have gathered their rows."""
    shutil.rmtree(_piece_folder(job, number), ignore_errors=True)


def _piece_folder(job: ShardJob, number: int) -> Path:
    return job.folder / f"piece-{number:05d}"


# ---- 2: common codes, and the oldest rows ---------------------------------------------------------------------------


def number_items(job: ShardJob, number: int) -> None:
    """Write the common codes (n + 1,) of the item codes of a piece."""
    folder = _piece_folder(job, number)
    catalogue = Vocabulary.load(job.catalogue_file)
    codes = catalogue.encode(Vocabulary.load(folder / "items.parquet").ids)
    temporary = folder / f"{uuid.uuid4().hex}.npy"
    np.save(temporary, np.append(0, codes).astype(np.int32))
    temporary.replace(folder / "items.npy")


def count_times(job: ShardJob, low: int, high: int, piece: PieceRead) -> Int64:
    """Numbers of times of a piece in equal bins from `low` to `high`, as `counts_in_bins` makes them."""
    counts = counts_in_bins(np.empty(0, dtype=np.int64), low, high)
    for spool in _spools(job, piece):
        for times in spool.column("time"):
            counts += counts_in_bins(times, low, high)
    return counts


def last_row_at(job: ShardJob, cut: int, part: tuple[PieceRead, int]) -> int:
    """Row of the last of the first so many rows of a piece whose time is `cut`; -1 for none of them."""
    piece, count = part
    if not count:
        return -1
    rows = [
        columns[ROW][columns["time"] == cut]
        for spool in _spools(job, piece)
        for _, columns in spool.pieces(ROWS_AT_A_TIME)
    ]
    return int(np.sort(np.concatenate(rows))[count - 1])


def _spools(job: ShardJob, piece: PieceRead) -> Iterator[Spool]:
    return (_spool(job, piece, shard) for shard in range(job.shards))


def _spool(job: ShardJob, piece: PieceRead, shard: int) -> Spool:
    return Spool.reopened(_piece_folder(job, piece.number) / shard_name(shard), piece.dtypes, piece.of_shard[shard])


# ---- 3: one shard ---------------------------------------------------------------------------------------------------


def sort_shard(job: ShardJob, pieces: Sequence[PieceRead], cut: int | None, oldest: Oldest | None, shard: int) -> Any:
    """Gather a shard from all pieces, filter and sort it.

    Parameters
    ----------
    job, shard
        The job, and the number of the shard.
    pieces
        All pieces, in the order of the log.
    cut
        Time up to which interactions are let go; None for none.
    oldest
        The oldest rows, if only these are kept.

    Returns
    -------
    ShardSorted
    """
    with complete(_shard_folder(job, shard)) as folder:
        vocabularies = {role: _common_ids(job, pieces, shard, role) for role in _LISTS if role in pieces[0].dtypes}
        catalogue = Vocabulary.load(job.catalogue_file)
        partitions = _gathered(job, pieces, shard, vocabularies, oldest, folder)
        encoded = Encoded(vocabularies["user"], catalogue, partitions)
        steps, log = Steps(len(encoded.users), len(catalogue)), LogFingerprint(encoded)
        by_session = job.format == "session-file"
        flat, late, divided = sort_partitions(
            encoded, job.options, steps, folder, _silent, log, cut=cut, by_session=by_session
        )
        encoded.users.save(folder / "users.parquet")
        of_user, of_item = steps.last()
        np.save(folder / "of-user.npy", of_user)
        np.save(folder / "of-item.npy", of_item)
        np.save(folder / "items-seen.npy", steps.items_seen())
        return ShardSorted(flat.rows, flat.dtypes, late, divided, steps.table(), log.entry(""))


def _common_ids(job: ShardJob, pieces: Sequence[PieceRead], shard: int, role: str) -> Vocabulary:
    """All ids of a role in a shard, sorted."""
    files = [_ids_file(job, piece, role, shard) for piece in pieces]
    return Vocabulary(pl.concat([pl.read_parquet(file, columns=["id"])["id"] for file in files]).unique())


def _ids_file(job: ShardJob, piece: PieceRead, role: str, shard: int) -> Path:
    return _piece_folder(job, piece.number) / f"{role}-{shard:05d}.parquet"


def _gathered(
    job: ShardJob,
    pieces: Sequence[PieceRead],
    shard: int,
    vocabularies: Mapping[str, Vocabulary],
    oldest: Oldest | None,
    folder: Path,
) -> list[Spool]:
    """The rows of a shard in the order of the log, in its own codes, in ranges of users small enough to sort."""
    users = vocabularies["user"]
    counts = np.zeros(len(users) + 1, dtype=np.int64)
    for piece in pieces:
        listed = pl.read_parquet(_ids_file(job, piece, "user", shard))
        counts[users.encode(listed["id"])] += listed["count"].to_numpy()
    range_of = ranges_of(counts, int(counts.sum()))
    dtypes = {name: dtype for name, dtype in pieces[0].dtypes.items() if name != ROW}
    dtypes |= {} if oldest is None else {OLDEST: np.dtype(np.bool_)}
    spools = [Spool(folder / f"users-{number}", dtypes) for number in range(int(range_of[-1]) + 1)]
    for piece in pieces:
        codes = {role: _codes(job, piece, shard, role, known) for role, known in vocabularies.items()}
        codes["item"] = np.load(_piece_folder(job, piece.number) / "items.npy", mmap_mode="r")
        for _, columns in _spool(job, piece, shard).pieces(ROWS_AT_A_TIME):
            columns |= {role: table[columns[role]] for role, table in codes.items()}
            if oldest is not None:
                rows, time = columns.pop(ROW), columns["time"]
                columns[OLDEST] = (time < oldest.cut) | (
                    (time == oldest.cut) & (rows <= oldest.last_rows[piece.number])
                )
            scatter(columns, range_of[columns["user"]], spools)
    return spools


def _codes(job: ShardJob, piece: PieceRead, shard: int, role: str, vocabulary: Vocabulary) -> npt.NDArray[np.int32]:
    """Code in the shard of each code in the piece; 0 for those of other shards."""
    listed = pl.read_parquet(_ids_file(job, piece, role, shard), columns=["code", "id"])
    in_piece = listed["code"].to_numpy()
    codes = np.zeros(int(in_piece.max(initial=0)) + 1, dtype=np.int32)
    codes[in_piece] = vocabulary.encode(listed["id"])
    return codes


def _shard_folder(job: ShardJob, shard: int) -> Path:
    return job.folder / shard_name(shard)


def _silent(step: str, share: float) -> None:
    """No progress: a step is reported as a whole."""


# ---- 4: the k-core --------------------------------------------------------------------------------------------------


def drop_rare(job: ShardJob, round: int, rare: Path | None, least: int | None, part: tuple[int, ShardSorted]) -> int:
    """Drop rare items from a shard, then its users with too few interactions; leave the state for the next round.

    Parameters
    ----------
    job, part
        The job, and the number and the facts of the shard.
    round
        Number of the round, from 1.
    rare
        File with the mask (n_items + 1,) of the items to drop; None for none.
    least
        Fewest interactions of a user; None drops no users.

    Returns
    -------
    Number of users dropped.
    """
    shard, made = part
    core = _core_before(job, round, shard, made)
    if rare is not None:
        core.drop_items(np.load(rare))
    users = int(np.count_nonzero(core.of_user))
    if least is not None:
        core.drop_users(least)
    with complete(_shard_folder(job, shard) / f"round-{round:05d}") as folder:
        np.save(folder / "keep.npy", core.keep)
        np.save(folder / "of-user.npy", core.of_user)
        np.save(folder / "of-item.npy", core.of_item)
    if round > 1:  # the state before the former one is not needed any more
        shutil.rmtree(_shard_folder(job, shard) / f"round-{round - 2:05d}", ignore_errors=True)
    return users - int(np.count_nonzero(core.of_user))


def _core_before(job: ShardJob, round: int, shard: int, made: ShardSorted) -> Core:
    folder = _shard_folder(job, shard)
    items = flat_of(job, shard, made).map()["item"]
    lengths = np.load(folder / "of-user.npy")
    if round == 1:
        return Core.resumed(
            items, lengths, np.ones(made.rows, dtype=bool), lengths.copy(), np.load(folder / "of-item.npy")
        )
    state = folder / f"round-{round - 1:05d}"
    keep, of_user, of_item = (np.load(state / f"{name}.npy") for name in ("keep", "of-user", "of-item"))
    return Core.resumed(items, lengths, keep, of_user, of_item)


def flat_of(job: ShardJob, shard: int, made: ShardSorted) -> Spool:
    """The sorted interactions of a shard."""
    return Spool.reopened(_shard_folder(job, shard) / "flat", made.dtypes, made.rows)


def counts_of_items(job: ShardJob, shard: int, round: int) -> Int64:
    """Interactions (n_items + 1,) of each item in a shard, after a round of the k-core; round 0 is before it."""
    folder = _shard_folder(job, shard)
    counts: Int64 = np.load((folder if not round else folder / f"round-{round:05d}") / "of-item.npy", mmap_mode="r")
    return counts


def items_seen(job: ShardJob, shard: int) -> npt.NDArray[np.bool_]:
    """Masks (steps, n_items + 1) of the items of a shard after each step."""
    seen: npt.NDArray[np.bool_] = np.load(_shard_folder(job, shard) / "items-seen.npy", mmap_mode="r")
    return seen


def counts_of_users(job: ShardJob, shard: int, round: int) -> Int64:
    """Interactions (n_users + 1,) of each user of a shard, after a round of the k-core; round 0 is before it."""
    folder = _shard_folder(job, shard)
    counts: Int64 = np.load((folder if not round else folder / f"round-{round:05d}") / "of-user.npy", mmap_mode="r")
    return counts


# ---- 5: the Dataset of a shard --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardWritten:
    """Numbers about a shard that was written.

    Attributes
    ----------
    users, interactions, sessions
        Sizes; sessions are None without sessions.
    note
        Entry `user_table` of its metadata; None without a table of users.
    """

    users: int
    interactions: int
    sessions: int | None
    note: dict[str, Any] | None


def write_shard(
    job: ShardJob,
    round: int,
    preparation: str,
    metadata: Mapping[str, Any],
    item_table: Mapping[str, Any] | None,
    part: tuple[int, ShardSorted],
) -> ShardWritten:
    """Write the Dataset of a shard to the folder `made`.

    Parameters
    ----------
    job, part
        The job, and the number and the facts of the shard.
    round
        Number of rounds of the k-core.
    preparation
        Name of the preparation, for the manifest.
    metadata
        Metadata of the whole.
    item_table
        Entry of the table of the items in the folder `common`; None without one.
    """
    shard, made = part
    own = {"number": shard, "of": job.shards, "preparation": preparation}
    source = _shard_folder(job, shard)
    keep = None if not round else np.load(source / f"round-{round:05d}" / "keep.npy", mmap_mode="r")
    of_user = counts_of_users(job, shard, round)
    catalogue = Vocabulary.load(job.folder / "common" / "items.parquet")
    tables = sorted((job.folder / "common").glob("item_*"))
    listed = {file.name: None for file in tables}
    table = None
    if item_table is not None:
        table = Table.load(job.folder / "common", "item", item_table, len(catalogue), listed)
    temporary = source / uuid.uuid4().hex
    try:
        new_item = np.load(job.folder / "common" / "new-item.npy", mmap_mode="r")
        final, sessions = recode(
            flat_of(job, shard, made),
            keep,
            new_item,
            int(of_user.sum()),
            job.options,
            temporary,
            _silent,
            ROWS_AT_A_TIME,
        )
        arrays = final.map()
        dataset = Dataset(
            items=arrays["items"],
            offsets=offsets_of(np.concatenate([[0], of_user[of_user > 0]])),
            users=remaining(Vocabulary.load(source / "users.parquet"), of_user),
            catalogue=catalogue,
            times=arrays.get("times"),
            ratings=arrays.get("ratings"),
            time_unit=job.time_unit,
            metadata={**metadata, "shard": own},
            session_offsets=sessions,
            item_table=table,
        )
        users_file = job.folder / "common" / f"users-{shard:05d}.pickle"
        note = None
        if users_file.exists():
            users: TableSource = pickle.loads(users_file.read_bytes())
            dataset, note = joined(dataset, users)
        save_moving(dataset, job.folder / "made" / shard_name(shard), None, final.paths)
        return ShardWritten(
            dataset.n_users, dataset.n_interactions, None if sessions is None else len(sessions) - 1, note
        )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
