"""Splits: which part of each history a model may learn from, and what it is asked to predict.

A split is a training view (the same arrays, shorter visible histories) and one or two Holdouts (which users, where
each history ends, what came next). None copies interactions but `random_rows`, which puts them in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from segue.data.dataset import Dataset
from segue.data.ragged import positions
from segue.data.splits.by_row import random_rows as random_rows
from segue.data.splits.holdouts import Holdout as Holdout
from segue.data.splits.holdouts import Split as Split
from segue.data.splits.holdouts import check_shares, questions_past
from segue.errors import ConfigError, DataError, nearest


def leave_last_out(dataset: Dataset) -> Split:
    """The last interaction of each user is the test target, the last but one the validation target.

    Users with fewer than three interactions stay in training only. Users are cut at different moments, so a model may
    learn from one user what happened after another's target (a leak from the future that all published
    leave-last-out figures share); `time_cut` has none.

    Raises
    ------
    DataError
        No user has three interactions.
    """
    split = leave_last_n(dataset, 1)
    return replace(split, spec={"name": "leave-last-out"})


def leave_last_n(dataset: Dataset, n: int) -> Split:
    """Like `leave_last_out` with the last `n` interactions for test and the `n` before them for validation.

    Users with fewer than 2 n + 1 interactions stay in training only.
    """
    if n < 1:
        raise ConfigError(f"n is the number of interactions held out per user: expected 1 or more, found {n}.")
    needed = 2 * n + 1
    users = np.flatnonzero(dataset.lengths >= needed)
    if not len(users):
        raise DataError(f"no user has the {needed} interactions that this split needs.")
    ends = dataset.ends[users]
    train_ends = dataset.ends.copy()
    train_ends[users] = ends - 2 * n
    return Split(
        dataset=dataset,
        train=dataset.until(train_ends),
        validation=Holdout(dataset, users, ends - 2 * n, ends - n, "validation"),
        test=Holdout(dataset, users, ends - n, ends, "test"),
        spec={"name": "leave-last-n", "n": n},
    )


def last_session_out(dataset: Dataset) -> Split:
    """The last session of each user is the test, the last but one the validation; all items of it are targets.

    As the PARSRec paper splits. Users with one session stay in training only; of users with two, the first session is
    for training and the last for the test, since before the first there is nothing to validate from. The leak from
    the future that `leave_last_out` has is here too.

    Parameters
    ----------
    dataset
        Must have sessions; of a view, the visible ones count.

    Raises
    ------
    DataError
        There are no sessions, or no user has three.
    """
    sessions = dataset.sessions
    counts = sessions.counts
    asked, validated = np.flatnonzero(counts >= 2), np.flatnonzero(counts >= 3)
    if not len(validated):
        most = int(counts.max(initial=0))
        raise DataError(f"no user has the 3 sessions that this split needs; the most that one has is {most}.")
    last = sessions.offsets[1:] - 1  # (n_users + 1,) the last session of each user
    train_ends = dataset.ends.copy()
    train_ends[asked] = sessions.starts[last[asked]]
    train_ends[validated] = sessions.starts[last[validated] - 1]
    test_starts, starts = sessions.starts[last[asked]], sessions.starts[last[validated] - 1]
    return Split(
        dataset=dataset,
        train=dataset.until(train_ends),
        validation=Holdout(dataset, validated, starts, sessions.starts[last[validated]], "validation"),
        test=Holdout(dataset, asked, test_starts, dataset.ends[asked], "test"),
        spec={"name": "last-session-out"},
    )


def time_cut(dataset: Dataset, test: float = 0.1, validation: float = 0.1) -> Split:
    """Cut all users at the same two moments: the only split without a leak from the future.

    Test targets are everything a user did after the later moment, validation targets everything between the two. Users
    without a history before the moment are not asked (there is nothing to predict from), and everyone who is asked
    at test has lived through validation. Popularity drifts, so figures are lower than under leave-last-out; they are
    closer to what a deployed model meets.

    Parameters
    ----------
    dataset
        Must have times.
    test, validation
        Shares of all interactions, by time, in each part.
    """
    if dataset.times is None:
        raise DataError("a cut in time needs times, and this Dataset has none: use leave_last_out.")
    check_shares(test, validation)
    times = dataset.times[positions(dataset.starts, dataset.ends)]
    moments = np.quantile(times, [1 - test - validation, 1 - test], method="higher")
    first, second = (dataset.before(int(moment)).ends for moment in moments)
    return Split(
        dataset=dataset,
        train=dataset.until(first),
        validation=questions_past(dataset, first, second, "validation"),
        test=questions_past(dataset, second, dataset.ends, "test"),
        spec={"name": "time-cut", "test": test, "validation": validation},
    )


def hold_out_users(dataset: Dataset, test: float = 0.1, validation: float = 0.1, seed: int = 0) -> Split:
    """Hold out some users entirely; of each, the last interaction is the target and the rest the given history.

    Measures how a model serves people it has never met.

    Parameters
    ----------
    dataset
        Any Dataset.
    test, validation
        Shares of the users who have at least two interactions.
    seed
        Draws them.
    """
    check_shares(test, validation)
    users = np.flatnonzero(dataset.lengths >= 2)
    drawn = np.random.default_rng(seed).permutation(users)
    n_test, n_validation = (max(1, round(len(users) * share)) for share in (test, validation))
    if n_test + n_validation >= len(users):
        raise DataError(f"{len(users)} users with two interactions are too few to hold any out.")
    parts = np.sort(drawn[:n_test]), np.sort(drawn[n_test : n_test + n_validation])
    ends = dataset.ends.copy()
    for part in parts:
        ends[part] = dataset.starts[part]
    test_part, validation_part = (
        Holdout(dataset, part, dataset.ends[part] - 1, dataset.ends[part], name, known=False)
        for part, name in zip(parts, ("test", "validation"), strict=True)
    )
    spec: dict[str, object] = {"name": "held-out-users", "test": test, "validation": validation, "seed": seed}
    return Split(dataset, dataset.until(ends), validation_part, test_part, spec)


def split_by(dataset: Dataset, spec: Mapping[str, Any]) -> Split:
    """The split of a Dataset that a `Split.spec` describes; what the spec leaves open has its default.

    Parameters
    ----------
    dataset
        What to split.
    spec
        `name` is "leave-last-out", "leave-last-n", "last-session-out", "time-cut", "held-out-users" or "random-rows";
        the rest are the arguments of the function of that name.

    Raises
    ------
    ConfigError
        There is no such split, or it has no such argument.
    DataError
        As the function of that name.

    Examples
    --------
    >>> recommender = segue.load("runs/first")                                          # doctest: +SKIP
    >>> split = split_by(recommender.dataset, recommender.metadata["split"])            # doctest: +SKIP
    """
    options = {name: value for name, value in spec.items() if name != "name"}
    name = str(spec.get("name"))
    if name not in SPLITS:
        raise ConfigError(f'there is no split "{name}": {nearest(name, SPLITS)}')
    for option in options:
        if option not in SPLITS[name]:
            has = ", ".join(SPLITS[name]) or "no options"
            raise ConfigError(f"{option}={options[option]!r} means nothing to the split {name}, which has {has}.")
    if name == "leave-last-out":
        return leave_last_out(dataset)
    if name == "last-session-out":
        return last_session_out(dataset)
    if name == "leave-last-n":
        if "n" not in options:
            raise ConfigError("the split leave-last-n needs n, the number of interactions held out per user.")
        return leave_last_n(dataset, **options)
    if name == "random-rows":
        return random_rows(dataset, **options)
    return time_cut(dataset, **options) if name == "time-cut" else hold_out_users(dataset, **options)


SPLITS: Mapping[str, tuple[str, ...]] = {
    "leave-last-out": (),
    "leave-last-n": ("n",),
    "last-session-out": (),
    "time-cut": ("test", "validation"),
    "held-out-users": ("test", "validation", "seed"),
    "random-rows": ("test", "validation", "seed", "known_items"),
}
"""The names of the splits, each with its options."""
