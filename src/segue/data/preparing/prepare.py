"""From a log to a Dataset: filtered, encoded, sorted by user and time, on disk."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arguments import checked
from segue.data.dataset import Dataset, save_moving
from segue.data.preparing.building import left_nothing, metadata_of, recode, remaining, sort_partitions
from segue.data.preparing.filters import k_core
from segue.data.preparing.fingerprint import LogFingerprint, newest_time
from segue.data.preparing.options import Preparation
from segue.data.preparing.partitions import Encoded, Progress, SuspectRow, encode
from segue.data.preparing.steps import Steps
from segue.data.preparing.tables import TableSource, attach, open_table
from segue.data.ragged import offsets_of
from segue.data.reading.checking import doubtful_id, warn_of_words
from segue.data.reading.columns import Column
from segue.data.reading.layout import UNREADABLE
from segue.data.reading.read import Log, Opened, ReadOptions, open_source
from segue.data.reading.values import MISSING
from segue.data.sessions import SessionRule, notes_on, rule_of
from segue.data.spool import Spool
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.files import check_folder, exclusive, failures_name, real
from segue.locks import temporary_folder


@checked
def prepare(
    source: Any,
    *,
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
    out: str | Path | None = None,
    overwrite: bool | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Make a Dataset of a log: filter, encode, sort.

    The filters apply in this order: oldest rows, newest days, rating threshold, duplicates, k-core. Interactions are
    sorted by user, then time. Equal times keep the order of the log (within and between sessions), and so does a log
    without times. Memory stays bounded: the log is read in pieces, and sorted in partitions of users.

    Parameters
    ----------
    source
        A `Log`, or anything that `read` takes.
    user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows
        As in `read`, for a source that is not a `Log`.
    oldest
        Share of the rows to keep, the oldest: round(n · oldest) of n, at least one. Of rows with the same time at the
        cut, the first in the log stay.
    k_core
        Smallest number of interactions of every user and item: rarer ones are dropped until nothing changes.
    min_per_user, min_per_item
        The same for users and items separately; `k_core` if None.
    rounds
        Number of times to drop rare items, then rare users. None goes on until nothing changes. After a few rounds, a
        few rare items may remain.
    first
        The side that each round drops first, "items" or "users". It matters only with `rounds`: the final k-core is
        the same.
    min_rating
        The lowest rating to keep.
    duplicates
        "drop" keeps the first interaction of the same user, item and time (without times, all); "keep" keeps all;
        "first" and "last" keep the first or last interaction of each user with each item.
    newest_days
        Keep only the interactions of so many days before the newest one of the log. The rule is stored with the
        Dataset, and `Dataset.append` applies it again.
    sessions
        Definition of a session: "column", the log's column of sessions; "day", a calendar day (UTC) of a user; "none".
        None means "column" if the log has one. Sessions of one user that overlap in time are divided, with a warning.
        Sessions are found before duplicates and the k-core are dropped.
    session_gap
        Pause in seconds that ends a session (1800 is usual), instead of `sessions`.
    items
        Table of the items: a frame, or a file (CSV, RecBole's .item, Parquet or JSON). Its items
        that nobody has taken, or that the filters dropped, join the catalogue behind the others.
    item_key, title
        Columns of the table with the ids and with the names for people. None finds them by their names.
    item_kinds
        Kinds of columns that should not be recognized from their values, by column: "text", "category", "categories",
        "number", "moment" or "vector".
    table_items
        Items of the table that join the catalogue: "all", or "known", only those with an interaction after the filters.
    users, user_key
        Table of the users, and its column with the ids. Users without interactions are left out.
    out
        Folder to write the Dataset to, atomically. The Dataset returned is then that folder, memory-mapped. Needed if
        the result is larger than memory. A Dataset that is there already is replaced; anything else is refused.
    overwrite
        False refuses to replace a Dataset in `out` too.
    progress
        Called with the name of the step and the share that is done, from 0 to 1.

    Returns
    -------
    Dataset
        Its `metadata["steps"]` lists users, items and interactions after each step.

    Raises
    ------
    DataError
        The log cannot be read, or the filters leave nothing; a table cannot be read, lacks its key, has a key twice, or
        none of its ids is in the log.
    ConfigError
        An option has an impossible value, or needs ratings, times or sessions that the log lacks.
    StorageError
        `out` holds something that may not be replaced.

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.read(pl.DataFrame({"user": ["b", "a", "b"], "item": [7, 7, 9], "time": [2, 1, 1]}))
    >>> segue.prepare(log).to_frame().rows()
    [('a', 7, 1), ('b', 9, 1), ('b', 7, 2)]
    """
    if out is not None:
        check_folder(Path(out), "dataset", overwrite)
    reading = ReadOptions(user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows)
    if isinstance(source, Log) and reading.given:
        raise ConfigError(f"the source is a Log, which is read already: pass {', '.join(reading.given)} to segue.read.")
    opened = source if isinstance(source, Log | Opened) else open_source(source, reading)
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
    return _prepare(opened, options, tables, table_items, out, overwrite, progress or (lambda step, share: None))


def open_tables(
    opened: Log | Opened,
    items: Any,
    item_key: str | None,
    title: str | None,
    item_kinds: Mapping[str, str] | None,
    users: Any,
    user_key: str | None,
) -> list[TableSource]:
    """The tables beside the log, read before it: their faults are found at once."""
    for given, argument, needed, table in (
        (item_key, "item_key", "items", items),
        (title, "title", "items", items),
        (item_kinds, "item_kinds", "items", items),
        (user_key, "user_key", "users", users),
    ):
        if given is not None and table is None:
            raise ConfigError(f"{argument} describes a table: pass the table as {needed}=, too.")
    tables = []
    if items is not None:
        column = opened.columns.get("item")
        tables.append(open_table(items, "item", key=item_key, title=title, kinds=item_kinds, log_column=column))
    if users is not None:
        tables.append(open_table(users, "user", key=user_key, log_column=opened.columns.get("user")))
    return tables


def _prepare(
    opened: Log | Opened,
    options: Preparation,
    tables: list[TableSource],
    table_items: Literal["all", "known"],
    out: str | Path | None,
    overwrite: bool | None,
    report: Progress,
) -> Dataset:
    with working_folder(out, "prepare") as folder:
        log, encoded = encode_log(opened, options, folder, report)
        dataset, files = _build(log, encoded, options, folder, report, in_memory=out is None)
        for table in tables:
            dataset = attach(dataset, table, table_items)
        finish(dataset, files, log.source, out, overwrite, report)
    return dataset if out is None else Dataset.open(out, verify=False)


@contextmanager
def working_folder(out: str | Path | None, name: str) -> Iterator[Path]:
    """Hold the lock on the output, and yield a temporary folder beside it; without an output, one of the system."""
    target = None if out is None else real(Path(out))
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with (
        nullcontext() if out is None else exclusive(Path(out)),
        temporary_folder(target and target.parent, name if target is None else target.name) as folder,
        failures_name(Path(folder if out is None else out)),
    ):
        yield folder


def finish(
    dataset: Dataset,
    files: Mapping[str, Path],
    source: str,
    out: str | Path | None,
    overwrite: bool | None,
    report: Progress,
) -> None:
    """Warn of the notes on a Dataset, and save it if there is an output. The files of its arrays move there."""
    for note in dataset.metadata["notes"]:
        warnings.warn(f"{source}: {note}", stacklevel=4)
    if out is not None:
        report("writing", 0.0)
        save_moving(dataset, Path(out), overwrite, files)
        report("writing", 1.0)


def encode_log(opened: Log | Opened, options: Preparation, folder: Path, report: Progress) -> tuple[Log, Encoded]:
    """The log and its codes. A log is checked while it is read; only a bad row costs another pass."""
    rule, oldest = options.sessions, options.oldest
    if isinstance(opened, Log):
        log = narrowed(opened, rule)
        return log, encode(log, folder, report, oldest)
    log = narrowed(opened.unchecked(), rule)
    try:
        encoded = encode(log, folder, report, oldest)
        _check_ids(log, encoded)
        return log, encoded
    except (SuspectRow, *UNREADABLE):
        log = narrowed(opened.check(), rule)
    return log, encode(log, folder / "again", report, oldest)


def _check_ids(log: Log, encoded: Encoded) -> None:
    """Raise `SuspectRow` if an id may be written in two ways; warn of ids that may stand for missing values."""
    for role, vocabulary in (("user", encoded.users), ("item", encoded.catalogue)):
        word = suspect_word(vocabulary)
        if word is not None:
            warn_of_words(log.source, role, log.columns[role], repr(word))


def suspect_word(vocabulary: Vocabulary) -> str | None:
    """The first id that may stand for a missing value; None if there is none.

    Raises
    ------
    SuspectRow
        An id may be written in two ways.
    """
    ids = vocabulary.ids
    if ids.dtype != pl.String:
        return None
    if ids.to_frame().select(doubtful_id(pl.col(ids.name)).any()).item():
        raise SuspectRow
    words = ids.filter(ids.is_in(MISSING))
    return words[0] if len(words) else None


def narrowed(log: Log, rule: SessionRule | None) -> Log:
    """The log without its column of sessions, if the rule does not read it."""
    if "session" not in log.columns or (rule is not None and rule.kind == "column"):
        return log
    columns = {role: column for role, column in log.columns.items() if role != "session"}
    return replace(log, frame=log.frame.drop("session"), columns=columns)


# ---- filters, and the arrays of the Dataset ------------------------------------------------------------------------


def _build(
    log: Log, encoded: Encoded, options: Preparation, folder: Path, report: Progress, *, in_memory: bool
) -> tuple[Dataset, dict[str, Path]]:
    """The Dataset, and the files of its large arrays by name."""
    steps = Steps(len(encoded.users), len(encoded.catalogue))
    print_of_log = LogFingerprint(encoded)
    cut = None if options.newest_days is None else options.cut(newest_time(encoded), log.time_unit)
    flat, late, divided = sort_partitions(
        encoded, options, steps, folder, report, print_of_log, cut=cut, by_session=log.format == "session-file"
    )
    keep = _core(flat, options, steps, report)
    of_user, of_item = steps.last()
    if not of_user.any():
        raise left_nothing(log.source, steps.table())
    new_item = np.cumsum(of_item > 0, dtype=np.int32)
    final, session_offsets = recode(flat, keep, new_item, int(of_user.sum()), options, folder, report)
    flat.remove()
    result = final.load() if in_memory else final.map()
    dataset = Dataset(
        items=result["items"],
        offsets=offsets_of(np.concatenate([[0], of_user[of_user > 0]])),
        users=remaining(encoded.users, of_user),
        catalogue=remaining(encoded.catalogue, of_item),
        times=result.get("times"),
        ratings=result.get("ratings"),
        time_unit=log.time_unit,
        metadata=metadata_of(log, options, steps.table(), notes_on(late, divided), print_of_log.entry(log.source)),
        session_offsets=session_offsets,
    )
    return dataset, final.paths


def _core(flat: Spool, options: Preparation, steps: Steps, report: Progress) -> npt.NDArray[np.bool_] | None:
    """Mask of the interactions that the k-core keeps; None for all."""
    if max(options.per_user, options.per_item) <= 1:
        return None
    of_user, of_item = steps.last()
    keep, of_user, of_item = k_core(
        flat.map()["item"],
        of_user,
        len(of_item) - 1,
        per_user=options.per_user,
        per_item=options.per_item,
        rounds=options.rounds,
        first=options.first,
        progress=lambda dropped: report(f"core ({dropped:,} dropped)", 0.0),
    )
    steps.put(options.core_name, of_user, of_item)
    return keep
