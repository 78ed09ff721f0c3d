"""The Dataset: interactions sorted by user and time, in flat arrays, with the two vocabularies."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arguments import check_fields, checked, checked_except
from segue.data.histories import Histories
from segue.data.item_histories import (
    ItemHistories,
    Positions,
    is_item_order,
    item_order,
    item_order_within,
    position_type,
    save_item_order,
)
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.reading.columns import Column
from segue.data.reading.read import ReadOptions
from segue.data.sessions import UNITS_PER_SECOND, Sessions, visible_sessions
from segue.data.spool import chunks
from segue.data.stored import (
    DTYPES,
    check_manifest,
    check_offsets,
    check_sizes,
    check_values,
    is_in_order,
    map_array,
)
from segue.data.tables.table import Table
from segue.data.vocabulary import Vocabulary, is_scalar
from segue.display import pairs_as_html
from segue.errors import DataError, StorageError
from segue.files import atomic_folder, read_manifest, write_manifest

FORMAT_VERSION = 4
"""The newest format. Version 2 is written only if ids stand in order of arrival: version 1 expects them sorted.

Version 3 is written only if there is a table of items or users: version 2 would not know that nobody took an item.
"""

LEFT_OUT = "left out"
"""Entry `histories` of the metadata of a Dataset whose interactions were left out."""

_DAY = 86_400_000_000
"""Microseconds of a day."""
MANIFEST = "dataset.json"
_TABLES = {"item_table": "item", "user_table": "user"}
_FILES = ("items.npy", "offsets.npy", "users.parquet", "items.parquet")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The interactions of all users, in order. Made by `segue.prepare`, opened by `Dataset.open`.

    Attributes
    ----------
    items
        (n_interactions,) int32 item codes, sorted by user, then time; equal times keep the order of the log.
    offsets
        (n_users + 2,) int64: user u's interactions are `items[offsets[u]:offsets[u + 1]]`; user 0 has none.
    users, catalogue
        Vocabularies of the raw user and item ids.
    times
        (n_interactions,) int64, in `time_unit` since 1970 (or any growing count), or None.
    ratings
        (n_interactions,) float32, or None.
    time_unit
        "s", "ms", "us" or "ns"; None without times.
    ends
        (n_users + 1,) int64 end of each user's visible history. A split moves it; the arrays stay.
    metadata
        The source of the data and the steps of its preparation.
    session_offsets
        (n_sessions + 1,) int64: session s is `items[session_offsets[s]:session_offsets[s + 1]]`, of one user; None
        without sessions. The visible sessions are `sessions`.
    by_item
        (n_interactions,) int32 or int64: the positions of all interactions, visible or not, sorted by item, then time,
        then position; None if they have not been sorted. The visible ones are `item_histories`.
    in_order
        True if each user's interactions are in the order of time. Not so after a split that draws single ones.
    item_table, user_table
        Tables of the items and of the users, in the order of their codes; None without one. `items_frame` and
        `users_frame` have the ids, too.
    parts
        (n_interactions,) int8: part of each interaction in the split that the data came with, never falling within a
        user's history. 0 training, 1 history of the validation targets alone, 2 validation targets, 3 history of the
        test targets alone, 4 test targets. None without such a split.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": ["ann", "bob", "ann"], "item": ["tea", "tea", "jam"], "time": [1, 2, 3]})
    >>> data = segue.prepare(log)
    >>> data.n_users, data.n_items, data.n_interactions
    (2, 2, 3)
    >>> data.catalogue.ids.to_list(), data.items.tolist()
    (['jam', 'tea'], [2, 1, 2])
    >>> segue.Dataset.open(data.save("shop"))
    Dataset(2 users, 2 items, 3 interactions)
    """

    items: npt.NDArray[np.int32]
    offsets: Int64
    users: Vocabulary
    catalogue: Vocabulary
    times: npt.NDArray[np.int64] | None = None
    ratings: npt.NDArray[np.float32] | None = None
    time_unit: str | None = None
    ends: Int64 = None  # type: ignore[assignment]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    session_offsets: Int64 | None = None
    by_item: Positions | None = None
    in_order: bool = True
    item_table: Table | None = None
    user_table: Table | None = None
    parts: npt.NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ends is None:
            object.__setattr__(self, "ends", self.offsets[1:])
        for name, vocabulary in (("item_table", self.catalogue), ("user_table", self.users)):
            table = getattr(self, name)
            if table is not None and len(table) < len(vocabulary):  # ids that arrived later have empty rows
                object.__setattr__(self, name, table.extended(len(vocabulary)))

    # ---- counts -------------------------------------------------------------------------------------------------

    @property
    def n_users(self) -> int:
        """Number of users in the vocabulary."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items in the catalogue."""
        return len(self.catalogue)

    @property
    def n_interactions(self) -> int:
        """Number of visible interactions."""
        return int(self.lengths.sum())

    @property
    def starts(self) -> Int64:
        """(n_users + 1,) start of each user's history."""
        return self.offsets[:-1]

    @property
    def lengths(self) -> Int64:
        """(n_users + 1,) number of visible interactions of each user; 0 for user 0."""
        return self.ends - self.starts

    def __repr__(self) -> str:
        return f"Dataset({self.n_users:,} users, {self.n_items:,} items, {self.n_interactions:,} interactions)"

    def _repr_html_(self) -> str:
        sessions = None if self.session_offsets is None else f"{len(self.session_offsets) - 1:,}"
        present = {"times": self.times is not None, "ratings": self.ratings is not None}
        return pairs_as_html(
            "Dataset",
            {
                "users": f"{self.n_users:,}",
                "items": f"{self.n_items:,}",
                "interactions": f"{self.n_interactions:,}",
                **({"sessions": sessions} if sessions else {}),
                **{name: "yes" if there else "no" for name, there in present.items()},
            },
        )

    # ---- views --------------------------------------------------------------------------------------------------

    @property
    def has_times(self) -> bool:
        """True if every interaction has a time."""
        return self.times is not None

    @checked
    def until(self, ends: Int64) -> Dataset:
        """View of the same data with each user's history ending at `ends` (n_users + 1,), absolute positions."""
        return replace(self, ends=ends)

    @checked
    def before(self, time: int) -> Dataset:
        """View of the same data with only the interactions before `time`, in units of `time_unit`.

        Raises
        ------
        DataError
            The Dataset has no times.
        """
        if self.times is None:
            raise DataError("this Dataset has no times, so it cannot be cut at one.")
        earlier = np.concatenate([[0], np.cumsum(self.times < time)])
        kept = earlier[self.ends] - earlier[self.starts]
        return self.until(self.starts + kept)

    def histories(self, users: Int64 | None = None) -> Histories:
        """The histories of the given user codes (n,), or of all users with at least one visible interaction."""
        codes = np.flatnonzero(self.lengths) if users is None else users
        starts, ends = self.starts[codes], self.ends[codes]
        return Histories(codes, self.items, starts, ends, self.times, session_offsets=self.session_offsets)

    @cached_property
    def sessions(self) -> Sessions:
        """The visible sessions. A session is cut at the end of its user's visible history.

        Raises
        ------
        DataError
            The Dataset has no sessions.
        """
        if self.session_offsets is None:
            raise DataError(
                "this Dataset has no sessions: prepare it from a log with a column of sessions, or with "
                "sessions='day' or session_gap=1800 (seconds)."
            )
        return visible_sessions(self.items, self.session_offsets, self.offsets, self.ends)

    @cached_property
    def item_histories(self) -> ItemHistories:
        """The users of each item, oldest first: the transpose of the visible interactions.

        A Dataset with ratings has the order of all interactions on disk, and a view selects the visible ones. Without
        it the interactions are sorted on first use.
        """
        whole = self.n_interactions == len(self.items)
        if self.by_item is not None:
            self._check_by_item()
            order = self.by_item if whole else self.by_item[self._visible()[self.by_item]]
        elif whole:
            order = item_order(self.items, self.times)
        else:
            visible = positions(self.starts, self.ends).astype(position_type(len(self.items)), copy=False)
            order = visible[item_order(self.items[visible], None if self.times is None else self.times[visible])]
        return ItemHistories(order, offsets_of(self.item_counts()), self.offsets, self.times, self.ratings)

    def _check_by_item(self) -> None:
        """Raise a StorageError if the order of the items' histories was read from a file and is not theirs."""
        if self.by_item is None or not isinstance(self.by_item.base, np.memmap):
            return
        counts = np.bincount(self.items, minlength=self.n_items + 1)
        if not is_item_order(self.by_item, self.items, self.times, counts):
            raise StorageError(
                f"{self.by_item.base.filename} is not the order of the items and times of this Dataset: it was damaged "
                "or edited. Prepare the Dataset again, or delete the file and its entry in dataset.json."
            )

    def item_counts(self) -> Int64:
        """(n_items + 1,) number of visible interactions of each item; 0 for item 0."""
        visible = self.items
        if self.n_interactions != len(self.items):
            visible = self.items[positions(self.starts, self.ends)]
        counts = np.zeros(self.n_items + 1, dtype=np.int64)
        for part in chunks(len(visible), max(len(counts), 1 << 18)):  # pieces that fit into the cache
            counts += np.bincount(visible[part], minlength=len(counts))
        return counts

    @cached_property
    def cold_items(self) -> Int64:
        """Codes (m,) of the items of the table that nobody has taken, visible or not; none without a table.

        A model has nothing to say about them, unless it reads their content.
        """
        if self.item_table is None:
            return np.zeros(0, dtype=np.int64)
        return np.flatnonzero(np.bincount(self.items, minlength=self.n_items + 1)[1:] == 0) + 1

    @cached_property
    def items_frame(self) -> pl.DataFrame:
        """The item table: the column `item` of raw ids, then the columns of the table; row i has the code i + 1.

        Without a table, there are only the ids. Values that the source lacks are null.
        """
        return _with_ids("item", self.catalogue, self.item_table)

    @cached_property
    def users_frame(self) -> pl.DataFrame:
        """The user table: the column `user` of raw ids, then the columns of the table; row i has the code i + 1."""
        return _with_ids("user", self.users, self.user_table)

    @property
    def titles(self) -> pl.Series | None:
        """Titles (n_items,) of the items, in the order of the codes; None without titles."""
        return None if self.item_table is None else self.item_table.titles

    def item_names(self, ids: pl.Series) -> pl.Series:
        """Texts (n,) for readers of raw item ids: the title, with the id if others share it; the id without a title."""
        texts = ids.cast(pl.String)
        if self.titles is None:
            return texts
        codes = pl.Series(self.catalogue.encode(ids))
        rows = codes.set(codes == 0, None) - 1
        titles, shared = self.titles.gather(rows), self.titles.is_duplicated().gather(rows)
        named = pl.DataFrame({"title": titles, "id": texts, "shared": shared})
        both = pl.when("shared").then(pl.format("{} ({})", "title", "id")).otherwise("title")
        return named.select(pl.coalesce(both, "id")).to_series()

    def to_frame(self) -> pl.DataFrame:
        """The visible interactions with raw ids: columns user, item and, if there are any, time, rating and session.

        Sessions are numbered from 1 for each user. Times are datetimes in UTC if the log had dates, else its numbers.
        """
        visible = positions(self.starts, self.ends)
        columns: dict[str, Any] = {
            "user": self.users.decode(rows_of(self.starts, self.ends)),
            "item": self.catalogue.decode(self.items[visible]),
        }
        if self.times is not None:
            columns["time"] = self.times_as_given(pl.Series(self.times[visible]))
        if self.ratings is not None:
            columns["rating"] = self.ratings[visible]
        if self.session_offsets is not None:
            sessions = self.sessions
            number = np.arange(len(sessions)) - sessions.offsets[sessions.users] + 1
            columns["session"] = np.repeat(number, sessions.lengths)
        return pl.DataFrame(columns)

    def times_as_given(self, times: pl.Series) -> pl.Series:
        """Times, counted in `time_unit`, in the form of the log: datetimes in UTC if it had dates, else numbers.

        Dates are kept in microseconds, and integers in their own unit, so the unit tells them apart.
        """
        return times.cast(pl.Datetime("us")) if self._has_dates else times

    @cached_property
    def _has_dates(self) -> bool:
        """True for microseconds since 1970; counts of other steps end long before the second day."""
        if self.times is None or self.time_unit != "us" or not len(self.times):
            return False
        return int(self.times.max()) >= _DAY

    @checked
    def timestamp(self, moment: int | float) -> int:
        """`moment`, in seconds since 1970, in this Dataset's `time_unit`."""
        return int(moment * UNITS_PER_SECOND[self.time_unit or "s"])

    def _visible(self) -> npt.NDArray[np.bool_]:
        """Mask of the visible positions in the arrays (n_interactions,)."""
        bounds = np.stack([self.lengths, self.offsets[1:] - self.ends], axis=1)
        return np.repeat(np.tile([True, False], len(bounds)), bounds.reshape(-1))

    # ---- growth -------------------------------------------------------------------------------------------------

    @checked_except("source")
    def append(
        self,
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
        newest_days: float | None = None,
        out: str | Path | None = None,
        overwrite: bool | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> Dataset:
        """Add a later log: new interactions, users and items. Codes stay; new ids have the codes behind them.

        The result is that of preparing both logs at once, up to the order of the codes. The options of the preparation
        apply to the new log too: lowest rating, duplicates, sessions, newest days. They act as follows.

        - k-core: interactions of known users with known items stay. A new user or item needs as many interactions in
          the new log as the core asks for. Nothing that the Dataset holds is dropped, and nothing that was dropped
          before comes back; for an exact core, prepare the whole log again.
        - Sessions by a column: a session of the new log is a new session, even if an older one has the same id.
        - Sessions by pauses, with duplicates "first" or "last": a pause is measured between interactions that stayed.
        - Times that are older than the end of the Dataset are said in a warning, and put in their places. Of equal
          times, those of the Dataset come first.

        Only the histories that change are made again; the others are copied. The new log must fit into memory.

        Parameters
        ----------
        source
            Anything that `segue.read` takes. It must have the times, ratings and sessions that the Dataset has.
        user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows
            As in `segue.read`.
        newest_days
            Keep only the interactions of so many days before the newest one. The rule replaces that of the Dataset and
            is stored with the result. Users and items without interactions keep their codes.
        out, overwrite, progress
            As in `segue.prepare`.

        Raises
        ------
        DataError
            The log cannot be read, lacks a column that the Dataset has, or is part of the Dataset already. Or the
            Dataset holds only the oldest share of its log, or is not in the order of time.
        ConfigError
            An option has an impossible value.
        StorageError
            `out` holds something that may not be replaced.

        Examples
        --------
        >>> grown = data.append("tuesday.csv", out="data/mine2")                         # doctest: +SKIP
        """
        # `preparing` makes Datasets, so this room cannot import it; the name is looked up at the call instead.
        preparing = importlib.import_module("segue.data.preparing.append")
        reading = ReadOptions(user, item, time, rating, session, format, separator, header, quote, time_unit, bad_rows)
        grown: Dataset = preparing.append(
            self, source, reading, newest_days=newest_days, out=out, overwrite=overwrite, progress=progress
        )
        return grown

    @checked_except("items")
    def with_items(self, items: Iterable[Any]) -> Dataset:
        """The same Dataset with more items in its catalogue, which nobody has taken yet. Known ones are left out.

        Parameters
        ----------
        items
            Raw ids of items. They get the codes behind those of the catalogue, in their order.
        """
        return replace(self, catalogue=self.catalogue.extended([items] if is_scalar(items) else items))

    @checked_except("users")
    def forget(self, users: Any) -> Dataset:
        """The same Dataset without the interactions and the ids of some users. All codes stay.

        The code of a forgotten user belongs to nobody. If the id arrives again, it is a new user.

        Parameters
        ----------
        users
            Raw ids of users.

        Raises
        ------
        UnknownIdError
            A user is unknown.
        """
        codes = np.unique(self.users.require([users] if is_scalar(users) else users, "user"))
        ends = self.ends.copy()
        ends[codes] = self.starts[codes]
        return replace(self.until(ends).compact(), users=self.users.without(codes))

    def without_histories(self) -> Dataset:
        """The same users and items without a single interaction; `metadata` says that the histories were left out."""
        return replace(self.until(self.starts).compact(), metadata={**self.metadata, "histories": LEFT_OUT})

    @property
    def has_histories(self) -> bool:
        """False if the histories were left out on purpose."""
        return self.metadata.get("histories") != LEFT_OUT

    # ---- identity and storage -----------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the visible data: two Datasets with the same fingerprint train the same model."""
        digest = hashlib.sha256()
        for array in (self.items, self.offsets, self.ends, self.times, self.ratings):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).view(np.uint8).data)
        for vocabulary in (self.users, self.catalogue):
            digest.update(str(vocabulary.ids.dtype).encode())
            digest.update(vocabulary.to_bytes())
        if self.session_offsets is not None:  # without sessions the fingerprint is that of older versions
            digest.update(b"sessions" + np.ascontiguousarray(self.session_offsets).tobytes())
        if self.parts is not None:
            digest.update(b"parts" + np.ascontiguousarray(self.parts).tobytes())
        for name in _TABLES:
            table = getattr(self, name)
            if table is not None:
                digest.update(f"{name} {table.fingerprint}".encode())
        return digest.hexdigest()

    @checked
    def save(self, path: str | Path, *, overwrite: bool | None = None) -> Path:
        """Write the visible interactions as a folder, atomically, and return its path.

        Parameters
        ----------
        path
            The folder. A Dataset that is there already is replaced.
        overwrite
            False refuses to replace a Dataset too.

        Raises
        ------
        StorageError
            `path` holds something that is no Dataset, or other files beside one: nothing foreign is ever deleted.
        """
        save_moving(self, Path(path), overwrite, {})
        return Path(path)

    def compact(self) -> Dataset:
        """The same Dataset without its hidden interactions (itself if there are none)."""
        return self if len(self.items) == self.n_interactions else self.selected(self._visible())

    def selected(self, kept: npt.NDArray[np.bool_]) -> Dataset:
        """Copy with the interactions of a mask over the arrays, all of them visible; empty sessions are left out.

        Parameters
        ----------
        kept
            True for the interactions to keep, (n_interactions,) with those that a view hides.
        """
        before = np.concatenate([[0], np.cumsum(kept)])
        offsets = before[self.offsets]
        sessions = None
        if self.session_offsets is not None:
            lengths = np.diff(before[self.session_offsets])
            sessions = offsets_of(lengths[lengths > 0])
        return replace(
            self,
            items=self.items[kept],
            times=None if self.times is None else self.times[kept],
            ratings=None if self.ratings is None else self.ratings[kept],
            offsets=offsets,
            ends=offsets[1:],
            session_offsets=sessions,
            parts=None if self.parts is None else self.parts[kept],
            by_item=None if self.by_item is None else item_order_within(self.by_item, kept),
        )

    @classmethod
    @checked
    def open(cls, path: str | Path, *, verify: bool = True) -> Dataset:
        """Open a folder written by `save`; the arrays are memory-mapped, not read.

        A Dataset in shards is opened as a whole: its shards are merged in memory (`Shards.merged`).

        Parameters
        ----------
        path
            The folder.
        verify
            Compare checksums and values first (about a second per gigabyte). Sizes are always compared.

        Raises
        ------
        StorageError
            A file is missing, truncated or altered, its values are impossible or do not fit those of the others, or
            the format is newer than this segue.
        """
        folder = Path(path)
        if not (folder / MANIFEST).exists() and (folder / "shards.json").exists():
            # Shards are Datasets, so this module cannot import theirs; the name is looked up at the call instead.
            merged: Dataset = importlib.import_module("segue.data.shards").Shards.open(folder, verify=verify).merged()
            return merged
        return cls._open(folder, sums=verify, values=verify)

    @classmethod
    def _open(cls, folder: Path, *, sums: bool, values: bool) -> Dataset:
        """Open a folder. `sums` compares checksums, `values` the values of the arrays."""
        manifest = read_manifest(folder, MANIFEST, "dataset", FORMAT_VERSION, verify=sums)
        missing = [name for name in _FILES if name not in manifest["files"]]
        missing += [key for key in ("time_unit", "metadata") if key not in manifest]
        if missing:
            raise StorageError(f"{folder / MANIFEST} says nothing of {', '.join(missing)}: it was damaged or edited.")
        check_manifest(manifest, folder / MANIFEST)
        listed = {name: f"{name}.npy" in manifest["files"] for name in DTYPES}
        unlisted = [f"{name}.npy" for name in DTYPES if not listed[name] and (folder / f"{name}.npy").exists()]
        if unlisted:
            raise StorageError(f"{folder / MANIFEST} does not list {', '.join(unlisted)}: it was damaged or edited.")
        arrays: dict[str, Any] = {
            name: map_array(folder / f"{name}.npy", dtypes) if listed[name] else None for name, dtypes in DTYPES.items()
        }
        check_sizes(folder, arrays, manifest)
        check_offsets(folder, arrays, manifest["interactions"])
        tables = _open_tables(folder, manifest)
        in_order = manifest.get("in_order", True)
        if values:
            check_values(folder, arrays, manifest["items"])
            in_order = in_order and is_in_order(arrays["times"], arrays["offsets"])
            if not in_order and manifest.get("in_order"):  # older folders do not say it
                raise StorageError(f"{folder / 'times.npy'} is not in the order of time: it was damaged or edited.")
        return cls(
            **arrays,
            item_table=tables.get("item_table"),
            user_table=tables.get("user_table"),
            users=Vocabulary.load(folder / "users.parquet", manifest["users"]),
            catalogue=Vocabulary.load(folder / "items.parquet", manifest["items"]),
            time_unit=manifest["time_unit"],
            metadata=manifest["metadata"],
            in_order=in_order,
        )


def save_moving(dataset: Dataset, path: Path, overwrite: bool | None, files: Mapping[str, Path]) -> None:
    """Write a Dataset like `Dataset.save`, and move files of arrays into its folder instead of writing them again.

    Parameters
    ----------
    dataset, path, overwrite
        As in `Dataset.save`.
    files
        NumPy files of whole arrays, by name, on the same file system; their types are those of `DTYPES`.
    """
    visible = dataset.compact()
    with atomic_folder(path, "dataset", overwrite) as folder:
        for name, dtypes in DTYPES.items():
            array = getattr(visible, name)
            if name in files:
                files[name].rename(folder / f"{name}.npy")
            elif array is not None:
                dtype = position_type(len(visible.items)) if name == "by_item" else dtypes[0]
                np.save(folder / f"{name}.npy", np.asarray(array, dtype=dtype), allow_pickle=False)
        if visible.ratings is not None and visible.by_item is None:
            save_item_order(folder / "by_item.npy", visible.items, visible.times, visible.item_counts())
        dataset.users.save(folder / "users.parquet")
        dataset.catalogue.save(folder / "items.parquet")
        content = {
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": dataset.n_interactions,
            "sessions": None if visible.session_offsets is None else len(visible.session_offsets) - 1,
            "time_unit": dataset.time_unit,
            "in_order": dataset.in_order,
            "metadata": dict(dataset.metadata),
        }
        tables = {name: getattr(dataset, name) for name in _TABLES if getattr(dataset, name) is not None}
        if tables:
            content["tables"] = {name: table.save(folder, _TABLES[name]) for name, table in tables.items()}
        version = 3 if tables else 1 if dataset.users.is_sorted and dataset.catalogue.is_sorted else 2
        version = version if visible.parts is None else 4
        write_manifest(folder, MANIFEST, "dataset", version, content)


def folder_has_sessions(folder: Path) -> bool:
    """True if a folder is a Dataset, also one in shards, with sessions, as far as its manifest says."""
    for name in (MANIFEST, "shards.json"):
        try:
            manifest = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return isinstance(manifest, dict) and manifest.get("sessions") is not None
    return False


def open_within(folder: Path, *, values: bool) -> Dataset:
    """Open a Dataset in a folder whose own manifest has listed all its files, so that they are compared only once."""
    return Dataset._open(folder, sums=False, values=values)


def _with_ids(role: str, vocabulary: Vocabulary, table: Table | None) -> pl.DataFrame:
    ids = vocabulary.ids.alias(role).to_frame()
    return ids if table is None else pl.concat([ids, table.to_frame()], how="horizontal")


def _open_tables(folder: Path, manifest: dict[str, Any]) -> dict[str, Table]:
    """Tables of a folder, by the name of their field.

    Raises
    ------
    StorageError
        The manifest does not describe them, or a file does not fit it.
    """
    entries = manifest.get("tables", {})
    unlisted = [f"{role}_table.parquet" for name, role in _TABLES.items() if name not in entries]
    if not isinstance(entries, dict) or entries.keys() - _TABLES or any((folder / one).exists() for one in unlisted):
        raise StorageError(f"{folder / MANIFEST} does not describe the tables of items and users: it was edited.")
    sizes = {"item_table": manifest["items"], "user_table": manifest["users"]}
    return {
        name: Table.load(folder, _TABLES[name], entry, sizes[name], manifest["files"])
        for name, entry in entries.items()
    }
