"""`segue refresh`: take a new log into a Dataset and its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note, write_json, write_pairs
from segue.cli.reading import ReadingOptions, reading_arguments
from segue.settings import Count, PathText, Positive, Settings

_NOTES = """\
The log is appended to the Dataset, the model is trained from the weights of the run, and both models are compared on
the newest part of the data. The new run takes the place of the old one unless it is worse: unless the 95 % interval of
the difference lies on the wrong side of zero. The steps stand in RUN.refresh; after a kill the same command goes on.
If RUN is a link, it is switched to a new folder beside its target, and the old folder stays."""


@dataclass(frozen=True)
class RefreshOptions(Settings):
    """The data, the run and the new log."""

    dataset: PathText = field(metadata=POSITIONAL)
    """Folder of the Dataset; it is replaced by the one with the new log."""

    run: PathText = field(metadata=POSITIONAL)
    """Folder of the run, or a link to one."""

    source: PathText = field(metadata=POSITIONAL)
    """The new log: a file, a folder, or a pattern in quotes."""

    always: bool = False
    """Replace the run without a comparison."""

    epochs: Count | None = None
    """Largest number of epochs; that of the run when not given."""

    start_optimizer: Literal["new", "continued"] | None = None
    """State of the optimizer: new, or that of the run's last epoch; as the run was trained when not given."""

    windows: Literal["all", "newest"] | None = None
    """Windows of each history to train on, for models with this setting; those of the run when not given. With newest,
    the cost does not grow with the length of the histories."""

    newest_days: Positive | None = None
    """Days before the newest interaction to keep; the stored rule of the Dataset when not given."""

    quiet: bool = False
    """Show no progress."""

    json: bool = False
    """Write the result as JSON."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("refresh", _NOTES)
    parser.add_options(RefreshOptions)
    parser.add_options(ReadingOptions)
    parser.read(argv)
    options = parser.get(RefreshOptions)

    from segue.data.reading.read import ReadOptions
    from segue.training.refreshing import refresh

    with parser.errors_as_typed():
        result = refresh(
            options.dataset,
            options.run,
            options.source,
            reading=ReadOptions(**reading_arguments(parser.get(ReadingOptions))),
            model=_given(windows=options.windows),
            training=_given(epochs=options.epochs, start_optimizer=options.start_optimizer),
            newest_days=options.newest_days,
            always=options.always,
            quiet=options.quiet,
        )
    if options.json:
        write_json(dataclasses.asdict(result))
        return 0
    if result.metric is not None:
        write_pairs(
            {
                f"{result.metric} old": result.old,
                f"{result.metric} new": result.new,
                "difference, lowest": result.low,
                "difference, highest": result.high,
            }
        )
    kept = "the new run is there" if result.replaced else "the new run is worse, so the old one stays"
    linked = f", through the link {options.run}" if Path(options.run).is_symlink() else ""
    note(f"{result.run}{linked}: {kept}\n{result.dataset}: the Dataset with the new log")
    return 0


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None."""
    return {name: value for name, value in options.items() if value is not None}
