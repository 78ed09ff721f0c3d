"""Effects: the contribution of each part of a history to the score of an item, measured by leaving the part out.

For a history h and an item b, the effect of a part of h is s(b | h) − s(b | h without the part). A part that is the
whole history cannot be left out, because models need at least one item. Its effect is s(b | h) minus the mean score
with each of the most popular items in place of the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.inference.explaining.left_out import PartKind, Parts, Variants, parts_of
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, all_queries, log_sum_exp, require_finite, to_device
from segue.models.base import Model

Scores = npt.NDArray[np.float32]
Measure = Literal["score", "log-probability"]
"""Quantity that effects are differences of: the model's score, or the logarithm of its softmax over all items. Leaving
a part out may shift all scores of a history by a constant; log-probabilities do not have such a shift."""
MEASURES: tuple[Measure, ...] = ("score", "log-probability")

REFERENCES = 32
"""Number of popular items that replace a part that is the whole history."""


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of the parts of histories on the scores of p pairs of a history and an item.

    Attributes
    ----------
    scores
        (p,) float32 scores of the pairs, in the measure.
    parts
        The parts of the histories.
    pairs
        (m,) int64 pair of each effect, ascending.
    part_rows
        (m,) int64 part of each effect, as a row of `parts`.
    effects
        (m,) float32; within a pair the largest first, equal ones newest first.
    """

    scores: Scores
    parts: Parts
    pairs: Int64
    part_rows: Int64
    effects: Scores

    def strongest(self, top: int) -> Effects:
        """The `top` largest effects of each pair."""
        kept = np.arange(len(self.pairs)) - np.searchsorted(self.pairs, self.pairs) < top
        return Effects(self.scores, self.parts, self.pairs[kept], self.part_rows[kept], self.effects[kept])


def effects(
    model: Scorer | Model,
    histories: Histories,
    rows: Int64,
    items: Int64,
    references: Int64,
    kinds: Sequence[PartKind] = ("item",),
    measure: Measure = "score",
) -> Effects:
    """Effects of all parts that the model reads, for several pairs at once.

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    histories
        n histories that are not empty. Each is encoded once, whatever the number of its items to explain.
    rows, items
        (p,) int64: row of the history, and item code, of each pair.
    references
        (r,) item codes that replace a part that is the whole history.
    kinds
        Kinds of parts to leave out.
    measure
        Quantity that the effects are differences of.
    """
    scorer = scorer_of(model)
    parts = parts_of(histories, kinds, scorer.max_history)
    order = np.argsort(rows, kind="stable")
    variants = Variants(histories, parts, scorer.max_history, references)
    with torch.inference_mode():
        scores, offsets = _scores(scorer, variants, rows[order], items[order], measure)
    # Restore the order of the pairs: the variants of a pair begin at its offset.
    begins = np.empty(len(rows), dtype=np.int64)
    begins[order] = offsets[:-1]
    bounds = np.searchsorted(parts.rows, np.arange(len(histories) + 1))
    low, high = bounds[rows], bounds[rows + 1]
    pair, part = rows_of(low, high), positions(low, high)
    first = begins[pair] + variants.first[part] - variants.offsets[rows[pair]]
    without = _means(scores, first, variants.copies[part])
    full = scores[begins].astype(np.float32)
    differences = (full[pair] - without).astype(np.float32)
    ranking = np.lexsort((-parts.starts[part], -differences, pair))
    return Effects(full, parts, pair[ranking], part[ranking], differences[ranking])


def _means(values: Scores, first: Int64, counts: Int64) -> npt.NDArray[np.float64]:
    """Means (m,) of the `counts` (m,) values that begin at `first` (m,)."""
    slices = rows_of(first, first + counts)
    sums = np.bincount(slices, values[positions(first, first + counts)], minlength=len(first))
    return np.asarray(sums / np.maximum(counts, 1))


def _scores(scorer: Scorer, variants: Variants, rows: Int64, items: Int64, measure: Measure) -> tuple[Scores, Int64]:
    """Scores of `items` (p,) for all variants of the ascending `rows` (p,), pair by pair, and offsets (p + 1,)."""
    begins, ends = variants.offsets[rows], variants.offsets[rows + 1]
    offsets = offsets_of(ends - begins)
    scores = np.zeros(offsets[-1], dtype=np.float32)
    for first, last in variants.portions(scorer.query_size):
        # Rows ascend, so the first and last variants of the pairs ascend too.
        inside = slice(int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, last)))
        low, high = np.maximum(begins[inside], first), np.minimum(ends[inside], last)
        if not len(low):
            continue
        queries = all_queries(scorer, variants.write(first, last), LIMITS)
        norms = None if measure == "score" else log_sum_exp(scorer, queries, LIMITS)[:, 0]
        shift = offsets[:-1][inside] - begins[inside]
        scores[positions(low + shift, high + shift)] = _score_pairs(
            scorer, queries, norms, positions(low, high) - first, np.repeat(items[inside], high - low)
        )
    return scores, offsets


def _score_pairs(scorer: Scorer, queries: Tensor, norms: Tensor | None, rows: Int64, items: Int64) -> Scores:
    """Scores (m,) of `items` (m,) for the queries at `rows` (m,), minus the norms (queries,) if there are any."""
    scores = np.empty(len(rows), dtype=np.float32)
    for first in range(0, len(rows), LIMITS.pairs):
        part = slice(first, first + LIMITS.pairs)
        chosen = to_device(rows[part], scorer.device)
        batch_scores = scorer.score_items(queries[chosen], to_device(items[part], scorer.device)[:, None])
        require_finite(batch_scores)
        scores[part] = (batch_scores[:, 0] if norms is None else batch_scores[:, 0] - norms[chosen]).cpu().numpy()
    return scores
