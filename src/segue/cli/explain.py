"""`segue explain`: how much each item of a history added to a score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_frame, write_json
from segue.cli.people import only_one

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class ExplainOptions:
    """Which score."""

    run: str = field(metadata=POSITIONAL)
    """Folder of a run that `segue train` wrote, or of a saved Recommender."""

    item: tuple[str, ...]
    """Raw ids of the items whose scores are explained; usually one."""

    user: str | None = None
    """Raw id of the user."""

    history: tuple[str, ...] | None = None
    """Raw ids of the items that someone unknown took, oldest first."""

    as_of: str | None = None
    """Only history before this moment counts: 2024-03-01, or a number in the Dataset's time unit."""

    top: int | None = None
    """Only so many of the strongest reasons for each item; all when not given."""

    device: str | None = None
    """cpu, cuda, …; cpu when not given."""

    json: bool = False
    """Write JSON instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("explain")
    parser.add_options(ExplainOptions)
    parser.read(argv)
    options = parser.get(ExplainOptions)
    only_one(user=options.user, history=options.history)

    from segue.inference.loading import load

    recommender = load(options.run, device=options.device)
    reasons = recommender.explain(
        options.user,
        list(options.item),
        histories=[list(options.history)] if options.history else None,
        as_of=options.as_of,
        top=options.top,
    )
    if options.json:
        write_json(reasons.to_dicts())
    else:
        write_frame(_dated(reasons, recommender.dataset.time_unit), as_json=False)
        note("\neffect: the score less the score without that item of the history.")
    return 0


def _dated(reasons: pl.DataFrame, time_unit: str | None) -> pl.DataFrame:
    """The same with times as a person reads them."""
    import polars as pl

    scale = {"s": 1_000_000, "ms": 1_000, "us": 1}.get(time_unit or "")
    if scale is None or "time" not in reasons.columns:
        return reasons
    return reasons.with_columns((pl.col("time") * scale).cast(pl.Datetime("us")).dt.to_string("%Y-%m-%d %H:%M"))
