"""`segue datasets`: the public datasets that segue knows by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from segue.cli.options import OptionParser
from segue.cli.output import note, write_json, write_table
from segue.settings import Settings


@dataclass(frozen=True)
class DatasetsOptions(Settings):
    """Output."""

    json: bool = False
    """Write all that is known of each dataset as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("datasets")
    parser.add_options(DatasetsOptions)
    parser.read(argv)

    from segue.data.public.fetch import available

    known = available()
    if parser.get(DatasetsOptions).json:
        write_json([dataclasses.asdict(dataset) for dataset in known])
        return 0
    rows = [
        (dataset.name, dataset.title, dataset.interactions, _megabytes(dataset.size), dataset.homepage)
        for dataset in known
    ]
    write_table(("name", "dataset", "interactions", "download", "described at"), rows)
    note("\nTheir terms of use: segue datasets --json. Fetch and prepare one: segue prepare ml-1m --out data/ml-1m")
    return 0


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f} MB"
