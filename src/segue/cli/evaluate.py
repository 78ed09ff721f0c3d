"""`segue evaluate`: measure a run on its test or validation users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_frame, write_json
from segue.cli.protocol import Protocol, measure, questions
from segue.engines.engine import Engine
from segue.settings import Count, PathText, Settings

if TYPE_CHECKING:
    from segue.data.splits.holdouts import Holdout
    from segue.evaluation.tasks.result import Evaluation
    from segue.inference.recommender import Recommender

_EXAMPLES = 3
"""Number of users in a report."""

_NOTES = """\
  segue evaluate runs/first --candidates 100 --by popularity --users 10000
  segue evaluate runs/first --report first.html
  segue evaluate runs/first --processes 4

A target ranks behind every other item with the same score, so no model gains from ties. A run with --split
last-session-out is measured by whole baskets, with repeats and new items apart, and session by session: at each step an
item of the session joins the basket, and the best of those that remain is ranked, among all items and among sampled
ones. A model of ratings is measured by the ratings it expects; with --ranking also by how it ranks."""


@dataclass(frozen=True)
class EvaluateOptions(Settings):
    """The run, and the output."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote."""

    epoch: Count | None = None
    """Evaluate the weights of this epoch instead of the best; --training.keep-every keeps them."""

    data: PathText | None = None
    """Evaluate on this other Dataset or log, split as the run's was. Ids are matched; unknown ones are counted."""

    out: PathText | None = None
    """Also write the evaluation, with the values per user, to this JSON file."""

    report: PathText | None = None
    """Also write one HTML page to this file: figures, examples with reasons, curves, data and settings."""

    trec: PathText | None = None
    """Also write the targets and lists of 100 items to this folder in the form of TREC: qrels.txt and run.txt."""

    parts: bool = False
    """Also show the figures by length of history and by popularity; of baskets, the parts; of sessions, by step; of
    ratings, by the number of the item's ratings, and their calibration."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("evaluate", _NOTES)
    parser.add_options(EvaluateOptions)
    parser.add_options(Protocol)
    parser.add_options(Engine)
    parser.read(argv)
    options, protocol, engine = parser.get(EvaluateOptions), parser.get(Protocol), parser.get(Engine)

    from segue.inference.loading import load

    recommender = load(options.run, device=protocol.device, epoch=options.epoch)
    if options.data is None:
        holdout, split = questions(recommender, options.run, protocol.on), None
    else:
        from segue.evaluation.other_data import split_for

        parts = split_for(recommender, options.data)
        holdout = parts.test if protocol.on == "test" else parts.validation
        split = str(parts.spec["name"])
    with parser.errors_as_typed():
        evaluation = measure(recommender, holdout, protocol, split, engine)
    if options.out is not None:
        note(f"wrote {evaluation.save(options.out)}")
    if options.report is not None:
        note(f"wrote {_report(options, recommender, holdout, evaluation)}")
    if options.trec is not None:
        from segue.evaluation.trec import write_trec

        for path in write_trec(options.trec, recommender, holdout, evaluation.ranking or evaluation):
            note(f"wrote {path}")
    if options.json:
        data = {} if options.data is None else {"data": options.data}
        write_json({"run": options.run, **data, **evaluation.to_dict()})
        return 0
    _show(evaluation, options.parts)
    if evaluation.ranking is not None:
        _say("")
        _show(evaluation.ranking, options.parts)
    return 0


def _show(evaluation: Evaluation, parts: bool) -> None:
    """Print the figures, with `parts` those of every part, and those of sessions if there are any."""
    table = evaluation.table()
    table.title = None  # it would be folded to the width of the table
    _say(evaluation.caption)
    console().print(table, highlight=False)
    for part in evaluation.parts.values() if parts else ():
        write_frame(part, as_json=False)
    if evaluation.sessions:
        _show_sessions(evaluation, parts)


def _show_sessions(evaluation: Evaluation, parts: bool) -> None:
    """Print one table of both ways of ranking and, with `parts`, each way by step."""
    from segue.evaluation.tasks.result import side_by_side

    ways = {f"among {way.candidates}": way for way in evaluation.sessions.values()}
    first = evaluation.sessions["all"]
    size = first.task.questions(first.protocol)
    _say(f"\n{evaluation.model} · {first.protocol['split']}: {size}, items of the history kept")
    console().print(side_by_side(ways), highlight=False)
    for name, way in ways.items() if parts else ():
        _say(f"\nby step, {name}")
        write_frame(way.by_step, as_json=False)


def _say(line: str) -> None:
    console().print(line, highlight=False, markup=False, soft_wrap=True)


def _report(options: EvaluateOptions, recommender: Recommender, holdout: Holdout, evaluation: Evaluation) -> Path:
    """Write the page about one run, with the first users of the Holdout as examples."""
    from segue.evaluation.report.examples import examples_of
    from segue.evaluation.report.runs import report_runs

    assert options.report is not None
    # Examples are of the histories of the run.
    shown = holdout.users[: _EXAMPLES if options.data is None else 0]
    users = holdout.dataset.users.decode(shown).to_list()
    return report_runs(
        options.report,
        {evaluation.model: recommender},
        {evaluation.model: evaluation},
        title=f"{options.run}: {evaluation.model}" + (f" on {options.data}" if options.data else ""),
        folders={evaluation.model: options.run},
        examples=examples_of(recommender, users) if users else (),
    )
