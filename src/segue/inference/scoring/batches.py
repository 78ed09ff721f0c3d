"""From histories to chunks of finite scores: batches of similar length, and one buffer that is used again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.errors import ConfigError, DataError, EvaluationError
from segue.inference.scorer import Scorer


@dataclass(frozen=True)
class Limits:
    """Sizes of batches and buffers. They do not change the answers, except for rounding in the scores."""

    buffer_bytes: int = 32 << 20
    """Size of the buffer of scores (histories × items, float32). A buffer that fits the cache is scanned fastest."""

    chunk_items: int = 65_536
    """Item codes scored at once; a larger catalogue is scored in several chunks."""

    tokens: int = 32_768
    """History items that a model reads at once, with padding."""

    pairs: int = 65_536
    """(history, item) pairs scored at once if each history has its own items."""

    histories: int = 1_024
    """Maximum number of histories in a batch."""


LIMITS = Limits()


@dataclass(frozen=True)
class Chunk:
    """Scores of a batch of histories for the item codes start … stop − 1.

    Attributes
    ----------
    scores
        (batch, stop - start) float32, a view of the shared buffer: finite, except for −inf in the columns of code 0 and
        of items that the model cannot score (`Scorer.cold`).
    start, stop
        First item code, and the end of the range.
    """

    scores: Tensor
    start: int
    stop: int

    def hide(self, rows: Tensor, items: Tensor) -> None:
        """Set the scores of the pairs (rows (m,), items (m,)) that are in this chunk to −inf."""
        inside = (items >= self.start) & (items < self.stop)
        self.scores[rows[inside], items[inside] - self.start] = -torch.inf

    def keep_only(self, limited: Tensor, rows: Tensor, items: Tensor) -> None:
        """Set all scores of the rows `limited` (r,) to −inf, except those of the pairs (rows (m,), items (m,))."""
        inside = (items >= self.start) & (items < self.stop)
        rows, columns = rows[inside], items[inside] - self.start
        kept = self.scores[rows, columns]
        self.scores[limited] = -torch.inf
        self.scores[rows, columns] = kept


class Sweep:
    """Scores of histories for the whole catalogue, chunk by chunk, in one buffer that every chunk uses again.

    Parameters
    ----------
    scorer
        Source of the scores.
    limits
        Maximum sizes of the buffer and the chunks.
    rows
        Total number of histories, if it is known. It bounds the size of the buffer.

    Attributes
    ----------
    rows
        Maximum number of histories in a batch.
    division
        Place of this process if the items are divided over processes: the chunks are then those of its own items.
    """

    def __init__(self, scorer: Scorer, limits: Limits, rows: int | None = None) -> None:
        columns = scorer.n_items + 1
        codes = scorer.items.own_codes or range(columns)
        self.division = scorer.items.division
        if self.division is not None:  # the longest part, so that all processes make the same batches
            codes, columns = scorer.items.own_codes or range(0), -(-columns // self.division.world)
        self._scorer, self._stop = scorer, codes.stop
        self._width = min(columns, limits.chunk_items)
        self._starts = codes[:: self._width]
        self.rows = max(1, min(limits.histories, limits.buffer_bytes // (4 * self._width)))
        if rows is not None:
            self.rows = max(1, min(self.rows, rows))
        # A new buffer per batch would return its memory to the system and fault it in again each time.
        self._buffer = torch.empty(self.rows * self._width, device=scorer.device)
        self._cold = [_within(scorer.cold, start, start + self._width) for start in self._starts]

    @property
    def single_chunk(self) -> bool:
        """True if one chunk holds the catalogue, so that scores need not be computed twice."""
        return len(self._starts) == 1 and self.division is None

    def chunks(self, queries: Tensor) -> Iterator[Chunk]:
        """All chunks for queries (batch, …), batch ≤ `rows`. Each chunk overwrites the one before.

        Raises
        ------
        EvaluationError
            A score is NaN or infinite.
        """
        for start, cold in zip(self._starts, self._cold, strict=True):
            stop = min(start + self._width, self._stop)
            out = self._buffer[: len(queries) * (stop - start)].view(len(queries), stop - start)
            scores = self._scorer.score_all(queries, start, stop, out=out)
            if start == 0:
                scores[:, 0] = 0.0
            require_finite(scores)
            if start == 0:
                scores[:, 0] = -torch.inf
            if cold is not None:
                scores[:, cold] = -torch.inf
            yield Chunk(scores, start, stop)


def _within(codes: Tensor | None, start: int, stop: int) -> Tensor | None:
    """Columns of the codes among those from start to stop − 1; None without any."""
    if codes is None:
        return None
    columns = codes[(codes >= start) & (codes < stop)] - start
    return columns if len(columns) else None


def batches(scorer: Scorer, histories: Histories, rows: int, limits: Limits) -> Iterator[tuple[Int64, Tensor]]:
    """Batches of at most `rows` histories of similar length, the longest first.

    Yields
    ------
    index
        (batch,) int64 rows in `histories`.
    queries
        (batch, …) their queries.

    Raises
    ------
    DataError
        A history is empty, and the model needs at least one item.
    """
    for index in batch_rows(scorer, histories, rows, limits):
        yield index, scorer.queries(histories.select(index))


def batch_rows(scorer: Scorer, histories: Histories, rows: int, limits: Limits) -> Iterator[Int64]:
    """Rows (batch,) of the histories in each of `batches`.

    Raises
    ------
    DataError
        A history is empty, and the model needs at least one item.
    """
    require_histories(scorer, histories)
    lengths = histories.lengths
    if scorer.max_history is not None:
        lengths = np.minimum(lengths, scorer.max_history)
    order = np.argsort(-lengths, kind="stable")
    if scorer.model.dense_queries:
        # Neither padding nor attention: the queries take the memory, and the sum of the lengths takes the time.
        rows = max(1, min(rows, limits.buffer_bytes // (4 * (scorer.n_items + 1))))
        yield from (order[first : first + rows] for first in range(0, len(order), rows))
        return
    first = 0
    while first < len(order):
        size = max(1, min(rows, limits.tokens // max(1, int(lengths[order[first]]))))
        yield order[first : first + size]
        first += size


def all_queries(scorer: Scorer, histories: Histories, limits: Limits) -> Tensor:
    """Queries (n, …) of all n histories, in their order."""
    rows, parts = zip(*batches(scorer, histories, limits.histories, limits), strict=True)
    if len({part.shape[1:] for part in parts}) > 1:  # with repeats a batch has as many columns as it needs
        width = max(part.shape[1] for part in parts)
        parts = tuple(F.pad(part, (0, width - part.shape[1])) for part in parts)
    return torch.cat(parts)[to_device(np.argsort(np.concatenate(rows)), scorer.device)]


def log_sum_exp(
    scorer: Scorer, queries: Tensor, limits: Limits, groups: Tensor | None = None, n_groups: int = 1
) -> Tensor:
    """Logarithm of the sum of the exponentials of the scores, for each group of items.

    With a single group, a score minus this value is a log-probability: the logarithm of the softmax over all items.

    Parameters
    ----------
    scorer, queries, limits
        As for `Sweep`; any number n of queries.
    groups
        (n_items + 1,) int64 group of each item code, from 0 to n_groups − 1; None puts all items in group 0.
    n_groups
        Number of groups. The value of a group without items is −inf.

    Returns
    -------
    (n, n_groups) float32
    """
    require_whole(scorer)
    sweep = Sweep(scorer, limits, len(queries))
    logs = torch.empty(len(queries), n_groups, device=scorer.device)
    for first in range(0, len(queries), sweep.rows):
        part = queries[first : first + sweep.rows]
        peak = torch.full((len(part), 1), -torch.inf, device=scorer.device)
        sums = torch.zeros(len(part), n_groups, device=scorer.device)
        for chunk in sweep.chunks(part):
            raised = torch.maximum(peak, chunk.scores.amax(1, keepdim=True))
            # A first chunk that holds only code 0 has no peak.
            raised = raised.nan_to_num(neginf=torch.finfo(raised.dtype).min)
            sums *= (peak - raised).exp()
            terms = (chunk.scores - raised).exp_()
            if groups is None:
                sums += terms.sum(1, keepdim=True)
            else:
                sums.index_add_(1, groups[chunk.start : chunk.stop], terms)
            peak = raised
        logs[first : first + sweep.rows] = sums.log() + peak
    return logs


def require_whole(scorer: Scorer) -> None:
    """Raise a ConfigError if the items are divided over processes: ranks can be added up then, and nothing else."""
    if scorer.items.division is not None:
        raise ConfigError(
            "the item table is divided over processes (divide_tables): only ranks of targets are measured then. "
            "Choose a metric such as ndcg@10 for validation; the saved model gives lists."
        )


def require_histories(scorer: Scorer, histories: Histories) -> None:
    """Raise a DataError if a history is empty and the model needs at least one item."""
    if scorer.needs_history and not (histories.starts < histories.ends).all():
        empty = int((histories.lengths == 0).sum())
        raise DataError(f"{empty:,} of {len(histories):,} histories are empty: the model needs at least one item.")


def require_finite(scores: Tensor) -> None:
    """Raise an EvaluationError unless every score (batch, n) is finite.

    A NaN is neither above nor below any number, so later comparisons would not notice it. The sum of the scores is not
    finite if any score is not, and it costs far less than a check of each score; only such a sum leads to that check.
    """
    if len(scores) == 1 and scores.device.type == "cpu":
        with np.errstate(all="ignore"):
            total = float(scores.numpy().sum())  # NumPy starts sooner
    else:
        total = scores.sum().item()
    if math.isfinite(total):
        return
    broken = ~torch.isfinite(scores)
    if bool(broken.any()):
        rows = int(broken.any(dim=1).sum())
        raise EvaluationError(
            f"the model's scores are not finite (NaN or infinite) for {rows:,} of {len(scores):,} histories of a "
            "batch, so they cannot be ranked. The model has probably diverged: train it again with a lower learning "
            "rate, or use an earlier checkpoint."
        )


def to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Array as an int64 tensor on `device`."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)
