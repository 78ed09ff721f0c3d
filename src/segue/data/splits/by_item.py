"""The split that keeps some items out of training, to measure a model on items that nobody has taken yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.ragged import Int64, rows_of
from segue.data.splits.base import SplitConfig
from segue.data.splits.holdouts import Holdout, Split
from segue.data.times import to_timestamp
from segue.errors import DataError
from segue.settings import Seed, ShareWithin

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ColdItems(SplitConfig):
    """The last interaction of each user and the one before it; training never sees some of the items."""

    name: ClassVar[str] = "cold-items"

    share: ShareWithin = 0.1
    """Share of the items that are cold in the test. As many others are cold in validation."""

    since: int | str | None = None
    """Time from which items that first occur are the cold ones, instead of a share. A date, or a number in the
    unit of the data. Validation then has no cold items."""

    seed: Seed = 0
    """Seed of the draw."""

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        data = dataset.compact()
        cold, cold_in_validation = self._cold(data)
        never = cold | cold_in_validation
        users = rows_of(data.starts, data.ends)
        is_last = np.zeros(len(data.items), dtype=np.bool_)
        is_last[data.ends[data.lengths > 0] - 1] = True
        warm = ~never[data.items]
        # The last interaction is the target of the test, if a warm one stands before it.
        target = is_last & _has_any(warm & ~is_last, users, data.n_users)[users]
        before = warm & ~target
        # The newest one before it that is not cold in the test is the target of validation.
        chosen = np.zeros_like(target)
        chosen[_newest(~cold[data.items] & ~target, users, data.n_users)] = True
        chosen &= _has_any(before & ~chosen, users, data.n_users)[users]
        test = _last_out(data.selected(before | target), target, users, "test")
        validation = _last_out(data.selected(before | chosen), chosen, users, "validation")
        return Split(dataset, validation.training_view(), validation, test, self.spec)

    def _cold(self, data: Dataset) -> tuple[Bools, Bools]:
        """Masks (n_items + 1,) of the items that are cold in the test, and in validation.

        Raises
        ------
        DataError
            There are no such items, or all items are cold.
        """
        cold, cold_in_validation = np.zeros((2, data.n_items + 1), dtype=np.bool_)
        taken = np.flatnonzero(data.item_counts())
        if self.since is None:
            n = max(1, round(self.share * len(taken)))
            drawn = np.random.default_rng(self.seed).permutation(taken)
            cold[drawn[:n]] = True
            cold_in_validation[drawn[n : 2 * n]] = True
            if 2 * n >= len(taken):
                raise DataError(
                    f"cold-items with share={self.share} takes {2 * n:,} of the {len(taken):,} items out of training, "
                    "and leaves none: give a smaller share."
                )
            return cold, cold_in_validation
        moment = to_timestamp(data, self.since, "since")
        assert data.times is not None
        first = np.full(data.n_items + 1, np.iinfo(np.int64).max)
        np.minimum.at(first, data.items, data.times)
        cold[taken] = first[taken] >= moment
        n = int(cold.sum())
        if not n or n == len(taken):
            which = "all" if n else "none"
            raise DataError(f"{which} of the {len(taken):,} items first occur at since={self.since!r} or later.")
        return cold, cold_in_validation


@checked
def cold_items(dataset: Dataset, share: ShareWithin = 0.1, since: int | str | None = None, seed: Seed = 0) -> Split:
    """Hold out the last interaction of each user, and keep some items out of training altogether.

    All interactions with cold items are left out of every training view and every history; only targets may be cold.
    Metrics are over all targets, cold or not, and `Evaluation` shows the cold ones as a part of their own. Users whose
    history has no warm item are not evaluated.

    Validation has cold items of its own, as many as the test, so that it can choose settings for them. Its target is
    the newest interaction before that of the test whose item is not cold in the test. The leak from the future that
    `leave_last_out` has is here too.

    Both Holdouts have a copy of the interactions.

    Parameters
    ----------
    dataset
        Any Dataset; of a view, the visible interactions count.
    share
        Share of the items, drawn at random, that are cold in the test.
    since
        Instead of a share: a date, a time in ISO form, or a number in the unit of the data. The cold items are those
        that first occur then or later. Validation has no cold items.
    seed
        Seed of the draw.

    Raises
    ------
    ConfigError
        `share` or `since` is impossible.
    DataError
        No items or no users are left, or there are no times for `since`.

    Examples
    --------
    >>> split = segue.cold_items(segue.simulate(40, 6).dataset(), share=0.2, seed=1)
    >>> bool((split.train.item_counts()[1:] == 0).mean() >= 0.2)
    True
    """
    return ColdItems(share, since, seed).split(dataset)


def _has_any(mask: Bools, users: Int64, n_users: int) -> Bools:
    """Mask (n_users + 1,) of the users with an interaction in `mask`."""
    return np.bincount(users[mask], minlength=n_users + 1) > 0


def _newest(eligible: Bools, users: Int64, n_users: int) -> Int64:
    """Position of the last eligible interaction of each user who has one."""
    places = np.flatnonzero(eligible)
    newest = np.full(n_users + 1, -1, dtype=np.int64)
    newest[users[places]] = places  # later positions overwrite earlier ones
    return newest[newest >= 0]


def _last_out(data: Dataset, target: Bools, users: Int64, name: str) -> Holdout:
    """Holdout of the last interaction of each user with a target; `target` and `users` are those before selection.

    Raises
    ------
    DataError
        Nobody has a target.
    """
    evaluated = np.unique(users[target])
    if not len(evaluated):
        raise DataError(f"no user has a warm item before a target of the {name} part: give a smaller share.")
    return Holdout(data, evaluated, data.ends[evaluated] - 1, data.ends[evaluated], name)
