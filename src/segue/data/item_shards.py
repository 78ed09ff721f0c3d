"""Histories of items in shards: of a range of the items, the users of all shards who took them, oldest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.item_histories import Positions, position_type
from segue.data.ragged import Int64
from segue.data.stored import map_array
from segue.errors import StorageError
from segue.files import read_manifest, whole_number, write_manifest

MANIFEST = "items.json"
FORMAT_VERSION = 1

_KIND = "item histories"
_DTYPES: Mapping[str, np.dtype[Any]] = {
    "users": np.dtype(np.int32),
    "times": np.dtype(np.int64),
    "ratings": np.dtype(np.float32),
}


@dataclass(frozen=True, eq=False)
class ItemShard:
    """Histories of consecutive items in a Dataset in shards: who took them, oldest first. From `Shards.item_shard`.

    Users and positions are those of `Shards.merged`: together, the shards hold the `Dataset.item_histories` of it.

    Attributes
    ----------
    items
        (k,) int64 codes of the items, ascending.
    offsets
        (k + 1,) int64: the history of the item `items[r]` is `users[offsets[r]:offsets[r + 1]]`.
    users
        (n,) int32 codes, of `Shards.users`.
    order
        (n,) positions of the interactions in the merged arrays; int32, or int64 beyond 2³¹ interactions.
    times
        (n,) int64; None without times.
    ratings
        (n,) float32.

    Examples
    --------
    >>> import polars as pl
    >>> log = {"user": ["ann", "bob", "ann"], "item": ["tea", "tea", "jam"], "time": [2, 1, 3], "rating": [5, 4, 3]}
    >>> shards = segue.prepare_shards(pl.DataFrame(log), "rated", shards=2)
    >>> first, second = shards.item_shard(0), shards.item_shard(1)
    >>> first.items.tolist(), shards.users.decode(first.users).to_list(), first.ratings.tolist()  # of jam
    ([1], ['ann'], [3.0])
    >>> second.items.tolist(), shards.users.decode(second.users).to_list(), second.ratings.tolist()  # of tea
    ([2], ['bob', 'ann'], [4.0, 5.0])
    """

    items: Int64
    offsets: Int64
    users: npt.NDArray[np.int32]
    order: Positions
    times: Int64 | None
    ratings: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"ItemShard({len(self.items):,} items, {len(self):,} interactions)"

    @property
    def lengths(self) -> Int64:
        """(k,) number of interactions of each item."""
        return np.diff(self.offsets)


def item_shard_name(number: int) -> str:
    """Name of the folder of the histories of a range of items.

    >>> item_shard_name(3)
    'items-00003'
    """
    return f"items-{number:05d}"


def array_types(interactions: int, *, has_times: bool) -> dict[str, np.dtype[Any]]:
    """Name and type of each array of an item shard, but for its offsets, of a log with so many interactions."""
    types: dict[str, np.dtype[Any]] = {"order": position_type(interactions), **_DTYPES}
    return types if has_times else {name: dtype for name, dtype in types.items() if name != "times"}


def write_entry(folder: Path, first: int, offsets: Int64, shard: Mapping[str, Any]) -> None:
    """Write the offsets (k + 1,) and the manifest beside the other arrays of an item shard.

    Parameters
    ----------
    folder
        Folder with the arrays.
    first
        Code of the first item.
    offsets
        As in `ItemShard`.
    shard
        Number and preparation, for the manifest.
    """
    np.save(folder / "offsets.npy", offsets)
    content = {"first": first, "items": len(offsets) - 1, "shard": dict(shard)}
    write_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, content)


def open_item_shard(folder: Path, users: int, interactions: int, *, verify: bool) -> ItemShard:
    """Open an item shard of a Dataset with so many users and interactions; its arrays are memory-mapped.

    Raises
    ------
    StorageError
        A file is missing or altered, or does not fit the others.
    """
    manifest = read_manifest(folder, MANIFEST, _KIND, FORMAT_VERSION, verify=verify)
    first, n_items = (whole_number(manifest, name, folder / MANIFEST) for name in ("first", "items"))
    offsets = map_array(folder / "offsets.npy", (np.dtype(np.int64),))
    types = array_types(interactions, has_times="times.npy" in manifest["files"])
    arrays = {name: map_array(folder / f"{name}.npy", (dtype,)) for name, dtype in types.items()}
    rows = int(offsets[-1]) if len(offsets) else -1
    fits = len(offsets) == n_items + 1 and offsets[0] == 0 and not (np.diff(offsets) < 0).any()
    if not fits or any(len(array) != rows for array in arrays.values()):
        raise StorageError(f"{folder}: its arrays do not have the sizes that {MANIFEST} says: it was edited.")
    for name, low, high in (("users", 1, users), ("order", 0, interactions - 1)):
        if verify and rows and (arrays[name].min() < low or arrays[name].max() > high):
            raise StorageError(f"{folder}: {name}.npy holds values beyond {low:,} to {high:,}: it was edited.")
    return ItemShard(
        items=np.arange(first, first + n_items),
        offsets=offsets,
        users=arrays["users"],
        order=arrays["order"],
        times=arrays.get("times"),
        ratings=arrays["ratings"],
    )
