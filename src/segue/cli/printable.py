"""Texts from data on their way to a terminal: control characters are escaped, so that an id cannot steer it."""

from __future__ import annotations

import re

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and line feed, marks that turn the direction of writing, and halves of characters."""
_LINE = re.compile("[\t\n]")


def printable(text: str, one_line: bool = False) -> str:
    r"""The text with control characters as they are written in Python: an escape is \x1b.

    Parameters
    ----------
    text
        Any text.
    one_line
        Escape tabs and line feeds too, as within a cell of a table.
    """
    escaped = _CONTROL.sub(_escaped, text)
    return _LINE.sub(_escaped, escaped) if one_line else escaped


def json_safe(document: str) -> str:
    r"""A JSON document with the same content, in which control characters are written as \u001b."""
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
