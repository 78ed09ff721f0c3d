"""Similar items: cosines of a model's item vectors, ranked by the same code as all other scores."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.scorer import Scorer
from segue.inference.scoring.ranking import Progress, top_k
from segue.models.base import Model
from segue.models.scores import ItemScores, ProductScores


class NewestItem(NamedTuple):
    """The newest item of n histories.

    Attributes
    ----------
    items
        (n,) int64 item codes.
    """

    items: Tensor


class ItemCosines(Model):
    """Model that scores an item by its cosine with the newest item of a history.

    Parameters
    ----------
    model
        The model of the item vectors; its config and sizes are used.
    vectors
        (n_items + 1, width) item vectors.
    """

    max_history = 1
    vectors: Tensor
    known: Tensor

    def __init__(self, model: Model, vectors: Tensor) -> None:
        super().__init__(model.config, model.n_users, model.n_items)
        norms = torch.linalg.vector_norm(vectors, dim=1)
        self.register_buffer("known", _known(norms, model))
        self.register_buffer("vectors", vectors * _inverse(norms)[:, None])

    def inputs(self, histories: Histories) -> NewestItem:
        """Codes of the newest items."""
        return NewestItem(torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64)))

    def encode(self, inputs: NewestItem) -> Tensor:
        """Unit vectors (n, width) of the newest items."""
        return self.vectors[inputs.items]

    def scores(self) -> ItemScores:
        """Cosines as products of unit vectors."""
        return ProductScores(self.vectors)


class SparseItemCosines(ItemCosines):
    """`ItemCosines` for sparse vectors in COO form; only the queries of a batch are dense.

    Rows are taken from the sorted indices directly, because torch's own selection of sparse rows fails in inference
    mode.
    """

    columns: Tensor
    values: Tensor
    offsets: Tensor

    def __init__(self, model: Model, vectors: Tensor) -> None:
        Model.__init__(self, model.config, model.n_users, model.n_items)
        rows, columns = vectors.indices().contiguous()
        squares = torch.zeros(len(vectors), device=vectors.device)
        norms = squares.index_add_(0, rows, vectors.values().square()).sqrt_()
        self.width = vectors.shape[1]
        self.register_buffer("known", _known(norms, model))
        self.register_buffer("columns", columns)
        self.register_buffer("values", vectors.values() * _inverse(norms)[rows])
        codes = torch.arange(len(vectors) + 1, device=vectors.device)
        self.register_buffer("offsets", torch.searchsorted(rows, codes))

    def encode(self, inputs: NewestItem) -> Tensor:
        """Unit vectors (n, width) of the newest items, dense."""
        newest = inputs.items
        first, lengths = self.offsets[newest], self.offsets[newest + 1] - self.offsets[newest]
        row = torch.repeat_interleave(torch.arange(len(newest), device=newest.device), lengths)
        position = torch.arange(len(row), device=row.device) + (first - lengths.cumsum(0) + lengths)[row]
        dense = self.values.new_zeros((len(newest), self.width))
        dense[row, self.columns[position]] = self.values[position]
        return dense

    def scores(self) -> ItemScores:
        """Cosines, as sparse products."""
        return SparseCosineScores(self)


class SparseCosineScores(ItemScores):
    """Products of queries with the sparse unit vectors of a `SparseItemCosines`."""

    def __init__(self, model: SparseItemCosines) -> None:
        self._columns, self._values, self._offsets = model.columns, model.values, model.offsets
        self._width = model.width

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Cosines (batch, stop - start) of the item codes start … stop - 1."""
        low, high = int(self._offsets[start]), int(self._offsets[stop])
        crow, size = self._offsets[start : stop + 1] - low, (stop - start, self._width)
        with warnings.catch_warnings():
            # torch warns that its CSR form is in beta; its product is six times faster than that of the COO form.
            warnings.filterwarnings("ignore", "Sparse CSR")
            part = torch.sparse_csr_tensor(
                crow, self._columns[low:high], self._values[low:high], size, check_invariants=False
            )
        scores = torch.mm(part, queries.T).T
        return scores if out is None else out.copy_(scores)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        """Cosines (batch, n) of `items` (batch, n)."""
        return self.all(queries, 0, len(self._offsets) - 1).gather(1, items)


def similarity_scorer(scorer: Scorer) -> Scorer:
    """Scorer of the similarity of a model's items.

    Raises
    ------
    ConfigError
        The model has no item vectors.
    """
    vectors = scorer.item_vectors()
    if vectors is None:
        raise ConfigError(
            f"the model {scorer.config.name!r} has no item vectors, so it has no similar items: use another "
            "model, such as sasrec or markov."
        )
    with torch.inference_mode():
        cosines = SparseItemCosines if vectors.is_sparse else ItemCosines
        return Scorer.of(cosines(scorer.model, vectors))


def similar_frame(
    scorer: Scorer, catalogue: Vocabulary, items: Int64, k: int, progress: Progress | None = None
) -> pl.DataFrame:
    """Find the k items most similar to each of the item codes `items` (n,): item, similar, score, rank.

    Items with a zero vector are unknown to the model; they are similar to no item and have no rows. The Scorer is that
    of `similarity_scorer`.
    """
    assert isinstance(scorer.model, ItemCosines)
    known = scorer.model.known.cpu().numpy()
    known_items = items[known[items]]
    rows = np.arange(len(known_items), dtype=np.int64)
    histories = Histories(np.zeros_like(known_items), known_items.astype(np.int32), rows, rows + 1)
    codes, scores = top_k(scorer, histories, k, exclude_seen=True, allowed=known, progress=progress)
    rows, columns = np.nonzero(codes)
    return pl.DataFrame(
        {
            "item": catalogue.decode(known_items[rows]),
            "similar": catalogue.decode(codes[rows, columns]),
            "score": scores[rows, columns],
            "rank": (columns + 1).astype(np.int32),
        }
    )


def _known(norms: Tensor, model: Model) -> Tensor:
    """Mask (n_items + 1,) of the items with a vector that means something."""
    known = norms > 0
    if model.cold is not None:
        known[torch.from_numpy(model.cold)] = False
    return known


def _inverse(norms: Tensor) -> Tensor:
    """Inverse norms; 0 for a norm of 0."""
    return torch.where(norms > 0, 1 / norms.clamp_min(1e-30), 0.0)
