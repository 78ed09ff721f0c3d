"""`segue score`: a model's scores of given items for given users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.asking import ids_of, items_of, only_one, require_one
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import with_titles, write_frame
from segue.cli.protocol import Part, questions
from segue.errors import ConfigError
from segue.settings import PathText, Settings, Word

_NOTES = "  segue score runs/first --user 42 --basket 50 172 --items 1 2"


@dataclass(frozen=True)
class ScoreOptions(Settings):
    """Users and items."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    users: tuple[str, ...] | None = None
    """Raw ids of users."""

    users_file: PathText | None = None
    """File with raw ids of users, one per line."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items in the history of an unknown user, oldest first."""

    basket: tuple[str, ...] | None = None
    """Raw ids of the items in the session in progress of one user or one history; [] if it has just begun."""

    items: tuple[str, ...] | None = None
    """Raw ids of items."""

    items_file: PathText | None = None
    """File with raw ids of items, one per line."""

    on: Part | None = None
    """Answer as in the evaluation of this part of the split: from each user's history before the held-out items."""

    as_of: str | None = None
    """Read only histories before this moment: 2024-03-01, or a number in the Dataset's time unit."""

    long: bool = False
    """Write a row per user and item, instead of a column per item."""

    device: Word | None = None
    """Device: cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("score", _NOTES, {"user": "users", "item": "items"})
    parser.add_options(ScoreOptions)
    parser.read(argv)
    options = parser.get(ScoreOptions)
    require_one(
        options.basket,
        users=options.users,
        users_file=options.users_file,
        history=options.history,
    )
    if options.history and options.on is not None:
        raise ConfigError("--history does not go with --on: it is the whole history.")
    only_one(items=options.items, items_file=options.items_file)

    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    if options.on is not None:
        recommender = recommender.without(questions(recommender, options.run, options.on))
    scores = recommender.score(
        ids_of(options.users, options.users_file),
        ids_of(options.items, options.items_file),
        histories=[list(options.history)] if options.history else None,
        basket=items_of(options.basket),
        as_of=options.as_of,
        long=options.long,
    )
    write_frame(with_titles(scores, recommender.dataset) if options.long and not options.json else scores, options.json)
    return 0
