"""From histories to blocks of scores: batches of like length, one score buffer, no score that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.errors import DataError, EvaluationError
from segue.inference.scorer import Scorer


@dataclass(frozen=True)
class Limits:
    """How much is held at once; but for rounding in the scores, the answers do not depend on it."""

    buffer_bytes: int = 32 << 20
    """Size of the buffer of scores (histories × items, float32). One that fits the cache is scanned fastest."""

    chunk_items: int = 65_536
    """Item codes scored at once; a larger catalogue is scored in several chunks."""

    tokens: int = 32_768
    """History items that a model reads at once, padding included."""

    pairs: int = 65_536
    """(history, item) pairs scored at once where each history has its own items."""

    histories: int = 1_024
    """Histories in a batch, at most."""


LIMITS = Limits()


@dataclass(frozen=True)
class Chunk:
    """Scores of some histories for the item codes start … stop − 1.

    Attributes
    ----------
    scores
        (batch, stop - start) float32, a view of the shared buffer: all finite, but for −inf in the column of code 0.
    start, stop
        The item codes.
    """

    scores: Tensor
    start: int
    stop: int

    def hide(self, rows: Tensor, items: Tensor) -> None:
        """Set the scores of the pairs (rows (m,), items (m,)), as far as they are in this chunk, to −inf."""
        inside = (items >= self.start) & (items < self.stop)
        self.scores[rows[inside], items[inside] - self.start] = -torch.inf


class Sweep:
    """Scores of a batch of histories for the whole catalogue, chunk by chunk, in one buffer that is used again.

    Parameters
    ----------
    scorer
        Gives the scores.
    limits
        Sizes of the buffer and the chunks, at most.
    rows
        Number of histories in all, if it is known: no more are scored at once.
    """

    def __init__(self, scorer: Scorer, limits: Limits, rows: int | None = None) -> None:
        columns = scorer.n_items + 1
        self._scorer = scorer
        self._width = min(columns, limits.chunk_items)
        self._starts = range(0, columns, self._width)
        self.rows = max(1, min(limits.histories, limits.buffer_bytes // (4 * self._width)))
        if rows is not None:
            self.rows = max(1, min(self.rows, rows))
        # A fresh buffer per batch would be given back to the system and faulted in again each time.
        self._buffer = torch.empty(self.rows * self._width, device=scorer.device)

    @property
    def whole(self) -> bool:
        """Whether one chunk holds the catalogue, so that its scores need not be computed twice."""
        return len(self._starts) == 1

    def chunks(self, queries: Tensor) -> Iterator[Chunk]:
        """All chunks for queries (batch, …), batch ≤ `rows`. Each is overwritten by the next.

        Raises
        ------
        EvaluationError
            A score is NaN or infinite.
        """
        for start in self._starts:
            stop = min(start + self._width, self._scorer.n_items + 1)
            out = self._buffer[: len(queries) * (stop - start)].view(len(queries), stop - start)
            scores = self._scorer.score_all(queries, start, stop, out=out)
            if start == 0:
                scores[:, 0] = 0.0
            require_finite(scores)
            if start == 0:
                scores[:, 0] = -torch.inf
            yield Chunk(scores, start, stop)


def batches(scorer: Scorer, histories: Histories, rows: int, limits: Limits) -> Iterator[tuple[Int64, Tensor]]:
    """Batches of at most `rows` histories of like length, the longest first.

    Yields
    ------
    index
        (batch,) int64 which of `histories` these are.
    queries
        (batch, …) what the model makes of them.

    Raises
    ------
    DataError
        A history is empty, and the model needs an item of each.
    """
    for index in alike(scorer, histories, rows, limits):
        yield index, scorer.queries(histories.select(index))


def alike(scorer: Scorer, histories: Histories, rows: int, limits: Limits) -> Iterator[Int64]:
    """Which histories (batch,) stand together in each of `batches`.

    Raises
    ------
    DataError
        A history is empty, and the model needs an item of each.
    """
    lengths = histories.lengths
    empty = int((lengths == 0).sum())
    if empty and scorer.needs_history:
        raise DataError(f"{empty:,} of {len(histories):,} histories are empty: a model needs an item of each.")
    if scorer.max_history is not None:
        lengths = np.minimum(lengths, scorer.max_history)
    order = np.argsort(-lengths, kind="stable")
    first = 0
    while first < len(order):
        size = max(1, min(rows, limits.tokens // max(1, int(lengths[order[first]]))))
        yield order[first : first + size]
        first += size


def all_queries(scorer: Scorer, histories: Histories, limits: Limits) -> Tensor:
    """The queries (n, …) of all n histories at once, in their order."""
    places, parts = zip(*batches(scorer, histories, limits.histories, limits), strict=True)
    return torch.cat(parts)[to_device(np.argsort(np.concatenate(places)), scorer.device)]


def log_sums(
    scorer: Scorer, queries: Tensor, limits: Limits, groups: Tensor | None = None, n_groups: int = 1
) -> Tensor:
    """The logarithm of the summed exponentials of the scores, by group of items; of all items for one group.

    Scores less this, for one group, are the logarithms of probabilities: the softmax over all items.

    Parameters
    ----------
    scorer, queries, limits
        As for `Sweep`; any number n of queries.
    groups
        (n_items + 1,) int64 the group of each item code, from 0 to before `n_groups`; all are in group 0 where not
        given.
    n_groups
        Number of groups; one without items has −inf.

    Returns
    -------
    (n, n_groups) float32
    """
    sweep = Sweep(scorer, limits, len(queries))
    found = torch.empty(len(queries), n_groups, device=scorer.device)
    for first in range(0, len(queries), sweep.rows):
        part = queries[first : first + sweep.rows]
        peak = torch.full((len(part), 1), -torch.inf, device=scorer.device)
        sums = torch.zeros(len(part), n_groups, device=scorer.device)
        for chunk in sweep.chunks(part):
            raised = torch.maximum(peak, chunk.scores.amax(1, keepdim=True))
            # A first chunk of nothing but code 0 has no peak.
            raised = raised.nan_to_num(neginf=torch.finfo(raised.dtype).min)
            sums *= (peak - raised).exp()
            terms = (chunk.scores - raised).exp_()
            if groups is None:
                sums += terms.sum(1, keepdim=True)
            else:
                sums.index_add_(1, groups[chunk.start : chunk.stop], terms)
            peak = raised
        found[first : first + sweep.rows] = sums.log() + peak
    return found


def require_finite(scores: Tensor) -> None:
    """Raise an EvaluationError unless every score (batch, n) is finite.

    A NaN is neither above nor below anything, so it would pass every later comparison unseen. The sum is not finite if
    any term is not, and costs a fraction of looking at each; only such a sum leads to the closer look.
    """
    if bool(torch.isfinite(scores.sum())):
        return
    broken = ~torch.isfinite(scores)
    if bool(broken.any()):
        rows = int(broken.any(dim=1).sum())
        raise EvaluationError(
            f"the model's scores are not finite (NaN or infinite) for {rows:,} of {len(scores):,} histories of a "
            "batch: no ranking would mean anything. The model has probably diverged: train it again with a lower "
            "learning rate, or use an earlier checkpoint."
        )


def to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """The array as int64 on `device`."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)
