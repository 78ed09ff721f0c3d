"""Options for users, items and baskets, shared by the commands that ask a Recommender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segue.errors import ConfigError, DataError
from segue.plain_text import read_text


def only_one(**given: object) -> str:
    """Name of the one option that was given.

    Raises
    ------
    ConfigError
        None was given, or several.
    """
    options = ["--" + name.replace("_", "-") for name in given]
    chosen = [name for name, value in given.items() if value]
    if len(chosen) != 1:
        typed = " and ".join("--" + name.replace("_", "-") for name in chosen) or "none"
        raise ConfigError(f"give one of {', '.join(options)}: found {typed}.")
    return chosen[0]


def require_one(basket: object, **given: object) -> None:
    """Require one option that names users or a history; none is needed with a basket, which may be an unknown user's.

    Raises
    ------
    ConfigError
        Several options were given, or none and no basket.
    """
    if basket is None or any(given.values()):
        only_one(**given, basket=None)


def read_ids(path: str | Path) -> list[str]:
    """Raw ids in a text file, one per line.

    Raises
    ------
    DataError
        The file is not there, is not text, or holds no id.
    """
    try:
        lines = read_text(Path(path)).splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected one raw id per line.") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} is empty: expected one raw id per line.")
    return ids


def items_of(words: Sequence[str] | None) -> list[str] | None:
    """Items of a basket; empty if the session has just begun, None without a session."""
    return None if words is None else list(words)


def ids_of(words: Sequence[str] | None, file: str | None) -> list[str] | None:
    """Raw ids from the command line or from a file; None if neither is given."""
    if words:
        return list(words)
    return read_ids(file) if file else None


def boosts(words: Sequence[str] | None) -> dict[str, dict[str, float]] | None:
    """Numbers by column and category, from words such as category=tea:0.5.

    Raises
    ------
    ConfigError
        A word has another form.
    """
    if words is None:
        return None
    boost: dict[str, dict[str, float]] = {}
    for word in words:
        column, equals, rest = word.partition("=")
        value, colon, number = rest.rpartition(":")
        try:
            boost.setdefault(column, {})[value] = float(number)
        except ValueError:
            equals = ""
        if not (column and equals and colon):
            raise ConfigError(f"--boost: expected COLUMN=CATEGORY:NUMBER, as in category=tea:0.5, found {word!r}.")
    return boost


def limits(words: Sequence[str] | None) -> dict[str, int] | None:
    """Numbers of items by column, from words such as category=2.

    Raises
    ------
    ConfigError
        A word has another form.
    """
    if words is None:
        return None
    pairs = [word.rpartition("=") for word in words]
    for column, _, number in pairs:
        if not column or not (number.isascii() and number.isdigit()):
            raise ConfigError(f"--at-most: expected COLUMN=NUMBER, as in category=2, found {column}={number}.")
    return {column: int(number) for column, _, number in pairs}
