"""`segue blend`: one Recommender from several runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_json, write_pairs
from segue.errors import ConfigError
from segue.settings import PathText, Penalty, Settings, Word

_NOTES = """\
The score of an item is the weighted sum of its scores by the runs. The weights are chosen on the validation part, and
every trial is printed. The result is a Recommender: all other commands take its folder, which holds the parts.
  segue blend runs/sasrec runs/markov --out runs/both
  segue blend runs/sasrec runs/markov --out runs/both --weights 1,0.3"""


@dataclass(frozen=True)
class BlendOptions(Settings):
    """The runs and the blend."""

    runs: tuple[PathText, ...] = field(metadata=POSITIONAL)
    """Folders of two or more runs of `segue train`, with the same Dataset and split."""

    out: PathText
    """Folder of the blended Recommender; one that is there already is replaced."""

    by: Literal["log-probability", "rank"] = "log-probability"
    """Form in which scores are added: log-probabilities, or reciprocal ranks."""

    weights: tuple[Penalty, ...] | None = None
    """A weight for each run, in place of the search: 1,0.3."""

    metric: Word = "ndcg@10"
    """Metric of ranking that the weights shall raise on the validation part."""

    include_seen: bool | None = None
    """Keep items of the history in the ranking of the search. When not given, as in the training of the first run."""

    overwrite: bool | None = None
    """Replace a Recommender in --out; when not given, true. Anything else that is there is never replaced."""

    quiet: bool = False
    """Do not print the search."""

    json: bool = False
    """Write the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("blend", _NOTES)
    parser.add_options(BlendOptions)
    parser.read(argv)
    options = parser.get(BlendOptions)
    if len(options.runs) < 2:
        raise ConfigError(f"segue blend needs two runs or more, found {len(options.runs)}.")

    from segue.inference.loading import load
    from segue.training.blending import blend

    recommender = blend(
        [load(run) for run in options.runs],
        weights=options.weights,
        by=options.by,
        metric=options.metric,
        exclude_seen=None if options.include_seen is None else not options.include_seen,
        names=options.runs,
        quiet=options.quiet,
    )
    recommender.save(Path(options.out), overwrite=options.overwrite)
    blended = recommender.metadata["blend"]
    measured = recommender.metadata["training"]["validation"]
    if options.json:
        write_json({"run": options.out, **blended, "validation": measured})
        return 0
    weights = {f"weight of {name}": weight for name, weight in zip(blended["parts"], blended["weights"], strict=True)}
    write_pairs({**weights, **{f"validation {name}": value for name, value in measured.items()}, "run": options.out})
    note(f"Next: segue evaluate {shlex.quote(options.out)}")
    return 0
