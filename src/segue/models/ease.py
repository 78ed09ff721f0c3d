"""EASE: a linear model from all items of a history to each item, in closed form.

Steck, *Embarrassingly Shallow Autoencoders for Sparse Data* (WWW 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.errors import ConfigError
from segue.memory import total_memory
from segue.models.base import CountingModel, ModelConfig
from segue.models.popularity import popularity
from segue.models.sparse import CommonCounts, DenseScores, distinct, histories_of_all, sets_of
from segue.settings import Count, Positive

_BYTES = 24
"""Bytes per element of the matrix at the peak: itself and its factor in float64, and the weights in float32 twice."""
_MAX_ITEMS = 20_000
"""Items whose matrix is inverted within minutes on one core."""
_COLUMNS = 1 << 24
"""Elements of the matrix that are made at once."""
_PANEL = 128
"""Columns of the weights that many histories read at once."""
_FEW = 32
"""Histories from which a copy of each panel pays."""


@dataclass(frozen=True)
class EASE(ModelConfig):
    """EASE: the score of an item is the sum of learnt weights from the items of the history to it.

    The weights B minimise |X - XB|² + reg · |B|² with a diagonal of 0, for the matrix X of histories and items with
    zeros and ones. With P = (XᵀX + reg · I)⁻¹, B(a, b) = -P(a, b) / P(b, b). The default of `reg` is that of the paper
    for MovieLens-20M. The matrix has items × items elements, so the time grows with the third power of the items:
    5,000 items take seconds, 20,000 take minutes and 10 GB.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.EASE(reg=100.0), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    reg: Positive = 500.0
    """Pull of the weights towards 0, as a number of histories."""

    items: Count | None = None
    """Number of items in the model, the most popular ones; the others have only their popularity. None means all."""

    smoothing: Positive = 1e-6
    """Weight of popularity, which orders items without any other score."""

    name: ClassVar[str] = "ease"

    def resolved(self, dataset: Dataset) -> EASE:
        """Return the settings.

        Raises
        ------
        ConfigError
            The matrix of all items is too large to invert.
        """
        size = dataset.n_items if self.items is None else min(self.items, dataset.n_items)
        needed = _BYTES * size**2
        if size > _MAX_ITEMS or needed > 0.8 * total_memory():
            raise ConfigError(
                f"ease inverts a matrix of items × items: {size:,} items need {needed / 1e9:,.0f} GB and a time that "
                f"grows with their third power; the limit is {_MAX_ITEMS:,} items. Give items=5000 for the most "
                "popular ones, keep fewer items (segue prepare --min-per-item), or use item-knn."
            )
        return self

    def build(self, n_users: int, n_items: int) -> EASEModel:
        """An empty module; `count` fills it."""
        return EASEModel(self, n_users, n_items)


class EASEInputs(NamedTuple):
    """Distinct items of n histories.

    Attributes
    ----------
    items
        (m,) int64 item codes, ascending within a history.
    offsets
        (n + 1,) int64 first item of each history, and the end of the last.
    """

    items: Tensor
    offsets: Tensor


class EASEModel(CountingModel):
    """Weights between the items of the model.

    Buffers
    -------
    weights
        (size, size) float32 weights B, from row to column.
    codes
        (size,) int64 item codes of rows and columns, ascending.
    shares
        (n_items + 1,) float32 popularity.
    """

    config: EASE
    dense_queries = True
    repeats_together = True
    weights: Tensor
    codes: Tensor
    shares: Tensor

    def __init__(self, config: EASE, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        size = n_items if config.items is None else min(config.items, n_items)
        self.register_buffer("weights", torch.zeros(size, size))
        self.register_buffer("codes", torch.arange(1, size + 1))
        self.register_buffer("shares", torch.zeros(n_items + 1))

    def count(self, dataset: Dataset) -> None:
        """Invert the matrix of items that occur together in the visible histories."""
        counts = dataset.item_counts()
        size = len(self.codes)
        codes = np.sort(1 + np.argsort(-counts[1:], kind="stable")[:size])
        sets = sets_of(histories_of_all(dataset), self.n_items)[:, codes].tocsr()
        common = CommonCounts(sets)
        gram = torch.empty(size, size, dtype=torch.float64)
        step = max(1, _COLUMNS // size)
        for first in range(0, size, step):
            gram[first : first + step] = torch.from_numpy(common.rows(first, min(first + step, size)))
        gram.diagonal().add_(self.config.reg)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram, out=gram))
        weights = inverse.div_(-inverse.diagonal().clone())
        weights.fill_diagonal_(0)
        self.weights.copy_(weights)
        self.codes.copy_(torch.from_numpy(codes))
        self.shares.copy_(torch.from_numpy(popularity(dataset)))

    def inputs(self, histories: Histories) -> EASEInputs:
        """Distinct items of each history."""
        rows, items = histories.seen()
        side = self.n_items + 1
        keys = distinct(rows * side + items)
        offsets = offsets_of(np.bincount(keys // side, minlength=len(histories)))
        return EASEInputs(torch.from_numpy(keys % side), torch.from_numpy(offsets))

    def encode(self, inputs: EASEInputs) -> Tensor:
        """Return the scores (n, n_items + 1) as queries: sums of the rows of the items of each history."""
        n = len(inputs.offsets) - 1
        place = torch.searchsorted(self.codes, inputs.items).clamp_(max=len(self.codes) - 1)
        known = self.codes[place] == inputs.items
        before = F.pad(known.cumsum(0), (1, 0))
        place, offsets = place[known], before[inputs.offsets]
        scores = (self.config.smoothing * self.shares).expand(n, -1).clone()
        # Panels of the weights that stay in the cache while all histories of a batch read them.
        width = len(self.codes) if n < _FEW or scores.device.type != "cpu" else _PANEL
        for first in range(0, len(self.codes), width):
            panel = self.weights[:, first : first + width].contiguous()
            sums = F.embedding_bag(place, panel, offsets, mode="sum", include_last_offset=True)
            scores.index_add_(1, self.codes[first : first + width], sums)
        return scores

    def scores(self) -> DenseScores:
        """The scores that the queries hold."""
        return DenseScores()

    def item_vectors(self) -> Tensor:
        """Rows of the weights (n_items + 1, size): similar items speak for the same items; 0 for items left out."""
        vectors = self.weights.new_zeros(self.n_items + 1, len(self.codes))
        vectors[self.codes] = self.weights
        return vectors

    def fault(self) -> str | None:
        """Codes of items that do not exist or do not rise."""
        if bool((self.codes[1:] <= self.codes[:-1]).any()):
            return "codes does not rise"
        if len(self.codes) and (int(self.codes[0]) < 1 or int(self.codes[-1]) > self.n_items):
            return "codes holds items that do not exist"
        return super().fault()
