"""Deletion test of explanations: the fall of a suggestion's score without the items that the explanation names.

Each step with at least two items in the basket suggests the best item that is not in the basket, and explains it. The
test takes out the strongest item by the explanation, or the stronger half of the basket, and as many items at random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.splits.holdouts import Holdout
from segue.errors import ConfigError, DataError
from segue.evaluation.explanations.category_maps import steps_of
from segue.inference.asking.in_progress import sessions_in_progress
from segue.inference.explaining.attention import attention_weights
from segue.inference.explaining.effects import Measure, effects
from segue.inference.explaining.left_out import Parts
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, all_queries, log_sum_exp, to_device
from segue.inference.scoring.ranking import top_k
from segue.models.base import Model

Method = Literal["leave-one-out", "attention"]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deletion:
    """Mean fall of the suggestion's log-probability.

    Attributes
    ----------
    steps
        Number of explained suggestions.
    one, half
        Fall without the strongest item, and without the stronger half of the basket (rounded down).
    random_one, random_half
        Fall without as many items at random.
    """

    steps: int
    one: float
    random_one: float
    half: float
    random_half: float

    @property
    def ratios(self) -> tuple[float, float]:
        """Falls of one item and of half of them, as multiples of the random ones; infinite if those are not above 0."""
        pairs = ((self.one, self.random_one), (self.half, self.random_half))
        one, half = (fall / random if random > 0 else float("inf") for fall, random in pairs)
        return one, half


def deletion(
    model: Scorer | Model, holdout: Holdout, method: Method = "leave-one-out", *, draws: int = 8, seed: int = 0
) -> Deletion:
    """Take out the items that an explanation names, and measure the fall of the suggestion.

    Parameters
    ----------
    model
        A Scorer or a fitted model; with attention, if `method` is "attention".
    holdout
        Users whose targets are sessions: a part of `last_session_out`.
    method
        The explanation: leave-one-out effects on the log-probability, or attention, mean over blocks and heads.
    draws
        Number of random halves per suggestion. The fall without one random item is the mean over all items instead.
    seed
        Seed of the random halves.

    Raises
    ------
    DataError
        No session has three items.
    ConfigError
        `method` is "attention", and the model has none.
    """
    scorer = scorer_of(model)
    _, histories = steps_of(holdout, least=2)
    if not len(histories):
        raise DataError("no session has three items: two in the basket, and one to come.")
    suggested = top_k(scorer, histories, 1, seen=sessions_in_progress(histories))[0][:, 0]
    steps = np.flatnonzero(suggested)
    histories, suggested = histories.select(steps), suggested[steps]
    references = np.ones(1, dtype=np.int64)  # never used: one item is left in each basket
    measure: Measure = "log-probability"
    explained = effects(scorer, histories, np.arange(len(steps)), suggested, references, ("basket",), measure)
    parts, order = explained.parts, np.argsort(explained.part_rows)
    alone = explained.effects[order].astype(np.float64)
    named = alone if method == "leave-one-out" else _attention(scorer, histories, parts)
    counts = np.bincount(parts.rows, minlength=len(steps))
    falls = _Falls(scorer, histories, suggested, explained.scores)
    rng = np.random.default_rng(seed)
    random = [falls.without(parts, rng.random(len(parts)), counts // 2).mean() for _ in range(draws)]
    return Deletion(
        len(steps),
        float(falls.without(parts, named, np.minimum(counts, 1)).mean()),
        float((np.bincount(parts.rows, alone) / counts).mean()),
        float(falls.without(parts, named, counts // 2).mean()),
        float(np.mean(random)),
    )


def _attention(scorer: Scorer, histories: Histories, parts: Parts) -> Floats:
    seen = attention_weights(scorer, histories)
    if seen is None:
        raise ConfigError(f"the model {scorer.config.name!r} has no attention: use leave-one-out.")
    return np.nan_to_num(seen.of_parts(histories, parts))


@dataclass(frozen=True, eq=False)
class _Falls:
    """Falls of the log-probability `full` (n,) of suggestions (n,) without parts of the basket."""

    scorer: Scorer
    histories: Histories
    suggested: Int64
    full: npt.NDArray[np.float32]

    def without(self, parts: Parts, values: Floats, counts: Int64) -> Floats:
        """Falls (n,) without the `counts` (n,) parts with the highest `values` (parts,) of each history."""
        order = np.lexsort((-values, parts.rows))
        rank = np.empty(len(parts), dtype=np.int64)
        rank[order] = np.arange(len(parts)) - np.searchsorted(parts.rows, parts.rows)
        out = rank < counts[parts.rows]
        rest = without_items(self.histories, parts.rows[out], parts.starts[out])
        falls = np.empty(len(rest))
        with torch.inference_mode():
            for first in range(0, len(rest), 16 * LIMITS.histories):
                part = slice(first, first + 16 * LIMITS.histories)
                queries = all_queries(self.scorer, rest.select(part), LIMITS)
                scores = self.scorer.score_items(queries, to_device(self.suggested[part], self.scorer.device)[:, None])
                logs: torch.Tensor = (scores - log_sum_exp(self.scorer, queries, LIMITS))[:, 0]
                falls[part] = self.full[part] - logs.cpu().numpy()
        return falls


def without_items(histories: Histories, rows: Int64, item_positions: Int64) -> Histories:
    """The same n histories, in a new array, without some of their items.

    Parameters
    ----------
    histories
        Any histories, with or without baskets and sessions.
    rows, item_positions
        (m,) row of the history, and position in `Histories.items`.
    """
    offsets = offsets_of(histories.lengths)
    kept = np.ones(offsets[-1], dtype=np.bool_)
    kept[offsets[rows] + item_positions - histories.starts[rows]] = False
    before = offsets_of(kept)

    def moved(row: Int64, position: Int64) -> Int64:
        return np.asarray(before[offsets[row] + position - histories.starts[row]])

    every = np.arange(len(histories))
    remaining = positions(histories.starts, histories.ends)[kept]
    ends = before[offsets[1:]]
    sessions = histories.session_offsets
    if sessions is not None:
        low, high = np.searchsorted(sessions, histories.starts), np.searchsorted(sessions, histories.ends)
        inner = moved(rows_of(low, high), sessions[positions(low, high)])
        sessions = np.unique(np.concatenate([before[offsets], inner]))
    return replace(
        histories,
        items=histories.items[remaining],
        starts=before[offsets[:-1]],
        ends=ends,
        times=None if histories.times is None else histories.times[remaining],
        baskets=None if histories.baskets is None else moved(every, histories.baskets),
        session_offsets=sessions,
    )
