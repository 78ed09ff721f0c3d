"""`segue describe`: figures and pictures of a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import console, note, write_json
from segue.settings import PathText, Settings


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
    parser = OptionParser("describe", "  segue describe data/mine --picture mine.png")
    parser.add_options(DescribeOptions)
    parser.read(argv)
    options = parser.get(DescribeOptions)

    from segue.data.dataset import Dataset
    from segue.data.statistics.describe import describe

    description = describe(Dataset.open(options.dataset))
    if options.json:
        write_json(description.to_dict())
    else:
        console().print(description.table())
    if options.picture is not None:
        note(f"wrote {description.picture(options.picture)}")
    return 0
