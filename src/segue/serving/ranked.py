"""Best items of a batch in one operation, for models that score by a product with a table of item vectors.

The product may have additions for some items, as repeats and transitions make them.

The lists are those of `segue.inference.scoring.ranking.top_k`. There, each step returns to Python, and a thread that
computes has to wait for the others each time. Here they are one script. It finds the blocks of items with the highest
maxima, and searches only these.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import require_finite, require_histories
from segue.inference.scoring.ranking import top_k
from segue.models.scores import AddedScores, ProductScores

_BLOCK = 64
"""Items in a block."""


def _ranked(
    queries: Tensor,
    table: Tensor,
    n_items: int,
    left_out: Tensor,
    rows: Tensor,
    items: Tensor,
    k: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values and item codes (batch, k) of the best items, in no order among equal ones, and the sum of all scores.

    Behind the columns of the product, queries may have pairs of an item code and its addition, 0 for none.
    """
    width = table.size(1)
    scores = torch.mm(table, queries[:, :width].t())
    if queries.size(1) > width:
        pairs = queries[:, width:].reshape(queries.size(0), -1, 2)
        added_to = torch.arange(queries.size(0)).unsqueeze(1).expand(pairs.size(0), pairs.size(1))
        scores.index_put_((pairs[:, :, 0].long(), added_to), pairs[:, :, 1], accumulate=True)
    total = scores[1 : n_items + 1].sum()
    scores.index_fill_(0, left_out, -float("inf"))
    scores.index_put_((items, rows), torch.full((1,), -float("inf")))
    # Block j holds the items j, j + n_blocks, …, so that one maximum of long rows finds the maxima of all blocks.
    n_blocks = scores.size(0) // 64
    highest = scores.view(64, n_blocks, scores.size(1)).amax(0).t().contiguous()
    scores = scores.t()
    blocks = highest.topk(k, 1, True, False)[1]
    codes = (blocks.unsqueeze(1) + n_blocks * torch.arange(64).view(1, 64, 1)).flatten(1)
    found = scores.gather(1, codes).topk(k, 1)
    return found[0], codes.gather(1, found[1]), total


class Ranked:
    """Lists of one Scorer.

    Parameters
    ----------
    scorer
        Scorer on the CPU.
    vectors
        (n_items + 1, width) item vectors, whose products with the queries are the scores, up to additions.
    """

    def __init__(self, scorer: Scorer, vectors: Tensor) -> None:
        self._scorer = scorer
        blocks = math.ceil(len(vectors) / _BLOCK)
        self._most = blocks - 1
        # NumPy asks for large pages, which make reading the table several times faster.
        table = np.zeros((blocks * _BLOCK, vectors.shape[1]), dtype=np.float32)
        table[: len(vectors)] = vectors.numpy()
        self._table = torch.from_numpy(table)
        cold = scorer.cold if scorer.cold is not None else torch.zeros(0, dtype=torch.int64)
        self._left_out = torch.cat([torch.zeros(1, dtype=torch.int64), cold, torch.arange(len(vectors), len(table))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._script: Any = torch.jit.script(_ranked)

    @classmethod
    def of(cls, scorer: Scorer) -> Ranked | None:
        """Lists of a Scorer; None if its scores are no products on the CPU, with or without additions."""
        scores = scorer.items.base if type(scorer.items) is AddedScores else scorer.items
        if type(scores) is not ProductScores or scores.offset or scorer.device.type != "cpu":
            return None
        vectors = scores.vectors
        return cls(scorer, vectors) if vectors.dtype == torch.float32 and not vectors.is_sparse else None

    def lists(self, histories: Histories, k: int, hidden: Histories | None) -> tuple[Int64, npt.NDArray[np.float32]]:
        """`top_k` of n histories that are not empty; the items of `hidden` are left out."""
        if k >= self._most:
            return self._exact(histories, k, hidden)
        require_histories(self._scorer, histories)
        with torch.inference_mode():
            queries = self._scorer.queries(histories)
            rows, items = (np.zeros(0, np.int64),) * 2 if hidden is None else hidden.seen()
            values, codes, total = self._script(
                queries,
                self._table,
                self._scorer.n_items,
                self._left_out,
                torch.from_numpy(rows),
                torch.from_numpy(items.astype(np.int64)),
                k + 1,
            )
            if not math.isfinite(total.item()):
                require_finite(self._scorer.score_all(queries, 1, self._scorer.n_items + 1))
            best, scores = codes.numpy(), values.numpy()
        if ((scores[:, k - 1] == scores[:, k]) & (scores[:, k] > -np.inf)).any():  # equal ones are chosen by code
            return self._exact(histories, k, hidden)
        best, scores = best[:, :k], scores[:, :k]
        if (scores[:, 1:] == scores[:, :-1]).any():
            order = np.lexsort((best, -scores), axis=1)
            best, scores = np.take_along_axis(best, order, 1), np.take_along_axis(scores, order, 1)
        return np.where(np.isneginf(scores), 0, best), scores

    def _exact(self, histories: Histories, k: int, hidden: Histories | None) -> tuple[Int64, npt.NDArray[np.float32]]:
        return top_k(self._scorer, histories, k, exclude_seen=hidden is not None, seen=hidden)
