"""Options that say who and what is asked about, shared by the commands that ask a Recommender."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segue.errors import ConfigError, DataError


def only_one(**given: object) -> str:
    """The name of the one option that was given.

    Raises
    ------
    ConfigError
        None or several of them were.
    """
    options = ["--" + name.replace("_", "-") for name in given]
    chosen = [name for name, value in given.items() if value]
    if len(chosen) != 1:
        found = " and ".join("--" + name.replace("_", "-") for name in chosen) or "none"
        raise ConfigError(f"give one of {', '.join(options)}: found {found}.")
    return chosen[0]


def require_person(basket: object, **given: object) -> None:
    """Refuse two options that say who is asked about, and none but where there is a basket: it is somebody unknown's.

    Raises
    ------
    ConfigError
        Several of the options were given, or none and no basket.
    """
    if basket is None or any(given.values()):
        only_one(**given, basket=None)


def read_ids(path: str | Path) -> list[str]:
    """The raw ids in a text file, one a line.

    Raises
    ------
    DataError
        The file is not there, is not text, or holds no id.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; expected one raw id a line.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); expected one raw id a line.") from None
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} is empty: expected one raw id a line.")
    return ids


def items_of(words: Sequence[str] | None) -> list[str] | None:
    """The items of a basket; `[]` on the command line is one of a session that has just begun, None is no session."""
    return None if words is None else list(words)


def ids_of(words: Sequence[str] | None, file: str | None) -> list[str] | None:
    """Raw ids from the command line or from a file; None where neither is given."""
    if words:
        return list(words)
    return read_ids(file) if file else None
