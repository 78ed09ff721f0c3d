"""Parts of the counting models that read the item table: the values of each item as a sparse matrix in buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from segue.data.dataset import Dataset
from segue.models.base import ModelConfig
from segue.models.features import Coding, Features
from segue.models.sparse import SparseModel, csr

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ContentCounts(SparseModel):
    """Counting model with the values of each item; it scores items that nobody has taken by their content.

    Buffers
    -------
    content_values, content_columns, content_offsets
        Sparse (values, n_items + 1): weight of each value in each item.
    """

    content_offsets: Tensor
    reads_content = True
    reads_both = ("content",)

    def __init__(self, config: ModelConfig, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.add_matrix("content", 0, n_items + 1)
        self._ragged.append("content_offsets")  # the number of values depends on the data

    def read_content(self, dataset: Dataset, names: Sequence[str]) -> Features:
        """Read the values and vectors of the items, as known from the visible interactions."""
        assert dataset.item_table is not None
        return Coding.of(dataset.item_table, names, dataset.item_counts() > 0).read(dataset.item_table)

    def set_content(self, features: Features, weights: np.ndarray[Any, np.dtype[np.float64]] | None = None) -> None:
        """Store the values of the items, each with its weight (m,), or with 1."""
        items = np.repeat(np.arange(self.n_items + 1), np.diff(features.offsets))
        n_values = int(features.values.max(initial=-1)) + 1
        weights = np.ones(len(items)) if weights is None else weights
        self._shapes["content"] = (n_values, self.n_items + 1)
        self.set_matrix("content", csr(weights, features.values, items, self._shapes["content"]))

    def content_of(self, histories: csr_matrix) -> csr_matrix:
        """Sparse (n, values): summed values of the items of n histories, given as sparse (n, n_items + 1)."""
        profiles = histories @ self.transposed("content")
        profiles.sort_indices()
        return profiles

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._shapes["content"] = (len(self.content_offsets) - 1, self.n_items + 1)
