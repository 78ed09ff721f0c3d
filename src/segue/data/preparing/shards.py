"""From a log to a Dataset in shards: the same steps and the same result as `prepare`, part by part."""

from __future__ import annotations

import hashlib
import json
import pickle
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arguments import checked_except
from segue.data.dataset import Dataset
from segue.data.preparing import item_steps, shard_steps
from segue.data.preparing.building import left_nothing, metadata_of, remaining
from segue.data.preparing.filters import narrowed
from segue.data.preparing.options import Preparation
from segue.data.preparing.partitions import Progress, SuspectRow
from segue.data.preparing.prepare import narrowed as without_sessions
from segue.data.preparing.prepare import open_tables, working_folder
from segue.data.preparing.shard_steps import Oldest, PieceRead, ShardJob, ShardSorted, ShardWritten
from segue.data.preparing.tables import TableSource, attach, check_matches, same_type
from segue.data.ragged import Int64
from segue.data.reading.checking import warn_of_words
from segue.data.reading.columns import Column
from segue.data.reading.files import Scratch
from segue.data.reading.layout import UNREADABLE
from segue.data.reading.pieces import Piece, pieces_of, pieces_of_parquet
from segue.data.reading.read import SUSPECT, Log, Opened, ReadOptions, open_source
from segue.data.sessions import notes_on, rule_of
from segue.data.shards import Shards, placed, put_shards, shard_name
from segue.data.user_hash import shards_of
from segue.data.vocabulary import Vocabulary
from segue.engines.base import Workers
from segue.engines.engine import Engine
from segue.engines.workers import workers
from segue.errors import ConfigError, DataError
from segue.files import check_folder
from segue.settings import ShardCount

R = TypeVar("R")


@checked_except("source", "items", "users")
def prepare_shards(
    source: Any,
    out: str | Path,
    *,
    shards: ShardCount,
    engine: Engine = Engine(),  # noqa: B008 - frozen
    user: Column = None,
    item: Column = None,
    time: Column = None,
    rating: Column = None,
    session: Column = None,
    format: str | None = None,
    separator: str | None = None,
    header: bool | None = None,
    quote: str | None = None,
    time_unit: str | None = None,
    bad_rows: Literal["error", "drop"] = "error",
    oldest: float | None = None,
    k_core: int = 0,
    min_per_user: int | None = None,
    min_per_item: int | None = None,
    rounds: int | None = None,
    first: Literal["items", "users"] = "items",
    min_rating: float | None = None,
    duplicates: Literal["drop", "keep", "first", "last"] = "drop",
    newest_days: float | None = None,
    sessions: Literal["column", "day", "none"] | None = None,
    session_gap: float | None = None,
    items: Any = None,
    item_key: str | None = None,
    title: str | None = None,
    item_kinds: Mapping[str, str] | None = None,
    table_items: Literal["all", "known"] = "all",
    users: Any = None,
    user_key: str | None = None,
    overwrite: bool | None = None,
    progress: Progress | None = None,
) -> Shards:
    """Make a Dataset in shards of a log: each shard has a part of the users, and all have the same item codes.

    Merged (`Shards.merged`), the result is that of `prepare`: the same codes, order, filters and sessions. The log is
    read in pieces, which are divided by a hash of the user; each shard is then filtered and sorted alone. A k-core goes
    round by round over all shards, between which only counts of items travel. The work is done by the workers of the
    engine, which share the folder of `out`.

    Parameters
    ----------
    source
        As in `prepare`. Files are read in parallel: large CSV and Parquet files in ranges, others as a whole. A frame
        or a `Log` is written to a temporary Parquet file first.
    out
        Folder to write. A Dataset in shards that is there already is replaced; anything else is refused.
    shards
        Number of shards.
    engine
        Workers: one process, several, or those of a Ray cluster.
    user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows
        As in `read`, for a source that is not a `Log`.
    oldest, k_core, min_per_user, min_per_item, rounds, first, min_rating, duplicates, newest_days
        As in `prepare`.
    sessions, session_gap, items, item_key, title, item_kinds, table_items, users, user_key
        As in `prepare`. Each shard has the rows of its own users, and the whole table of items.
    overwrite
        False refuses to replace a Dataset in shards in `out` too.
    progress
        Called with the name of the step and the share that is done, from 0 to 1.

    Raises
    ------
    DataError, ConfigError, StorageError
        As in `prepare`.
    EngineError
        The workers cannot begin, or die again and again.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": ["b", "a", "b"], "item": [7, 7, 9], "time": [2, 1, 1]})
    >>> shards = segue.prepare_shards(log, "data", shards=2, engine=segue.Engine(processes=1))
    >>> shards.merged().to_frame().rows()
    [('a', 7, 1), ('b', 9, 1), ('b', 7, 2)]
    """
    reading = ReadOptions(user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows)
    if isinstance(source, Log) and reading.given:
        raise ConfigError(f"the source is a Log, which is read already: pass {', '.join(reading.given)} to segue.read.")
    check_folder(Path(out), "shards", overwrite)
    with working_folder(out, "prepare") as folder:
        # Every worker must see what is unpacked.
        opened = source if isinstance(source, Log | Opened) else open_source(source, reading, scratch=Scratch(folder))
        options = Preparation(
            oldest,
            k_core if min_per_user is None else min_per_user,
            k_core if min_per_item is None else min_per_item,
            rounds,
            first,
            min_rating,
            duplicates,
            rule_of(sessions, session_gap, opened.columns, opened.time_unit),
            newest_days,
        )
        options.check(opened.columns)
        tables = open_tables(opened, items, item_key, title, item_kinds, users, user_key)
        report = progress or (lambda step, share: None)
        with workers(engine) as crew:
            run = _Run(crew, folder, shards, options, report)
            run.read(opened)
            run.sort()
            run.core()
            content = run.write(tables, table_items)
        for note in run.metadata["notes"]:
            warnings.warn(f"{run.log.source}: {note}", stacklevel=3)
        put_shards(folder / "made", shards, Path(out), overwrite, content, run.metadata)
    return Shards.open(out, verify=False)


class _Run:
    """One preparation: the order of the steps, and the few numbers that travel between them.

    Parameters
    ----------
    crew
        Workers that run the steps.
    folder
        Folder of all files; the caller removes it.
    shards
        Number of shards.
    options
        Options of the preparation.
    report
        Called with the name of the step and the share that is done.

    Attributes
    ----------
    log
        The log; its `rows` is the number that was read.
    metadata
        Metadata of all shards together, after `write`.
    """

    log: Log

    def __init__(self, crew: Workers, folder: Path, shards: int, options: Preparation, report: Progress) -> None:
        self._crew, self._folder, self._report, self._options = crew, folder, report, options
        self._shards = range(shards)
        self._job: ShardJob
        self._catalogue: Vocabulary
        self._pieces: list[PieceRead] = []
        self._sorted: list[ShardSorted] = []
        self._round = 0
        self._steps: list[dict[str, Any]] = []
        self.metadata: dict[str, Any] = {}

    # ---- reading ----------------------------------------------------------------------------------------------------

    def read(self, opened: Log | Opened) -> None:
        """Read the log in pieces. It is checked while it is read; only a bad row costs another pass."""
        if isinstance(opened, Log):
            self._read(opened, self._written(opened))
        else:
            try:
                unchecked = opened.unchecked()
                suspect = {SUSPECT: opened.table.suspect}
                pieces = self._files(opened, unchecked, opened.table.values | suspect, None)
                self._read(unchecked, pieces)
            except (SuspectRow, *UNREADABLE):
                log, table, usable = opened.checked()
                self._read(log, self._files(replace(opened, table=table), log, table.values, usable))
        for role in ("user", "item"):
            words = [piece.words[role] for piece in self._pieces if role in piece.words]
            if words:
                warn_of_words(self.log.source, role, self.log.columns[role], repr(min(words)))
        self._number_items()

    def _files(self, opened: Opened, log: Log, values: Mapping[str, pl.Expr], usable: pl.Expr | None) -> list[Piece]:
        """Pieces of the files, or of a frame, which is written to a file."""
        if any(part.path is None for part in opened.table.parts):
            return self._written(log)
        kept = without_sessions(log, self._options.sessions).columns
        left_out = opened.columns.keys() - kept.keys()
        return pieces_of(opened.table, {name: one for name, one in values.items() if name not in left_out}, usable)

    def _written(self, log: Log) -> list[Piece]:
        """Pieces of a frame, written to a file that every worker sees."""
        file = self._folder / f"{uuid.uuid4().hex}.parquet"
        without_sessions(log, self._options.sessions).frame.sink_parquet(file)
        return pieces_of_parquet(file)

    def _read(self, log: Log, pieces: Sequence[Piece]) -> None:
        log = without_sessions(log, self._options.sessions)
        self._job = ShardJob(
            self._folder, len(self._shards), self._options, dict(log.columns), log.format, log.time_unit
        )
        read = self._all(partial(shard_steps.read_piece, self._job), list(enumerate(pieces)), "reading")
        rows = sum(piece.rows for piece in read)
        is_checked = SUSPECT not in log.frame.collect_schema()
        if not is_checked and not rows:
            raise SuspectRow
        if is_checked and rows != log.rows:
            raise DataError(f"{log.source} changed while it was read: it had {log.rows:,} usable rows, now {rows:,}.")
        self._pieces = [piece for piece in read if piece.rows]
        self.log = replace(log, rows=rows)

    def _number_items(self) -> None:
        """Make the common vocabulary of items, and give its codes to each piece."""
        ids: pl.Series | None = None
        for piece in self._pieces:
            own = Vocabulary.load(self._folder / f"piece-{piece.number:05d}" / "items.parquet").ids
            ids = own if ids is None else pl.concat([ids, own]).unique()
        assert ids is not None
        self._catalogue = Vocabulary(ids)
        self._catalogue.save(self._job.catalogue_file)
        self._all(
            partial(shard_steps.number_items, self._job), [piece.number for piece in self._pieces], "numbering items"
        )

    def _oldest(self) -> Oldest | None:
        """The oldest rows of the log, found by rounds of counts; None if all are kept."""
        if self._options.oldest is None:
            return None
        rows = max(1, round(self.log.rows * self._options.oldest))

        def counts(low: int, high: int) -> Int64:
            counted = self._all(partial(shard_steps.count_times, self._job, low, high), self._pieces, "oldest rows")
            return np.asarray(np.sum(counted, axis=0), dtype=np.int64)

        cut, below = narrowed(self._times[0], self._times[1], counts, rows)
        at_cut = self._all(partial(_counted_at, self._job, cut), self._pieces, "oldest rows")
        before = np.cumsum([0, *at_cut[:-1]])
        taken = np.clip(rows - below - before, 0, at_cut).tolist()  # the first of the log stay
        last = self._all(
            partial(shard_steps.last_row_at, self._job, cut),
            list(zip(self._pieces, taken, strict=True)),
            "oldest rows",
        )
        rows_of = dict(zip((piece.number for piece in self._pieces), last, strict=True))
        return Oldest(cut, tuple(rows_of.get(number, -1) for number in range(max(rows_of) + 1)))

    @property
    def _times(self) -> tuple[int, int]:
        """Oldest and newest time of the log."""
        times = [piece.times for piece in self._pieces if piece.times is not None]
        return min(low for low, _ in times), max(high for _, high in times)

    # ---- sorting and filtering --------------------------------------------------------------------------------------

    def sort(self) -> None:
        """Filter and sort every shard."""
        days = self._options.newest_days
        cut = None if days is None else self._options.cut(self._times[1], self.log.time_unit)
        step = partial(shard_steps.sort_shard, self._job, tuple(self._pieces), cut, self._oldest())
        self._sorted = self._all(step, self._shards, "sorting")
        self._all(partial(shard_steps.remove_piece, self._job), [piece.number for piece in self._pieces], "clearing")
        seen: npt.NDArray[np.bool_] | None = None
        for shard in self._shards:
            own = shard_steps.items_seen(self._job, shard)
            seen = np.array(own) if seen is None else seen | own
        assert seen is not None
        tables = zip(*(one.steps for one in self._sorted), strict=True)
        self._steps = [_together(rows, int(items.sum())) for rows, items in zip(tables, seen, strict=True)]

    def core(self) -> None:
        """Drop rare items and users, round by round, as `k_core` does."""
        options = self._options
        if max(options.per_user, options.per_item) <= 1:
            return
        done, changing, rare = 0, True, None
        while changing and (options.rounds is None or done < options.rounds):
            if options.first == "items":
                changing = self._drop(self._rare_items(), options.per_user) > 0
            else:
                self._drop(rare, options.per_user)
                rare = self._rare_items()
                changing = bool(rare.any())
            done += 1
        if options.first == "users" and rare is not None and rare.any():
            self._drop(rare, None)
        of_users = [shard_steps.counts_of_users(self._job, shard, self._round) for shard in self._shards]
        users = sum(int(np.count_nonzero(one)) for one in of_users)
        items, interactions = int(np.count_nonzero(self._of_items())), sum(int(one.sum()) for one in of_users)
        self._steps.append({"step": options.core_name, "users": users, "items": items, "interactions": interactions})

    def _rare_items(self) -> npt.NDArray[np.bool_]:
        of_items = self._of_items()
        rare: npt.NDArray[np.bool_] = (of_items > 0) & (of_items < self._options.per_item)
        return rare

    def _drop(self, rare: npt.NDArray[np.bool_] | None, least: int | None) -> int:
        """One round over all shards: drop rare items, then users with fewer than `least`. Number of users dropped."""
        self._round += 1
        file = None
        if rare is not None and rare.any():
            file = self._folder / f"rare-{self._round:05d}.npy"
            np.save(file, rare)
        step = partial(shard_steps.drop_rare, self._job, self._round, file, least)
        name = f"core, round {self._round}"
        return sum(self._all(step, list(enumerate(self._sorted)), name))

    def _of_items(self) -> Int64:
        """Interactions (n_items + 1,) of each item in all shards, after the last round."""
        total = np.zeros(len(self._catalogue) + 1, dtype=np.int64)
        for shard in self._shards:
            total += shard_steps.counts_of_items(self._job, shard, self._round)
        return total

    # ---- writing ----------------------------------------------------------------------------------------------------

    def write(self, tables: Sequence[TableSource], table_items: Literal["all", "known"]) -> dict[str, Any]:
        """Write the Dataset of every shard; return the sizes for the manifest."""
        if not self._steps[-1]["interactions"]:
            raise left_nothing(self.log.source, self._steps)
        of_item = self._of_items()
        common = self._folder / "common"
        common.mkdir()
        (self._folder / "made").mkdir()
        np.save(common / "new-item.npy", np.cumsum(of_item > 0, dtype=np.int32))
        notes = notes_on(sum(one.late for one in self._sorted), sum(one.divided for one in self._sorted))
        self.metadata = metadata_of(self.log, self._options, self._steps, notes, self._entry())
        catalogue, entry = remaining(self._catalogue, of_item), None
        users: TableSource | None = None
        for table in tables:
            if table.role == "user":
                users = table
                continue
            whole = attach(_nobody(catalogue), table, table_items)
            catalogue, self.metadata["item_table"] = whole.catalogue, whole.metadata["item_table"]
            assert whole.item_table is not None
            entry = whole.item_table.save(common, "item")
        catalogue.save(common / "items.parquet")
        if users is not None:
            self._divide_table(users, common)
        preparation = self._name(catalogue)
        step = partial(shard_steps.write_shard, self._job, self._round, preparation, self.metadata, entry)
        written = self._all(step, list(enumerate(self._sorted)), "writing")
        if users is not None:
            self._note_table(users, written)
        has_ratings = "rating" in self._sorted[0].dtypes
        if has_ratings:
            counts = np.zeros(len(catalogue) + 1, dtype=np.int64)  # items of the table alone stand behind the others
            counts[1 : np.count_nonzero(of_item) + 1] = of_item[of_item > 0]
            self._write_items(counts, preparation)
        sessions = [one.sessions for one in written if one.sessions is not None]
        return {
            "users": sum(one.users for one in written),
            "items": len(catalogue),
            "interactions": sum(one.interactions for one in written),
            "sessions": sum(sessions) if self._options.sessions is not None else None,
            "user_ids": str(self._some_users().dtype),
            "preparation": preparation,
            "item_shards": len(self._shards) if has_ratings else 0,
        }

    def _write_items(self, counts: Int64, preparation: str) -> None:
        """Write the histories of items, in as many ranges of items as there are shards.

        Parameters
        ----------
        counts
            (n_items + 1,) interactions of each item.
        preparation
            Name of the preparation.
        """
        made = [self._folder / "made" / shard_name(number) for number in self._shards]
        places = placed([pl.read_parquet(one / "users.parquet")["id"] for one in made])
        starts, _ = places.starts([np.diff(np.load(one / "offsets.npy"))[1:] for one in made])
        item_steps.save_ranges(self._job, counts, places.codes, starts)
        whole = item_steps.ItemJob(self._job, preparation, int(counts.sum()), "time" in self._sorted[0].dtypes)
        rows = self._all(partial(item_steps.divide_by_item, whole), self._shards, "dividing by item")
        self._all(partial(item_steps.write_items, whole, rows), self._shards, "histories of items")

    def _entry(self) -> dict[str, Any]:
        """Entry of the log: its hash is made of those of the shards' parts."""
        newest = [one.entry["newest"] for one in self._sorted if one.entry["newest"] is not None]
        digest = hashlib.sha256("".join(one.entry["fingerprint"] for one in self._sorted).encode())
        return {
            "source": self.log.source,
            "rows": self.log.rows,
            "newest": max(newest, default=None),
            "fingerprint": digest.hexdigest(),
            "shards": len(self._shards),
        }

    def _name(self, catalogue: Vocabulary) -> str:
        """Name of the preparation: a hash of the log, the options, the items and the number of shards."""
        facts = [self._entry()["fingerprint"], asdict(self._options), catalogue.fingerprint, len(self._shards)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def _some_users(self) -> pl.Series:
        """Ids of the users of the first shard, before the filters."""
        users: pl.Series = pl.read_parquet(self._folder / shard_name(0) / "users.parquet")["id"]
        return users

    def _divide_table(self, table: TableSource, common: Path) -> None:
        """Write the rows of the table of users for each shard."""
        known = Vocabulary.in_order(self._some_users())
        ids = same_type(table, known)
        if ids.null_count():  # none of them can be an id of the log
            check_matches(table, {"matched": 0, "rows": len(ids)}, len(known), known.ids)
        shard_of_row = shards_of(ids, len(self._shards))
        for shard in self._shards:
            rows = shard_of_row == shard
            columns = {
                name: values.filter(pl.Series(rows)) if isinstance(values, pl.Series) else values[rows]
                for name, values in table.columns.items()
            }
            part = replace(table, ids=table.ids.filter(pl.Series(rows)), columns=columns)
            (common / f"users-{shard:05d}.pickle").write_bytes(pickle.dumps(part, pickle.HIGHEST_PROTOCOL))

    def _note_table(self, table: TableSource, written: Sequence[ShardWritten]) -> None:
        """Put together what the shards say of their parts of the table of users."""
        notes = [one.note for one in written if one.note is not None]
        counts = ("rows", "matched", "without_row", "left_out", "cold")
        note = notes[0] | {name: sum(one[name] for one in notes) for name in counts}
        check_matches(table, note, note["matched"] + note["without_row"], self._some_users())
        self.metadata["user_table"] = note

    def _all(self, step: Callable[..., R], parts: Iterable[Any], name: str) -> list[R]:
        """Results of a step for all parts, in their order."""
        every = list(parts)
        results: dict[int, R] = {}
        self._report(name, 0.0)
        for number, result in self._crew.run(step, every):
            results[number] = result
            self._report(name, len(results) / len(every))
        return [results[number] for number in range(len(every))]


def _counted_at(job: ShardJob, cut: int, piece: PieceRead) -> int:
    """Number of rows of a piece whose time is `cut`."""
    return int(shard_steps.count_times(job, cut, cut, piece).sum())


def _together(rows: Sequence[Mapping[str, Any]], items: int) -> dict[str, Any]:
    """One row of the table of steps, from those of all shards."""
    users, interactions = (sum(row[name] for row in rows) for name in ("users", "interactions"))
    return {"step": rows[0]["step"], "users": users, "items": items, "interactions": interactions}


def _nobody(catalogue: Vocabulary) -> Dataset:
    """A Dataset of items without a user."""
    none = np.zeros(0, dtype=np.int32)
    return Dataset(none, np.zeros(2, dtype=np.int64), Vocabulary.in_order(catalogue.ids.clear()), catalogue)
