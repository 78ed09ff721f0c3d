"""Lists that are made ahead, and kept until their user does something.

A shop asks for the same person's list again and again, and most of the time nothing has happened since. Such a list
needs no model. A change of the user's live history drops the list before the change is acknowledged, so an answer after
an event is as new as without kept lists, and nothing is left of a user who was forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.inference.scoring.popular import Scores

LONGEST = 100
"""Length of the longest list that is kept."""


class KeptList(NamedTuple):
    """The list of a user.

    Attributes
    ----------
    items
        (k,) int32 item codes, best first; 0 behind the last.
    scores
        (k,) float32 scores.
    """

    items: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]


class KeptLists:
    """The lists of some users. One thread reads, and others may write meanwhile.

    Parameters
    ----------
    capacity
        Largest number of users; the oldest lists make room for new ones.
    version
        Gives the version of a user's live history now. A change raises it, and then calls `drop`.
    """

    def __init__(self, capacity: int, version: Callable[[int], int]) -> None:
        self._capacity, self._version = capacity, version
        self._lists: dict[int, KeptList] = {}
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._lists)

    def find(self, user: int, k: int) -> KeptList | None:
        """The list of a user code, with k items or more; None if there is none."""
        kept = self._lists.get(user)
        return None if kept is None or len(kept.items) < k else kept

    def drop(self, user: int) -> None:
        """Forget the list of a user code."""
        with self._writing:
            self._lists.pop(user, None)

    def keep(self, users: list[int], versions: list[int], items: Int64, scores: Scores) -> None:
        """Keep the lists (n, k) of user codes (n,), unless a history has changed since these versions (n,)."""
        if not self._capacity or not users:
            return
        items, scores = items[:, :LONGEST].astype(np.int32), scores[:, :LONGEST].astype(np.float32)
        with self._writing:
            for row, (user, version) in enumerate(zip(users, versions, strict=True)):
                self._lists.pop(user, None)
                if self._version(user) == version:
                    self._lists[user] = KeptList(items[row].copy(), scores[row].copy())
            while len(self._lists) > self._capacity:
                del self._lists[next(iter(self._lists))]


def newest_users(dataset: Dataset, n: int) -> Int64:
    """Codes of the n users with the newest interactions, newest first; by code in data without times."""
    users = np.flatnonzero(dataset.lengths)
    if dataset.times is None or not n:
        return users[:n]
    newest = dataset.times[dataset.ends[users] - 1]
    if len(users) > n:
        chosen = np.argpartition(-newest, n - 1)[:n]
        users, newest = users[chosen], newest[chosen]
    ordered: Int64 = users[np.argsort(-newest, kind="stable")]
    return ordered
