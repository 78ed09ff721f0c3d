"""The evaluation of runs: its options, its questions and the call, shared by the commands that evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from segue.cli.output import note
from segue.errors import ConfigError
from segue.settings import Count, Seed, Settings, Word

if TYPE_CHECKING:
    from segue.data.splits.holdouts import Holdout
    from segue.engines.engine import Engine
    from segue.evaluation.tasks.result import Evaluation
    from segue.evaluation.tasks.task import Task
    from segue.inference.recommender import Recommender

Part = Literal["test", "validation"]


@dataclass(frozen=True)
class Protocol(Settings):
    """The evaluation."""

    on: Part = "test"
    """The part of the split."""

    k: tuple[Count, ...] | None = None
    """Lengths of the lists: 5,10,20. When not given 10; of ratings 3,5,7,10."""

    candidates: Count | None = None
    """Rank each target among this many sampled items instead of the whole catalogue. Sessions are ranked in both ways,
    the second among this many, or 99."""

    by: Literal["uniform", "popularity"] = "uniform"
    """Law of the sampled candidates."""

    ranking: bool = False
    """Also measure the ranking of all items by a model of ratings; segue compare then compares that."""

    cutoff: float | None = None
    """Of ratings: the lowest rating of a liked item; the middle of the scale when not given."""

    arg_max: bool = False
    """Of ratings: rank a user's items by their most probable level, as the published code of ARERec does, instead of by
    the expected rating."""

    published_gains: bool = False
    """Of ratings: compute own_ndcg as the published code of ARERec does."""

    users: Count | None = None
    """Evaluate only this many users, drawn from the seed; all when not given."""

    include_seen: bool | None = None
    """Keep items of the history in the ranking, for data in which users take items again. When not given, true for
    parsrec, and for baskets of people who repeat themselves; false otherwise."""

    seed: Seed = 0
    """Seed of users, candidates and the resamples behind the intervals."""

    device: Word | None = None
    """cpu, cuda, …; cpu when not given."""


def questions(recommender: Recommender, run: str, part: Part) -> Holdout:
    """The test or validation part of the split of a run.

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
    if not len(split.validation):
        raise ConfigError(f"{run} was trained without a validation part: there is nothing to evaluate it on there.")
    if recommender.metadata.get("refit"):
        note(f"warning: {run} was trained again on its validation part (--refit), so these figures flatter it.")
    return split.validation


def measure(
    recommender: Recommender,
    holdout: Holdout,
    protocol: Protocol,
    split: str | None = None,
    engine: Engine | None = None,
) -> Evaluation:
    """The Evaluation of a Recommender by its task, with these options; `split` names a split that is not the run's."""
    from segue.evaluation.tasks.task import EvaluationOptions
    from segue.evaluation.tasks.task import measure as measure_by_task

    options = EvaluationOptions(
        k=protocol.k,
        candidates=protocol.candidates,
        by=protocol.by,
        exclude_seen=None if protocol.include_seen is None else not protocol.include_seen,
        users=protocol.users,
        seed=protocol.seed,
        split=recommender.metadata["split"]["name"] if split is None else split,
        cutoff=protocol.cutoff,
        arg_max=protocol.arg_max,
        published_gains=protocol.published_gains,
        ranking=protocol.ranking,
        engine=engine,
    )
    return measure_by_task(recommender, holdout, options)


def figures_of_card(recommender: Recommender, run: str, file: str | None) -> Evaluation | None:
    """Figures for the card of a run: those of a file of `segue evaluate --out`, or else of the test part.

    None if the run was trained on everything.

    Raises
    ------
    ConfigError
        The file is the evaluation of another model.
    """
    if file is None:
        if not recommender.metadata.get("split"):
            return None
        return measure(recommender, questions(recommender, run, "test"), Protocol())
    from segue.evaluation.tasks.result import Evaluation as Result

    evaluation, name = Result.load(file), recommender.model.config.name
    if evaluation.model != name:
        raise ConfigError(f"{file} is of {evaluation.model}, and {run} of {name}: give an evaluation of this run.")
    return evaluation


def task_of_run(recommender: Recommender) -> Task:
    """The task of a run's model."""
    from segue.evaluation.tasks.task import task_of

    return task_of(recommender.model.config)
