"""`segue push`: write a run to the Hugging Face hub, with its card, or a folder of segue to an object store."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note
from segue.cli.protocol import figures_of_card
from segue.errors import ConfigError
from segue.settings import PathText, Settings, Word
from segue.stores import is_url

_NOTES = """\
  segue push runs/first owner/name
  segue push runs/first owner/name --histories --public
  segue push data/shards s3://bucket/shards

The hub needs `pip install 'segue[hub]'` and a token (`hf auth login`, or HF_TOKEN). The histories of the users stay at
home unless --histories says otherwise; their ids are pushed. In Python, segue.load("hf://owner/name") opens the model.

A store needs `pip install 'segue[s3]'`. It takes any folder with a manifest: a Dataset, also in shards, lists, or the
folder recommender of a run. The manifest is written last, and the same command goes on after an interruption."""


@dataclass(frozen=True)
class PushOptions(Settings):
    """The run or the folder, and its place."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender; for a store, any folder with a manifest."""

    repository: Word = field(metadata=POSITIONAL)
    """Name of the repository, as owner/name, which is made if need be; or a place in a store, as
    s3://bucket/folder."""

    histories: bool = False
    """Push the histories of the users to the hub, too: personal data."""

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
    if is_url(options.repository) and not options.repository.startswith("hf://"):
        address = _to_store(options)
    else:
        address = _to_hub(options)
    console().print(address, highlight=False, markup=False, soft_wrap=True)
    return 0


def _to_store(options: PushOptions) -> str:
    """Copy a folder to an object store; return its address."""
    if options != PushOptions(options.run, options.repository):
        raise ConfigError(
            "--histories, --public, --evaluation and --device are for a repository of the hub; a store gets the files "
            "of the folder as they are."
        )
    from segue.cli.output import progress_bar
    from segue.transfers import upload

    with progress_bar(quiet=False) as progress:
        return upload(options.run, options.repository, progress=progress)


def _to_hub(options: PushOptions) -> str:
    """Write a run to a repository of the hub; return the address of the commit."""
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
    return address
