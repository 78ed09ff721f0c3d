"""`segue similar`: the items most like some others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import with_titles, write_frame
from segue.settings import Count, PathText, Settings, Word


@dataclass(frozen=True)
class SimilarOptions(Settings):
    """Items."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    items: tuple[str, ...]
    """Raw ids of items."""

    k: Count = 10
    """Number of similar items for each."""

    show: tuple[str, ...] | None = None
    """Columns of the item table to show; the titles when not given, and nothing in --json."""

    device: Word | None = None
    """Device: cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("similar", aliases={"item": "items"})
    parser.add_options(SimilarOptions)
    parser.read(argv)
    options = parser.get(SimilarOptions)

    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    frame = recommender.similar(list(options.items), options.k)
    if options.show is not None or not options.json:
        frame = with_titles(frame, recommender.dataset, options.show)
    write_frame(frame, options.json)
    return 0
