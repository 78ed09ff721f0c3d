"""Which items are alike: the cosine of the model's item vectors, ranked like any other scores."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.errors import ConfigError
from segue.inference.scoring.batches import answering
from segue.inference.scoring.ranking import top_k
from segue.models.base import Model


class Likeness(Model):
    """Scores an item by its cosine with the newest item of a history.

    Parameters
    ----------
    model
        Whose config and sizes these are.
    vectors
        (n_items + 1, width) item vectors.
    """

    max_history = 1
    vectors: Tensor
    known: Tensor

    def __init__(self, model: Model, vectors: Tensor) -> None:
        super().__init__(model.config, model.n_users, model.n_items)
        norms = torch.linalg.vector_norm(vectors, dim=1)
        self.register_buffer("known", norms > 0)
        self.register_buffer("vectors", vectors * _inverse(norms)[:, None])

    def queries(self, histories: Histories) -> Tensor:
        """Unit vectors (batch, width) of the newest items."""
        return self.vectors[self.newest(histories)]

    def newest(self, histories: Histories) -> Tensor:
        """Codes (batch,) of the newest items."""
        return torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64)).to(self.device)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Cosines (batch, stop - start)."""
        return torch.mm(queries, self.vectors[start:stop].T, out=out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        """Cosines (batch, n) of `items` (batch, n)."""
        return self.score_all(queries, 0, self.n_items + 1).gather(1, items)


class SparseLikeness(Likeness):
    """The same for vectors that are almost all zeros, in sparse COO form: only the batch is made dense.

    Rows are cut out of the sorted indices by hand: torch's own selection of sparse rows fails in inference mode.
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
        self.register_buffer("known", norms > 0)
        self.register_buffer("columns", columns)
        self.register_buffer("values", vectors.values() * _inverse(norms)[rows])
        every = torch.arange(len(vectors) + 1, device=vectors.device)
        self.register_buffer("offsets", torch.searchsorted(rows, every))

    def queries(self, histories: Histories) -> Tensor:
        """Unit vectors (batch, width) of the newest items, dense."""
        newest = self.newest(histories)
        first, lengths = self.offsets[newest], self.offsets[newest + 1] - self.offsets[newest]
        row = torch.repeat_interleave(torch.arange(len(newest), device=newest.device), lengths)
        place = torch.arange(len(row), device=row.device) + (first - lengths.cumsum(0) + lengths)[row]
        dense = self.values.new_zeros((len(newest), self.width))
        dense[row, self.columns[place]] = self.values[place]
        return dense

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Cosines (batch, stop - start)."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        crow, size = self.offsets[start : stop + 1] - low, (stop - start, self.width)
        with warnings.catch_warnings():
            # torch calls its CSR form a beta; its product is six times faster than that of the COO form.
            warnings.filterwarnings("ignore", "Sparse CSR")
            part = torch.sparse_csr_tensor(
                crow, self.columns[low:high], self.values[low:high], size, check_invariants=False
            )
        scores = torch.mm(part, queries.T).T
        return scores if out is None else out.copy_(scores)


def likeness_of(model: Model) -> Likeness:
    """How alike a model's items are.

    Raises
    ------
    ConfigError
        The model has no item vectors.
    """
    with answering(model):
        vectors = model.item_vectors()
        if vectors is None:
            raise ConfigError(
                f"the model {model.config.name!r} has no item vectors, so it cannot say which items are alike: "
                "use another, such as sasrec or markov."
            )
        return SparseLikeness(model, vectors) if vectors.is_sparse else Likeness(model, vectors)


def similar_items(model: Model, catalogue: Vocabulary, items: Int64, k: int) -> pl.DataFrame:
    """The k items most like each of the item codes `items` (n,): item, similar, score, rank.

    Items whose vector is zero (nothing is known of them) are like nothing: they have no rows.
    """
    likeness = likeness_of(model)
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


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms.clamp_min(1e-30), 0.0)
