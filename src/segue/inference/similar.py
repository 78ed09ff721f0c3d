"""Which items are alike: the cosine of the model's item vectors, ranked like any other scores."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.batches import answering
from segue.inference.ranking import top_k
from segue.models.base import Model


class Likeness(Model):
    """Scores an item by its cosine with the newest item of a history.

    Parameters
    ----------
    model
        Gives the item vectors, dense or sparse (COO).

    Raises
    ------
    ConfigError
        The model has no item vectors.
    """

    max_history = 1

    def __init__(self, model: Model) -> None:
        super().__init__(model.config, model.n_users, model.n_items)
        with answering(model):
            vectors = model.item_vectors()
            if vectors is None:
                raise ConfigError(
                    f"the model {model.config.name!r} has no item vectors, so it cannot say which items are alike: "
                    "use another, such as sasrec or markov."
                )
            norms = _norms(vectors)
            self.known: Tensor = norms > 0
            unit = torch.where(self.known, 1 / norms.clamp_min(1e-30), 0.0)[:, None]
            self.vectors: Tensor = _scaled(vectors, unit) if vectors.is_sparse else vectors * unit

    def queries(self, histories: Histories) -> Tensor:
        """Unit vectors (batch, width) of the newest items."""
        newest = torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64)).to(self.vectors.device)
        rows = self.vectors.index_select(0, newest)
        return rows.to_dense() if rows.is_sparse else rows

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Cosines (batch, stop - start)."""
        whole = start == 0 and stop == len(self.vectors)
        index = torch.arange(start, stop, device=self.vectors.device)
        part = self.vectors if whole else self.vectors.index_select(0, index)
        if part.is_sparse:
            scores = torch.sparse.mm(part, queries.T.contiguous()).T
            return scores if out is None else out.copy_(scores)
        return torch.mm(queries, part.T, out=out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        """Cosines (batch, n) of `items` (batch, n)."""
        return self.score_all(queries, 0, len(self.vectors)).gather(1, items)


def similar_items(model: Model, catalogue: Vocabulary, items: Int64, k: int) -> pl.DataFrame:
    """The k items most like each of the item codes `items` (n,): item, similar, score, rank.

    Items whose vector is zero (nothing is known of them) are like nothing: they have no rows.
    """
    likeness = Likeness(model)
    known = likeness.known.cpu().numpy()
    asked = items[known[items]]
    places = np.arange(len(asked), dtype=np.int64)
    histories = Histories(np.zeros_like(asked), asked.astype(np.int32), places, places + 1)
    codes, scores = top_k(likeness, histories, k, exclude_seen=True, allowed=known)
    rows, columns = np.nonzero(codes)
    return pl.DataFrame(
        {
            "item": catalogue.decode(asked[rows]),
            "similar": catalogue.decode(codes[rows, columns]),
            "score": scores[rows, columns],
            "rank": (columns + 1).astype(np.int32),
        }
    )


def _norms(vectors: Tensor) -> Tensor:
    """(n,) lengths of the rows of a dense or sparse matrix."""
    if not vectors.is_sparse:
        dense: Tensor = torch.linalg.vector_norm(vectors, dim=1)
        return dense
    squares = torch.zeros(len(vectors), device=vectors.device)
    squares.index_add_(0, vectors.indices()[0], vectors.values().square())
    return squares.sqrt()


def _scaled(vectors: Tensor, unit: Tensor) -> Tensor:
    """A sparse matrix with its rows multiplied by `unit` (n, 1)."""
    index = vectors.indices()
    values = vectors.values() * unit[index[0], 0]
    return torch.sparse_coo_tensor(index, values, vectors.shape, is_coalesced=True, check_invariants=False)
