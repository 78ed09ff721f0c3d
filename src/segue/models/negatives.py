"""Negatives: items that a user has not taken, drawn without rejection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.ragged import Int64, offsets_of
from segue.errors import TrainingError


class Negatives:
    """Uniform draws from the items that are *not* in a user's visible history.

    A user with s distinct items leaves n_items - s others. Draw r among these; the item is the r-th that is missing
    from the sorted history. In a sorted history h_0 < h_1 < … (counted from 0), h_j - j items are missing before
    h_j, so the wanted item is r plus the number of j with h_j - j <= r: one binary search per draw, in one flat
    array for all users.

    Raises
    ------
    TrainingError
        A user has taken every item, so there is nothing to draw.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.stride = dataset.n_items + 1
        histories = dataset.histories()
        rows, items = histories.seen()
        pairs = np.unique(histories.users[rows] * self.stride + (items - 1))
        users = pairs // self.stride
        taken = np.bincount(users, minlength=dataset.n_users + 1)
        self.free = dataset.n_items - taken  # (n_users + 1,)
        if (self.free[1:] == 0).any():
            full = dataset.users.decode(np.flatnonzero(self.free == 0)[:1])[0]
            raise TrainingError(
                f"user {full!r} has taken every item of the catalogue, so no negative can be drawn for this loss: "
                "use loss='softmax', or leave that user out."
            )
        self.first: Int64 = offsets_of(taken)[:-1]
        self.keys = pairs - (np.arange(len(pairs)) - self.first[users])

    def draw(self, users: Int64, k: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Item codes (n, k) that are in no history of the `users` (n,), uniform and independent."""
        drawn = (generator.random((len(users), k)) * self.free[users][:, None]).astype(np.int64)
        wanted = (users * self.stride)[:, None] + drawn
        before = np.searchsorted(self.keys, wanted.ravel(), side="right").reshape(wanted.shape)
        return drawn + before - self.first[users][:, None] + 1
