"""Item neighbours: items that the same users took, by the cosine of their columns.

Sarwar, Karypis, Konstan & Riedl, *Item-based Collaborative Filtering Recommendation Algorithms* (WWW 2001) and
Deshpande & Karypis, *Item-based Top-N Recommendation Algorithms* (TOIS 2004).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.models.base import ModelConfig
from segue.models.popularity import popularity
from segue.models.sparse import (
    BasketInputs,
    CommonCounts,
    Floats,
    SparseModel,
    csr,
    histories_of_all,
    mean_entries,
    nearest,
    newest_of_items,
    sets_of,
)
from segue.settings import Count, Penalty, Positive, ShareAboveZero

_ELEMENTS = 1 << 24
"""Similarities that are dense at once."""


@dataclass(frozen=True)
class ItemKNN(ModelConfig):
    """Item neighbours: the score of an item is its similarity to the items of the history, summed.

    similarity(a, b) = c(a, b) / (√(c(a) · c(b)) + shrinkage)

    c(a) is the number of histories (or sessions) with a, and c(a, b) of those with both. Each item a of the history
    adds similarity(a, b) to its `neighbours` most similar items b. Popularity orders items without any score. The
    settings are those of the papers, except the number of neighbours, which they choose for each Dataset.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.ItemKNN(neighbours=20), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    neighbours: Count = 100
    """Number of most similar items that are kept for each item."""

    within: Literal["history", "session"] = "history"
    """Unit in which two items occur together."""

    shrinkage: Penalty = 0.0
    """Pull of similarities of rare items towards 0."""

    decay: ShareAboveZero = 1.0
    """Weight of an item of the history relative to one of the next session, by its newest occurrence."""

    smoothing: Positive = 1e-6
    """Weight of popularity, which orders items without any other score."""

    name: ClassVar[str] = "item-knn"

    def resolved(self, dataset: Dataset) -> ItemKNN:
        """Return the settings.

        Raises
        ------
        ConfigError
            Items shall occur together within sessions, and the Dataset has none.
        """
        if self.within == "session" and dataset.session_offsets is None:
            raise ConfigError("within='session' needs a Dataset with sessions, and this one has none: use 'history'.")
        return self

    def build(self, n_users: int, n_items: int) -> ItemKNNModel:
        """An empty module; `count` fills it."""
        return ItemKNNModel(self, n_users, n_items)


class ItemKNNModel(SparseModel):
    """Neighbours of each item.

    Buffers
    -------
    similar_values, similar_columns, similar_offsets
        Sparse (n_items + 1, n_items + 1): similarities of the neighbours of each item.
    shares
        (n_items + 1,) float32 popularity.
    usual_length
        () float32 mean number of distinct items of a history of the fit.
    """

    config: ItemKNN
    shares: Tensor
    usual_length: Tensor
    reads_both = ("similar",)

    def __init__(self, config: ItemKNN, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.add_matrix("similar", n_items + 1, n_items + 1)
        self.register_buffer("shares", torch.zeros(n_items + 1))
        self.register_buffer("usual_length", torch.ones(()))

    def count(self, dataset: Dataset) -> None:
        """Count items that occur together, and keep the most similar ones of each."""
        histories = sets_of(histories_of_all(dataset), self.n_items)
        self.usual_length.fill_(mean_entries(histories))
        units = histories if self.config.within == "history" else sets_of(_sessions(dataset), self.n_items)
        common, side = CommonCounts(units), self.n_items + 1
        roots = np.sqrt(common.counts)
        values, columns, lengths = [], [], []
        step = max(1, _ELEMENTS // side)
        for first in range(0, side, step):
            last = min(first + step, side)
            norms = np.multiply.outer(roots[first:last], roots)
            norms += self.config.shrinkage
            distances = common.rows(first, last)
            np.divide(distances, -norms, out=distances, where=distances > 0, casting="same_kind")
            distances[np.arange(last - first), np.arange(first, last)] = 0
            distances[distances == 0] = np.inf
            rows, chosen = np.nonzero(nearest(distances, self.config.neighbours))
            values.append(-distances[rows, chosen])
            columns.append(chosen)
            lengths.append(np.bincount(rows, minlength=last - first))
        rows = np.repeat(np.arange(side), np.concatenate(lengths))
        self.set_matrix("similar", csr(np.concatenate(values), rows, np.concatenate(columns), (side, side)))
        self.set_buffer("shares", popularity(dataset))

    def rows_of_scores(self, inputs: BasketInputs) -> Floats:
        """Sum the similarities to the items of each history."""
        newest = newest_of_items(inputs, self.n_items)
        weights = self.config.decay ** inputs.later[newest].astype(np.float64)
        shape = (len(inputs.users), self.n_items + 1)
        scores = self.times(
            csr(weights, inputs.rows[newest], inputs.items[newest], shape), "similar", float(self.usual_length)
        )
        scores += self.config.smoothing * self.shares.cpu().numpy()
        return scores

    def item_vectors(self) -> Tensor:
        """Sparse COO (n_items + 1, n_items + 1) of the similarities: similar items have the same neighbours."""
        matrix = self.matrix("similar").tocoo()
        index = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        values = torch.from_numpy(matrix.data)
        return torch.sparse_coo_tensor(index, values, matrix.shape, is_coalesced=True, check_invariants=False)


def _sessions(dataset: Dataset) -> Histories:
    """The visible sessions, each as a history."""
    sessions = dataset.sessions
    return Histories(sessions.users, sessions.items, sessions.starts, sessions.ends)
