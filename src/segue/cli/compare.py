"""`segue compare`: test two or more runs for a real difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json
from segue.cli.protocol import Protocol, measure, questions, task_of_run
from segue.errors import ConfigError
from segue.settings import PathText, Settings

if TYPE_CHECKING:
    from segue.data.splits.holdouts import Holdout
    from segue.evaluation.tasks.result import Evaluation
    from segue.inference.recommender import Recommender

_NOTES = """\
All runs are evaluated on the same users, and compared with the first. Models of ratings are compared by the ratings
they expect; with other models, or with --ranking, by how they rank. The intervals and p-values cover the differences
between users, not the luck of a training: train with several seeds to compare methods."""


@dataclass(frozen=True)
class CompareOptions(Settings):
    """The comparison."""

    runs: tuple[PathText, ...] = field(metadata=POSITIONAL)
    """Folders of two or more runs of `segue train`, with the same Dataset and split."""

    metric: tuple[str, ...] | None = None
    """Names of the metrics, such as ndcg@10, sess_prec@10 of sessions, or rmse; all when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("compare", _NOTES)
    parser.add_options(CompareOptions)
    parser.add_options(Protocol)
    parser.read(argv)
    options, protocol = parser.get(CompareOptions), parser.get(Protocol)
    if len(options.runs) < 2:
        raise ConfigError(f"segue compare needs two runs or more, found {len(options.runs)}.")

    from segue.evaluation.compare import compare
    from segue.inference.loading import load

    recommenders = [load(run, device=protocol.device) for run in options.runs]
    holdouts = [
        questions(recommender, run, protocol.on) for run, recommender in zip(options.runs, recommenders, strict=True)
    ]
    shared = _shared(protocol, recommenders, holdouts)
    evaluations = [
        measure(recommender, holdout, shared) for recommender, holdout in zip(recommenders, holdouts, strict=True)
    ]
    first, *others = (evaluation.ranking or evaluation for evaluation in evaluations)
    comparisons = [
        compare(
            first, other, metric=options.metric, names=_names(first, other, options.runs[0], run), seed=protocol.seed
        )
        for run, other in zip(options.runs[1:], others, strict=True)
    ]
    if options.json:
        pairs = zip(options.runs[1:], comparisons, strict=True)
        write_json([{"runs": [options.runs[0], run], **comparison.to_dict()} for run, comparison in pairs])
        return 0
    note(first.setting)
    for run, comparison in zip(options.runs[1:], comparisons, strict=True):
        note(f"\n{run} against {options.runs[0]}")
        for part in (comparison, *comparison.sessions.values()):
            if part.differences:
                console().print(part.table(), highlight=False)
    return 0


def _shared(protocol: Protocol, recommenders: Sequence[Recommender], holdouts: Sequence[Holdout]) -> Protocol:
    """The same options for all runs: rankings if any task ranks, and seen items kept if any run keeps them."""
    from segue.evaluation.tasks.task import leaves_seen_out

    tasks = [task_of_run(recommender) for recommender in recommenders]
    ranking = protocol.ranking or any(task.ranks for task in tasks)
    if ranking and not all(task.ranks for task in tasks):
        names = ", ".join(dict.fromkeys(task.name for task in tasks if not task.ranks))
        note(f"The runs are compared by how they rank, and not by the {names} that some of them expect.")
    include_seen = protocol.include_seen
    if include_seen is None:
        pairs = zip(recommenders, holdouts, strict=True)
        include_seen = not all(leaves_seen_out(recommender.model.config, holdout) for recommender, holdout in pairs)
    return replace(protocol, ranking=ranking, include_seen=include_seen)


def _names(first: Evaluation, other: Evaluation, *runs: str) -> tuple[str, str]:
    """The names of the models or, if both are the same, of the runs."""
    return (first.model, other.model) if first.model != other.model else (runs[0], runs[1])
