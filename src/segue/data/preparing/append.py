"""New interactions for a Dataset: the ends of histories that change are made again, and all else is copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.item_histories import merged_item_order, position_type
from segue.data.order import time_order
from segue.data.preparing.building import ARRAYS
from segue.data.preparing.filters import k_core, without_duplicates
from segue.data.preparing.fingerprint import LogFingerprint
from segue.data.preparing.options import Preparation
from segue.data.preparing.partitions import Encoded, Progress
from segue.data.preparing.prepare import encode_log, finish, working_folder
from segue.data.ragged import Int64, first_not_before, offsets_of, positions
from segue.data.reading.read import Log, Opened, ReadOptions, open_source
from segue.data.sessions import SessionOffsets, SessionRule, converted, notes_on
from segue.data.spool import CHUNK, Spool
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError, DataError, StorageError
from segue.files import check_folder

Columns = dict[str, npt.NDArray[Any]]

_PIECE = 1 << 17
"""Interactions copied at a time: so few that they stay in the cache of the processor."""


def append(
    dataset: Dataset,
    source: Any,
    reading: ReadOptions,
    *,
    newest_days: float | None = None,
    out: str | Path | None = None,
    overwrite: bool | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Add a log to a Dataset; see `Dataset.append`."""
    if out is not None:
        check_folder(Path(out), "dataset", overwrite)
    if isinstance(source, Log) and reading.given:
        raise ConfigError(f"the source is a Log, which is read already: pass {', '.join(reading.given)} to segue.read.")
    if dataset.parts is not None:
        raise DataError("this Dataset came with a split, which a later log has no part in: nothing can be appended.")
    if not dataset.in_order:
        raise DataError("the histories of this Dataset are not in the order of time, so nothing can be appended.")
    if not dataset.has_histories:
        raise DataError("the histories of this Dataset were left out, so a later log cannot join them.")
    if any("shards" in log for log in dataset.metadata.get("logs") or []):
        raise DataError(
            "this Dataset was prepared in shards, and a log that it holds would not be recognised if it came again: "
            "nothing can be appended. Prepare all logs again, with --shards or without."
        )
    options = _recorded(dataset, newest_days)
    opened = source if isinstance(source, Log | Opened) else open_source(source, _completed(reading, dataset, options))
    _check_columns(opened, dataset, options)
    report = progress or (lambda step, share: None)
    with working_folder(out, "append") as folder:
        log, encoded = encode_log(opened, replace(options, oldest=None), folder, report)
        base = dataset.compact()
        new, entry = _columns_of(log, encoded, base)
        _check_fingerprint(base, log.source, entry)
        grown, files = _merged(base, log, encoded, new, entry, options, folder, report, in_memory=out is None)
        finish(grown, files, log.source, out, overwrite, report)
    return grown if out is None else Dataset.open(out, verify=False)


# ---- what the Dataset says of its preparation ----------------------------------------------------------------------


def _recorded(dataset: Dataset, newest_days: float | None) -> Preparation:
    """The options of the Dataset's preparation, which apply to the new interactions too."""
    stored = dataset.metadata.get("options")
    known = {field.name for field in fields(Preparation)}
    if stored is None:
        rule = None if dataset.session_offsets is None else SessionRule("column")
        options = Preparation(None, 0, 0, None, "items", None, "drop", rule)
    else:
        try:
            rule = stored.get("sessions")
            options = Preparation(
                **{name: stored[name] for name in known & stored.keys() if name != "sessions"},
                sessions=None if rule is None else SessionRule(**rule),
            )
        except (TypeError, AttributeError) as error:
            raise StorageError(f"the metadata of the Dataset hold no options of a preparation: {error}") from None
    if options.oldest is not None and options.oldest < 1:
        raise DataError(
            f"this Dataset holds the oldest {options.oldest:g} of its log (oldest={options.oldest:g}), and a later log "
            "has only newer interactions: prepare the whole log again."
        )
    if newest_days is not None:
        options = replace(options, newest_days=newest_days)
    present = {"time": dataset.times, "rating": dataset.ratings}
    options.check({"user": "users", "item": "items"} | {name: name for name, one in present.items() if one is not None})
    return options


def _completed(reading: ReadOptions, dataset: Dataset, options: Preparation) -> ReadOptions:
    """Options of reading that leave out columns which the Dataset does not have."""
    by_column = options.sessions is not None and options.sessions.kind == "column"
    return replace(
        reading,
        time=False if dataset.times is None and reading.time is None else reading.time,
        rating=False if dataset.ratings is None and reading.rating is None else reading.rating,
        session=False if not by_column and reading.session is None else reading.session,
    )


def _check_columns(opened: Log | Opened, dataset: Dataset, options: Preparation) -> None:
    """Raise a DataError if the log lacks a column that the Dataset has."""
    needed = {"time": dataset.times is not None, "rating": dataset.ratings is not None}
    needed["session"] = options.sessions is not None and options.sessions.kind == "column"
    missing = [role for role, there in needed.items() if there and role not in opened.columns]
    if missing:
        raise DataError(
            f"the Dataset has {missing[0]}s, and the new log has none; there are only "
            f"{', '.join(opened.columns.values())}. Name the column with {missing[0]}=…."
        )


def _check_fingerprint(dataset: Dataset, source: str, entry: Mapping[str, Any]) -> None:
    """Raise a DataError if the log is part of the Dataset already."""
    for number, log in enumerate(dataset.metadata.get("logs") or []):
        if log.get("fingerprint") == entry["fingerprint"]:
            how = "appended" if number else "prepared"
            raise DataError(
                f"{source} is part of this Dataset already: it was {how} as {log.get('source')}, {log.get('rows'):,} "
                "interactions. Nothing was appended."
            )


# ---- the new interactions ------------------------------------------------------------------------------------------


def _columns_of(log: Log, encoded: Encoded, dataset: Dataset) -> tuple[Columns, dict[str, Any]]:
    """The new interactions with the log's own codes, times in the Dataset's unit; and the entry of the log."""
    fingerprint = LogFingerprint(encoded)
    parts = []
    for partition in encoded.partitions:
        columns = partition.load()
        partition.remove()
        fingerprint.add(columns)
        parts.append(columns)
    entry = fingerprint.entry(log.source)
    wanted = {"user", "item", "session"} | ({"time"} if dataset.times is not None else set())
    wanted |= {"rating"} if dataset.ratings is not None else set()
    new = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].keys() & wanted}
    if "time" in new and log.time_unit is not None:
        new["time"] = converted(new["time"], log.time_unit, dataset.time_unit or log.time_unit)
    entry["newest"] = int(new["time"].max()) if "time" in new else None
    return new, entry


@dataclass(frozen=True)
class _Ids:
    """Ids of a log beside those of a Dataset.

    Attributes
    ----------
    known
        Vocabulary of the Dataset.
    ids
        (n,) ids of the log, in its own order.
    codes
        (n + 1,) code of each: that of the Dataset or, for new ids, one behind them in the order of the log's codes.
    """

    known: Vocabulary
    ids: pl.Series
    codes: Int64

    @classmethod
    def of(cls, known: Vocabulary, log: Vocabulary) -> _Ids:
        codes = np.concatenate([[0], known.encode(log.ids)])
        new = np.flatnonzero(codes[1:] == 0) + 1
        known.extended(log.ids[new - 1])  # refuses ids of another type
        codes[new] = len(known) + np.arange(1, len(new) + 1)
        return cls(known, log.ids, codes)

    @property
    def size(self) -> int:
        """The largest code."""
        return max(len(self.known), int(self.codes.max(initial=0)))

    def remaining(self, counts: Int64) -> tuple[Vocabulary, Int64]:
        """The vocabulary with the new ids that have interactions, and the final code (size + 1,) of each code."""
        stays = np.arange(self.size + 1) <= len(self.known)
        stays |= counts > 0
        arrived = self.codes[1:]
        new = (arrived > len(self.known)) & stays[arrived]
        final = np.where(stays, np.cumsum(stays) - 1, 0)
        return self.known.extended(self.ids.filter(pl.Series(new, dtype=pl.Boolean))), final


def _merged(
    base: Dataset,
    log: Log,
    encoded: Encoded,
    new: Columns,
    entry: dict[str, Any],
    options: Preparation,
    folder: Path,
    report: Progress,
    *,
    in_memory: bool,
) -> tuple[Dataset, dict[str, Path]]:
    """The new Dataset, and the files of its large arrays by name."""
    users, items = _Ids.of(base.users, encoded.users), _Ids.of(base.catalogue, encoded.catalogue)
    new |= {"user": users.codes[new["user"]].astype(np.int32), "item": items.codes[new["item"]].astype(np.int32)}
    starts, cut, notes = base.starts, None, []
    if base.times is not None:
        newest = max([one for one in (_newest(base), entry["newest"]) if one is not None])
        late = _late(base, new["time"])
        if late is not None:
            notes.append(late)
        if options.newest_days is not None:
            cut = options.cut(newest, base.time_unit)
            moments = np.full(len(base.starts), cut + 1)
            starts = first_not_before(base.times, base.starts, base.ends, moments)
            new = _take(new, new["time"] > cut)
    if options.min_rating is not None:
        new = _take(new, new["rating"] >= options.min_rating)
    new = _take(new, time_order(new["user"], None))
    firsts = _first_changes(base, starts, new, options)
    flat, divided = _remade(base, firsts, new, options, folder, report)
    of_user, of_item, keep = _core(flat, users, items, options, report)
    vocabularies = users.remaining(of_user), items.remaining(of_item)
    arrays, files = _assembled(base, starts, firsts, flat, keep, vocabularies, folder, report, in_memory=in_memory)
    notes += notes_on(0, divided)
    grown = Dataset(
        **arrays,
        users=vocabularies[0][0],
        catalogue=vocabularies[1][0],
        time_unit=base.time_unit or log.time_unit if base.times is not None else None,
        item_table=base.item_table,
        user_table=base.user_table,
    )
    return replace(grown, metadata=_metadata(base, grown, log, entry, options, notes)), files


def _newest(dataset: Dataset) -> int | None:
    """Newest time that a Dataset has had, also if its interaction was dropped; None without interactions."""
    times = [log["newest"] for log in dataset.metadata.get("logs") or [] if log.get("newest") is not None]
    if dataset.times is not None and len(dataset.times):
        times.append(int(dataset.times.max()))
    return max(times, default=None)


def _late(base: Dataset, times: Int64) -> str | None:
    """Note on new interactions that are older than the end of the Dataset; None if there are none."""
    if base.times is None or not len(base.times):
        return None
    end = int(base.times.max())
    late = int((times < end).sum())
    if not late:
        return None
    moment = base.times_as_given(pl.Series([end]))[0]
    return (
        f"{late:,} of {len(times):,} new interactions are older than the newest one of the Dataset ({moment}); each "
        "was put in its place in time."
    )


def _take(columns: Columns, index: npt.NDArray[Any] | None) -> Columns:
    return columns if index is None else {name: values[index] for name, values in columns.items()}


# ---- histories that change -----------------------------------------------------------------------------------------


def _first_changes(base: Dataset, starts: Int64, new: Columns, options: Preparation) -> Int64:
    """Position (n_users + 1,) from which each history is made again; the end of those without new interactions.

    What is older than all new interactions of a user stays as it is, with two exceptions: the newest session may go
    on, and of each item only the first or last interaction may be kept.
    """
    firsts = base.ends.copy()
    codes, begins = np.unique(new["user"], return_index=True)
    known = codes <= base.n_users
    touched = codes[known].astype(np.int64)
    if options.duplicates in ("first", "last"):
        firsts[touched] = starts[touched]
        return firsts
    if base.times is not None and len(touched):
        oldest = np.minimum.reduceat(new["time"], begins)[known]
        firsts[touched] = first_not_before(base.times, starts[touched], base.ends[touched], oldest)
    if base.session_offsets is not None:
        before = np.maximum(firsts[touched] - 1, 0)
        session = base.session_offsets[np.searchsorted(base.session_offsets, before, side="right") - 1]
        firsts[touched] = np.maximum(session, starts[touched])
    return firsts


def _remade(
    base: Dataset, firsts: Int64, new: Columns, options: Preparation, folder: Path, report: Progress
) -> tuple[Spool, int]:
    """The parts of histories that change, sorted and without duplicates; and the number of divided sessions."""
    dtypes: dict[str, np.dtype[Any]] = {"user": np.dtype(np.int32), "item": np.dtype(np.int32)}
    dtypes |= {"time": np.dtype(np.int64)} if base.times is not None else {}
    dtypes |= {"rating": np.dtype(np.float32)} if base.ratings is not None else {}
    dtypes |= {"session": np.dtype(np.int64)} if options.sessions is not None else {}
    flat, divided = Spool(folder / "remade", dtypes), 0
    for codes, rows in _portions(base, firsts, new["user"]):
        old = codes[codes <= base.n_users]
        columns = _old_columns(base, firsts, old, options.sessions)
        own = {name: values[rows] for name, values in new.items()}
        if "session" in own and "session" in columns:
            own["session"] = own["session"].astype(np.int64) + (columns["session"].max(initial=-1) + 1)
        columns = {name: np.concatenate([columns[name], own[name]]) for name in columns.keys() & own.keys()}
        columns = _take(columns, time_order(columns["user"], columns.get("time")))
        if options.sessions is not None:
            columns, more = options.sessions.mark(columns)
            divided += more
        if options.duplicates != "keep":
            stay = without_duplicates(columns["user"], columns["item"], columns.get("time"), options.duplicates)
            columns = _take(columns, stay)
        if "session" in columns:
            columns["session"] = columns["session"] + flat.rows
        flat.append(columns)
        report("merging", rows.stop / max(len(new["user"]), 1))
    return flat, divided


def _portions(base: Dataset, firsts: Int64, new_users: npt.NDArray[Any]) -> Iterator[tuple[Int64, slice]]:
    """User codes with new interactions, and the slice of these, for so many users that what changes fits memory."""
    codes, first = np.unique(new_users, return_index=True)
    bounds = np.append(first, len(new_users))
    stored = np.where(codes <= base.n_users, (base.ends - firsts)[np.minimum(codes, base.n_users)], 0)
    portion = (np.cumsum(stored + np.diff(bounds)) - 1) // CHUNK
    edges = np.append(np.flatnonzero(np.diff(portion, prepend=-1)), len(codes))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield codes[low:high].astype(np.int64), slice(int(bounds[low]), int(bounds[high]))


def _old_columns(base: Dataset, firsts: Int64, codes: Int64, rule: SessionRule | None) -> Columns:
    """The interactions of these users from `firsts` on."""
    place = positions(firsts[codes], base.ends[codes])
    users = np.repeat(codes, base.ends[codes] - firsts[codes]).astype(np.int32)
    columns: Columns = {"user": users, "item": base.items[place]}
    if base.times is not None:
        columns["time"] = base.times[place]
    if base.ratings is not None:
        columns["rating"] = base.ratings[place]
    if rule is not None and rule.kind == "column":
        assert base.session_offsets is not None
        columns["session"] = np.searchsorted(base.session_offsets, place, side="right")
    return columns


def _core(
    flat: Spool, users: _Ids, items: _Ids, options: Preparation, report: Progress
) -> tuple[Int64, Int64, npt.NDArray[np.bool_] | None]:
    """Interactions per user and item code of the remade histories, and the mask of those that stay; None for all.

    New users and new items need as many new interactions as the k-core asks for. What is known stays.
    """
    mapped = flat.map()
    lengths = np.bincount(mapped["user"], minlength=users.size + 1).astype(np.int64)
    if max(options.per_user, options.per_item) <= 1:
        return lengths, np.bincount(mapped["item"], minlength=items.size + 1).astype(np.int64), None
    least = [
        np.where(np.arange(ids.size + 1) <= len(ids.known), 0, fewest)
        for ids, fewest in ((users, options.per_user), (items, options.per_item))
    ]
    keep, of_user, of_item = k_core(
        mapped["item"],
        lengths,
        items.size,
        per_user=least[0],
        per_item=least[1],
        rounds=options.rounds,
        first=options.first,
        progress=lambda dropped: report(f"core ({dropped:,} dropped)", 0.0),
    )
    return of_user, of_item, keep


# ---- the arrays of the new Dataset ---------------------------------------------------------------------------------


def _assembled(
    base: Dataset,
    starts: Int64,
    firsts: Int64,
    flat: Spool,
    keep: npt.NDArray[np.bool_] | None,
    vocabularies: tuple[tuple[Vocabulary, Int64], tuple[Vocabulary, Int64]],
    folder: Path,
    report: Progress,
    *,
    in_memory: bool,
) -> tuple[dict[str, Any], dict[str, Path]]:
    """Arrays of the Dataset, and their files. Of each history comes what stays, then what was made again."""
    (users, final_user), (_, final_item) = vocabularies
    remade = _kept(flat, keep, final_item, folder)
    mapped = remade.map()
    remade_users = final_user[mapped["user"]]
    lengths = np.zeros((2, len(users) + 1), dtype=np.int64)  # what is copied, and what was made again
    lengths[0, : base.n_users + 1] = firsts - starts
    lengths[1] = np.bincount(remade_users, minlength=len(users) + 1)
    offsets, new_offsets = offsets_of(lengths.sum(axis=0)), offsets_of(lengths[1])
    stored = {"items": base.items, "times": base.times, "ratings": base.ratings}
    dtypes = {name: remade.dtypes[column] for name, column in ARRAYS.items() if column in remade.dtypes}
    final = Spool(folder / "final", dtypes, final_rows=int(offsets[-1]))
    moved = None
    if base.by_item is not None:
        moved = Spool(folder / "moved", {"position": position_type(int(offsets[-1]))})
    begins = None if "session" not in remade.dtypes else SessionOffsets()
    edges = np.append(np.flatnonzero(np.diff(offsets[:-1] // _PIECE, prepend=-1)), lengths.shape[1])
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        known = min(high, base.n_users + 1)
        old = slice(*base.offsets[[low, known]].tolist()) if low < known else slice(0, 0)
        stays = _staying(base.offsets[low : known + 1], starts[low:known], firsts[low:known])
        new = slice(*new_offsets[[low, high]].tolist())
        is_new = np.repeat(np.tile([False, True], high - low), lengths[:, low:high].T.reshape(-1))
        final.append(
            {name: _joined(stored[name], old, stays, mapped[ARRAYS[name]][new], is_new) for name in final.dtypes}
        )
        if moved is not None:
            moved.append({"position": _moved(base, starts, firsts, offsets, slice(low, known), stays)})
        if begins is not None:
            assert base.session_offsets is not None
            numbers = np.searchsorted(base.session_offsets, np.arange(old.start, old.stop), side="right")
            numbers = _joined(numbers, slice(None), stays, -1 - mapped["session"][new], is_new)
            owners = np.repeat(np.arange(low, high), lengths[:, low:high].sum(axis=0))
            begins.add({"user": owners, "session": numbers})
        report("copying", high / lengths.shape[1])
    spools = [final]
    if moved is not None:
        arrived = {"item": mapped["item"], "position": positions(offsets[:-1] + lengths[0], offsets[1:])}
        arrived |= {"time": mapped["time"]} if base.times is not None else {}
        spools.append(_item_order(base, moved, arrived, folder))
    result: dict[str, Any] = {}
    for spool in spools:
        result |= spool.load() if in_memory else spool.map()
    result |= {"offsets": offsets, "session_offsets": None if begins is None else begins.finish()}
    return result, {name: path for spool in spools for name, path in spool.paths.items()}


def _moved(
    base: Dataset,
    starts: Int64,
    firsts: Int64,
    offsets: Int64,
    users: slice,
    stays: npt.NDArray[np.bool_] | None,
) -> Int64:
    """New position of each former interaction of a slice of users, as `merged_item_order` takes it."""
    begins, ends = base.offsets[users], base.offsets[users.start + 1 : users.stop + 1]
    counts = ends - begins
    places = np.arange(begins[0], ends[-1]) if len(counts) else np.zeros(0, dtype=np.int64)
    new_starts = offsets[users]
    places += np.repeat(new_starts - starts[users], counts)
    if stays is None:
        return places
    low, high = np.repeat(new_starts, counts), np.repeat(new_starts + firsts[users] - starts[users], counts)
    return np.where(stays, places, ~np.clip(places, low, high))


def _item_order(base: Dataset, moved: Spool, arrived: Columns, folder: Path) -> Spool:
    """The order of the items' histories, in the file of an array.

    Raises
    ------
    StorageError
        The former order does not hold each interaction once.
    """
    assert base.by_item is not None
    position = moved.map()["position"]
    rows = int((position >= 0).sum()) + len(arrived["position"])
    order = Spool(folder / "by-item", {"by_item": position_type(rows)}, final_rows=rows)
    former_offsets = offsets_of(base.item_counts())
    for piece in merged_item_order(base.by_item, former_offsets, base.times, position, arrived):
        order.append({"by_item": piece})
    if order.rows != rows:
        raise StorageError(
            f"the order of the items' histories of this Dataset gives {order.rows:,} of {rows:,} interactions: it was "
            "damaged or edited. Prepare the Dataset again."
        )
    return order


def _kept(flat: Spool, keep: npt.NDArray[np.bool_] | None, final_item: Int64, folder: Path) -> Spool:
    """The remade histories with the final codes of items, without the interactions that the k-core drops."""
    kept = Spool(folder / "kept", flat.dtypes)
    for part, columns in flat.pieces():
        columns = _take(columns, None if keep is None else keep[part])
        kept.append(columns | {"item": final_item[columns["item"]].astype(np.int32)})
    return kept


def _staying(offsets: Int64, starts: Int64, firsts: Int64) -> npt.NDArray[np.bool_] | None:
    """Mask of the interactions of some users from `starts` to `firsts` (n,); None for all.

    Parameters
    ----------
    offsets
        (n + 1,) offsets of their whole histories.
    starts, firsts
        (n,) each, within them.
    """
    parts = np.stack([starts - offsets[:-1], firsts - starts, offsets[1:] - firsts], axis=1)
    if not parts[:, [0, 2]].any():
        return None
    return np.repeat(np.tile([False, True, False], len(starts)), parts.reshape(-1))


def _joined(
    old: npt.NDArray[Any] | None,
    part: slice,
    stays: npt.NDArray[np.bool_] | None,
    new: npt.NDArray[Any],
    is_new: npt.NDArray[np.bool_],
) -> npt.NDArray[Any]:
    """Values (n,) of some users.

    Parameters
    ----------
    old
        The column in the Dataset.
    part, stays
        The users' slice of it, and the mask of what stays of that; None for all.
    new
        Values that were made again.
    is_new
        (n,) mask of the places of `new` in the result.
    """
    assert old is not None
    values = np.empty(len(is_new), dtype=new.dtype)
    values[~is_new] = old[part] if stays is None else old[part][stays]
    values[is_new] = new
    return values


def _metadata(
    base: Dataset, grown: Dataset, log: Log, entry: dict[str, Any], options: Preparation, notes: list[str]
) -> dict[str, Any]:
    former = dict(base.metadata)
    step = {
        "step": f"appended {log.source}",
        "users": int(np.count_nonzero(grown.lengths)),
        "items": int(np.count_nonzero(grown.item_counts())),
        "interactions": grown.n_interactions,
    }
    return former | {
        "options": asdict(options),
        "steps": [*(former.get("steps") or []), step],
        "notes": notes,
        "logs": [*(former.get("logs") or []), entry],
        "bad_rows_dropped": int(former.get("bad_rows_dropped") or 0) + log.dropped,
    }
