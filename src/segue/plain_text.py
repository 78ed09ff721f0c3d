"""Text files that people hand over: UTF-8, or an error that names the line and says how to convert the file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from segue.errors import DataError, SegueError

_MARK = "\ufeff"


def not_text(line: bytes) -> str | None:
    """Description of a line that is not UTF-8, and of the way out; None if it is.

    >>> not_text("Größe".encode("latin-1"))
    'byte 0xf6 at column 3 is not UTF-8. Convert the file, for example with iconv -f latin1 -t utf-8.'
    """
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return (
            f"byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8. "
            f"Convert the file, for example with iconv -f latin1 -t utf-8."
        )
    return None


def require_lines(lines: Iterable[bytes], name: str, error: type[SegueError] = DataError) -> None:
    """Raise an error that names the first line that is not UTF-8, if there is one; `name` is that of the file."""
    for number, line in enumerate(lines, 1):
        problem = not_text(line)
        if problem is not None:
            raise error(f"{name}, line {number}: {problem}")


def require_text(path: Path, name: str | None = None, error: type[SegueError] = DataError) -> None:
    """Raise an error that names the first line that is not UTF-8, if there is one.

    Parameters
    ----------
    path, name
        The file, and its name in the message; None is the path.
    error
        Class of the error.
    """
    with path.open("rb") as stream:
        require_lines(stream, name or str(path), error)


def read_text(path: Path, name: str | None = None, error: type[SegueError] = DataError) -> str:
    """The whole text of a file, without a byte order mark; the arguments are those of `require_text`.

    Raises
    ------
    SegueError
        Of the class `error`: the file is not UTF-8.
    OSError
        The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").removeprefix(_MARK)
    except UnicodeDecodeError:
        require_text(path, name, error)
        raise
