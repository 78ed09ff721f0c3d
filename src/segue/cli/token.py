"""`segue token`: tokens for the service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segue.cli.options import POSITIONAL, OptionParser
from segue.cli.output import note
from segue.errors import ConfigError, nearest
from segue.settings import PathText, Settings, Word

_NOTES = """\
The token is printed once, and the file holds only its hash. Rights: read asks for answers, write stores events, admin
forgets users and reloads models. A table of the file may have a rate, in requests a second."""


@dataclass(frozen=True)
class TokenOptions(Settings):
    """Token."""

    action: Word = field(metadata=POSITIONAL)
    """new: make a token."""

    tokens: PathText = "tokens.toml"
    """File of the tokens; it is made if it is not there."""

    name: Word = "default"
    """Name of the token, for logs and limits."""

    rights: tuple[Literal["read", "write", "admin"], ...] = ("read", "write")
    """Rights of the token."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = OptionParser("token", _NOTES)
    parser.add_options(TokenOptions)
    parser.read(argv)
    options = parser.get(TokenOptions)
    if options.action != "new":
        raise ConfigError(f'segue token has no action "{options.action}": {nearest(options.action, ["new"])}')

    from segue.serving.tokens import new_token

    with parser.errors_as_typed():
        token = new_token(Path(options.tokens), options.name, options.rights)
    sys.stdout.write(f"{token}\n")
    note(f"wrote its hash to {options.tokens}; keep the token itself, it is stored nowhere")
    return 0
