"""Histories with a part left out: an item, an item of the basket, a whole session, or the knowledge of who it is.

Parts are slices of histories, and variants are histories without a part; both are flat arrays. Only a portion of the
variants is written out at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of

Kind = Literal["item", "basket", "session", "user"]
KINDS: tuple[Kind, ...] = ("item", "basket", "session", "user")
"""An item before the session in progress, an item of the basket, an earlier session, the user."""
ITEM, BASKET, SESSION, USER = range(4)

_ITEMS = 4_000_000
"""History items, summed over the variants that are written out at once."""
_LEAST = 32
"""What a variant counts for at least, since what a model makes of it takes memory too."""


@dataclass(frozen=True, eq=False)
class Parts:
    """m parts of n histories.

    Attributes
    ----------
    rows
        (m,) int64 which history, ascending.
    kinds
        (m,) int64 places in `KINDS`.
    starts, ends
        (m,) int64: the part is `Histories.items[start:end]`, one item or a session; empty for the user.
    numbers
        (m,) int64 from 1, oldest first: of an item in its history, of an item in the basket, of a session among those
        of the history; 0 for the user.
    """

    rows: Int64
    kinds: Int64
    starts: Int64
    ends: Int64
    numbers: Int64

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> Int64:
        """(m,) number of items."""
        return self.ends - self.starts


def parts_of(histories: Histories, kinds: Sequence[Kind], max_history: int | None) -> Parts:
    """All parts of the kinds asked for that a model reads, at least in part.

    Parameters
    ----------
    histories
        n of them. Without `baskets` all is history and there is no basket; without `session_offsets` a history is
        one session.
    kinds
        Some of `KINDS`.
    max_history
        How many of the newest items the model reads; None = all.
    """
    read = histories if max_history is None else histories.last(max_history)
    before = read.ends if read.baskets is None else read.baskets
    found = [Parts(*np.zeros((5, 0), dtype=np.int64))]
    if "item" in kinds:
        found.append(_items(ITEM, histories.starts, read.starts, before))
    if "basket" in kinds and histories.baskets is not None and read.baskets is not None:
        found.append(_items(BASKET, histories.baskets, read.baskets, read.ends))
    if "session" in kinds:
        found.append(_sessions(histories, read.starts))
    if "user" in kinds:
        rows = np.flatnonzero(histories.users)
        nowhere = histories.ends[rows]
        found.append(Parts(rows, np.full_like(rows, USER), nowhere, nowhere, np.zeros_like(rows)))
    columns = [np.concatenate(column) for column in zip(*map(_columns, found), strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Parts(*(column[order] for column in columns))


def _columns(parts: Parts) -> tuple[Int64, ...]:
    return parts.rows, parts.kinds, parts.starts, parts.ends, parts.numbers


def _items(kind: int, origins: Int64, starts: Int64, ends: Int64) -> Parts:
    """Each item from `starts` (n,) to before `ends`, numbered from `origins`."""
    rows, places = rows_of(starts, ends), positions(starts, ends)
    return Parts(rows, np.full_like(rows, kind), places, places + 1, places - origins[rows] + 1)


def _sessions(histories: Histories, starts: Int64) -> Parts:
    """Each session of what came before the basket that reaches beyond `starts` (n,)."""
    ends = histories.ends if histories.baskets is None else histories.baskets
    rows, inner = _within(histories.session_offsets, histories.starts, ends)
    every = np.arange(len(histories))
    rows = np.concatenate([every, rows])
    begins = np.concatenate([histories.starts, inner])
    order = np.lexsort((begins, rows))
    rows, begins = rows[order], begins[order]
    last = np.append(rows[1:] != rows[:-1], True)
    stops = np.where(last, ends[rows], np.append(begins[1:], 0))
    first = np.searchsorted(rows, every)
    numbers = np.arange(len(rows)) - first[rows] + 1
    kept = (stops > begins) & (stops > starts[rows])
    rows = rows[kept]
    return Parts(rows, np.full_like(rows, SESSION), begins[kept], stops[kept], numbers[kept])


def _within(boundaries: Int64 | None, starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
    """(row, position) of the boundaries strictly between starts (n,) and ends (n,)."""
    if boundaries is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low = np.searchsorted(boundaries, starts, side="right")
    high = np.maximum(np.searchsorted(boundaries, ends, side="left"), low)
    return rows_of(low, high), np.asarray(boundaries)[positions(low, high)]


class Variants:
    """All that a model is asked about n histories: each as it is, then without its first part, its second part, …

    A part that is all there is cannot be left out, as no model answers for nothing: in its place stands, in turn, each
    of the references. The variants of a history stand together.

    Parameters
    ----------
    histories
        n histories, none of them empty.
    parts
        Of these histories.
    max_history
        How many of the newest items the model reads.
    references
        (r,) item codes.

    Attributes
    ----------
    offsets
        (n + 1,) int64; the variants of history i are those from `offsets[i]`, which is the history itself.
    first
        (m,) int64 the first variant of each part.
    copies
        (m,) int64 how many variants each part has: one, or as many as there are references.
    """

    def __init__(self, histories: Histories, parts: Parts, max_history: int | None, references: Int64) -> None:
        # More than the model reads: older items move up when newer ones are left out.
        spare = int(parts.lengths.max(initial=0))
        self._cut = histories if max_history is None else histories.last(max_history + spare)
        self._parts, self._references = parts, references
        self._alone = (parts.lengths == histories.lengths[parts.rows]) & (parts.lengths > 0)
        self.copies = np.where(self._alone, len(references), 1).astype(np.int64)
        before = offsets_of(self.copies)
        self.first = before[:-1] + parts.rows + 1
        bounds = np.searchsorted(parts.rows, np.arange(len(histories) + 1))
        self.offsets = before[bounds] + np.arange(len(histories) + 1)
        # (variants,) which part is left out; -1 for none.
        self._left_out = np.full(self.offsets[-1], -1, dtype=np.int64)
        self._left_out[positions(self.first, self.first + self.copies)] = np.repeat(np.arange(len(parts)), self.copies)

    def __len__(self) -> int:
        return len(self._left_out)

    def portions(self) -> Iterator[tuple[int, int]]:
        """Ranges of variants that may be written out at once."""
        rows = rows_of(self.offsets[:-1], self.offsets[1:])
        cost = np.cumsum(np.maximum(self._cut.lengths[rows], _LEAST))
        first = 0
        while first < len(cost):
            spent = cost[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(cost, spent + _ITEMS, side="right")))
            yield first, last
            first = last

    def write(self, first: int, last: int) -> Histories:
        """The variants from `first` to before `last`, as histories of their own."""
        cut, parts = self._cut, self._parts
        variant = np.arange(first, last)
        row = np.searchsorted(self.offsets, variant, side="right") - 1
        part = self._left_out[first:last]
        start, end = cut.starts[row], cut.ends[row]
        if not len(parts):
            return cut.select(row)
        whole = part < 0
        alone = self._alone[part] & ~whole
        low = np.where(whole, end, parts.starts[part])
        high = np.where(whole, end, parts.ends[part]) - alone  # one place stays, for the reference
        offsets = offsets_of(end - start - (high - low))
        where = positions(start, start + np.diff(offsets))
        gaps = np.repeat(high - low, np.diff(offsets))
        where += gaps * (where >= np.repeat(low, np.diff(offsets)))
        items = cut.items[where]
        items[offsets[:-1][alone]] = self._references[(variant - self.first[part])[alone]]

        def moved(rows: Int64, places: Int64) -> Int64:
            """Where places of the histories are in the variants `rows`."""
            return places - start[rows] - np.clip(places - low[rows], 0, (high - low)[rows]) + offsets[rows]

        every = np.arange(len(variant))
        boundaries = None
        if cut.session_offsets is not None:
            boundaries = np.unique(np.concatenate([offsets, moved(*_within(cut.session_offsets, start, end))]))
        return Histories(
            np.where(~whole & (parts.kinds[part] == USER), 0, cut.users[row]),
            items,
            offsets[:-1],
            offsets[1:],
            None if cut.times is None else cut.times[where],
            None if cut.baskets is None else moved(every, cut.baskets[row]),
            boundaries,
            None if cut.moments is None else cut.moments[row],
        )
