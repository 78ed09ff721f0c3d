"""Errors that segue raises on purpose. All are subclasses of `SegueError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegueError(Exception):
    """Base of all errors for users: the message says what is wrong, where, and what to do.

    Examples
    --------
    >>> try:
    ...     segue.read("nowhere.csv")
    ... except segue.SegueError as error:
    ...     print("nowhere.csv" in str(error))
    True
    """


class DataError(SegueError):
    """The input data cannot be used as it is: empty, malformed, ambiguous or inconsistent."""


class ColumnError(DataError):
    """A column is missing, empty or of an unusable type."""


class StorageError(SegueError):
    """A folder or file written by segue is missing, damaged, of a newer version or of another Dataset."""


class ConfigError(SegueError):
    """An option is unknown or has an impossible value."""


class UnknownIdError(SegueError):
    """Raw ids are not in the vocabulary."""


class TrainingError(SegueError):
    """Training cannot go on: the loss is not finite, or there is nothing to learn from."""


class EvaluationError(SegueError):
    """An evaluation would be meaningless: scores that are not finite, or nothing to evaluate."""


class EngineError(SegueError):
    """Workers cannot be reached, cannot begin, or die of a part again and again."""


class DownloadError(SegueError):
    """A public dataset could not be fetched or failed its checksum."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence, which names the closest known word, or all known words if none is close.

    >>> nearest("hieght", ["height", "width"])
    'did you mean "height"?'
    """
    known = sorted(known)
    close = closest(name, known)
    return f"known: {', '.join(known)}." if close is None else f'did you mean "{close}"?'


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known word that begins with `name`, or else is most like it; None if none is close.

    >>> closest("--allow", ["--all", "--allow-file"])
    '--allow-file'
    """
    known = sorted(known)
    longer = [one for one in known if len(name) > 3 and one.startswith(name)]
    if longer:
        return min(longer, key=len)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return close[0] if close else None
