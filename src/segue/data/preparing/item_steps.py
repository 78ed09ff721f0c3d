"""Steps of a preparation in shards that divide the interactions by item, after the shards of users were written.

Like the steps of `shard_steps`, each is a function of one part, and can be run again.

1. `divide_by_item` scatters the interactions of a shard over ranges of items.
2. `write_items` gathers a range from all shards and sorts it: the histories of its items.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.item_shards import array_types, item_shard_name, write_entry
from segue.data.order import time_order
from segue.data.preparing import shard_steps
from segue.data.preparing.partitions import ranges_of
from segue.data.preparing.shard_steps import ShardJob, complete
from segue.data.ragged import Int64, offsets_of
from segue.data.shards import shard_name
from segue.data.spool import Spool, chunks, release, scatter


@dataclass(frozen=True)
class ItemJob:
    """Facts that both steps know.

    Attributes
    ----------
    job
        The preparation.
    preparation
        Its name, for the manifests.
    interactions
        Interactions of all shards.
    has_times
        True if the log has times.
    """

    job: ShardJob
    preparation: str
    interactions: int
    has_times: bool

    @property
    def types(self) -> dict[str, np.dtype[np.generic]]:
        """Types of the columns that are divided."""
        return {"item": np.dtype(np.int32), **array_types(self.interactions, has_times=self.has_times)}


def save_ranges(job: ShardJob, counts: Int64, users: Sequence[Int64], starts: Sequence[Int64]) -> None:
    """Divide the items into as many ranges as there are shards, and leave what the steps need in files.

    Parameters
    ----------
    job
        The preparation.
    counts
        (n_items + 1,) interactions of each item.
    users, starts
        Of each shard, the code and the first position (n_users,) of its users in the merged Dataset.
    """
    (job.folder / "by-item").mkdir()
    middle, total = 2 * np.cumsum(counts) - counts, 2 * int(counts.sum())
    np.save(job.folder / "common" / "item-counts.npy", counts)
    np.save(job.folder / "common" / "item-ranges.npy", (middle * job.shards // total).clip(max=job.shards - 1))
    for shard, (codes, first) in enumerate(zip(users, starts, strict=True)):
        np.save(job.folder / "common" / f"merged-users-{shard:05d}.npy", codes.astype(np.int32))
        np.save(job.folder / "common" / f"merged-starts-{shard:05d}.npy", first)


def divide_by_item(whole: ItemJob, shard: int) -> tuple[int, ...]:
    """Scatter the interactions of a shard over the ranges of items; return the rows of each range."""
    job = whole.job
    ranges = np.load(job.folder / "common" / "item-ranges.npy")
    dataset = Dataset.open(job.folder / "made" / shard_name(shard), verify=False)
    users = np.append(0, np.load(job.folder / "common" / f"merged-users-{shard:05d}.npy"))
    starts = np.append(0, np.load(job.folder / "common" / f"merged-starts-{shard:05d}.npy"))
    shift = starts - dataset.offsets[:-1]  # from a position in the shard to that in the merged Dataset
    with complete(job.folder / "by-item" / shard_name(shard)) as folder:
        spools = [Spool(folder / item_shard_name(number), whole.types) for number in range(job.shards)]
        for part in chunks(dataset.n_interactions, shard_steps.ROWS_AT_A_TIME):
            first, last = np.searchsorted(dataset.offsets, [part.start, part.stop - 1], side="right") - 1
            edges = dataset.offsets[first : last + 2].clip(part.start, part.stop)
            user = np.repeat(np.arange(first, last + 1), np.diff(edges))
            items = np.array(dataset.items[part])
            rows = np.arange(part.start, part.stop)
            columns = {"item": items, "users": users[user], "order": shift[user] + rows}
            for name in ("times", "ratings"):
                values = getattr(dataset, name)
                columns |= {} if values is None else {name: np.array(values[part])}
            scatter(columns, ranges[items], spools)
            for array in (dataset.items, dataset.times, dataset.ratings):
                if array is not None:
                    release(array)
        return tuple(spool.rows for spool in spools)


def write_items(whole: ItemJob, rows: Sequence[tuple[int, ...]], number: int) -> None:
    """Write the histories of a range of items to the folder `made`.

    Parameters
    ----------
    whole
        The job.
    rows
        Rows of each range in each shard, as `divide_by_item` returns them.
    number
        Number of the range.
    """
    job, types = whole.job, whole.types
    items = 1 + np.flatnonzero(np.load(job.folder / "common" / "item-ranges.npy")[1:] == number)
    counts = np.load(job.folder / "common" / "item-counts.npy")[items]
    first, total = int(items[0]) if len(items) else 1, int(counts.sum())
    final = {name: dtype for name, dtype in types.items() if name != "item"}
    with complete(job.folder / "made" / item_shard_name(number)) as folder:
        histories = Spool(folder, final, final_rows=total)
        range_of = ranges_of(counts, total, shard_steps.ROWS_AT_A_TIME)
        for spool in _gathered(whole, rows, number, first, range_of, folder / "unsorted"):
            columns = spool.load()
            spool.remove()
            order = _order(columns.pop("item"), columns.get("times"), columns["order"])
            histories.append({name: columns.pop(name)[order] for name in final})
        shutil.rmtree(folder / "unsorted", ignore_errors=True)
        own = {"number": number, "of": job.shards, "preparation": whole.preparation}
        write_entry(folder, first, offsets_of(counts), own)


def _gathered(
    whole: ItemJob,
    rows: Sequence[tuple[int, ...]],
    number: int,
    first: int,
    range_of: npt.NDArray[np.int16],
    folder: Path,
) -> list[Spool]:
    """The rows of a range of items from all shards, in ranges small enough to sort."""
    spools = [Spool(folder / str(small), whole.types) for small in range(int(range_of.max(initial=0)) + 1)]
    for shard, of_range in enumerate(rows):
        source = whole.job.folder / "by-item" / shard_name(shard) / item_shard_name(number)
        for _, columns in Spool.reopened(source, whole.types, of_range[number]).pieces(shard_steps.ROWS_AT_A_TIME):
            scatter(columns, range_of[columns["item"] - first], spools)
    return spools


def _order(items: npt.NDArray[np.int32], times: Int64 | None, positions: npt.NDArray[np.integer[Any]]) -> Int64:
    """Order (n,) by item, then time, then position. Few rows share item and time, so only these are sorted again."""
    order = time_order(items, positions.astype(np.int64) if times is None else times)
    order = np.arange(len(items)) if order is None else order
    if times is None:
        return order
    item, time = items[order], times[order]
    follows = np.append(False, (item[1:] == item[:-1]) & (time[1:] == time[:-1]))
    tied = np.flatnonzero(follows | np.append(follows[1:], False))
    rows = order[tied]
    order[tied] = rows[np.lexsort((positions[rows], times[rows], items[rows]))]
    return order
