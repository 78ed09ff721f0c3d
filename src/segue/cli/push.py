"""`segue push`: write a run to the Hugging Face hub, with its card."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note
from segue.cli.protocol import figures_of_card
from segue.settings import PathText, Settings, Word

_NOTES = """\
  segue push runs/first owner/name
  segue push runs/first owner/name --histories --public

Needs `pip install 'segue[hub]'` and a token (`hf auth login`, or HF_TOKEN). The histories of the users stay at home
unless --histories says otherwise; their ids are pushed. In Python, segue.load("hf://owner/name") opens the model."""


@dataclass(frozen=True)
class PushOptions(Settings):
    """The run, and its place on the hub."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    repository: Word = field(metadata=POSITIONAL)
    """Name of the repository, as owner/name. It is made if need be."""

    histories: bool = False
    """Push the histories of the users, too: personal data."""

    public: bool = False
    """Make a new repository public."""

    evaluation: PathText | None = None
    """Take the figures of the card from this file of `segue evaluate --out`; when not given, the test part is
    measured."""

    device: Word | None = None
    """cpu, cuda, …; cpu when not given."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("push", _NOTES)
    parser.add_options(PushOptions)
    parser.read(argv)
    options = parser.get(PushOptions)

    from segue.inference.hub import SCHEME, parse, push
    from segue.inference.loading import load
    from segue.training.card import card_of

    name = parse(options.repository)[0]
    recommender = load(options.run, device=options.device)
    evaluation = figures_of_card(recommender, options.run, options.evaluation)
    with tempfile.TemporaryDirectory(prefix="segue-push-") as place:
        folder = Path(place)
        recommender.save(folder / "recommender", histories=options.histories)
        text = card_of(load(folder), name.rpartition("/")[2], evaluation, SCHEME + name)
        (folder / "README.md").write_text(text, encoding="utf-8")
        address = push(folder, options.repository, private=not options.public)
    if options.histories:
        note("The histories of the users were pushed: personal data.")
    console().print(address, highlight=False, markup=False, soft_wrap=True)
    return 0
