"""`segue forget`: remove users from a Dataset or a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.asking import ids_of
from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_json
from segue.errors import ConfigError
from segue.settings import PathText, Settings

_NOTES = """\
  segue forget data/mine --users 42 --out data/without
  segue forget data/mine --users-file forgotten.txt --skip-unknown
  segue forget runs/first --histories --out models/light

The interactions, the id and the vectors of the users are removed; the codes of all others stay. Checkpoints of a run
are deleted, since they hold the vectors too. The other weights of a model were learned from all users. To remove what
they may still remember of these users, train again without them."""


@dataclass(frozen=True)
class ForgetOptions(Settings):
    """The users, and the place."""

    target: PathText = field(metadata=POSITIONAL)
    """Folder of a Dataset, of a run, or of a Recommender."""

    users: tuple[str, ...] | None = None
    """Ids of the users to forget."""

    users_file: PathText | None = None
    """File with ids of users to forget, one per line, as segue events export --forgotten writes it."""

    skip_unknown: bool = False
    """Accept ids of which none is known, as a list of all users that a service has forgotten; an empty list, too."""

    histories: bool = False
    """Leave out the histories of all users of a run or a Recommender; their ids stay. Needs --out."""

    out: PathText | None = None
    """Folder to write the Dataset or the Recommender to; in the place of the old one when not given."""

    json: bool = False
    """Write the result as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("forget", _NOTES, {"user": "users"})
    parser.add_options(ForgetOptions)
    parser.read(argv)
    options = parser.get(ForgetOptions)
    if options.users is not None and options.users_file is not None:
        raise ConfigError("--users and --users-file are two lists: give one.")
    users = ids_of(options.users, options.users_file) or ()
    if not users and not options.histories and not (options.skip_unknown and options.users_file is not None):
        raise ConfigError("segue forget needs --users or --users-file, or --histories for the histories of all.")
    if options.histories and options.out is None:
        raise ConfigError("--histories needs --out: a run without histories cannot be evaluated any more.")

    from segue.training.forgetting import forget

    with parser.errors_as_typed():
        result = forget(
            options.target,
            users,
            histories=not options.histories,
            out=options.out,
            may_be_unknown=options.skip_unknown,
        )
    if options.json:
        write_json(result)
        return 0
    unknown = f" ({result['unknown']:,} of the ids are unknown)" if result["unknown"] else ""
    note(f"{result['users']:,} users forgotten{unknown}: {result['written']}")
    if result["deleted"]:
        note(f"deleted {len(result['deleted'])} checkpoints of {Path(options.target)}; the run cannot be resumed.")
    if result["remembers"]:
        note(f"{result['remembers']}")
    return 0
