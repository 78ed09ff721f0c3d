"""Targets that come with the list of items before them, joined to the histories that they belong to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Lists:
    """Targets with the items before them, sorted by user, then length of the list.

    Attributes
    ----------
    users, targets
        (n,) user and item codes.
    offsets
        (n + 1,): the items before target r are `items[offsets[r]:offsets[r + 1]]`, oldest first.
    items
        (m,) item codes.
    """

    users: Int64
    offsets: Int64
    items: Int64
    targets: Int64

    @classmethod
    def of(cls, users: Int64, lengths: Int64, items: Int64, targets: Int64) -> Lists:
        """Lists (n,) in the order of a file; `items` has all of them, end to end."""
        offsets = offsets_of(lengths)
        order = np.lexsort((lengths, users))
        flat = positions(offsets[:-1][order], offsets[1:][order])
        return cls(users[order], offsets_of(lengths[order]), items[flat], targets[order])

    @property
    def lengths(self) -> Int64:
        """(n,) number of items of each list."""
        return np.diff(self.offsets)


def chained(lists: Lists, name: str, users: Vocabulary) -> tuple[Int64, Int64]:
    """Sequences of users whose rows are steps of them: each row's list ends with the target of the row before.

    Parameters
    ----------
    lists
        The rows.
    name, users
        Source and vocabulary, for errors.

    Returns
    -------
    users, items
        (m,) codes of the interactions, in their order.

    Raises
    ------
    DataError
        The rows of a user are not steps of one sequence.
    """
    first = np.concatenate([[True], lists.users[1:] != lists.users[:-1]])
    start = np.flatnonzero(first)
    counts = np.diff(np.append(start, len(first)))
    known = lists.lengths[start]
    offsets = offsets_of(known + counts)
    items = np.empty(offsets[-1], dtype=np.int64)
    items[positions(offsets[:-1], offsets[:-1] + known)] = lists.items[
        positions(lists.offsets[start], lists.offsets[start] + known)
    ]
    place = np.repeat(offsets[:-1] + known, counts) + np.arange(len(first)) - np.repeat(start, counts)  # of each target
    items[place] = lists.targets
    begins = np.repeat(offsets[:-1], counts)
    fits = lists.lengths <= place - begins
    fits[fits] = _equal(
        items, (place - lists.lengths)[fits], lists.items, lists.offsets[:-1][fits], lists.lengths[fits]
    )
    if not fits.all():
        user = users.decode(lists.users[~fits][:1])[0]
        raise DataError(
            f"{name}: the rows of {user!r} are not steps of one sequence, in which each list ends with the target "
            "of the row before."
        )
    return np.repeat(lists.users[start], known + counts), items


def unread_items(lists: Lists, owners: Int64, items: Int64, name: str, users: Vocabulary) -> tuple[Int64, Int64]:
    """Items of the lists that stand behind the known history of their user.

    A list may begin with the whole history, or with the newest part of it. Without a history, it is all new.

    Parameters
    ----------
    lists
        One row for each user.
    owners, items
        (m,) user and item codes of the known histories, sorted by user, oldest first.
    name, users
        Source and vocabulary, for errors.

    Returns
    -------
    users, items
        Codes of the new interactions, in their order.

    Raises
    ------
    DataError
        A list does not go on from the history of its user.
    """
    starts, ends = (np.searchsorted(owners, lists.users, side=side) for side in ("left", "right"))
    known, lengths, begins = ends - starts, lists.lengths, lists.offsets[:-1]
    overlap = np.full(len(lengths), -1, dtype=np.int64)
    whole = np.flatnonzero(lengths >= known)
    overlap[whole[_equal(items, starts[whole], lists.items, begins[whole], known[whole])]] = 0
    overlap[overlap == 0] = known[overlap == 0]
    for new in range(int(lengths.max(initial=0))):  # windows of the newest items; one round, if nothing stands between
        left = np.flatnonzero((overlap < 0) & (lengths - new > 0))
        if not len(left):
            break
        left = left[lengths[left] - new <= known[left]]
        shared = lengths[left] - new
        fits = _equal(items, ends[left] - shared, lists.items, begins[left], shared)
        overlap[left[fits]] = shared[fits]
    if (overlap < 0).any():
        user = users.decode(lists.users[overlap < 0][:1])[0]
        raise DataError(f"{name}: the list of {user!r} does not go on from this user's earlier interactions.")
    fresh = positions(begins + overlap, lists.offsets[1:])
    return np.repeat(lists.users, lengths - overlap), lists.items[fresh]


def _equal(first: Int64, first_starts: Int64, second: Int64, second_starts: Int64, lengths: Int64) -> Bools:
    """Mask (n,) of the equal slices of two arrays, each with the same length in both."""
    one = first[positions(first_starts, first_starts + lengths)]
    other = second[positions(second_starts, second_starts + lengths)]
    rows = rows_of(np.zeros_like(lengths), lengths)
    counts: Int64 = np.bincount(rows[one != other], minlength=len(lengths))
    return np.asarray(counts == 0)
