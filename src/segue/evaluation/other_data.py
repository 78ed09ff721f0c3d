"""`segue.split_for`: the split of another log or Dataset, to evaluate a Recommender there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segue.arguments import checked_except
from segue.data.recoding import Recoded, recode
from segue.data.splits.holdouts import Split
from segue.data.splits.registry import split_by
from segue.evaluation.tasks.task import task_of
from segue.inference.asking.ids import UnknownIdWarning
from segue.inference.recommender import Recommender


@checked_except("data")
def split_for(recommender: Recommender, data: Any, split: Mapping[str, Any] | None = None) -> Split:
    """Split another log or Dataset for a Recommender, to evaluate it on data that it was not trained on.

    Users and items are matched by raw id. The histories are those of the other log alone. A user that the model does
    not know is answered from the history, as any unknown user. Interactions with unknown items are left out. Both are
    counted in an `UnknownIdWarning`.

    Parameters
    ----------
    recommender
        The Recommender to evaluate.
    data
        A Dataset or its folder, or a log: a file, a folder or a frame that `segue.prepare` reads. A log is prepared
        with the rules of the Recommender's Dataset for duplicates, the lowest rating and sessions, and without a
        k-core.
    split
        The split as plain data, such as `{"name": "leave-last-n", "n": 2}`; None for the one that the Recommender was
        trained with, or that suits its model.

    Returns
    -------
    Split
        Its parts can be given to `evaluate`, `evaluate_sessions` and `evaluate_ratings` with this Recommender.

    Raises
    ------
    ConfigError
        There is no such split.
    DataError
        The log cannot be read or split, or its ids are of another type.
    UnknownIdError
        None of its items is known.

    Examples
    --------
    >>> log = segue.simulate(40, 6).log()
    >>> recommender = segue.fit(segue.Markov(), segue.leave_last_out(segue.prepare(log)))
    >>> other = log.filter(log["user"] < 20)
    >>> split = segue.split_for(recommender, other)
    >>> segue.evaluate(recommender, split.test, k=5, exclude_seen=False).model
    'markov'
    """
    base = recommender.dataset
    recoded = recode(base, data)
    spec = (
        split or recommender.metadata.get("split") or task_of(recommender.model.config).suitable_split(recoded.dataset)
    )
    parts = split_by(recoded.dataset, spec)
    _warn(recoded)
    validation, test = (replace(part, fitted_users=base.users) for part in (parts.validation, parts.test))
    return replace(parts, validation=validation, test=test)


def _warn(recoded: Recoded) -> None:
    """Count the unknown ids in warnings."""
    users, items = recoded.unknown_users, recoded.unknown_items
    if len(users):
        consequence = f"of {recoded.users:,} in the other data, answered from their histories alone"
        warnings.warn(UnknownIdWarning("users", users.to_list(), consequence), stacklevel=4)
    if len(items):
        total = len(recoded.dataset.items) + recoded.left_out
        consequence = f"in the other data, left out with {recoded.left_out:,} of {total:,} interactions"
        warnings.warn(UnknownIdWarning("items", items.to_list(), consequence), stacklevel=4)
