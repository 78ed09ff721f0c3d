"""How runs are measured: options and questions, shared by the commands that evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from segue.cli.output import note
from segue.errors import ConfigError

if TYPE_CHECKING:
    from segue.data.splits.by_user import Holdout
    from segue.evaluation.result import Evaluation
    from segue.inference.recommender import Recommender

Part = Literal["test", "validation"]
_K = (10,)


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how."""

    on: Part = "test"
    """Which part of the split."""

    k: tuple[int, ...] | None = None
    """Lengths of the lists: 5,10,20. When not given 10; of ratings 3,5,7,10."""

    candidates: int | None = None
    """Rank each target among this many sampled items instead of the whole catalogue. Sessions are ranked in both ways,
    the second among this many, or 99."""

    by: Literal["uniform", "popularity"] = "uniform"
    """How candidates are drawn."""

    ranking: bool = False
    """Measure how a model of ratings ranks all items by the rating it expects, too; segue compare compares that."""

    cutoff: float | None = None
    """Of ratings: the lowest rating of an item that was liked; the middle of the scale when not given."""

    arg_max: bool = False
    """Of ratings: rank a user's items by their most probable level, as the published code of ARERec does, and not by
    the rating expected."""

    users: int | None = None
    """Ask only this many users, drawn from the seed; all when not given."""

    include_seen: bool = False
    """Leave items of the history in the ranking, for data in which people repeat themselves."""

    seed: int = 0
    """Draws users, candidates and the resamples behind the intervals."""

    device: str | None = None
    """cpu, cuda, …; cpu when not given."""


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
    from segue.data.splits.registry import split_by

    split = split_by(recommender.dataset, spec)
    if part == "test":
        return split.test
    if recommender.metadata.get("refit"):
        note(f"warning: {run} was trained again on its validation part (--refit), so these figures flatter it.")
    return split.validation


def measure(recommender: Recommender, holdout: Holdout, protocol: Protocol) -> Evaluation:
    """Evaluate a Recommender as the options say: of a model of ratings its ratings, of any other how it ranks.

    Where the targets are sessions, rankings are also measured session by session.
    """
    if not rates(recommender):
        return _ranked(recommender, holdout, protocol)
    from segue.evaluation.tasks.ratings import KS, evaluate_ratings

    found = evaluate_ratings(
        recommender,
        holdout,
        k=protocol.k or KS,
        cutoff=protocol.cutoff,
        arg_max=protocol.arg_max,
        users=protocol.users,
        seed=protocol.seed,
    )
    return replace(found, ranking=_ranked(recommender, holdout, protocol)) if protocol.ranking else found


def rates(recommender: Recommender) -> bool:
    """Whether the model predicts ratings."""
    from segue.models.ratings import RatingModel

    return isinstance(recommender.model, RatingModel)


def _ranked(recommender: Recommender, holdout: Holdout, protocol: Protocol) -> Evaluation:
    from segue.evaluation.tasks.next_items import evaluate

    k = protocol.k or _K
    found = evaluate(
        recommender,
        holdout,
        k=k,
        candidates=protocol.candidates,
        by=protocol.by,
        exclude_seen=not protocol.include_seen,
        users=protocol.users,
        seed=protocol.seed,
    )
    if recommender.metadata["split"]["name"] != "last-session-out":
        return found
    from segue.evaluation.tasks.sessions import both_ways

    sessions = both_ways(
        recommender,
        holdout,
        k=k,
        candidates=protocol.candidates,
        by=protocol.by,
        users=protocol.users,
        seed=protocol.seed,
    )
    if "sampled" not in sessions:
        note(f"Sessions are not ranked among sampled items: none would be below a list of {max(k)}.")
    return replace(found, sessions=sessions)
