"""`segue complete`: the rest of a basket, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.asking import ids_of, items_of, require_one
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import with_titles, write_frame
from segue.settings import Count, PathText, Settings, Word

_NOTES = """\
  segue complete runs/first --basket 50 172
  segue complete runs/first --history 181 50 --basket 172 --n 3

The best item joins the basket; the next one is recommended for the new basket."""


@dataclass(frozen=True)
class CompleteOptions(Settings):
    """User and basket."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    user: str | None = None
    """Raw id of the user."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items in the history of an unknown user, oldest first."""

    basket: tuple[str, ...] | None = None
    """Raw ids of the items in the basket so far; none when not given."""

    n: Count = 5
    """Number of steps."""

    include_seen: bool = True
    """Add items of the user's history too."""

    allow_file: PathText | None = None
    """File with raw ids of the only items that may be added, one per line."""

    deny_file: PathText | None = None
    """File with raw ids of items that may not be added, one per line."""

    where: str | None = None
    """Condition on the item table, in SQL: "price < 20 AND category = 'tea'". Only items that fulfil it are added."""

    show: tuple[str, ...] | None = None
    """Columns of the item table to show; the titles when not given, and nothing in --json."""

    as_of: str | None = None
    """Read only histories before this moment: 2024-03-01, or a number in the Dataset's time unit."""

    device: Word | None = None
    """Device: cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("complete", _NOTES)
    parser.add_options(CompleteOptions)
    parser.read(argv)
    options = parser.get(CompleteOptions)
    require_one(options.basket, user=options.user, history=options.history)

    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    steps = recommender.complete(
        options.user,
        options.n,
        histories=[list(options.history)] if options.history else None,
        basket=items_of(options.basket),
        allow=ids_of(None, options.allow_file),
        deny=ids_of(None, options.deny_file),
        as_of=options.as_of,
        exclude_seen=not options.include_seen,
        where=options.where,
    )
    if options.show is not None or not options.json:
        steps = with_titles(steps, recommender.dataset, options.show)
    write_frame(steps, options.json)
    return 0
