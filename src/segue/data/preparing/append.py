"""New interactions for a Dataset: the histories that change are made again, and all others are copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.order import time_order
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
    options = _recorded(dataset, newest_days)
    opened = source if isinstance(source, Log | Opened) else open_source(source, _completed(reading, dataset, options))
    _check_columns(opened, dataset, options)
    report = progress or (lambda step, share: None)
    with working_folder(out, "append") as folder:
        log, encoded = encode_log(opened, replace(options, oldest=None), folder, report)
        base = dataset.compact()
        new, entry = _columns_of(log, encoded, base)
        _check_fingerprint(base, log.source, entry)
        grown = _merged(base, log, encoded, new, entry, options, folder, report, in_memory=out is None)
        finish(grown, log.source, out, overwrite, report)
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
) -> Dataset:
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
    flat, divided = _remade(base, starts, new, options, folder, report)
    of_user, of_item, keep = _core(flat, users, items, options, report)
    vocabularies = users.remaining(of_user), items.remaining(of_item)
    arrays = _assembled(base, starts, flat, keep, of_user, vocabularies, folder, report, in_memory=in_memory)
    notes += notes_on(0, divided)
    grown = Dataset(
        **arrays,
        users=vocabularies[0][0],
        catalogue=vocabularies[1][0],
        time_unit=base.time_unit or log.time_unit if base.times is not None else None,
        item_table=base.item_table,
        user_table=base.user_table,
    )
    return replace(grown, metadata=_metadata(base, grown, log, entry, options, notes))


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


def _remade(
    base: Dataset, starts: Int64, new: Columns, options: Preparation, folder: Path, report: Progress
) -> tuple[Spool, int]:
    """The whole histories of the users with new interactions, sorted and without duplicates; and divided sessions."""
    dtypes: dict[str, np.dtype[Any]] = {"user": np.dtype(np.int32), "item": np.dtype(np.int32)}
    dtypes |= {"time": np.dtype(np.int64)} if base.times is not None else {}
    dtypes |= {"rating": np.dtype(np.float32)} if base.ratings is not None else {}
    dtypes |= {"session": np.dtype(np.int64)} if options.sessions is not None else {}
    flat, divided = Spool(folder / "remade", dtypes), 0
    for codes, rows in _portions(base, starts, new["user"]):
        old = codes[codes <= base.n_users]
        columns = _old_columns(base, starts, old, dtypes, options.sessions)
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


def _portions(base: Dataset, starts: Int64, new_users: npt.NDArray[Any]) -> Iterator[tuple[Int64, slice]]:
    """User codes with new interactions, and the slice of these, for so many users that their histories fit memory."""
    codes, first = np.unique(new_users, return_index=True)
    bounds = np.append(first, len(new_users))
    stored = np.where(codes <= base.n_users, (base.ends - starts)[np.minimum(codes, base.n_users)], 0)
    portion = (np.cumsum(stored + np.diff(bounds)) - 1) // CHUNK
    edges = np.append(np.flatnonzero(np.diff(portion, prepend=-1)), len(codes))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield codes[low:high].astype(np.int64), slice(int(bounds[low]), int(bounds[high]))


def _old_columns(
    base: Dataset, starts: Int64, codes: Int64, dtypes: Mapping[str, Any], rule: SessionRule | None
) -> Columns:
    """The interactions of these users so far."""
    place = positions(starts[codes], base.ends[codes])
    users = np.repeat(codes, base.ends[codes] - starts[codes]).astype(np.int32)
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
    flat: Spool,
    keep: npt.NDArray[np.bool_] | None,
    of_user: Int64,
    vocabularies: tuple[tuple[Vocabulary, Int64], tuple[Vocabulary, Int64]],
    folder: Path,
    report: Progress,
    *,
    in_memory: bool,
) -> dict[str, Any]:
    """Arrays of the Dataset: remade histories in their places, all others as they were, in pieces."""
    (users, final_user), (_, final_item) = vocabularies
    remade = _kept(flat, keep, final_item, folder)
    mapped = remade.map()
    n = len(base.items)
    sources = np.zeros((2, len(users) + 1), dtype=np.int64)
    sources[:, : base.n_users + 1] = starts, base.ends
    mapped_users = final_user[mapped["user"]]
    counts = np.bincount(mapped_users, minlength=len(users) + 1)
    touched = np.unique(final_user[flat.map()["user"]])
    firsts = n + offsets_of(counts)
    sources[0, touched], sources[1, touched] = firsts[:-1][touched], firsts[1:][touched]
    lengths = sources[1] - sources[0]
    offsets = offsets_of(lengths)
    stored = {"item": base.items, "time": base.times, "rating": base.ratings}
    dtypes = {name: remade.dtypes[name] for name in stored if name in remade.dtypes}
    final = Spool(folder / "final", dtypes)
    begins = None if "session" not in remade.dtypes else SessionOffsets()
    edges = np.append(np.flatnonzero(np.diff(offsets[:-1] // CHUNK, prepend=-1)), len(lengths))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        known = min(high, base.n_users + 1)
        own = sources[:, low:high]
        is_remade = own[0] >= n
        old = slice(int(base.starts[low]), int(base.offsets[known])) if low < known else slice(n, n)
        new = slice(*(int(end) for end in np.searchsorted(mapped_users, [low, high])))
        stays = _staying(base, low, known, own, is_remade)
        from_new = np.repeat(is_remade, lengths[low:high])
        piece = {name: _joined(stored[name], mapped[name], (old, stays), (new, from_new)) for name in dtypes}
        final.append(piece)
        if begins is not None:
            assert base.session_offsets is not None
            numbers = np.empty(len(from_new), dtype=np.int64)
            numbers[~from_new] = np.searchsorted(base.session_offsets, np.arange(old.start, old.stop)[stays], "right")
            numbers[from_new] = -1 - mapped["session"][new]
            begins.add({"user": np.repeat(np.arange(low, high), lengths[low:high]), "session": numbers})
        report("copying", high / len(lengths))
    result = final.load() if in_memory else final.map()
    return {
        "items": result["item"],
        "offsets": offsets,
        "times": result.get("time"),
        "ratings": result.get("rating"),
        "session_offsets": None if begins is None else begins.finish(),
    }


def _kept(flat: Spool, keep: npt.NDArray[np.bool_] | None, final_item: Int64, folder: Path) -> Spool:
    """The remade histories with the final codes of items, without the interactions that the k-core drops."""
    kept = Spool(folder / "kept", flat.dtypes)
    for part, columns in flat.pieces():
        columns = _take(columns, None if keep is None else keep[part])
        kept.append(columns | {"item": final_item[columns["item"]].astype(np.int32)})
    return kept


def _staying(
    base: Dataset, low: int, known: int, own: Int64, is_remade: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Mask of the interactions of the users from `low` to before `known` that are copied: not remade, not let go."""
    first = base.starts[low:known]
    copied = np.where(is_remade[: len(first)], first, own[0, : len(first)])
    stops = np.where(is_remade[: len(first)], first, base.offsets[low + 1 : known + 1])
    parts = np.stack([copied - first, stops - copied, base.offsets[low + 1 : known + 1] - stops], axis=1)
    return np.repeat(np.tile([False, True, False], len(first)), parts.reshape(-1))


def _joined(
    old: npt.NDArray[Any] | None,
    new: npt.NDArray[Any],
    copied: tuple[slice, npt.NDArray[np.bool_]],
    remade: tuple[slice, npt.NDArray[np.bool_]],
) -> npt.NDArray[Any]:
    """Values of some users: those of a slice of the old array that stay, and a slice of the new one, in their places.

    Parameters
    ----------
    old, new
        The column in the Dataset, and in the remade histories.
    copied
        Slice of the old column, and the mask of what stays of it.
    remade
        Slice of the new column, and the mask of its places in the result.
    """
    assert old is not None
    values = np.empty(len(remade[1]), dtype=new.dtype)
    values[~remade[1]] = old[copied[0]][copied[1]]
    values[remade[1]] = new[remade[0]]
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
