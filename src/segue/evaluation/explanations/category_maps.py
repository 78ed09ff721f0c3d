"""What in the basket drew what, averaged by category of items and group of users.

Every session of a Holdout is gone through as it was filled. At each step, each item j of the basket B is left out in
turn; its effect on category c is log P(c | B) − log P(c | B without j), where P(c) is the probability of all items of c
together, a softmax over the whole catalogue. All categories are looked at, not only that of the item that was added
next: the order within a session is chance, and an average over all that could have been added is less noisy than one
over what happened to be. Log-probabilities rather than scores, because a model may shift all its scores at will.
Categories that another item of the basket stands for already are left out of the average: that nothing more is bought
of them is those items' doing.
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
from segue.inference.explaining.effects import looks
from segue.inference.explaining.left_out import Parts, Variants, parts_of
from segue.inference.scorer import Scorer, scorer_of
from segue.inference.scoring.batches import LIMITS, all_queries, log_sums
from segue.models.base import Model

Floats = npt.NDArray[np.float64]

_VARIANTS = 50_000
"""Variants of the steps of some sessions whose log-probabilities are held at once."""


@dataclass(frozen=True, eq=False)
class CategoryMaps:
    """Mean explanations, by group of users, category of the item in the basket (rows) and category drawn (columns).

    Attributes
    ----------
    categories, groups
        Their names.
    effects
        (groups, categories, categories): mean effect on the log-probability of the column's category; NaN without any.
    counts
        As many effects were averaged.
    attention
        (groups, categories, categories): mean attention to the item of the row, mean over blocks and heads, as a
        multiple of an even share over the basket; each step counts as much as the model held the column's category to
        be likely next, since attention itself is the same for all that may come. None without attention.
    steps
        Number of steps, those with something in the basket and something still to come.
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
    """Explain every step of the sessions of a Holdout, and average.

    Parameters
    ----------
    model
        A Scorer, or a fitted model.
    holdout
        Its targets are sessions: that of `last_session_out`.
    categories
        Of the items; items without one are passed over.
    groups
        Of the users; users without one are passed over. One group of all when not given.

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
        for part in _some(holdout.select(np.flatnonzero(wanted))):
            sums.add(part)
    return sums.maps()


def steps_of(holdout: Holdout, least: int = 1) -> tuple[Int64, Histories]:
    """Every step of the sessions of a Holdout with at least so many items in the basket and one to come.

    Returns
    -------
    rows
        (steps,) which session.
    histories
        (steps) what was known then: the basket holds what had been added.
    """
    asked = holdout.histories()
    begins = holdout.history_ends
    ends = np.maximum(begins + least, holdout.target_ends)
    rows, places = rows_of(begins + least, ends), positions(begins + least, ends)
    return rows, replace(asked.select(rows), ends=places, baskets=begins[rows])


def _some(holdout: Holdout) -> Iterator[Holdout]:
    """The sessions, as many at a time as have steps with `_VARIANTS` variants together."""
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
        """Count the steps of some sessions."""
        rows, histories = steps_of(holdout)
        parts = parts_of(histories, ("basket",), self.scorer.max_history)
        own = self.categories.codes[histories.items[parts.starts]]
        known = np.flatnonzero(own >= 0)
        keys = self.groups.codes[holdout.users][rows[parts.rows]] * self.size + own
        self.steps += len(rows)
        full, without = self._logs(histories, parts)
        # Nothing at all cannot be asked about, so the first item of somebody without a history has no effect.
        valid = (self._others(parts, own, len(rows)) == 0) & (histories.lengths[parts.rows] > 1)[:, None]
        valid &= np.isfinite(full) & np.isfinite(without)
        changes = np.subtract(full, without, out=np.zeros_like(full), where=valid)
        _add(self.effects, keys, changes, known)
        _add(self.counts, keys, valid, known)
        seen = looks(self.scorer, histories) if self.looks else None
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
        """(parts, categories) number of the other items of the basket in each category."""
        known = own >= 0
        basket = np.bincount((parts.rows * self.size + own)[known], minlength=n * self.size).reshape(n, self.size)
        others = basket[parts.rows]
        others[known, own[known]] -= 1
        return others

    def _logs(self, histories: Histories, parts: Parts) -> tuple[Floats, Floats]:
        """(parts, categories) logarithms of each category's probability with the part, and without it."""
        variants = Variants(histories, parts, self.scorer.max_history, np.ones(1, dtype=np.int64))
        groups = torch.from_numpy(np.where(self.categories.codes < 0, self.size, self.categories.codes))
        logs = np.empty((len(variants), self.size))
        for first, last in variants.portions():
            queries = all_queries(self.scorer, variants.write(first, last), LIMITS)
            sums = log_sums(self.scorer, queries, LIMITS, groups.to(self.scorer.device), self.size + 1).double()
            logs[first:last] = (sums[:, : self.size] - sums.logsumexp(1, keepdim=True)).cpu().numpy()
        return logs[variants.offsets[parts.rows]], logs[variants.first]

    def maps(self) -> CategoryMaps:
        """The means."""
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
