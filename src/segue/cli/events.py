"""`segue events`: stored events as a log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note
from segue.errors import ConfigError, nearest
from segue.settings import PathText, Settings, Word

_NOTES = """\
The log has the events of the type took that were not taken back. `segue prepare` reads it."""


@dataclass(frozen=True)
class EventsOptions(Settings):
    """Events."""

    action: Word = field(metadata=POSITIONAL)
    """export: write a log."""

    out: PathText
    """File of the log, .parquet or .csv."""

    store: Word = "sqlite:///events.db"
    """Store of the events: sqlite:///FILE, or postgresql://USER:PASSWORD@HOST/DATABASE."""

    since: str | None = None
    """Write only events that arrived from this time on: 2024-03-01 or 2024-03-01T12:00."""

    forgotten: PathText | None = None
    """Write the ids of users who were forgotten to this file, one per line."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("events", _NOTES)
    parser.add_options(EventsOptions)
    parser.read(argv)
    options = parser.get(EventsOptions)
    if options.action != "export":
        raise ConfigError(f'segue events has no action "{options.action}": {nearest(options.action, ["export"])}')

    from segue.serving.exporting import export_events
    from segue.serving.store.address import open_store
    from segue.serving.times import iso, microseconds

    with parser.errors_as_typed():
        since = None if options.since is None else microseconds(options.since)
        store = open_store(options.store, existing=True)
        number, last = export_events(store, Path(options.out), since)
        forgotten = store.forgotten()
        if options.forgotten is not None:
            lines = "".join(f"{user}\n" for user, _ in forgotten)
            Path(options.forgotten).write_text(lines, encoding="utf-8")
        store.close()
    note(f"wrote {number:,} events to {options.out}" + (f"; the last one arrived at {iso(last)}" if last else ""))
    if forgotten and options.forgotten is None:
        note(f"{len(forgotten):,} users were forgotten: --forgotten FILE writes their ids, for the next preparation")
    return 0
