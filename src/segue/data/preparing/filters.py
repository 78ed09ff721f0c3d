"""Which interactions to keep: duplicates and k-cores, on arrays sorted by user, then time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions
from segue.data.spool import chunks

Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[Any]

DUPLICATES = ("drop", "keep", "first", "last")
FIRST = ("items", "users")


def without_duplicates(users: Codes, items: Codes, times: Int64 | None, which: str) -> Mask | None:
    """Which interactions (n,) stay; None for all. The arrays are sorted by user, then time.

    Parameters
    ----------
    users, items, times
        (n,) each; times may be None.
    which
        "keep": all stay. "drop": of those with the same user, item and time, the first stays (without times
        nothing is known to be a duplicate). "first", "last": of those with the same user and item, that one stays.
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
    """Only runs of the same user and time can hold duplicates; they are few, and only they are sorted."""
    tied = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    in_run = np.zeros(len(users), dtype=bool)
    in_run[1:] |= tied
    in_run[:-1] |= tied
    places = np.flatnonzero(in_run)
    if not len(places):
        return None
    run = np.cumsum(~np.concatenate([[False], tied]))[places]
    order = np.lexsort((pairs[places], run))
    ordered, runs = pairs[places][order], run[order]
    again = order[1:][(ordered[1:] == ordered[:-1]) & (runs[1:] == runs[:-1])]
    keep = np.ones(len(users), dtype=bool)
    keep[places[again]] = False
    return keep


def k_core(
    items: Codes,
    lengths: Int64,
    n_items: int,
    *,
    per_user: int,
    per_item: int,
    rounds: int | None = None,
    first: str = "items",
    progress: Callable[[int], None] | None = None,
) -> tuple[Mask, Int64, Int64]:
    """Drop items with too few interactions, then users, and again, since each makes the other shrink.

    Parameters
    ----------
    items
        (n,) item codes, sorted by user.
    lengths
        (n_users + 1,) number of interactions of each user code.
    n_items
        The greatest item code.
    per_user, per_item
        The least number of interactions.
    rounds
        Stop after that many rounds; None goes on until nothing changes, and the result is the k-core.
    first
        "items" or "users": what each round drops first.
    progress
        Called with the number of interactions dropped so far, after each round.

    Returns
    -------
    Which interactions stay (n,), and how many each user (n_users + 1,) and item (n_items + 1,) has left.
    """
    offsets = offsets_of(lengths)
    of_user = lengths.copy()
    of_item = np.zeros(n_items + 1, dtype=np.int64)
    for part in chunks(len(items)):
        of_item += np.bincount(items[part], minlength=n_items + 1)
    keep = np.ones(len(items), dtype=bool)

    def drop(what: str) -> bool:
        """Drop the items, or users, that have too few left; whether there were any."""
        own, least = (of_item, per_item) if what == "items" else (of_user, per_user)
        few = (own > 0) & (own < least)
        if few.any():
            if what == "items":
                _drop_items(few, items, keep, offsets, of_user)
            else:
                _drop_users(few, items, keep, offsets, of_item)
            own[few] = 0
        return bool(few.any())

    done, changing = 0, True
    while changing and (rounds is None or done < rounds):
        drop(first)
        changing = drop("users" if first == "items" else "items")
        done += 1
        if progress is not None:
            progress(len(items) - int(of_user.sum()))
    return keep, of_user, of_item


def _drop_items(rare: Mask, items: Codes, keep: Mask, offsets: Int64, of_user: Int64) -> None:
    for part in chunks(len(items)):
        hit = rare[items[part]] & keep[part]
        places = np.flatnonzero(hit) + part.start
        keep[places] = False
        users = np.searchsorted(offsets, places, side="right") - 1
        of_user -= np.bincount(users, minlength=len(of_user))


def _drop_users(short: Mask, items: Codes, keep: Mask, offsets: Int64, of_item: Int64) -> None:
    codes = np.flatnonzero(short)
    places = positions(offsets[codes], offsets[codes + 1])
    places = places[keep[places]]
    keep[places] = False
    of_item -= np.bincount(items[places], minlength=len(of_item))
