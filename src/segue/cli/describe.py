"""`segue describe`: count and picture what a Dataset holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json


@dataclass(frozen=True)
class DescribeOptions:
    """What to describe, and how."""

    dataset: str = field(metadata=POSITIONAL)
    """Folder of the Dataset that `segue prepare` wrote."""

    picture: str | None = None
    """Draw the distributions into this file (.png, .svg or .pdf)."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("describe", "  segue describe data/mine --picture mine.png")
    parser.add_options(DescribeOptions)
    parser.read(argv)
    options = parser.get(DescribeOptions)

    from segue.data.dataset import Dataset
    from segue.data.statistics.describe import describe

    found = describe(Dataset.open(options.dataset))
    if options.json:
        write_json(found.to_dict())
    else:
        console().print(found.table())
    if options.picture is not None:
        note(f"wrote {found.picture(options.picture)}")
    return 0
