"""UP-CF: recent popularity of items with each user, summed over similar users.

Faggioli, Polato & Aiolli, *Recency Aware Collaborative Filtering for Next Basket Recommendation* (UMAP 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.models.base import ModelConfig
from segue.models.popularity import popularity
from segue.models.sparse import (
    BasketInputs,
    Floats,
    SparseModel,
    add_into,
    baskets_of,
    csr,
    histories_of_all,
    mean_entries,
    ones,
)
from segue.settings import Count, Positive, between

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class UPCF(ModelConfig):
    """UP-CF: user-wise recent popularity, weighted by the similarity of the users.

    The user-wise popularity of an item is the share of the user's newest `recency` baskets with it. The score of an
    item for user u is

    Σ_v similarity(u, v)^locality · popularity of the item with v + smoothing · popularity

    over all users v, u included. The similarity of two sets of items A (of u) and B (of v) is the asymmetric cosine
    |A ∩ B| / (|A|^asymmetry · |B|^(1 - asymmetry)). A session is a basket; without sessions each interaction is one.
    The paper chooses the three settings for each Dataset; these defaults were chosen on a validation part of The
    Complete Journey.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.UPCF(recency=3), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    recency: Count | None = 25
    """Number of newest baskets of each user that count; None means all."""

    locality: Positive = 5.0
    """Exponent of the similarity: large values leave only the most similar users."""

    asymmetry: Annotated[float, between(0, 1)] = 0.25
    """Share of the user's own set in the norm of the similarity; 0.5 is the cosine."""

    smoothing: Positive = 1e-6
    """Weight of popularity, which orders items without any other score."""

    name: ClassVar[str] = "up-cf"

    def build(self, n_users: int, n_items: int) -> UPCFModel:
        """An empty module; `count` fills it."""
        return UPCFModel(self, n_users, n_items)


class UPCFModel(SparseModel):
    """Sets of items and recent popularity of the users of the fit.

    Buffers
    -------
    sets_values, sets_columns, sets_offsets
        Sparse (n_users + 1, n_items + 1): 1 for the items of each user.
    recent_values, recent_columns, recent_offsets
        Sparse (n_users + 1, n_items + 1) user-wise popularity.
    shares
        (n_items + 1,) float32 popularity.
    usual_length
        () float32 mean number of distinct items of a history of the fit.
    """

    config: UPCF
    shares: Tensor
    usual_length: Tensor
    reads_both = ("recent",)

    def __init__(self, config: UPCF, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.add_matrix("sets", n_users + 1, n_items + 1)
        self.add_matrix("recent", n_users + 1, n_items + 1)
        self.register_buffer("shares", torch.zeros(n_items + 1))
        self.register_buffer("usual_length", torch.ones(()))

    def count(self, dataset: Dataset) -> None:
        """Make the sets and the user-wise popularity of all users from their visible histories."""
        inputs = BasketInputs(np.arange(self.n_users + 1), *baskets_of(histories_of_all(dataset)))
        sets = self._sets(inputs)
        self.usual_length.fill_(mean_entries(sets))
        self.set_matrix("sets", sets)
        self.set_matrix("recent", self._recent(inputs))
        self.set_buffer("shares", popularity(dataset))

    def rows_of_scores(self, inputs: BasketInputs) -> Floats:
        """Sum the user-wise popularity of all users, weighted by similarity."""
        sets = self._sets(inputs)
        sizes, others = np.diff(sets.indptr), np.diff(self.matrix("sets").indptr)
        share = self.config.asymmetry
        weights = self.times_transposed(sets, "sets", float(self.usual_length))  # sizes of the intersections
        weights /= (np.maximum(sizes, 1) ** share)[:, None].astype(np.float32)
        weights /= (np.maximum(others, 1) ** (1 - share)).astype(np.float32)
        torch.from_numpy(weights).pow_(self.config.locality)
        known = np.flatnonzero(inputs.users)
        weights[known, inputs.users[known]] = 0  # their history of the question stands in for that of the fit
        scores = self.times(weights, "recent", self.n_users)
        scores += self.config.smoothing * self.shares.cpu().numpy()
        return add_into(scores, self._recent(inputs))

    def _sets(self, inputs: BasketInputs) -> csr_matrix:
        """Sparse (n, n_items + 1): 1 for the items of each history."""
        return ones(inputs.rows, inputs.items, (len(inputs.users), self.n_items + 1))

    def _recent(self, inputs: BasketInputs) -> csr_matrix:
        """Sparse (n, n_items + 1) share of the newest baskets of each history with each item."""
        window = np.iinfo(np.int64).max if self.config.recency is None else self.config.recency
        kept = np.flatnonzero(inputs.later < window)
        rows, items = inputs.rows[kept], inputs.items[kept]
        weights = 1 / np.minimum(inputs.counts, window)[rows]
        return csr(weights, rows, items, (len(inputs.users), self.n_items + 1))
