"""`segue compare`: test two or more runs for a real difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.evaluate import Protocol, measure
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json
from segue.cli.runs import questions
from segue.errors import ConfigError

_NOTES = """\
Every run is asked about the same users; the first is what the others are compared with. The intervals and p-values
know how much users differ, not how lucky a training was: train with several seeds to speak of methods."""


@dataclass(frozen=True)
class CompareOptions:
    """What is compared."""

    runs: tuple[str, ...] = field(metadata=POSITIONAL)
    """Folders of two or more runs that `segue train` wrote, with the same Dataset and split."""

    metric: tuple[str, ...] | None = None
    """Names of the metrics to compare, such as ndcg@10; all when not given."""

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
    from segue.inference.recommender import load

    evaluations = []
    for run in options.runs:
        recommender = load(run, device=protocol.device)
        evaluations.append(measure(recommender, questions(recommender, run, protocol.on), protocol))
    first, *others = evaluations
    found = [compare(first, other, metric=options.metric, seed=protocol.seed) for other in others]
    if options.json:
        pairs = zip(options.runs[1:], found, strict=True)
        write_json([{"runs": [options.runs[0], run], **comparison.to_dict()} for run, comparison in pairs])
        return 0
    note(first.describe())
    for run, comparison in zip(options.runs[1:], found, strict=True):
        note(f"\n{run} against {options.runs[0]}")
        console().print(comparison.table(), highlight=False)
    return 0
