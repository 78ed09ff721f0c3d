"""`segue serve`: recommendations over HTTP, with events that count at once."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note
from segue.errors import ConfigError
from segue.settings import PathText, Settings

_NOTES = """\
  segue serve a=runs/first:50 b=runs/second:50 --store postgresql://localhost/shop
  segue token new --tokens tokens.toml --name shop --rights read write

A run may be a link: when it points to another run, that one is checked and takes its place. /docs shows the API."""


@dataclass(frozen=True)
class RunOptions(Settings):
    """Runs."""

    runs: tuple[PathText, ...] = field(metadata=POSITIONAL)
    """Folder of a run, or NAME=FOLDER:SHARE for each of several that share the users."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    require_packages()
    from segue.serving.config import ServiceConfig

    parser = OptionParser("serve", _NOTES)
    parser.add_options(RunOptions)
    parser.add_options(ServiceConfig)
    parser.read(argv)
    runs, config = parser.get(RunOptions), parser.get(ServiceConfig)

    from segue.serving.server import serve

    logging.basicConfig(format="segue: %(message)s", level=logging.WARNING)
    logging.getLogger("segue.serving").setLevel(logging.INFO)
    with parser.errors_as_typed():
        serve(runs.runs, config, lambda address: note(f"serving {', '.join(runs.runs)} on {address} (API: /docs)"))
    note("ended in order")
    return 0


def require_packages() -> None:
    """Raise a ConfigError if the packages of the extra are not installed."""
    missing = [
        name
        for name in ("starlette", "uvicorn", "msgspec", "prometheus_client")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(f"segue serve needs {', '.join(missing)}: pip install 'segue[serve]'.")
