"""Is what an explanation names what mattered? The score of a suggestion falls when that is taken out of the basket.

At each step of a session with at least two items in the basket, the best item for it (not in it yet) is explained.
Then the item explained as the strongest is taken out, or the stronger half of the basket, and as much at random.
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
from segue.inference.asking.baskets import in_progress
from segue.inference.explaining.effects import Measure, effects, looks
from segue.inference.explaining.left_out import Parts
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, all_queries, log_sums, to_device
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
        How many suggestions were explained.
    one, half
        When the strongest item, and the stronger half of the basket (rounded down), are taken out.
    random_one, random_half
        When as many items are drawn at random.
    """

    steps: int
    one: float
    random_one: float
    half: float
    random_half: float

    @property
    def ratios(self) -> tuple[float, float]:
        """How many times the fall at random it is, for one item and for half of them; infinite where that is none."""
        pairs = ((self.one, self.random_one), (self.half, self.random_half))
        one, half = (fall / random if random > 0 else float("inf") for fall, random in pairs)
        return one, half


def deletion(
    model: Scorer | Model, holdout: Holdout, method: Method = "leave-one-out", *, draws: int = 8, seed: int = 0
) -> Deletion:
    """Take out what an explanation names, and see what it costs.

    Parameters
    ----------
    model
        A Scorer or a fitted model; for "attention" one that has it.
    holdout
        Its targets are sessions: that of `last_session_out`.
    method
        What names items: the leave-one-out effect on the log-probability, or attention, mean over blocks and heads.
    draws
        Random halves per suggestion; the fall without one random item is averaged over all items instead.
    seed
        Draws them.

    Raises
    ------
    DataError
        No session has three items.
    ConfigError
        "attention", and the model has none.
    """
    scorer = scorer_of(model)
    _, histories = steps_of(holdout, least=2)
    if not len(histories):
        raise DataError("no session has three items: two in the basket, and one to come.")
    suggested = top_k(scorer, histories, 1, seen=in_progress(histories))[0][:, 0]
    steps = np.flatnonzero(suggested)
    histories, suggested = histories.select(steps), suggested[steps]
    references = np.ones(1, dtype=np.int64)  # never needed: a basket of two cannot be all there is after one is out
    measure: Measure = "log-probability"
    found = effects(scorer, histories, np.arange(len(steps)), suggested, references, ("basket",), measure)
    parts, order = found.parts, np.argsort(found.which)
    alone = found.effects[order].astype(np.float64)
    named = alone if method == "leave-one-out" else _attention(scorer, histories, parts)
    counts = np.bincount(parts.rows, minlength=len(steps))
    falls = _Falls(scorer, histories, suggested, found.scores)
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
    seen = looks(scorer, histories)
    if seen is None:
        raise ConfigError(f"the model {scorer.config.name!r} has no attention: use leave-one-out.")
    return np.nan_to_num(seen.of_parts(histories, parts))


@dataclass(frozen=True, eq=False)
class _Falls:
    """What suggestions (n,) lose of their log-probability `full` (n,) without some of the basket."""

    scorer: Scorer
    histories: Histories
    suggested: Int64
    full: npt.NDArray[np.float32]

    def without(self, parts: Parts, values: Floats, counts: Int64) -> Floats:
        """(n,) falls without the `counts` (n,) parts that have the highest `values` (parts,) in each history."""
        order = np.lexsort((-values, parts.rows))
        rank = np.empty(len(parts), dtype=np.int64)
        rank[order] = np.arange(len(parts)) - np.searchsorted(parts.rows, parts.rows)
        out = rank < counts[parts.rows]
        rest = without_places(self.histories, parts.rows[out], parts.starts[out])
        falls = np.empty(len(rest))
        with torch.inference_mode():
            for first in range(0, len(rest), 16 * LIMITS.histories):
                part = slice(first, first + 16 * LIMITS.histories)
                queries = all_queries(self.scorer, rest.select(part), LIMITS)
                scores = self.scorer.score_items(queries, to_device(self.suggested[part], self.scorer.device)[:, None])
                logs: torch.Tensor = (scores - log_sums(self.scorer, queries, LIMITS))[:, 0]
                falls[part] = self.full[part] - logs.cpu().numpy()
        return falls


def without_places(histories: Histories, rows: Int64, places: Int64) -> Histories:
    """The same n histories, in an array of their own, without some of their items.

    Parameters
    ----------
    histories
        With or without baskets and sessions.
    rows, places
        (m,) which history, and which position in `Histories.items`.
    """
    offsets = offsets_of(histories.lengths)
    kept = np.ones(offsets[-1], dtype=np.bool_)
    kept[offsets[rows] + places - histories.starts[rows]] = False
    before = offsets_of(kept)

    def moved(row: Int64, place: Int64) -> Int64:
        return np.asarray(before[offsets[row] + place - histories.starts[row]])

    every = np.arange(len(histories))
    where = positions(histories.starts, histories.ends)[kept]
    ends = before[offsets[1:]]
    sessions = histories.session_offsets
    if sessions is not None:
        low, high = np.searchsorted(sessions, histories.starts), np.searchsorted(sessions, histories.ends)
        inner = moved(rows_of(low, high), sessions[positions(low, high)])
        sessions = np.unique(np.concatenate([before[offsets], inner]))
    return replace(
        histories,
        items=histories.items[where],
        starts=before[offsets[:-1]],
        ends=ends,
        times=None if histories.times is None else histories.times[where],
        baskets=None if histories.baskets is None else moved(every, histories.baskets),
        session_offsets=sessions,
    )
