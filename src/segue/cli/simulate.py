"""`segue simulate`: sessions of simulated shoppers with known preferences."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from segue.cli.options import OptionParser
from segue.cli.output import note, progress_bar, write_json, write_pairs
from segue.data.simulation.planted import Market
from segue.settings import Count, PathText, Settings

_NOTES = """\
  segue simulate --out data/shop                                       a Dataset
  segue simulate --out shop.parquet --users 100000 --sessions 100      a log
  segue simulate --out shop.txt --products 100 --price-effect 0.1      a session file

The truth is written beside the sessions (.truth.npz): the covariance of the categories for each group of users, the
group of each user, prices, and correlations of the tastes for products. Memory is bounded for any number of users."""


@dataclass(frozen=True)
class SimulateOptions(Settings):
    """Output."""

    out: PathText
    """File (.parquet, .csv, .txt), or folder of a Dataset, to write."""

    format: Literal["parquet", "csv", "session-file", "dataset"] | None = None
    """Format to write; by the ending of --out when not given."""

    overwrite: bool | None = None
    """Replace an earlier simulation in --out; when not given, true. Anything else that is there is never replaced."""

    partition: Count = 1024
    """Users held in memory at a time; the result does not depend on it."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the summary as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("simulate", _NOTES)
    parser.add_options(SimulateOptions)
    parser.add_options(Market)
    parser.read(argv)
    options, market = parser.get(SimulateOptions), parser.get(Market)

    from segue.data.simulation.simulate import format_of, simulate, truth_beside

    with parser.errors_as_typed(), progress_bar(options.quiet) as progress:
        simulation = simulate(**asdict(market), partition=options.partition)
        simulation.save(options.out, options.format, progress, options.overwrite)
    summary: dict[str, object] = {
        "wrote": options.out,
        "truth": str(truth_beside(options.out)),
        "users": market.users,
        "sessions": market.users * market.sessions,
        "items": market.items,
    }
    if options.json:
        write_json({**summary, "market": asdict(market)})
    else:
        write_pairs(summary)
    command = "describe" if format_of(options.out, options.format) == "dataset" else "prepare"
    note(f"Next: segue {command} {shlex.quote(options.out)}{' --out data/simulated' if command == 'prepare' else ''}")
    return 0
