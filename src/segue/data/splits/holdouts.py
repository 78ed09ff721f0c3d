"""The parts of a split: histories with held-out targets, and the views to train on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from segue.arguments import check_fields, checked
from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.data.vocabulary import Vocabulary
from segue.display import pairs_as_html
from segue.errors import DataError
from segue.settings import Count, Seed


@dataclass(frozen=True, eq=False)
class Holdout:
    """Histories with held-out targets: the interactions that came next.

    Attributes
    ----------
    dataset
        The Dataset whose arrays the positions point into.
    users
        (n,) int64 user codes, ascending.
    history_ends
        (n,) int64 absolute positions of the end of each visible history.
    target_ends
        (n,) int64; the targets of row r are `dataset.items[history_ends[r]:target_ends[r]]`, at least one.
    name
        "validation" or "test".
    known
        True if the model has seen these users in training; False for users held out entirely.
    fitted_users
        Vocabulary of the users that the model was fitted with, if the Dataset is another log with new users behind
        them (`segue.split_for`). None if the Dataset is that of the model.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> split.test.sample(5).n_targets
    array([1, 1, 1, 1, 1])
    """

    dataset: Dataset
    users: Int64
    history_ends: Int64
    target_ends: Int64
    name: str
    known: bool = True
    fitted_users: Vocabulary | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def __len__(self) -> int:
        return len(self.users)

    def __repr__(self) -> str:
        return f"Holdout({self.name}: {len(self):,} users, {int(self.n_targets.sum()):,} targets)"

    def _repr_html_(self) -> str:
        return pairs_as_html(
            f"Holdout: {self.name}", {"users": f"{len(self):,}", "targets": f"{int(self.n_targets.sum()):,}"}
        )

    @property
    def n_targets(self) -> Int64:
        """(n,) number of targets of each user."""
        return self.target_ends - self.history_ends

    @property
    def whole_sessions(self) -> bool:
        """True if the targets of each user are exactly one session."""
        offsets = self.dataset.session_offsets
        if offsets is None or not len(self):
            return False
        session = np.searchsorted(offsets, self.history_ends)
        if (offsets[session] != self.history_ends).any():
            return False
        return bool((np.minimum(offsets[session + 1], self.dataset.ends[self.users]) == self.target_ends).all())

    def histories(self) -> Histories:
        """The history of each user before the targets, as of the time of the first target."""
        times = self.dataset.times
        starts = self.dataset.starts[self.users]
        users = self.users if self.known else np.zeros_like(self.users)
        if self.fitted_users is not None:
            users = np.where(users <= len(self.fitted_users), users, 0)
        return Histories(
            users,
            self.dataset.items,
            starts,
            self.history_ends,
            self.dataset.times,
            session_offsets=self.dataset.session_offsets,
            as_of=None if times is None else times[self.history_ends],
        )

    def targets(self) -> Histories:
        """The targets of each user, as slices of the same arrays."""
        return Histories(self.users, self.dataset.items, self.history_ends, self.target_ends, self.dataset.times)

    def repeat_share(self) -> float:
        """Share of the targets that stand in their user's history; 0 without targets."""
        held = self.histories().holds(self.targets())
        return float(held.mean()) if len(held) else 0.0

    def select(self, index: Int64) -> Holdout:
        """The rows at `index`."""
        return replace(
            self,
            users=self.users[index],
            history_ends=self.history_ends[index],
            target_ends=self.target_ends[index],
        )

    @checked
    def sample(self, n: Count, seed: Seed = 0) -> Holdout:
        """Random sample of `n` users, in ascending order; all if there are no more than `n`."""
        if n >= len(self):
            return self
        return self.select(np.sort(np.random.default_rng(seed).choice(len(self), n, replace=False)))

    def training_view(self) -> Dataset:
        """View of everything that may be trained on: each history up to its targets.

        Users without targets keep all their visible interactions. Users held out entirely have none.
        """
        ends = self.dataset.ends.copy()
        ends[self.users] = self.history_ends if self.known else self.dataset.starts[self.users]
        return self.dataset.until(ends)


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """A training view with the Holdouts that choose and judge the model.

    Attributes
    ----------
    dataset
        The Dataset that was split. The parts of `random_rows` hold its interactions in another order.
    train
        View to fit a model on.
    validation
        Chooses settings and the number of epochs. It may be empty: then the last epoch is kept.
    test
        Judges the final model, once.
    spec
        Name and settings of the split, as plain data; `split_by` makes the same split from it.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> split.spec
    {'name': 'leave-last-out'}
    >>> split.train.n_interactions + len(split.validation) + len(split.test) == split.dataset.n_interactions
    True
    """

    dataset: Dataset
    train: Dataset
    validation: Holdout
    test: Holdout
    spec: dict[str, object]

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return f"Split({self.spec['name']}: train {self.train!r}, {self.validation!r}, {self.test!r})"

    def _repr_html_(self) -> str:
        settings = {name: value for name, value in self.spec.items() if name != "name"}
        parts = {
            "train": f"{self.train.n_interactions:,} interactions",
            **{
                part.name: f"{len(part):,} users, {int(part.n_targets.sum()):,} targets"
                for part in (self.validation, self.test)
            },
        }
        return pairs_as_html(f"Split: {self.spec['name']}", parts | settings)

    @property
    def refit(self) -> Dataset:
        """The training view for the final fit, once validation has chosen: everything but the test targets."""
        return self.test.training_view()


def holdout_after(
    dataset: Dataset,
    history_ends: Int64,
    target_ends: Int64,
    name: str,
    evaluated: npt.NDArray[np.bool_] | None = None,
) -> Holdout:
    """Holdout of all interactions after a cut, for users with a history before it and a target after it.

    The interactions of all other users after the cut are hidden in the Holdout's Dataset, so that no training view
    shows them.

    Parameters
    ----------
    dataset
        The Dataset whose arrays the positions point into.
    history_ends, target_ends
        (n_users + 1,) end of each user's history and of the targets.
    name
        "validation" or "test".
    evaluated
        (n_users + 1,) bool: users who may be evaluated; those with a history when None.

    Raises
    ------
    DataError
        No user is left.
    """
    evaluated = history_ends > dataset.starts if evaluated is None else evaluated
    evaluated = evaluated & (target_ends > history_ends)
    users = np.flatnonzero(evaluated)
    if not len(users):
        raise DataError(f"no user has interactions both to learn from and in the {name} part: change the shares.")
    view = dataset.until(np.where(evaluated, dataset.ends, history_ends))
    return Holdout(view, users, history_ends[users], target_ends[users], name)
