"""`segue card`: write the model card of a run, with the figures of its test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note
from segue.cli.protocol import figures_of_card
from segue.settings import PathText, Settings, Word

_NOTES = """\
  segue card runs/first
  segue card runs/first --evaluation first.json

The card is MODEL_CARD.md in the folder of the run: data, split, settings, figures with intervals, limits, and how to
load the model. `segue train` writes it without the figures of the test part."""


@dataclass(frozen=True)
class CardOptions(Settings):
    """The run, and the figures."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote."""

    evaluation: PathText | None = None
    """Take the figures from this file of `segue evaluate --out`; when not given, the test part is measured."""

    device: Word | None = None
    """cpu, cuda, …; cpu when not given."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("card", _NOTES)
    parser.add_options(CardOptions)
    parser.read(argv)
    options = parser.get(CardOptions)

    from segue.errors import ConfigError
    from segue.inference.loading import load
    from segue.training.card import write_card
    from segue.training.run_manifest import RUN

    run = Path(options.run)
    recommender = load(run, device=options.device)
    if not (run / RUN).is_file():
        raise ConfigError(f"{run} is no folder of a run: expected one that `segue train` or fit(out=…) wrote.")
    evaluation = figures_of_card(recommender, options.run, options.evaluation)
    note(f"wrote {write_card(run, recommender, evaluation)}")
    return 0
