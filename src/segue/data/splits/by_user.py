"""Splits that cut each user's history, or hold out whole users. None of them copies interactions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from segue.arguments import checked
from segue.data.dataset import Dataset
from segue.data.ragged import positions
from segue.data.splits.base import SharesConfig, SplitConfig
from segue.data.splits.by_row import random_rows as random_rows
from segue.data.splits.holdouts import Holdout as Holdout
from segue.data.splits.holdouts import Split as Split
from segue.data.splits.holdouts import holdout_after
from segue.errors import DataError
from segue.settings import Count, Seed, ShareBelowOne, ShareWithin


@dataclass(frozen=True)
class LeaveLastN(SplitConfig):
    """The last n interactions of each user, and the n before them."""

    name: ClassVar[str] = "leave-last-n"

    n: Count
    """Number of interactions per user in the test part, and again in the validation part."""

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        needed = 2 * self.n + 1
        users = np.flatnonzero(dataset.lengths >= needed)
        if not len(users):
            raise DataError(f"no user has the {needed} interactions that this split needs.")
        ends = dataset.ends[users]
        train_ends = dataset.ends.copy()
        train_ends[users] = ends - 2 * self.n
        return Split(
            dataset=dataset,
            train=dataset.until(train_ends),
            validation=Holdout(dataset, users, ends - 2 * self.n, ends - self.n, "validation"),
            test=Holdout(dataset, users, ends - self.n, ends, "test"),
            spec=self.spec,
        )


@checked
def leave_last_n(dataset: Dataset, n: Count) -> Split:
    """Hold out the last `n` interactions of each user for test, and the `n` before them for validation.

    Users with fewer than 2 n + 1 interactions stay in training only. The leak from the future that `leave_last_out`
    has is here too.

    Raises
    ------
    ConfigError
        `n` is below 1.
    DataError
        No user has 2 n + 1 interactions.

    Examples
    --------
    >>> split = segue.leave_last_n(segue.simulate(40, 6).dataset(), 3)
    >>> split.test
    Holdout(test: 40 users, 120 targets)
    """
    return LeaveLastN(n).split(dataset)


@dataclass(frozen=True)
class LeaveLastOut(SplitConfig):
    """The last interaction of each user, and the one before it."""

    name: ClassVar[str] = "leave-last-out"

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        return replace(LeaveLastN(1).split(dataset), spec=self.spec)


@checked
def leave_last_out(dataset: Dataset) -> Split:
    """Hold out the last interaction of each user for test, and the last but one for validation.

    Users with fewer than three interactions stay in training only. Users are cut at different times, so a model may
    learn from one user what happened after another user's target. All published leave-last-out figures share this leak
    from the future; `time_cut` has none.

    Raises
    ------
    DataError
        No user has three interactions.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> split.test
    Holdout(test: 40 users, 40 targets)
    """
    return LeaveLastOut().split(dataset)


@dataclass(frozen=True)
class LastSessionOut(SplitConfig):
    """The last session of each user, and the one before it."""

    name: ClassVar[str] = "last-session-out"

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        sessions = dataset.sessions
        counts = sessions.counts
        tested, validated = np.flatnonzero(counts >= 2), np.flatnonzero(counts >= 3)
        if not len(validated):
            most = int(counts.max(initial=0))
            raise DataError(f"no user has the 3 sessions that this split needs; the most that one has is {most}.")
        last = sessions.offsets[1:] - 1  # (n_users + 1,) the last session of each user
        test_starts, validation_starts = sessions.starts[last[tested]], sessions.starts[last[validated] - 1]
        train_ends = dataset.ends.copy()
        train_ends[tested] = test_starts
        train_ends[validated] = validation_starts
        validation_ends = sessions.starts[last[validated]]
        return Split(
            dataset=dataset,
            train=dataset.until(train_ends),
            validation=Holdout(dataset, validated, validation_starts, validation_ends, "validation"),
            test=Holdout(dataset, tested, test_starts, dataset.ends[tested], "test"),
            spec=self.spec,
        )


@checked
def last_session_out(dataset: Dataset) -> Split:
    """Hold out the last session of each user for test, and the last but one for validation.

    All items of a session are targets, as in the PARSRec paper. Users with one session stay in training only. For users
    with two, the first is for training and the last for the test, because validation needs a session before its own.
    The leak from the future that `leave_last_out` has is here too.

    Parameters
    ----------
    dataset
        Must have sessions; of a view, the visible ones count.

    Raises
    ------
    DataError
        There are no sessions, or no user has three.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> len(split.test), split.test.whole_sessions
    (40, True)
    """
    return LastSessionOut().split(dataset)


@dataclass(frozen=True)
class TimeCut(SharesConfig):
    """All interactions after two points in time."""

    name: ClassVar[str] = "time-cut"

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        if dataset.times is None:
            raise DataError("a cut in time needs times, and this Dataset has none: use leave_last_out.")
        times = dataset.times[positions(dataset.starts, dataset.ends)]
        cuts = np.quantile(times, [1 - self.test - self.validation, 1 - self.test], method="higher")
        first, second = (dataset.before(int(cut)).ends for cut in cuts)
        return Split(
            dataset=dataset,
            train=dataset.until(first),
            validation=self.validation_part(dataset, first, second),
            test=holdout_after(dataset, second, dataset.ends, "test"),
            spec=self.spec,
        )


@checked
def time_cut(dataset: Dataset, test: ShareWithin = 0.1, validation: ShareBelowOne = 0.1) -> Split:
    """Cut all users at the same two points in time: the only split without a leak from the future.

    Test targets are all interactions after the later point, validation targets all those between the two. Users without
    a history before the point are not evaluated, because there is nothing to predict from. Popularity drifts, so
    figures are lower than under leave-last-out; they are closer to those of a deployed model.

    Parameters
    ----------
    dataset
        Must have times.
    test, validation
        Shares of all interactions, by time, in each part; 0 for no validation.

    Raises
    ------
    ConfigError
        The shares are impossible.
    DataError
        There are no times, or a part has no targets.

    Examples
    --------
    >>> data = segue.simulate(40, 12).dataset()
    >>> split = segue.time_cut(data, test=0.25, validation=0.25)
    >>> bool(split.train.to_frame()["time"].max() < data.times[split.test.history_ends].min())
    True
    """
    return TimeCut(test, validation).split(dataset)


@dataclass(frozen=True)
class HeldOutUsers(SharesConfig):
    """The last interaction of some users, whose other interactions are not trained on either."""

    name: ClassVar[str] = "held-out-users"

    seed: Seed = 0
    """Seed of the draw."""

    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""
        users = np.flatnonzero(dataset.lengths >= 2)
        drawn = np.random.default_rng(self.seed).permutation(users)
        n_test, n_validation = (max(1, round(len(users) * share)) for share in (self.test, self.validation))
        n_validation = n_validation if self.validation else 0
        if n_test + n_validation >= len(users):
            raise DataError(f"{len(users)} users with two interactions are too few to hold any out.")
        test, validation = np.sort(drawn[:n_test]), np.sort(drawn[n_test : n_test + n_validation])
        train_ends = dataset.ends.copy()
        for part in (test, validation):
            train_ends[part] = dataset.starts[part]
        validation_part, test_part = (
            Holdout(dataset, part, dataset.ends[part] - 1, dataset.ends[part], name, known=False)
            for part, name in ((validation, "validation"), (test, "test"))
        )
        return Split(dataset, dataset.until(train_ends), validation_part, test_part, self.spec)


@checked
def hold_out_users(dataset: Dataset, test: ShareWithin = 0.1, validation: ShareBelowOne = 0.1, seed: Seed = 0) -> Split:
    """Hold out some users entirely: the last interaction is the target, the rest is the given history.

    The figures say how well a model serves users that it has never seen.

    Parameters
    ----------
    dataset
        Any Dataset.
    test, validation
        Shares of the users who have at least two interactions; 0 for no validation.
    seed
        Seed of the draw.

    Raises
    ------
    ConfigError
        The shares are impossible.
    DataError
        There are too few users.

    Examples
    --------
    >>> split = segue.hold_out_users(segue.simulate(40, 6).dataset(), test=0.25)
    >>> split.test, split.test.known
    (Holdout(test: 10 users, 10 targets), False)
    """
    return HeldOutUsers(test, validation, seed).split(dataset)
