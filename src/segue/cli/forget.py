"""`segue forget`: remove users from a Dataset or a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_json
from segue.errors import ConfigError
from segue.settings import PathText, Settings

_NOTES = """\
  segue forget data/mine --users 42 --out data/without
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

    histories: bool = False
    """Leave out the histories of all users of a run or a Recommender; their ids stay. Needs --out."""

    out: PathText | None = None
    """Folder to write the Dataset or the Recommender to; in the place of the old one when not given."""

    json: bool = False
    """Write the result as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("forget", _NOTES)
    parser.add_options(ForgetOptions)
    parser.read(argv)
    options = parser.get(ForgetOptions)
    if not options.users and not options.histories:
        raise ConfigError("segue forget needs --users, or --histories for the histories of all.")
    if options.histories and options.out is None:
        raise ConfigError("--histories needs --out: a run without histories cannot be evaluated any more.")

    from segue.training.forgetting import forget

    with parser.errors_as_typed():
        result = forget(options.target, options.users or (), histories=not options.histories, out=options.out)
    if options.json:
        write_json(result)
        return 0
    note(f"{result['users']:,} users forgotten: {result['written']}")
    if result["deleted"]:
        note(f"deleted {len(result['deleted'])} checkpoints of {Path(options.target)}; the run cannot be resumed.")
    if result["remembers"]:
        note(f"{result['remembers']}")
    return 0
