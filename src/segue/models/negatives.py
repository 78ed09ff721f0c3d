"""Negatives: per user, drawn without rejection from items outside the history, or shared by a batch; and when
they take the place of the whole catalogue.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.ragged import Int64, offsets_of
from segue.errors import TrainingError

SMALL_CATALOGUE = 5_000
"""Number of items up to which the full softmax costs little more than a sampled one."""

Softmax = Literal["softmax", "sampled-softmax"]
SOFTMAXES: tuple[Softmax, ...] = get_args(Softmax)
"""Losses over the whole catalogue, exact or estimated: repeats and transitions go with them."""


def softmax_for(n_items: int) -> Softmax:
    """Softmax that suits a catalogue: the exact one while it is small."""
    return "softmax" if n_items <= SMALL_CATALOGUE else "sampled-softmax"


class Negatives:
    """Uniform draws from the items that are *not* in a user's visible history.

    A user with s distinct items leaves n_items - s others. Draw r among these; the item is the r-th one that is missing
    from the sorted history h_0 < h_1 < … (counted from 0). Before h_j, h_j - j items are missing. So the item is r plus
    the number of j with h_j - j <= r. This is one binary search per draw, in one flat array for all users.

    Parameters
    ----------
    dataset
        Training view of a Dataset.
    candidates
        (m,) codes of the items that may be drawn, ascending, with those of all visible histories; all if None. The
        search above is then among them.

    Raises
    ------
    TrainingError
        A user has taken every item, so no negative can be drawn.
    """

    def __init__(self, dataset: Dataset, candidates: Int64 | None = None) -> None:
        self.candidates = np.arange(1, dataset.n_items + 1) if candidates is None else candidates
        n_items = len(self.candidates)
        self.stride = n_items + 1
        histories = dataset.histories()
        rows, items = histories.seen()
        pairs = np.unique(histories.users[rows] * self.stride + np.searchsorted(self.candidates, items))
        users = pairs // self.stride
        taken = np.bincount(users, minlength=dataset.n_users + 1)
        self.free = n_items - taken  # (n_users + 1,)
        if (self.free[1:] == 0).any():
            full = dataset.users.decode(np.flatnonzero(self.free == 0)[:1])[0]
            raise TrainingError(
                f"user {full!r} has taken every item of the catalogue, so no negative can be drawn for this loss: "
                "use loss='softmax', or leave that user out."
            )
        self.first: Int64 = offsets_of(taken)[:-1]
        self.keys = pairs - (np.arange(len(pairs)) - self.first[users])

    def draw(self, users: Int64, k: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw item codes (n, k) outside the histories of the `users` (n,), uniform and independent."""
        drawn = (generator.random((len(users), k)) * self.free[users][:, None]).astype(np.int64)
        keys = (users * self.stride)[:, None] + drawn
        before = np.searchsorted(self.keys, keys.ravel(), side="right").reshape(keys.shape)
        items: Int64 = self.candidates[drawn + before - self.first[users][:, None]]
        return items


class SharedNegatives:
    """Negatives shared by all positions of a batch: some from its targets, the others uniform over the catalogue.

    Draws from the batch hit frequent targets often (Yi et al. 2019), and uniform draws reach all other items: mixed
    negative sampling (Yang et al. 2020). With u uniform draws, b draws from the batch and p the share of an item among
    all targets, the expected count of the item is u / n_items + b · p.

    Parameters
    ----------
    counts
        (n_items + 1,) number of times that each item is a target in training, or the expected number.
    k
        Number of draws.
    in_batch
        Share of the draws from the batch, rounded to whole draws.
    candidates
        (m,) codes of the items that may be drawn; all if None.
    """

    def __init__(
        self, counts: Int64 | npt.NDArray[np.float64], k: int, in_batch: float, candidates: Int64 | None = None
    ) -> None:
        self.candidates = candidates
        self.n_items = len(counts) - 1 if candidates is None else len(candidates)
        self.from_batch = round(in_batch * k)
        self.uniform = k - self.from_batch
        self.shares: npt.NDArray[np.float64] | None = None
        if self.from_batch:
            self.shares = counts / max(float(counts.sum()), 1.0)

    def draw(self, targets: Int64, generator: np.random.Generator) -> Int64:
        """Draw item codes (k,), with repeats; `targets` (n,) are those of the batch."""
        drawn: Int64 = generator.integers(0, self.n_items, self.uniform)
        drawn = drawn + 1 if self.candidates is None else self.candidates[drawn]
        if not self.from_batch:
            return drawn
        return np.concatenate([drawn, generator.choice(targets, self.from_batch)])

    def log_counts(self, items: Int64) -> npt.NDArray[np.float32]:
        """Logarithms (n,) of the expected counts of the items (n,) among the draws."""
        expected = np.full(len(items), self.uniform / self.n_items)
        if self.shares is not None:
            expected += self.from_batch * self.shares[items]
        logarithms: npt.NDArray[np.float32] = np.log(expected).astype(np.float32)
        return logarithms
