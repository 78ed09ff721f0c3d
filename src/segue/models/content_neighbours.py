"""Content neighbours: items whose content is nearest to that of the history.

Pazzani & Billsus, *Content-Based Recommendation Systems* (The Adaptive Web, 2007): cosine of an item and the profile of
a user, with rare values weighing more (Salton & Buckley, *Term-weighting Approaches*, 1988).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.models.base import ModelConfig
from segue.models.content import ContentCounts
from segue.models.features import FeatureNames, Features, resolved
from segue.models.popularity import popularity
from segue.models.sparse import BasketInputs, Floats, csr, histories_of_all, mean_entries, newest_of_items, sets_of
from segue.nn.buffers import take_saved_sizes
from segue.settings import Positive, ShareAboveZero


@dataclass(frozen=True)
class ContentNeighbours(ModelConfig):
    """Content neighbours: the score of an item is the cosine of its content and that of the history's items, summed.

    The content of an item has a part of its categories, and buckets of numbers and moments: 1 · log(n / n with the
    value) for each. Another part is its vectors. Each part that the item has is scaled to length 1. Popularity orders
    items of the same score.

    Examples
    --------
    >>> import polars as pl
    >>> log = segue.simulate(40, 6).log()
    >>> items = pl.DataFrame({"item": range(1, 301), "aisle": [f"aisle {item % 9}" for item in range(1, 301)]})
    >>> data = segue.prepare(log, items=items)
    >>> recommender = segue.fit(segue.ContentNeighbours(features=["aisle"]), segue.leave_last_out(data))
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    name: ClassVar[str] = "content-neighbours"

    features: FeatureNames = "auto"
    """Columns of the item table to compare: names, or "auto" for all but texts."""

    decay: ShareAboveZero = 0.9
    """Weight of an item of the history relative to one of the next session, by its newest occurrence."""

    smoothing: Positive = 1e-6
    """Weight of popularity, which orders items with the same score."""

    def resolved(self, dataset: Dataset) -> ContentNeighbours:
        """Return the settings with the names of the columns.

        Raises
        ------
        ConfigError
            There is no item table, or a column cannot be read.
        """
        return replace(self, features=resolved(self.features or "auto", dataset))

    def build(self, n_users: int, n_items: int) -> ContentNeighboursModel:
        """An empty module; `count` fills it."""
        return ContentNeighboursModel(self, n_users, n_items)


class ContentNeighboursModel(ContentCounts):
    """Content of the items.

    Buffers
    -------
    content_values, content_columns, content_offsets
        Sparse (values, n_items + 1): scaled weight of each value of an item.
    vectors
        (n_items + 1, width) float32 scaled vectors.
    shares
        (n_items + 1,) float32 popularity.
    usual_values
        () float32 mean number of values of a history of the fit.
    """

    config: ContentNeighbours
    vectors: Tensor
    shares: Tensor
    usual_values: Tensor

    def __init__(self, config: ContentNeighbours, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.register_buffer("vectors", torch.zeros(n_items + 1, 0))
        self.register_buffer("shares", torch.zeros(n_items + 1))
        self.register_buffer("usual_values", torch.ones(()))

    def count(self, dataset: Dataset) -> None:
        """Weigh the values of the items, and scale the content."""
        assert isinstance(self.config.features, tuple)
        features = self.read_content(dataset, self.config.features)
        self.set_content(features, _scaled_weights(features))
        lengths = np.linalg.norm(features.vectors, axis=1, keepdims=True)
        self.set_buffer("vectors", features.vectors / np.maximum(lengths, 1e-12))
        self.set_buffer("shares", popularity(dataset))
        self.usual_values.fill_(mean_entries(self.content_of(sets_of(histories_of_all(dataset), self.n_items))))

    def rows_of_scores(self, inputs: BasketInputs) -> Floats:
        """Sum the similarities to the items of each history."""
        newest = newest_of_items(inputs, self.n_items)
        weights = self.config.decay ** inputs.later[newest].astype(np.float64)
        histories = csr(weights, inputs.rows[newest], inputs.items[newest], (len(inputs.users), self.n_items + 1))
        scores = self.times(self.content_of(histories), "content", float(self.usual_values))
        if self.vectors.shape[1]:
            vectors = self.vectors.cpu().numpy()
            scores += (histories @ vectors) @ vectors.T
        scores += self.config.smoothing * self.shares.cpu().numpy()
        return np.maximum(scores, 0, out=scores)

    def item_vectors(self) -> Tensor:
        """Sparse COO (n_items + 1, values + width) of both parts of the content: similar items have similar content."""
        from scipy.sparse import csr_matrix, hstack

        parts = hstack([self.transposed("content"), csr_matrix(self.vectors.cpu().numpy())]).tocsr()
        parts.sort_indices()
        vectors = parts.tocoo()
        index = torch.from_numpy(np.stack([vectors.row, vectors.col]).astype(np.int64))
        values = torch.from_numpy(vectors.data.astype(np.float32))
        return torch.sparse_coo_tensor(index, values, vectors.shape, is_coalesced=True, check_invariants=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        take_saved_sizes(self, state_dict, prefix, "vectors")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def fault(self) -> str | None:
        """Vectors of another number of items."""
        fits = len(self.vectors) == self.n_items + 1
        return super().fault() if fits else "vectors has rows of items that do not exist"


def _scaled_weights(features: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Weights (m,) of the values of each item: log(n / n with the value), scaled to length 1 within the item."""
    counts = np.bincount(features.values)
    items = np.repeat(np.arange(len(features.offsets) - 1), np.diff(features.offsets))
    weights = np.log((len(features.offsets) - 1) / np.maximum(counts, 1))[features.values]
    squares = np.bincount(items, np.square(weights), minlength=len(features.offsets) - 1)
    scaled: np.ndarray[Any, np.dtype[np.float64]] = weights / np.sqrt(np.maximum(squares[items], 1e-24))
    return scaled
