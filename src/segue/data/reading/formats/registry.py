"""The formats by name. A new format is one class and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from segue.data.reading.formats.csv_text import Csv, Inter
from segue.data.reading.formats.json_array import JsonArray
from segue.data.reading.formats.parquet import Parquet
from segue.data.reading.formats.records import JsonLines, PythonDicts
from segue.data.reading.formats.session_file import SessionFile
from segue.data.reading.formats.user_lines import UserLines
from segue.data.reading.layout import FileFormat, Head
from segue.errors import ConfigError, nearest

_CLASSES: tuple[type[FileFormat], ...] = (
    Parquet,
    JsonArray,
    JsonLines,
    PythonDicts,
    SessionFile,
    UserLines,
    Inter,
    Csv,
)
"""The first format that recognizes a file is taken; the last recognizes every text."""

FORMATS: Mapping[str, type[FileFormat]] = {format.name: format for format in _CLASSES}
"""The class of every format by its name."""


def detect(head: Head, format: str | None) -> FileFormat:
    """The layout of a file, found from its first megabyte.

    Parameters
    ----------
    head
        The beginning of the file.
    format
        Name of the format; None to find it.

    Raises
    ------
    DataError
        The file is empty or binary, or more than one reading is possible.
    ConfigError
        There is no such format.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f'unknown format "{format}": {nearest(str(format), FORMATS)}')
    for binary in FORMATS.values():
        if binary.magic and head.start.startswith(binary.magic):
            return binary.detect(head)
    if format is not None:
        return FORMATS[format].detect(head)
    recognized = next(known for known in FORMATS.values() if known.recognizes(head))
    recognized.check_guess(head)
    return recognized.detect(head)
