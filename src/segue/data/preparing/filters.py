"""Filters of interactions: the oldest rows of a log, duplicates and k-cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions
from segue.data.spool import chunks

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[Any]

DUPLICATES = ("drop", "keep", "first", "last")
FIRST = ("items", "users")

_BINS = 1 << 16


class Oldest:
    """Selects the `rows` oldest rows of a log without sorting it. Of equal times at the cut, the first in the log stay.

    Parameters
    ----------
    pieces
        Returns all times of the log, piece by piece; called a few times.
    rows
        Number of rows to keep, from 1 to all.
    """

    def __init__(self, pieces: Callable[[], Iterable[Int64]], rows: int) -> None:
        self._cut, below = nth_smallest(pieces, rows)
        self._left = rows - below  # of those at the cut itself

    def next(self, times: Int64) -> npt.NDArray[np.bool_]:
        """Mask (n,) of the rows of the next piece that stay. The pieces come in the order of the log, each once."""
        keep: npt.NDArray[np.bool_] = times < self._cut
        at_the_cut = np.flatnonzero(times == self._cut)[: self._left]
        keep[at_the_cut] = True
        self._left -= len(at_the_cut)
        return keep


def nth_smallest(pieces: Callable[[], Iterable[Int64]], n: int) -> tuple[int, int]:
    """The n-th smallest value (from 1) of all pieces, and the number of smaller ones: found by counting.

    >>> nth_smallest(lambda: [np.array([5, 1]), np.array([3, 3])], 3)
    (3, 1)
    """
    limits = [(int(piece.min()), int(piece.max())) for piece in pieces() if len(piece)]

    def counts(low: int, high: int) -> Int64:
        counted: Int64 = np.sum([counts_in_bins(piece, low, high) for piece in pieces()], axis=0)
        return counted

    return narrowed(min(low for low, _ in limits), max(high for _, high in limits), counts, n)


def narrowed(low: int, high: int, counts: Callable[[int, int], Int64], n: int) -> tuple[int, int]:
    """The n-th smallest value (from 1) and the number of smaller ones, from counts in ever smaller ranges.

    Parameters
    ----------
    low, high
        Smallest and largest value of all.
    counts
        Returns `counts_in_bins` of all values, for a range.
    n
        Rank of the value.
    """
    below = 0
    while low < high:  # the range that holds the value becomes smaller each time
        width, counted = _width(low, high), counts(low, high)
        reached = np.cumsum(counted)
        chosen = int(np.searchsorted(reached, n - below))
        below += int(reached[chosen] - counted[chosen])
        low, high = low + chosen * width, min(high, low + (chosen + 1) * width - 1)
    return low, below


def counts_in_bins(values: Int64, low: int, high: int) -> Int64:
    """Numbers of values (n,) in equal bins of the range from `low` to `high`; values outside are not counted."""
    # Differences of times may need all 64 bits: as unsigned numbers they are exact.
    above = values[(values >= low) & (values <= high)].view(np.uint64) - np.uint64(low % 2**64)
    return np.bincount((above // np.uint64(_width(low, high))).astype(np.int64), minlength=_BINS + 1)


def _width(low: int, high: int) -> int:
    return (high - low) // _BINS + 1


def without_duplicates(users: Codes, items: Codes, times: Int64 | None, which: str) -> Mask | None:
    """Mask (n,) of the interactions that stay; None for all. The arrays are sorted by user, then time.

    Parameters
    ----------
    users, items, times
        (n,) each; times may be None.
    which
        "keep": all stay. "drop": of those with the same user, item and time, the first stays (without times, all
        stay). "first", "last": of those with the same user and item, the first or the last stays.
    """
    if which == "keep" or not len(users) or (which == "drop" and times is None):
        return None
    pairs = users.astype(np.int64) * (int(items.max()) + 1) + items
    if which == "drop":
        assert times is not None
        return _first_of_each_time(pairs, users, times)
    order = np.argsort(pairs, kind="stable")
    same = pairs[order[1:]] == pairs[order[:-1]]
    keep = np.ones(len(users), dtype=bool)
    keep[order[1:][same] if which == "first" else order[:-1][same]] = False
    return keep


def _first_of_each_time(pairs: Int64, users: Codes, times: Int64) -> Mask | None:
    """Mask of the first of each user, item and time. Only runs of equal user and time are sorted; they are few."""
    tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    in_run = np.zeros(len(users), dtype=bool)
    in_run[1:] |= tied
    in_run[:-1] |= tied
    candidates = np.flatnonzero(in_run)
    if not len(candidates):
        return None
    run = np.cumsum(~np.concatenate([[False], tied]))[candidates]
    order = np.lexsort((pairs[candidates], run))
    ordered, runs = pairs[candidates][order], run[order]
    again = order[1:][(ordered[1:] == ordered[:-1]) & (runs[1:] == runs[:-1])]
    keep = np.ones(len(users), dtype=bool)
    keep[candidates[again]] = False
    return keep


def k_core(
    items: Codes,
    lengths: Int64,
    n_items: int,
    *,
    per_user: int | Int64,
    per_item: int | Int64,
    rounds: int | None = None,
    first: str = "items",
    progress: Callable[[int], None] | None = None,
) -> tuple[Mask, Int64, Int64]:
    """Drop items with too few interactions, then users, again and again, since each makes the other shrink.

    Parameters
    ----------
    items
        (n,) item codes, sorted by user.
    lengths
        (n_users + 1,) number of interactions of each user code.
    n_items
        The greatest item code.
    per_user, per_item
        The smallest number of interactions allowed: one number, or one per code (n_users + 1,) or (n_items + 1,).
    rounds
        Stop after that many rounds; None goes on until nothing changes, and the result is the k-core.
    first
        "items" or "users": the side that each round drops first.
    progress
        Called with the number of interactions dropped so far, after each round.

    Returns
    -------
    Mask (n,) of the interactions that stay, and the numbers left per user (n_users + 1,) and item (n_items + 1,).
    """
    core = Core(items, lengths, n_items)

    def drop(side: str) -> bool:
        """Drop the items, or users, that have too few left. True if there were any."""
        if side == "items":
            return core.drop_items(core.rare_items(per_item))
        return core.drop_users(per_user)

    done, changing = 0, True
    while changing and (rounds is None or done < rounds):
        drop(first)
        changing = drop("users" if first == "items" else "items")
        done += 1
        if progress is not None:
            progress(core.dropped)
    return core.keep, core.of_user, core.of_item


class Core:
    """Interactions that stay while rare items and users are dropped.

    Parameters
    ----------
    items, lengths, n_items
        As in `k_core`.

    Attributes
    ----------
    keep
        Mask (n,) of the interactions that stay.
    of_user, of_item
        Numbers left per user (n_users + 1,) and item (n_items + 1,).
    """

    def __init__(self, items: Codes, lengths: Int64, n_items: int) -> None:
        self._items, self._offsets = items, offsets_of(lengths)
        self.keep = np.ones(len(items), dtype=bool)
        self.of_user = lengths.copy()
        self.of_item = np.zeros(n_items + 1, dtype=np.int64)
        for part in chunks(len(items)):
            self.of_item += np.bincount(items[part], minlength=n_items + 1)

    @classmethod
    def resumed(cls, items: Codes, lengths: Int64, keep: Mask, of_user: Int64, of_item: Int64) -> Core:
        """The state that another object had: its attributes, and the first two arguments of its making."""
        core = cls.__new__(cls)
        core._items, core._offsets = items, offsets_of(lengths)
        core.keep, core.of_user, core.of_item = keep, of_user, of_item
        return core

    @property
    def dropped(self) -> int:
        """Number of interactions that were dropped."""
        return len(self._items) - int(self.of_user.sum())

    def rare_items(self, least: int | Int64) -> Mask:
        """Mask (n_items + 1,) of the items that have fewer interactions left than `least`, but some."""
        rare: Mask = (self.of_item > 0) & (self.of_item < least)
        return rare

    def drop_items(self, rare: Mask) -> bool:
        """Drop items (n_items + 1,); True if there were any."""
        if not rare.any():
            return False
        for part in chunks(len(self._items)):
            hit = rare[self._items[part]] & self.keep[part]
            dropped = np.flatnonzero(hit) + part.start
            self.keep[dropped] = False
            users = np.searchsorted(self._offsets, dropped, side="right") - 1
            self.of_user -= np.bincount(users, minlength=len(self.of_user))
        self.of_item[rare] = 0
        return True

    def drop_users(self, least: int | Int64) -> bool:
        """Drop the users that have fewer interactions left than `least`, but some; True if there were any."""
        short = (self.of_user > 0) & (self.of_user < least)
        if not short.any():
            return False
        codes = np.flatnonzero(short)
        dropped = positions(self._offsets[codes], self._offsets[codes + 1])
        dropped = dropped[self.keep[dropped]]
        self.keep[dropped] = False
        self.of_item -= np.bincount(self._items[dropped], minlength=len(self.of_item))
        self.of_user[short] = 0
        return True
