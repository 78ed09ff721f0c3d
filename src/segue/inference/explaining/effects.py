"""Why an item was suggested: how much each part of what a model reads added to its score, by leaving it out.

For a history h and an item b, the effect of a part of h is s(b | h) − s(b | h without the part). All variants go
through the model in the same batches as everything else. A part that is all there is cannot be left out, as no model
answers for nothing; it is compared with the mean score over the most popular items in its place.
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
from segue.inference.explaining.left_out import Kind, Parts, Variants, parts_of
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, alike, all_queries, log_sums, require_finite, to_device
from segue.models.base import Model

Scores = npt.NDArray[np.float32]
Measure = Literal["score", "log-probability"]
"""What an effect is a difference of: the model's own score, or the logarithm of its softmax over all items. Scores of
one history may all be shifted by a constant that another history does not share; log-probabilities may not."""
MEASURES: tuple[Measure, ...] = ("score", "log-probability")

REFERENCES = 32
"""How many popular items a part that is all there is is compared with."""


@dataclass(frozen=True, eq=False)
class Effects:
    """How much the parts of histories added to the scores of p pairs of a history and an item.

    Attributes
    ----------
    scores
        (p,) float32 the scores themselves, in the measure asked for.
    parts
        What was left out.
    pairs
        (m,) int64 which pair each effect belongs to, ascending.
    which
        (m,) int64 which of the parts.
    effects
        (m,) float32, within a pair the largest first, equal ones newest first.
    """

    scores: Scores
    parts: Parts
    pairs: Int64
    which: Int64
    effects: Scores

    def strongest(self, top: int) -> Effects:
        """Only the `top` largest effects of each pair."""
        kept = np.arange(len(self.pairs)) - np.searchsorted(self.pairs, self.pairs) < top
        return Effects(self.scores, self.parts, self.pairs[kept], self.which[kept], self.effects[kept])


def effects(
    model: Scorer | Model,
    histories: Histories,
    rows: Int64,
    items: Int64,
    references: Int64,
    kinds: Sequence[Kind] = ("item",),
    measure: Measure = "score",
) -> Effects:
    """The effect of every part that the model reads, for several pairs at once.

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    histories
        n histories, none of them empty. Each is read once, however many items are asked about.
    rows, items
        (p,) int64: which history, and which item code.
    references
        (r,) item codes that stand in the place of a part that is all there is.
    kinds
        What to leave out.
    measure
        What the effects are differences of.
    """
    scorer = scorer_of(model)
    parts = parts_of(histories, kinds, scorer.max_history)
    order = np.argsort(rows, kind="stable")
    variants = Variants(histories, parts, scorer.max_history, references)
    with torch.inference_mode():
        scores, offsets = _scores(scorer, variants, rows[order], items[order], measure)
    # Back to the order of the pairs: each pair's variants begin at its offset.
    begins = np.empty(len(rows), dtype=np.int64)
    begins[order] = offsets[:-1]
    bounds = np.searchsorted(parts.rows, np.arange(len(histories) + 1))
    low, high = bounds[rows], bounds[rows + 1]
    pair, which = rows_of(low, high), positions(low, high)
    first = begins[pair] + variants.first[which] - variants.offsets[rows[pair]]
    without = _means(scores, first, variants.copies[which])
    full = scores[begins].astype(np.float32)
    found = (full[pair] - without).astype(np.float32)
    sequence = np.lexsort((-parts.starts[which], -found, pair))
    return Effects(full, parts, pair[sequence], which[sequence], found[sequence])


def _means(values: Scores, first: Int64, counts: Int64) -> npt.NDArray[np.float64]:
    """Means (m,) of `counts` values each from `first` on."""
    slices = rows_of(first, first + counts)
    sums = np.bincount(slices, values[positions(first, first + counts)], minlength=len(first))
    return np.asarray(sums / np.maximum(counts, 1))


def _scores(scorer: Scorer, variants: Variants, rows: Int64, items: Int64, measure: Measure) -> tuple[Scores, Int64]:
    """Scores of `items` (p,) for all variants of `rows` (p,), ascending: pair by pair, and where each pair's begin."""
    begins, ends = variants.offsets[rows], variants.offsets[rows + 1]
    offsets = offsets_of(ends - begins)
    scores = np.zeros(offsets[-1], dtype=np.float32)
    for first, last in variants.portions():
        # Rows ascend, and with them where their variants begin and end.
        some = slice(int(np.searchsorted(ends, first, side="right")), int(np.searchsorted(begins, last)))
        low, high = np.maximum(begins[some], first), np.minimum(ends[some], last)
        if not len(low):
            continue
        queries = all_queries(scorer, variants.write(first, last), LIMITS)
        norms = None if measure == "score" else log_sums(scorer, queries, LIMITS)[:, 0]
        asked = np.repeat(items[some], high - low)
        moved = offsets[:-1][some] - begins[some]
        scores[positions(low + moved, high + moved)] = _scored(
            scorer, queries, norms, positions(low, high) - first, asked
        )
    return scores, offsets


def _scored(scorer: Scorer, queries: Tensor, norms: Tensor | None, variant: Int64, items: Int64) -> Scores:
    """Scores (m,) of `items` (m,) for the queries at `variant` (m,), less the norms (queries,) if there are any."""
    scores = np.empty(len(variant), dtype=np.float32)
    for first in range(0, len(variant), LIMITS.pairs):
        part = slice(first, first + LIMITS.pairs)
        chosen = to_device(variant[part], scorer.device)
        found = scorer.score_items(queries[chosen], to_device(items[part], scorer.device)[:, None])
        require_finite(found)
        scores[part] = (found[:, 0] if norms is None else found[:, 0] - norms[chosen]).cpu().numpy()
    return scores


@dataclass(frozen=True, eq=False)
class Looks:
    """What a model looked at in n histories, as flat arrays.

    Attributes
    ----------
    rows, places
        (m,) int64: which history, ascending, and which position in `Histories.items`, ascending.
    weights
        (m, blocks, heads) float32
    """

    rows: Int64
    places: Int64
    weights: Scores

    def of_parts(self, histories: Histories, parts: Parts) -> npt.NDArray[np.float64]:
        """(parts,) the summed weight of each part's items, mean over blocks and heads; NaN where it looked at none."""
        offsets = offsets_of(histories.lengths)
        where = offsets[self.rows] + self.places - histories.starts[self.rows]
        weights, seen = np.zeros(offsets[-1] + 1), np.zeros(offsets[-1] + 1, dtype=np.int64)
        weights[where + 1] = self.weights.mean(axis=(1, 2), dtype=np.float64)
        seen[where + 1] = 1
        begins = offsets[parts.rows] + parts.starts - histories.starts[parts.rows]
        ends = begins + parts.lengths
        sums, counts = np.cumsum(weights), np.cumsum(seen)
        return np.where(counts[ends] > counts[begins], sums[ends] - sums[begins], np.nan)


def looks(model: Scorer | Model, histories: Histories) -> Looks | None:
    """What a model looks at when it reads n histories, none of them empty; None if it has no attention."""
    scorer = scorer_of(model)
    if type(scorer.model).attention is Model.attention:
        return None
    found: list[tuple[Int64, Int64, Scores]] = []
    with torch.inference_mode():
        for index in alike(scorer, histories, LIMITS.histories, LIMITS):
            attention = scorer.attention(histories.select(index))
            if attention is None:
                return None
            row, column = np.nonzero(attention.places >= 0)
            weights = attention.weights.permute(0, 3, 1, 2)[torch.from_numpy(row), torch.from_numpy(column)]
            found.append((index[row], attention.places[row, column], weights.cpu().numpy()))
    rows, places, values = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((places, rows))
    return Looks(rows[order], places[order], values[order])
