"""`segue pull`: copy a folder of segue from an object store to this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, progress_bar
from segue.settings import PathText, Settings, Word

_NOTES = """\
  segue pull s3://bucket/shards data/shards
  segue pull gs://bucket/lists lists/

A store needs `pip install 'segue[s3]'`. The place holds what `segue push` wrote: a Dataset, also in shards, lists, or a
Recommender. The folder is there when all files are; until then they stand in FOLDER.download, and the same command goes
on after an interruption. Models of the Hugging Face hub need no copy: segue.load("hf://owner/name") opens them."""


@dataclass(frozen=True)
class PullOptions(Settings):
    """The place in the store, and the folder."""

    url: Word = field(metadata=POSITIONAL)
    """Place in a store, as s3://bucket/folder."""

    folder: PathText = field(metadata=POSITIONAL)
    """Folder to write."""

    overwrite: bool | None = None
    """Replace a folder of the same kind; when not given, true. Anything else that is there is never replaced."""

    quiet: bool = False
    """Show no progress."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("pull", _NOTES)
    parser.add_options(PullOptions)
    parser.read(argv)
    options = parser.get(PullOptions)
    from segue.transfers import download

    with progress_bar(options.quiet) as progress:
        folder = download(options.url, options.folder, overwrite=options.overwrite, progress=progress)
    console().print(str(folder), highlight=False, markup=False, soft_wrap=True)
    return 0
