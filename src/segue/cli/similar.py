"""`segue similar`: items that a model holds to be alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import write_frame


@dataclass(frozen=True)
class SimilarOptions:
    """Which items."""

    run: str = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    items: tuple[str, ...]
    """Raw ids of items."""

    k: int = 10
    """How many alike items for each."""

    device: str | None = None
    """cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("similar")
    parser.add_options(SimilarOptions)
    parser.read(argv)
    options = parser.get(SimilarOptions)

    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    write_frame(recommender.similar(list(options.items), options.k), options.json)
    return 0
