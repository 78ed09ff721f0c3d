"""Effects of basket items on what comes next, averaged by category of items and group of users.

Each session of a Holdout is replayed in its order. At each step, each item j of the basket B is left out in turn. Its
effect on category c is log P(c | B) − log P(c | B without j). P(c) is the probability of all items of c together, by
softmax over the whole catalogue. The average takes all categories, not only that of the next item: the order within a
session is chance, and more categories mean less noise. Effects are of log-probabilities, since a model may shift all
its scores. A category with another item in the basket is left out of the average, since that item already explains why
no more of it is bought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.splits.holdouts import Holdout
from segue.errors import DataError
from segue.evaluation.explanations.labels import Labels
from segue.inference.explaining.attention import attention_weights
from segue.inference.explaining.left_out import Parts, Variants, parts_of
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, all_queries, log_sum_exp
from segue.models.base import Model

Floats = npt.NDArray[np.float64]

_VARIANTS = 50_000
"""Number of variants of steps to hold in memory at once."""


@dataclass(frozen=True, eq=False)
class CategoryMaps:
    """Mean explanations by group of users, category of the basket item (rows) and category of what comes (columns).

    Attributes
    ----------
    categories, groups
        Names of the categories and of the groups.
    effects
        (groups, categories, categories): mean effect on the log-probability of the column's category; NaN without any.
    counts
        Number of effects in each mean, in the same shape.
    attention
        (groups, categories, categories): mean attention to the row's item, over blocks and heads, as a multiple of an
        even share over the basket. Steps are weighted by the probability of the column's category, since attention is
        the same for all categories. None for a model without attention.
    steps
        Number of steps, all with an item in the basket and another one to come.
    """

    categories: tuple[str, ...]
    groups: tuple[str, ...]
    effects: Floats
    counts: Int64
    attention: Floats | None
    steps: int


def category_maps(
    model: Scorer | Model, holdout: Holdout, categories: Labels, groups: Labels | None = None
) -> CategoryMaps:
    """Explain every step of the sessions of a Holdout, and average the explanations.

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    holdout
        Users whose targets are sessions: a part of `last_session_out`.
    categories
        Categories of the items; items without one are ignored.
    groups
        Groups of the users; users without one are ignored. One group of all users when None.

    Raises
    ------
    DataError
        No session has two items.
    """
    groups = groups or Labels.one(holdout.dataset.n_users)
    wanted = (groups.codes[holdout.users] >= 0) & (holdout.n_targets > 1)
    if not wanted.any():
        raise DataError("no session has two items of which one could have drawn the other.")
    sums = _Sums(scorer_of(model), categories, groups)
    with torch.inference_mode():
        for part in _batches(holdout.select(np.flatnonzero(wanted))):
            sums.add(part)
    return sums.maps()


def steps_of(holdout: Holdout, least: int = 1) -> tuple[Int64, Histories]:
    """Steps of the sessions of a Holdout with at least `least` items in the basket and one to come.

    Returns
    -------
    rows
        (steps,) row of the session.
    histories
        (steps) histories at that step, with the basket so far.
    """
    histories = holdout.histories()
    begins = holdout.history_ends
    ends = np.maximum(begins + least, holdout.target_ends)
    rows, step_ends = rows_of(begins + least, ends), positions(begins + least, ends)
    return rows, replace(histories.select(rows), ends=step_ends, baskets=begins[rows])


def _batches(holdout: Holdout) -> Iterator[Holdout]:
    """The sessions in batches, each with `_VARIANTS` variants of its steps or one session."""
    cost = np.cumsum(holdout.n_targets * (holdout.n_targets + 1) // 2)
    first = 0
    while first < len(cost):
        spent = cost[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(cost, spent + _VARIANTS, side="right")))
        yield holdout.select(np.arange(first, last))
        first = last


class _Sums:
    """Sums and counts by group and pair of categories, session by session."""

    def __init__(self, scorer: Scorer, categories: Labels, groups: Labels) -> None:
        self.scorer, self.categories, self.groups = scorer, categories, groups
        self.size = len(categories.names)
        shape = (len(groups.names) * self.size, self.size)
        self.effects, self.counts = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        self.attention, self.likely = np.zeros(shape), np.zeros(shape)
        self.steps = 0
        self.looks = True

    def add(self, holdout: Holdout) -> None:
        """Add the steps of some sessions."""
        rows, histories = steps_of(holdout)
        parts = parts_of(histories, ("basket",), self.scorer.max_history)
        own = self.categories.codes[histories.items[parts.starts]]
        known = np.flatnonzero(own >= 0)
        keys = self.groups.codes[holdout.users][rows[parts.rows]] * self.size + own
        self.steps += len(rows)
        full, without = self._logs(histories, parts)
        # A model cannot answer for nothing, so the first item of a user without a history has no effect.
        valid = (self._others(parts, own, len(rows)) == 0) & (histories.lengths[parts.rows] > 1)[:, None]
        valid &= np.isfinite(full) & np.isfinite(without)
        changes = np.subtract(full, without, out=np.zeros_like(full), where=valid)
        _add(self.effects, keys, changes, known)
        _add(self.counts, keys, valid, known)
        seen = attention_weights(self.scorer, histories) if self.looks else None
        if seen is None:
            self.looks = False
            return
        weights = seen.of_parts(histories, parts)
        total, size = np.bincount(parts.rows, weights), np.bincount(parts.rows)
        shares = (weights / total[parts.rows] * size[parts.rows])[:, None]
        likely = np.where(valid & np.isfinite(shares), np.exp(full), 0)
        _add(self.attention, keys, np.nan_to_num(shares) * likely, known)
        _add(self.likely, keys, likely, known)

    def _others(self, parts: Parts, own: Int64, n: int) -> Int64:
        """Number (parts, categories) of the other items of the basket in each category."""
        known = own >= 0
        basket = np.bincount((parts.rows * self.size + own)[known], minlength=n * self.size).reshape(n, self.size)
        others = basket[parts.rows]
        others[known, own[known]] -= 1
        return others

    def _logs(self, histories: Histories, parts: Parts) -> tuple[Floats, Floats]:
        """Logarithms (parts, categories) of each category's probability with the part, and without it."""
        variants = Variants(histories, parts, self.scorer.max_history, np.ones(1, dtype=np.int64))
        groups = torch.from_numpy(np.where(self.categories.codes < 0, self.size, self.categories.codes))
        logs = np.empty((len(variants), self.size))
        for first, last in variants.portions(self.scorer.query_size):
            queries = all_queries(self.scorer, variants.write(first, last), LIMITS)
            sums = log_sum_exp(self.scorer, queries, LIMITS, groups.to(self.scorer.device), self.size + 1).double()
            logs[first:last] = (sums[:, : self.size] - sums.logsumexp(1, keepdim=True)).cpu().numpy()
        return logs[variants.offsets[parts.rows]], logs[variants.first]

    def maps(self) -> CategoryMaps:
        """The means of all that was added."""
        shape = (len(self.groups.names), self.size, self.size)
        with np.errstate(invalid="ignore"):
            effects = (self.effects / self.counts).reshape(shape)
            attention = (self.attention / self.likely).reshape(shape)
        return CategoryMaps(
            self.categories.names,
            self.groups.names,
            effects,
            self.counts.reshape(shape),
            attention if self.looks else None,
            self.steps,
        )


def _add(sums: Floats | Int64, keys: Int64, values: npt.NDArray[np.generic], known: Int64) -> None:
    """Add rows of `values` (m, categories) at `known` to the rows of `sums` that `keys` (m,) name."""
    order = known[np.argsort(keys[known], kind="stable")]
    if len(order):
        bounds = offsets_of(np.bincount(keys[order], minlength=len(sums)))
        filled = np.flatnonzero(np.diff(bounds))
        sums[filled] += np.add.reduceat(values[order].astype(sums.dtype), bounds[filled])
