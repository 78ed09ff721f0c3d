"""A Dataset in shards: one ordinary Dataset for each part of the users, over the same items with the same codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.arguments import checked, checked_except
from segue.data.dataset import MANIFEST as OF_SHARD
from segue.data.dataset import Dataset, save_moving
from segue.data.item_histories import Positions, position_type
from segue.data.item_shards import MANIFEST as OF_ITEMS
from segue.data.item_shards import ItemShard, item_shard_name, open_item_shard
from segue.data.ragged import Int64, offsets_of, positions
from segue.data.spool import CHUNK, Spool, chunks
from segue.data.stored import DTYPES
from segue.data.tables.table import Table
from segue.data.user_hash import HASH_RULE, shards_of
from segue.data.vocabulary import Vocabulary, as_ids, is_scalar
from segue.errors import ConfigError, StorageError
from segue.files import atomic_folder, check_folder, manifest_of, read_json, real, sha256, whole_number, write_manifest
from segue.locks import temporary_folder

MANIFEST = "shards.json"
FORMAT_VERSION = 1

_COUNTS = ("shards", "users", "items", "interactions")
_ARRAYS = ("items", "times", "ratings")
_ID_TYPES = {"Int64": pl.Int64(), "String": pl.String()}


@dataclass(frozen=True)
class Shards:
    """A Dataset in shards, on disk. Made by `segue.prepare_shards`, opened by `Shards.open`.

    A hash of its raw id decides the shard of a user. Each shard is a folder that `Dataset.open` opens too. All of them
    have the same item codes; user codes are those of the shard.

    Attributes
    ----------
    folder
        The folder with the shards.
    n_shards, n_users, n_items, n_interactions
        Sizes; the last three are those of all shards together.
    n_sessions
        Number of sessions of all shards; None without sessions.
    n_item_shards
        Number of shards of the histories of items; 0 without ratings.
    metadata
        As in `Dataset`: source of the data and steps of its preparation.
    preparation
        Hash of the log, the options and the number of shards; the same in every shard.
    user_ids
        Type of the user ids, "Int64" or "String".
    verify
        True if a shard's checksums and values are compared when it is opened.

    Examples
    --------
    >>> import polars as pl
    >>> log = pl.DataFrame({"user": ["ann", "bob", "ann"], "item": ["tea", "tea", "jam"], "time": [1, 2, 3]})
    >>> shards = segue.prepare_shards(log, "shop", shards=2)
    >>> shards
    Shards(2 shards, 2 users, 2 items, 3 interactions)
    >>> [shard.n_users for shard in shards], shards.merged().items.tolist()
    ([1, 1], [2, 1, 2])
    """

    folder: Path
    n_shards: int
    n_users: int
    n_items: int
    n_interactions: int
    n_sessions: int | None = None
    n_item_shards: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    preparation: str = ""
    user_ids: str = "Int64"
    verify: bool = True

    def __repr__(self) -> str:
        return (
            f"Shards({self.n_shards:,} shards, {self.n_users:,} users, {self.n_items:,} items, "
            f"{self.n_interactions:,} interactions)"
        )

    @classmethod
    @checked
    def open(cls, path: str | Path, *, verify: bool = True) -> Shards:
        """Open a folder that `segue.prepare_shards` wrote. Its shards are opened one by one, by `shard`.

        Parameters
        ----------
        path
            The folder.
        verify
            Compare checksums and values of each shard when it is opened. Manifests are always compared.

        Raises
        ------
        StorageError
            A shard is missing, was altered, or belongs to another preparation; or the format is newer than this segue.
        """
        folder = Path(path)
        manifest = manifest_of(folder, MANIFEST, "shards", FORMAT_VERSION)
        place = folder / MANIFEST
        sizes = {f"n_{name}": whole_number(manifest, name, place) for name in _COUNTS}
        of_items = whole_number(manifest, "item_shards", place) if "item_shards" in manifest else 0
        sessions = None if manifest.get("sessions") is None else whole_number(manifest, "sessions", place)
        if not sizes["n_shards"]:
            raise StorageError(f"{place} has shards=0, expected 1 or more: it was damaged or edited.")
        texts = [manifest.get(name) for name in ("preparation", "user_ids", "hash")]
        if not all(isinstance(one, str) for one in texts) or not isinstance(manifest.get("metadata"), dict):
            raise StorageError(f"{place} lacks the preparation, the hash or the metadata: it was damaged or edited.")
        if manifest["hash"] != HASH_RULE or manifest["user_ids"] not in _ID_TYPES:
            raise StorageError(
                f"{place} divides users of type {manifest['user_ids']} by {manifest['hash']}; this segue knows "
                f"{HASH_RULE} of {' and '.join(_ID_TYPES)}. Upgrade segue to open it."
            )
        shards = cls(
            folder,
            **sizes,
            n_sessions=sessions,
            n_item_shards=of_items,
            metadata=manifest["metadata"],
            preparation=manifest["preparation"],
            user_ids=manifest["user_ids"],
            verify=verify,
        )
        for number in range(shards.n_shards):
            shards._check(manifest, "shard", number, shards.n_shards, f"{shard_name(number)}/{OF_SHARD}")
        for number in range(of_items):
            shards._check(manifest, "item shard", number, of_items, f"{item_shard_name(number)}/{OF_ITEMS}")
        return shards

    def _check(self, manifest: Mapping[str, Any], noun: str, number: int, of: int, name: str) -> None:
        """Raise a StorageError unless the inner manifest of a shard is the one that was written."""
        expected = manifest["files"].get(name)
        if expected is None:
            raise StorageError(f"{self.folder / MANIFEST} does not list {noun} {number}: it was damaged or edited.")
        file = self.folder / name
        named = f"{self.folder}: {noun} {number} (of {of}, counted from 0)"
        way_out = "Copy the whole folder again, or prepare the log again."
        if not file.is_file():
            raise StorageError(f"{named} is missing: there is no {file}. {way_out}")
        if sha256(file) == expected["sha256"]:
            return
        preparation, other = _stated(read_json(file))
        if preparation != self.preparation:
            raise StorageError(f"{named} is of another preparation, whose item codes may be others. {way_out}")
        if other != number:
            raise StorageError(f"{named} is {noun} {other}: folders were exchanged. {way_out}")
        raise StorageError(f"{named} was altered after it was written: {file} does not match its checksum. {way_out}")

    def __len__(self) -> int:
        return self.n_shards

    def __iter__(self) -> Iterator[Dataset]:
        return (self.shard(number) for number in range(self.n_shards))

    @checked
    def shard(self, number: int) -> Dataset:
        """One shard, memory-mapped.

        Parameters
        ----------
        number
            Number of the shard, from 0.

        Raises
        ------
        ConfigError
            There is no shard of that number.
        StorageError
            A file of the shard is missing or altered, or does not fit the others.
        """
        if not 0 <= number < self.n_shards:
            raise ConfigError(f"number={number}: expected 0 to {self.n_shards - 1}, since there are {self.n_shards}.")
        folder = self.folder / shard_name(number)
        dataset = Dataset.open(folder, verify=self.verify)
        if dataset.n_items != self.n_items or str(dataset.users.ids.dtype) != self.user_ids:
            raise StorageError(f"{folder} has other items or ids than {self.folder / MANIFEST} says: it was edited.")
        if self.verify and (shards_of(dataset.users.ids, self.n_shards) != number).any():
            raise StorageError(f"{folder} holds users of other shards: it was edited.")
        return dataset

    @cached_property
    def users(self) -> Vocabulary:
        """All users, with the codes that they have in `merged` and in the shards of items. It is made on first use."""
        return placed([shard.users.ids for shard in self]).users

    @checked
    def item_shard(self, number: int) -> ItemShard:
        """Histories of a range of the items, over the users of all shards, memory-mapped. They need ratings.

        Items are divided into `n_item_shards` ranges of about as many interactions. As in a `Dataset`, only a log
        with ratings has them on disk; of other logs they are `Shards.merged().item_histories`.

        Parameters
        ----------
        number
            Number of the range, from 0.

        Raises
        ------
        ConfigError
            There is no range of that number.
        StorageError
            A file is missing or altered, or does not fit the others.
        """
        if not 0 <= number < self.n_item_shards:
            ways = f"expected 0 to {self.n_item_shards - 1}, since there are {self.n_item_shards}"
            none = "there are no shards of items, as in a log without ratings: take merged().item_histories"
            raise ConfigError(f"number={number}: {ways if self.n_item_shards else none}.")
        folder = self.folder / item_shard_name(number)
        return open_item_shard(folder, self.n_users, self.n_interactions, verify=self.verify)

    @checked_except("users")
    def shard_of(self, users: Any) -> Int64:
        """Number (n,), from 0, of the shard of each user, whether the log has that user or not.

        Parameters
        ----------
        users
            Raw ids (n,).

        Raises
        ------
        ConfigError
            An id is missing, or is text and the ids of the log are integers.
        """
        given = as_ids([users] if is_scalar(users) else users)
        ids = Vocabulary.in_order(pl.Series([], dtype=_ID_TYPES[self.user_ids])).convert(given)
        if ids.null_count():
            raise ConfigError(f"users: {given.filter(ids.is_null())[0]!r} is no id of the type {self.user_ids}.")
        return shards_of(ids, self.n_shards)

    @checked
    def merged(self, out: str | Path | None = None, *, overwrite: bool | None = None) -> Dataset:
        """All shards as one Dataset, equal to that which `segue.prepare` makes of the same log.

        Parameters
        ----------
        out
            Folder to write the Dataset to; the result is then memory-mapped, and memory stays bounded. None makes it
            in memory: 4 bytes for each interaction, 8 more with times and 4 more with ratings.
        overwrite
            False refuses to replace a Dataset in `out`.

        Raises
        ------
        StorageError
            A shard is missing or altered, or `out` holds something that may not be replaced.
        """
        if out is None:
            return _merged(list(self), self.metadata, None)[0]
        of_items = (self.item_shard(number).order for number in range(self.n_item_shards))
        place = Path(out)
        check_folder(place, "dataset", overwrite)
        target = real(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(target.parent, target.name) as folder:
            dataset, files = _merged(list(self), self.metadata, folder)
            if self.n_item_shards:
                dataset, files["by_item"] = _with_item_order(dataset, of_items, folder)
            save_moving(dataset, place, overwrite, files)
        return Dataset.open(place, verify=False)


def shard_name(number: int) -> str:
    """Name of the folder of a shard.

    >>> shard_name(3)
    'shard-00003'
    """
    return f"shard-{number:05d}"


def is_shards(folder: Path) -> bool:
    """True if a folder holds a Dataset in shards, and no Dataset of its own."""
    return (folder / MANIFEST).is_file() and not (folder / OF_SHARD).is_file()


def put_shards(
    made: Path,
    shards: int,
    path: Path,
    overwrite: bool | None,
    content: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> None:
    """Put folders of shards together as one folder, atomically.

    Parameters
    ----------
    made
        Folder with the folders of all shards, and of those of items, on the file system of `path`; they are moved.
    shards
        Number of shards.
    path, overwrite
        As in `Dataset.save`.
    content
        Values of the manifest: sizes, `sessions`, `preparation`, `user_ids` and `item_shards`.
    metadata
        Metadata of all shards together.
    """
    with atomic_folder(path, "shards", overwrite) as folder:
        for one in sorted(made.iterdir()):
            one.rename(folder / one.name)
        whole = {**content, "hash": HASH_RULE, "shards": shards, "metadata": dict(metadata)}
        write_manifest(folder, MANIFEST, "shards", FORMAT_VERSION, whole, only=(OF_SHARD, OF_ITEMS))


def _stated(manifest: Any) -> tuple[Any, Any]:
    """Preparation and number that the manifest of a shard, or of a shard of items, states; None where there is none."""
    metadata = manifest.get("metadata", manifest) if isinstance(manifest, dict) else None
    shard = metadata.get("shard") if isinstance(metadata, dict) else None
    return (shard.get("preparation"), shard.get("number")) if isinstance(shard, dict) else (None, None)


# ---- merging --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placed:
    """Users of all shards in their common order.

    Attributes
    ----------
    users
        Their common vocabulary.
    order
        (n_users,) place in the shards, one after the other, of each merged user.
    codes
        Of each shard, the merged codes (n,) of its users.
    """

    users: Vocabulary
    order: Int64
    codes: list[Int64]

    def starts(self, lengths: Sequence[Int64]) -> tuple[list[Int64], Int64]:
        """Merged position at which each user (n,) of each shard begins, and all offsets, from the users' lengths."""
        offsets = offsets_of(np.concatenate([[0], np.concatenate(list(lengths))[self.order]]))
        return [offsets[codes] for codes in self.codes], offsets


def placed(ids: Sequence[pl.Series]) -> Placed:
    """Put the users of shards into their common order.

    Parameters
    ----------
    ids
        Ids (n,) of the users of each shard.
    """
    every = pl.concat(list(ids))
    order = every.arg_sort().to_numpy().astype(np.int64)
    codes = np.empty(len(order), dtype=np.int64)
    codes[order] = np.arange(1, len(order) + 1)
    edges = np.cumsum([len(one) for one in ids])[:-1]
    return Placed(Vocabulary.in_order(every[order]), order, np.split(codes, edges))


def _merged(
    shards: Sequence[Dataset], metadata: Mapping[str, Any], folder: Path | None
) -> tuple[Dataset, dict[str, Path]]:
    """One Dataset of all shards, and the files of its arrays if they are made in `folder`."""
    places = placed([shard.users.ids for shard in shards])
    starts, offsets = places.starts([shard.lengths[1:] for shard in shards])
    arrays: dict[str, Any] = {}
    files: dict[str, Path] = {}
    for name in [name for name in _ARRAYS if getattr(shards[0], name) is not None]:
        target, files[name] = _target(name, int(offsets[-1]), folder)
        for shard, own in zip(shards, starts, strict=True):
            _scatter(getattr(shard, name), shard.offsets, own, target)
        arrays[name] = target
    dataset = Dataset(
        **arrays,
        offsets=offsets,
        users=places.users,
        catalogue=shards[0].catalogue,
        time_unit=shards[0].time_unit,
        metadata=dict(metadata),
        session_offsets=_sessions(shards, places.order),
        item_table=shards[0].item_table,
        user_table=_user_table(shards, places.order),
    )
    return dataset, {} if folder is None else files


def _with_item_order(dataset: Dataset, orders: Iterable[Positions], folder: Path) -> tuple[Dataset, Path]:
    """A Dataset with the order of its item histories, from that of each range of items, and the file that it is in."""
    rows = dataset.n_interactions
    spool = Spool(folder, {"by_item": position_type(rows)}, final_rows=rows)
    for order in orders:
        for part in chunks(len(order)):
            spool.append({"by_item": order[part]})
    return replace(dataset, by_item=spool.map()["by_item"]), spool.paths["by_item"]


def _target(name: str, rows: int, folder: Path | None) -> tuple[npt.NDArray[Any], Path]:
    """Array of all interactions to be filled: in memory, or in the file of an array."""
    dtype = DTYPES[name][0]
    if folder is None:
        return np.empty(rows, dtype=dtype), Path(name)
    file = folder / f"{name}.npy"
    return np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=(rows,)), file


def _scatter(values: npt.NDArray[Any], offsets: Int64, places: Int64, target: npt.NDArray[Any]) -> None:
    """Copy each user's slice of `values` to its place (n_users,) in `target`, so many users at a time as fit memory."""
    lengths = np.diff(offsets[1:])
    portion = offsets[1:-1] // CHUNK
    edges = np.append(np.flatnonzero(np.diff(portion, prepend=-1)), len(lengths))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        rows = slice(int(offsets[low + 1]), int(offsets[high + 1]))
        target[positions(places[low:high], places[low:high] + lengths[low:high])] = values[rows]


def _sessions(shards: Sequence[Dataset], order: Int64) -> Int64 | None:
    """Offsets of the sessions of all users, in the merged order of the users."""
    sessions = [shard.session_offsets for shard in shards if shard.session_offsets is not None]
    if len(sessions) < len(shards):
        return None
    lengths = np.concatenate([np.diff(one) for one in sessions])
    users = [shard.offsets[1:] for shard in shards]
    counts = np.concatenate([np.diff(np.searchsorted(*both)) for both in zip(sessions, users, strict=True)])
    begins = offsets_of(counts)[:-1][order]
    return offsets_of(lengths[positions(begins, begins + counts[order])])


def _user_table(shards: Sequence[Dataset], order: Int64) -> Table | None:
    tables = [shard.user_table for shard in shards if shard.user_table is not None]
    if len(tables) < len(shards):
        return None
    frame = pl.concat([table.frame for table in tables])[order] if tables[0].frame.width else tables[0].frame
    vectors = {name: np.concatenate([table.vectors[name] for table in tables])[order] for name in tables[0].vectors}
    return replace(tables[0], frame=frame, vectors=vectors)
