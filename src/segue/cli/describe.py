"""`segue describe`: figures and pictures of a Dataset."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json
from segue.cli.splitting import SplitOptions, split_options
from segue.errors import ConfigError
from segue.settings import PathText, Settings

if TYPE_CHECKING:
    from segue.data.dataset import Dataset
    from segue.data.splits.holdouts import Split
    from segue.data.statistics.sessions import SessionStatistics

_NOTES = """\
  segue describe data/mine --picture mine.png
  segue describe data/mine --split leave-last-out"""


@dataclass(frozen=True)
class DescribeOptions(Settings):
    """Dataset and output."""

    dataset: PathText = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote."""

    picture: PathText | None = None
    """File for a picture of the distributions (.png, .svg or .pdf)."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("describe", _NOTES)
    split_group = split_options()
    parser.add_options(DescribeOptions)
    parser.add_options(split_group)
    parser.read(argv)
    options, splitting = parser.get(DescribeOptions), parser.get(split_group)

    from segue.data.dataset import Dataset
    from segue.data.statistics.describe import describe

    dataset = Dataset.open(options.dataset)
    split = _split(dataset, splitting)
    description = describe(dataset if split is None else split.train)
    parts = {
        part.name: {"users": len(part), "targets": int(part.n_targets.sum())}
        for part in (() if split is None else (split.validation, split.test))
    }
    if options.json:
        write_json(description.to_dict() | ({} if split is None else {"split": split.spec, **parts}))
    else:
        if split is not None:
            note(f"split: {split.spec['name']}; the figures are those of its training part")
        console().print(description.table())
        for name, size in parts.items():
            note(f"{name}: {size['targets']:,} held-out items of {size['users']:,} users")
        _suggest(options.dataset, description.sessions)
    if options.picture is not None:
        note(f"wrote {description.picture(options.picture)}")
    return 0


def _suggest(folder: str, sessions: SessionStatistics | None) -> None:
    """Print the command of the model that suits the sessions, if it is not the usual one."""
    from segue.models.suited import suggestion_for

    suggestion = suggestion_for(sessions)
    if suggestion is not None:
        model = "" if suggestion.model is None else f" --model {suggestion.model}"
        command = f"segue train {shlex.quote(folder)}{model} --split {suggestion.split}"
        note(f"{suggestion.reason}. This suits them: {command}")


def _split(dataset: Dataset, splitting: SplitOptions) -> Split | None:
    """The split that is named; None if none is."""
    from segue.data.splits.registry import split_by

    if splitting.split is not None:
        return split_by(dataset, splitting.spec({}))
    for option in fields(splitting):
        if getattr(splitting, option.name) is not None:
            raise ConfigError(f"--{option.name.replace('_', '-')} needs --split, the name of the split.")
    return None
