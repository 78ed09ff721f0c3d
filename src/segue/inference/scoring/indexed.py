"""Top-k lists by approximate search: an index proposes candidates, and the model scores them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.errors import ConfigError
from segue.inference.asking.own_items import OwnItems
from segue.inference.index import Floats, ItemIndex
from segue.inference.scorer import Scorer
from segue.inference.scoring.batches import LIMITS, batches, require_finite
from segue.inference.scoring.popular import check_k
from segue.inference.scoring.ranking import Progress, top_k
from segue.models.scores import AddedScores, ProductScores

_ROWS = 1_024
"""Histories whose candidates are scored at once."""


def products_of(scorer: Scorer) -> ProductScores:
    """Products behind the scores of a model.

    Raises
    ------
    ConfigError
        The model does not score by products with item vectors.
    """
    products = scorer.items.products
    if products is None or scorer.model.dense_queries:
        raise ConfigError(
            f"{scorer.config.name} does not score by products with item vectors, so there is nothing to index: "
            "expected sasrec, ssept, gru4rec, hstu, bert4rec, lrurec, parsrec or another model with a table of item "
            "vectors."
        )
    return products


def build_index(scorer: Scorer, histories: Histories, recall: float, threads: int = 0) -> ItemIndex:
    """Build the index of a model's item vectors; queries of the histories, which are not empty, measure its recall.

    Raises
    ------
    ConfigError
        The model does not score by products, usearch is not installed, or there are fewer than two histories.
    """
    vectors = products_of(scorer).vectors.float().cpu().numpy()
    queries = np.zeros((len(histories), vectors.shape[1]), dtype=np.float32)
    for index, encoded in batches(scorer, histories, _ROWS, LIMITS):
        queries[index] = encoded[:, : vectors.shape[1]].float().cpu().numpy()
    return ItemIndex.build(vectors, queries, scorer.model.cold, recall, threads)


def top_k_by_index(
    scorer: Scorer,
    index: ItemIndex,
    histories: Histories,
    k: int,
    *,
    seen: Histories | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
    offset: Floats | None = None,
    own_allowed: OwnItems | None = None,
    own_denied: OwnItems | None = None,
    progress: Progress | None = None,
) -> tuple[Int64, Floats]:
    """Find the k best items for each history among candidates of the index.

    Parameters
    ----------
    index
        Index of the model's item vectors.
    seen
        n histories whose items are left out; None leaves out nothing.
    scorer, histories, k, allowed, offset, own_allowed, own_denied, progress
        As in `top_k`. The offset may only exclude items.

    Returns
    -------
    codes
        (n, k) int64 item codes, best first; 0 if fewer than k items are left.
    scores
        (n, k) float32; −inf for code 0.

    Raises
    ------
    ConfigError
        The index was built from other vectors, or the offset changes the order of items.
    """
    check_k(k, scorer.n_items)
    products_of(scorer)
    index.require(scorer.products_fingerprint, scorer.n_items)
    if offset is not None and (offset[np.isfinite(offset)] != 0).any():
        raise ConfigError("a boost changes the order of items, and an index does not know it: leave one of them out.")
    codes = np.zeros((len(histories), k), dtype=np.int64)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    limited = np.zeros(len(histories), dtype=np.bool_) if own_allowed is None else own_allowed.named
    with torch.inference_mode():
        for rows, encoded in batches(scorer, histories, _ROWS, LIMITS):
            part = _Part(scorer, encoded, histories, seen, rows, k, allowed, offset, own_allowed, own_denied)
            served = np.flatnonzero(~limited[rows])
            queries = encoded[:, : index.width].float().cpu().numpy()
            more = part.repeated()
            if len(served):
                codes[rows[served]], scores[rows[served]] = index.top_k(
                    queries[served],
                    k,
                    _within(served, part.score),
                    _within(served, part.excluded),
                    _within(served, part.exact),
                    None if more is None else more[served],
                )
            others = np.flatnonzero(limited[rows])  # their own lists of allowed items are short
            if len(others):
                codes[rows[others]], scores[rows[others]] = part.exact(others)
            if progress is not None:
                progress(len(rows))
    return codes, scores


def _within(rows: Int64, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a part that takes positions in it, for positions among `rows`."""
    return lambda own, *arguments: method(rows[own], *arguments)


class _Part:
    """Histories of one batch, with their rules; rows are positions in the batch."""

    def __init__(
        self,
        scorer: Scorer,
        queries: Tensor,
        histories: Histories,
        seen: Histories | None,
        rows: Int64,
        k: int,
        allowed: npt.NDArray[np.bool_] | None,
        offset: Floats | None,
        own_allowed: OwnItems | None,
        own_denied: OwnItems | None,
    ) -> None:
        self.scorer, self.queries, self.k = scorer, queries, k
        self.histories = histories.select(rows)
        self.seen = None if seen is None else seen.select(rows)
        self.allowed, self.offset = allowed, offset
        self.own_allowed = None if own_allowed is None else own_allowed.select(rows)
        self.own_denied = None if own_denied is None else own_denied.select(rows)
        pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []
        pairs += [one.seen() for one in (self.seen,) if one is not None]
        pairs += [one.pairs() for one in (self.own_denied,) if one is not None]
        keys = [own_rows * (scorer.n_items + 1) + items for own_rows, items in pairs]
        self._hidden = np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)

    def score(self, rows: Int64, codes: Int64) -> Floats:
        """Scores (r, n) of candidates."""
        with torch.inference_mode():
            device = self.scorer.device
            queries = self.queries[torch.from_numpy(rows).to(device)]
            scores = self.scorer.score_items(queries, torch.from_numpy(codes).to(device)).float()
            scores = scores.masked_fill(torch.from_numpy(codes == 0).to(device), 0)
            require_finite(scores)
            return scores.cpu().numpy()

    def excluded(self, rows: Int64, codes: Int64) -> npt.NDArray[np.bool_]:
        """Flags (r, n) of candidates that may not be in the list."""
        out = np.isin(rows[:, None] * (self.scorer.n_items + 1) + codes, self._hidden)
        if self.scorer.cold is not None:
            out |= np.isin(codes, self.scorer.cold.cpu().numpy())
        if self.allowed is not None:
            out |= ~self.allowed[codes]
        if self.offset is not None:
            out |= np.isneginf(self.offset[codes])
        return out

    def exact(self, rows: Int64) -> tuple[Int64, Floats]:
        """Exact lists (r, k)."""
        return top_k(
            self.scorer,
            self.histories.select(rows),
            self.k,
            exclude_seen=self.seen is not None,
            seen=None if self.seen is None else self.seen.select(rows),
            allowed=self.allowed,
            offset=self.offset,
            own_allowed=None if self.own_allowed is None else self.own_allowed.select(rows),
            own_denied=None if self.own_denied is None else self.own_denied.select(rows),
        )

    def repeated(self) -> Int64 | None:
        """Items (b, r) of the histories whose scores have additions; None without repeats."""
        items = self.scorer.items
        return items.codes(self.queries).cpu().numpy() if isinstance(items, AddedScores) else None
