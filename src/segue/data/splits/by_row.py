"""The split that draws single interactions at random, as studies of rating prediction do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.item_histories import item_order
from segue.data.order import time_order
from segue.data.ragged import Int64, rows_of
from segue.data.splits.base import SharesConfig
from segue.data.splits.holdouts import Split, holdout_after
from segue.settings import Seed, ShareBelowOne, ShareWithin

# The parts, in their order within each user. Interactions that are neither learnt nor targets stand behind their part:
# a later part may then learn from them.
_TRAINING, _VALIDATION, _VALIDATION_DROPPED, _TEST, _TEST_DROPPED = _PARTS = range(5)


@dataclass(frozen=True)
class RandomRows(SharesConfig):
    """Single interactions, drawn from all."""

    name: ClassVar[str] = "random-rows"

    test: ShareWithin = 0.2
    """Share of the interactions in the test part."""

    seed: Seed = 0
    """Seed of the draw."""

    known_items: bool = False
    """Drop targets whose item does not occur in training."""

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        data = dataset.compact()
        parts = self._draw(len(data.items))
        if self.known_items:
            learnt = np.zeros(data.n_items + 1, dtype=bool)
            learnt[data.items[parts == _TRAINING]] = True
            parts += ~learnt[data.items]  # the item of every training row is known, so none of these rows moves
        mixed, ends = _by_part(data, parts)
        known = ends[_TRAINING] > mixed.starts
        return Split(
            dataset=dataset,
            train=mixed.until(ends[_TRAINING]),
            validation=self.validation_part(mixed, ends[_TRAINING], ends[_VALIDATION], known),
            test=holdout_after(mixed, ends[_VALIDATION_DROPPED], ends[_TEST], "test", known),
            spec=self.spec,
        )

    def _draw(self, n: int) -> npt.NDArray[np.int8]:
        """The part (n,) of each interaction."""
        drawn = np.random.default_rng(self.seed).permutation(n)
        n_test, n_validation = round(n * self.test), round(n * self.validation)
        parts = np.full(n, _TRAINING, dtype=np.int8)
        parts[drawn[:n_test]] = _TEST
        parts[drawn[n_test : n_test + n_validation]] = _VALIDATION
        return parts


@checked
def random_rows(
    dataset: Dataset,
    test: ShareWithin = 0.2,
    validation: ShareBelowOne = 0.1,
    seed: Seed = 0,
    known_items: bool = False,
) -> Split:
    """Draw single interactions (rows) for test and validation, from all users and all times.

    This is the usual split of rating prediction. Training may hold a user's interactions after a target, so the past is
    predicted from the future too. Figures are better than those of a deployed model; `time_cut` has no such leak. Users
    without a row in training are not evaluated: their drawn rows are dropped. The refit learns from all rows that were
    not drawn for the test.

    The training view and both Holdouts share a copy of the interactions without sessions. In it each user's training
    rows come first, then those of validation, then those of the test. A history is therefore in the order of time
    within each part, not across the parts.

    Parameters
    ----------
    dataset
        Any Dataset; of a view, the visible interactions count.
    test, validation
        Shares of all interactions: round(n · test) and round(n · validation) of n are drawn. 0 for no validation.
    seed
        Seed of the draw.
    known_items
        Drop targets whose item does not occur in training, as ARERec's published preparation does.

    Raises
    ------
    ConfigError
        The shares are impossible.
    DataError
        A part has no targets: there are too few interactions.

    Examples
    --------
    >>> data = segue.simulate(40, 6).dataset()
    >>> split = segue.random_rows(data, test=0.2, seed=3)
    >>> int(split.test.n_targets.sum()) == round(0.2 * data.n_interactions)
    True
    """
    return RandomRows(test, validation, seed, known_items).split(dataset)


def _by_part(data: Dataset, parts: npt.NDArray[np.int8]) -> tuple[Dataset, Int64]:
    """The Dataset with each user's interactions sorted by part, and the end of each part (5, n_users + 1)."""
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
