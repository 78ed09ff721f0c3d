"""`segue outcome`: the share of shown items that users took, for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from segue.cli.options import OptionParser
from segue.cli.output import write_json, write_table
from segue.settings import Positive, Range, Seed, Settings, Word

_NOTES = """\
An event shown, with the recommendation_id of its answer, counts as taken if the user took the item afterwards.
Intervals are bootstraps over users; the p-value deals the users to the variants at random."""


@dataclass(frozen=True)
class OutcomeOptions(Settings):
    """Outcome."""

    store: Word = "sqlite:///events.db"
    """Store of the events: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE."""

    since: str | None = None
    """Count only events that arrived from this time on: 2024-03-01 or 2024-03-01T12:00."""

    within: Positive | None = None
    """Hours after the showing in which an item must be taken; any time when not given."""

    resamples: Annotated[int, Range(1, 1_000_000)] = 10_000
    """Number of resamples of the users, and of deals for the p-value."""

    seed: Seed = 0
    """Seed of both."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("outcome", _NOTES)
    parser.add_options(OutcomeOptions)
    parser.read(argv)
    options = parser.get(OutcomeOptions)

    from segue.serving.outcome import outcome
    from segue.serving.store.address import open_store
    from segue.serving.times import microseconds

    with parser.errors_as_typed():
        since = None if options.since is None else microseconds(options.since)
        store = open_store(options.store, existing=True)
        within = None if options.within is None else options.within * 3600
        result = outcome(store, since, within, options.resamples, options.seed)
        store.close()
    if options.json:
        write_json(result.to_dict())
        return 0
    rows = [[one.variant, one.users, one.shown, one.taken, one.share, one.low, one.high] for one in result.variants]
    write_table(["variant", "users", "shown", "taken", "share", "low", "high"], rows)
    if result.differences:
        differences = [
            [f"{one.b} − {one.a}", one.difference, one.low, one.high, one.p_value] for one in result.differences
        ]
        write_table(["difference", "share", "low", "high", "p"], differences)
    return 0
