"""Histories with a part left out: an item, an item of the basket, a session, the user, or all purchases of an item.

Parts are slices of histories, or all occurrences of an item. Variants are histories without a part, as flat arrays.
Only a portion of the variants is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of

PartKind = Literal["item", "basket", "session", "user", "repeats"]
PART_KINDS: tuple[PartKind, ...] = ("item", "basket", "session", "user", "repeats")
"""An item before the session in progress, an item of the basket, an earlier session, the user, and all occurrences of
an item before the session in progress."""
ITEM, BASKET, SESSION, USER, REPEATS = range(5)

_MAX_ITEMS = 4_000_000
"""Maximum number of history items, summed over the variants of a portion."""
_MIN_COST = 32
"""Minimum number of items that a variant counts for, because its query takes memory too."""


@dataclass(frozen=True, eq=False)
class Parts:
    """m parts of n histories.

    Attributes
    ----------
    rows
        (m,) int64 rows of the histories, ascending.
    kinds
        (m,) int64 positions in `PART_KINDS`.
    starts, ends
        (m,) int64: the part is `Histories.items[start:end]`, one item or a session; empty for the user. For repeats it
        is the newest occurrence, and the part has the older ones too.
    numbers
        (m,) int64 from 1, oldest first: number of the item in its history or basket, or of the session in its history;
        0 for the user.
    lengths
        (m,) int64 number of items of each part.
    """

    rows: Int64
    kinds: Int64
    starts: Int64
    ends: Int64
    numbers: Int64
    lengths: Int64

    def __len__(self) -> int:
        return len(self.rows)

    def groups(self, histories: Histories, repeats: Int64) -> Int64:
        """Position in `repeats` (k,), the parts of repeats, of every item (any,) of the histories; -1 for none."""
        ends = histories.ends if histories.baskets is None else histories.baskets
        rows = rows_of(histories.starts, histories.ends)
        flat = positions(histories.starts, histories.ends)
        side = int(histories.items[flat].max(initial=0)) + 1
        keys = self.rows[repeats] * side + histories.items[self.starts[repeats]]
        order = np.argsort(keys)
        wanted = rows * side + histories.items[flat]
        place = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        group = order[place]
        return np.where((keys[group] == wanted) & (flat < ends[rows]), group, -1)


def parts_of(histories: Histories, kinds: Sequence[PartKind], max_history: int | None) -> Parts:
    """Parts of the given kinds, if the model reads at least one of their items.

    Parameters
    ----------
    histories
        n histories. Without `baskets` there are no basket parts; without `session_offsets` a history is one session.
    kinds
        Some of `PART_KINDS`.
    max_history
        Number of newest items that the model reads; None = all.
    """
    read = histories if max_history is None else histories.last(max_history)
    before = read.ends if read.baskets is None else read.baskets
    parts = [Parts(*np.zeros((6, 0), dtype=np.int64))]
    if "item" in kinds:
        parts.append(_items(ITEM, histories.starts, read.starts, before))
    if "basket" in kinds and histories.baskets is not None and read.baskets is not None:
        parts.append(_items(BASKET, histories.baskets, read.baskets, read.ends))
    if "session" in kinds:
        parts.append(_sessions(histories, read.starts))
    if "user" in kinds:
        rows = np.flatnonzero(histories.users)
        empty = histories.ends[rows]
        none = np.zeros_like(rows)
        parts.append(Parts(rows, np.full_like(rows, USER), empty, empty, none, none))
    if "repeats" in kinds:
        parts.append(_repeats(histories, read.starts, before))
    columns = [np.concatenate(column) for column in zip(*map(_columns, parts), strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Parts(*(column[order] for column in columns))


def _columns(parts: Parts) -> tuple[Int64, ...]:
    return parts.rows, parts.kinds, parts.starts, parts.ends, parts.numbers, parts.lengths


def _items(kind: int, origins: Int64, starts: Int64, ends: Int64) -> Parts:
    """A part for each item from `starts` (n,) to before `ends` (n,), numbered from `origins` (n,)."""
    rows, firsts = rows_of(starts, ends), positions(starts, ends)
    return Parts(rows, np.full_like(rows, kind), firsts, firsts + 1, firsts - origins[rows] + 1, np.ones_like(rows))


def _repeats(histories: Histories, starts: Int64, ends: Int64) -> Parts:
    """A part for each distinct item from `starts` (n,) to before `ends` (n,), at its newest occurrence.

    Its length is the number of occurrences in the whole history before `ends`.
    """
    rows, flat = rows_of(histories.starts, ends), positions(histories.starts, ends)
    order = np.lexsort((flat, histories.items[flat], rows))
    rows, flat = rows[order], flat[order]
    items = histories.items[flat]
    last = np.ones(len(flat), dtype=np.bool_)
    last[:-1] = (rows[1:] != rows[:-1]) | (items[1:] != items[:-1])
    counts = np.diff(np.flatnonzero(last), prepend=-1)
    rows, newest = rows[last], flat[last]
    order = np.lexsort((newest, rows))
    order = order[newest[order] >= starts[rows[order]]]
    rows, newest, counts = rows[order], newest[order], counts[order]
    numbers = newest - histories.starts[rows] + 1
    return Parts(rows, np.full_like(rows, REPEATS), newest, newest + 1, numbers, counts)


def _sessions(histories: Histories, starts: Int64) -> Parts:
    """A part for each session before the basket that ends after `starts` (n,)."""
    ends = histories.ends if histories.baskets is None else histories.baskets
    rows, inner = _within(histories.session_offsets, histories.starts, ends)
    all_rows = np.arange(len(histories))
    rows = np.concatenate([all_rows, rows])
    begins = np.concatenate([histories.starts, inner])
    order = np.lexsort((begins, rows))
    rows, begins = rows[order], begins[order]
    last = np.append(rows[1:] != rows[:-1], True)
    stops = np.where(last, ends[rows], np.append(begins[1:], 0))
    first = np.searchsorted(rows, all_rows)
    numbers = np.arange(len(rows)) - first[rows] + 1
    kept = (stops > begins) & (stops > starts[rows])
    rows = rows[kept]
    begins, stops = begins[kept], stops[kept]
    return Parts(rows, np.full_like(rows, SESSION), begins, stops, numbers[kept], stops - begins)


def _within(boundaries: Int64 | None, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
    """Rows (m,) and positions (m,) of the boundaries strictly between starts (n,) and ends (n,)."""
    if boundaries is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low = np.searchsorted(boundaries, starts, side="right")
    high = np.maximum(np.searchsorted(boundaries, ends, side="left"), low)
    return rows_of(low, high), np.asarray(boundaries)[positions(low, high)]


class Variants:
    """Variants of n histories: each history as it is, then without its first part, without its second part, ….

    A part that is the whole history cannot be left out, because models need at least one item. It has a variant for
    each of the references instead, in which the reference replaces the part.

    Parameters
    ----------
    histories
        n histories that are not empty.
    parts
        Parts of these histories.
    max_history
        Number of newest items that the model reads; None = all.
    references
        (r,) item codes.

    Attributes
    ----------
    offsets
        (n + 1,) int64; the variants of history i begin at `offsets[i]`, with the whole history.
    first
        (m,) int64 first variant of each part.
    copies
        (m,) int64 number of variants of each part: one, or the number of references.
    """

    def __init__(self, histories: Histories, parts: Parts, max_history: int | None, references: Int64) -> None:
        # Longer than the model reads, because older items move up when newer ones are left out.
        spare = int(parts.lengths.max(initial=0))
        self._cut = histories if max_history is None else histories.last(max_history + spare)
        self._parts, self._references = parts, references
        self._is_whole = (parts.lengths == histories.lengths[parts.rows]) & (parts.lengths > 0)
        self.copies = np.where(self._is_whole, len(references), 1).astype(np.int64)
        before = offsets_of(self.copies)
        self.first = before[:-1] + parts.rows + 1
        bounds = np.searchsorted(parts.rows, np.arange(len(histories) + 1))
        self.offsets = before[bounds] + np.arange(len(histories) + 1)
        # (variants,) the part that is left out; -1 for none.
        self._left_out = np.full(self.offsets[-1], -1, dtype=np.int64)
        self._left_out[positions(self.first, self.first + self.copies)] = np.repeat(np.arange(len(parts)), self.copies)

    def __len__(self) -> int:
        return len(self._left_out)

    def portions(self, query_size: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges (first, last) of variants that may be in memory at once, with their queries of this size."""
        rows = rows_of(self.offsets[:-1], self.offsets[1:])
        cost = np.cumsum(np.maximum(self._cut.lengths[rows], max(_MIN_COST, query_size)))
        first = 0
        while first < len(cost):
            spent = cost[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(cost, spent + _MAX_ITEMS, side="right")))
            yield first, last
            first = last

    def write(self, first: int, last: int) -> Histories:
        """Variants from `first` to before `last`, as histories in new arrays."""
        cut, parts = self._cut, self._parts
        variant = np.arange(first, last)
        row = np.searchsorted(self.offsets, variant, side="right") - 1
        part = self._left_out[first:last]
        start, end = cut.starts[row], cut.ends[row]
        if not len(parts):
            return cut.select(row)
        unchanged = part < 0
        replaced = self._is_whole[part] & ~unchanged
        low = np.where(unchanged, end, parts.starts[part])
        high = np.where(unchanged, end, parts.ends[part])
        flat, rows = positions(start, end), rows_of(start, end)
        stays = (flat < low[rows]) | (flat >= high[rows])
        of_repeats = (parts.kinds[part] == REPEATS) & ~unchanged
        if of_repeats.any():
            before = end if cut.baskets is None else cut.baskets[row]
            older = (cut.items[flat] == cut.items[parts.starts[part] * of_repeats][rows]) & (flat < before[rows])
            stays &= ~(of_repeats[rows] & older)
        stays |= replaced[rows] & (flat == high[rows] - 1)  # one position stays, for the reference
        counts = offsets_of(stays.astype(np.int64))
        slices = offsets_of(end - start)
        offsets, kept = counts[slices], flat[stays]
        items = cut.items[kept]
        items[offsets[:-1][replaced]] = self._references[(variant - self.first[part])[replaced]]

        def moved(rows: Int64, old: Int64) -> Int64:
            """New positions in the variants `rows` of the positions `old` in the histories."""
            return np.asarray(counts[slices[rows] + old - start[rows]])

        all_rows = np.arange(len(variant))
        boundaries = None
        if cut.session_offsets is not None:
            boundaries = np.unique(np.concatenate([offsets, moved(*_within(cut.session_offsets, start, end))]))
        return Histories(
            np.where(~unchanged & (parts.kinds[part] == USER), 0, cut.users[row]),
            items,
            offsets[:-1],
            offsets[1:],
            None if cut.times is None else cut.times[kept],
            None if cut.baskets is None else moved(all_rows, cut.baskets[row]),
            boundaries,
            None if cut.as_of is None else cut.as_of[row],
        )
