"""`segue experiment`: models × data sets × settings × seeds, and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json
from segue.engines.engine import Engine
from segue.settings import PathText, Settings

if TYPE_CHECKING:
    from segue.evaluation.tasks.result import Evaluation
    from segue.training.plan import Cell

_NOTES = """\
A plan is a YAML file:
  data: {games: data/games, beauty: data/beauty}
  models: {EASE: ease, SASRec: {model: sasrec, width: 64}}
  seeds: 5
  training: {epochs: 100}
  evaluation: {k: [10]}
Further parts: settings, split, metrics, baseline. Each cell is a run in OUT/DATA/MODEL/seed-N. Cells that are done
are skipped, and the same command goes on where it was stopped or killed. --processes trains so many cells at once, with
--engine ray on several machines. The table is in results.md, .tex, .csv, .html and .png."""


@dataclass(frozen=True)
class ExperimentOptions(Settings):
    """The plan, and the output."""

    plan: PathText = field(metadata=POSITIONAL)
    """YAML file with the plan."""

    out: PathText | None = None
    """Folder of the experiment; the name of the plan without its ending when not given."""

    quiet: bool = False
    """Do not print each cell."""

    json: bool = False
    """Write the table as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("experiment", _NOTES)
    parser.add_options(ExperimentOptions)
    parser.add_options(Engine)
    parser.read(argv)
    options, engine = parser.get(ExperimentOptions), parser.get(Engine)

    from segue.training.experiment import experiment, summary_of

    def say(cell: Cell, evaluation: Evaluation, done: int, cells: int) -> None:
        figures = "  ".join(summary_of(cell, evaluation))
        note(f"{done} of {cells}  {cell.data}  {cell.model}  seed {cell.seed}  {figures}")

    out = options.out or str(Path(options.plan).with_suffix(""))
    with parser.errors_as_typed():
        results = experiment(options.plan, out, engine=engine, on_cell=None if options.quiet else say)
    if options.json:
        write_json(results.to_frame().to_dicts())
        return 0
    console().print(results.table(), highlight=False)
    note(f"wrote {Path(out) / 'results.html'}, and the same as .md, .tex, .csv and .png")
    return 0
