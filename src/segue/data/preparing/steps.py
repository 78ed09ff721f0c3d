"""Users, items and interactions after each step of a preparation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64


class Steps:
    """Users, items and interactions after each step, counted partition by partition.

    Parameters
    ----------
    n_users, n_items
        The largest codes.
    """

    def __init__(self, n_users: int, n_items: int) -> None:
        self._sizes = (n_users + 1, n_items + 1)
        self._tables: dict[str, tuple[Int64, Int64]] = {}

    def count(self, step: str, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> None:
        """Add the interactions (n,) of one partition after a step."""
        zero = (np.zeros(self._sizes[0], dtype=np.int64), np.zeros(self._sizes[1], dtype=np.int64))
        of_user, of_item = self._tables.setdefault(step, zero)
        if len(users):
            low = int(users.min())  # a partition holds a range of users: the others need not be touched
            counts = np.bincount(users - low)
            of_user[low : low + len(counts)] += counts
        of_item += np.bincount(items, minlength=len(of_item))

    def put(self, step: str, of_user: Int64, of_item: Int64) -> None:
        """Set the numbers of interactions per user and item after a step."""
        self._tables[step] = (of_user, of_item)

    def last(self) -> tuple[Int64, Int64]:
        """Interactions per user code and per item code after the last step."""
        return next(reversed(self._tables.values()))

    def items_seen(self) -> npt.NDArray[np.bool_]:
        """Masks (steps, n_items + 1) of the items with interactions after each step."""
        return np.stack([of_item > 0 for _, of_item in self._tables.values()])

    def table(self) -> list[dict[str, Any]]:
        """One row per step."""
        return [
            {
                "step": step,
                "users": int(np.count_nonzero(of_user)),
                "items": int(np.count_nonzero(of_item)),
                "interactions": int(of_user.sum()),
            }
            for step, (of_user, of_item) in self._tables.items()
        ]
