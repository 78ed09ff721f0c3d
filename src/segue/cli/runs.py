"""What a run can be asked: the Holdout that its model has not learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from segue.cli.output import note
from segue.errors import ConfigError

if TYPE_CHECKING:
    from segue.data.splits import Holdout
    from segue.inference.recommender import Recommender

Part = Literal["test", "validation"]


def questions(recommender: Recommender, run: str, part: Part) -> Holdout:
    """The test or validation part of the split that a run was trained with.

    Raises
    ------
    ConfigError
        The run was trained on everything.
    """
    spec = recommender.metadata.get("split")
    if not spec:
        raise ConfigError(f"{run} was trained on all of its data: there is nothing left to evaluate it on.")
    from segue.data.splits import split_by

    split = split_by(recommender.dataset, spec)
    if part == "test":
        return split.test
    if recommender.metadata.get("refit"):
        note(f"warning: {run} was trained again on its validation part (--refit), so these figures flatter it.")
    return split.validation
