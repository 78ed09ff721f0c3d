"""The split that draws single interactions at random, as studies of rating prediction do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.item_histories import item_order
from segue.data.order import time_order
from segue.data.ragged import Int64, rows_of
from segue.data.splits.holdouts import Split, check_shares, questions_past

# The parts, in the order in which they stand within each user. What nobody asks about stands behind its part: it is no
# target, and yet is not learnt before its time.
_TRAINING, _VALIDATION, _VALIDATION_UNASKED, _TEST, _TEST_UNASKED = _PARTS = range(5)


def random_rows(
    dataset: Dataset, test: float = 0.2, validation: float = 0.1, seed: int = 0, known_items: bool = False
) -> Split:
    """Draw single interactions (rows) for test and validation, whoever's they are and whenever they were.

    The usual split of rating prediction. Every user's interactions before and after a target may be in training: the
    past is predicted from the future too, and figures are better than a deployed model's (`time_cut` has no such leak).
    Users of whom no row is left in training are not asked: their rows are drawn like all others, and then dropped from
    the questions. The refit learns from all rows that were not drawn for the test.

    The training view and both Holdouts share a copy of the interactions, in which each user's training rows stand
    first, then those of validation, then those of the test, each in the order of time; it has no sessions. The order of
    a history is therefore that of time within each part, not across them.

    Parameters
    ----------
    dataset
        Any Dataset; of a view, the visible interactions count.
    test, validation
        Shares of all interactions: round(n · test) and round(n · validation) of n are drawn.
    seed
        Draws them.
    known_items
        Ask only about items that a training row holds; questions about others are dropped (as ARERec's published
        preparation drops test rows).

    Raises
    ------
    ConfigError
        The shares are impossible.
    DataError
        A part has nobody to ask: there are too few interactions.
    """
    check_shares(test, validation)
    data = dataset.compact()
    parts = _drawn(len(data.items), test, validation, seed)
    if known_items:
        learnt = np.zeros(data.n_items + 1, dtype=bool)
        learnt[data.items[parts == _TRAINING]] = True
        parts += ~learnt[data.items]  # every training row's item is known: none of them moves
    mixed, ends = _by_part(data, parts)
    known = ends[_TRAINING] > mixed.starts
    return Split(
        dataset=dataset,
        train=mixed.until(ends[_TRAINING]),
        validation=questions_past(mixed, ends[_TRAINING], ends[_VALIDATION], "validation", known),
        test=questions_past(mixed, ends[_VALIDATION_UNASKED], ends[_TEST], "test", known),
        spec={"name": "random-rows", "test": test, "validation": validation, "seed": seed, "known_items": known_items},
    )


def _drawn(n: int, test: float, validation: float, seed: int) -> npt.NDArray[np.int8]:
    """The part (n,) of each interaction."""
    drawn = np.random.default_rng(seed).permutation(n)
    n_test, n_validation = round(n * test), round(n * validation)
    parts = np.full(n, _TRAINING, dtype=np.int8)
    parts[drawn[:n_test]] = _TEST
    parts[drawn[n_test : n_test + n_validation]] = _VALIDATION
    return parts


def _by_part(data: Dataset, parts: npt.NDArray[np.int8]) -> tuple[Dataset, Int64]:
    """The Dataset with each user's interactions part by part, and where each part ends (5, n_users + 1)."""
    keys = rows_of(data.starts, data.ends) * len(_PARTS) + parts
    lengths = np.bincount(keys, minlength=len(_PARTS) * (data.n_users + 1)).reshape(-1, len(_PARTS))
    ends = np.ascontiguousarray((data.starts[:, None] + lengths.cumsum(axis=1)).T)
    order = time_order(keys, None)
    order = np.arange(len(keys)) if order is None else order
    items, times = data.items[order], None if data.times is None else data.times[order]
    mixed = replace(
        data,
        items=items,
        times=times,
        ratings=None if data.ratings is None else data.ratings[order],
        session_offsets=None,
        in_order=False,
        by_item=None if data.by_item is None else item_order(items, times),
    )
    return mixed, ends
