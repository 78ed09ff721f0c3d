"""Options that say how a log is read, shared by the commands that read one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from segue.settings import Settings, Word


@dataclass(frozen=True)
class ReadingOptions(Settings):
    """Reading."""

    user: Word | None = None
    """Column of the users: its name, or its position counted from 0."""

    item: Word | None = None
    """Column of the items."""

    time: Word | None = None
    """Column of the times; "false" reads none."""

    rating: Word | None = None
    """Column of the ratings; "false" reads none."""

    session: Word | None = None
    """Column of the sessions; "false" reads none."""

    format: str | None = None
    """Format: csv (any separator), inter, user-lines, session-file, json, jsonl, python-dict or parquet."""

    separator: str | None = None
    """Separator of fields, of any length; \\t is a tab, \\s+ any run of blanks."""

    header: bool | None = None
    """Read the first line as names of columns."""

    quote: str | None = None
    """Quote mark around fields, or "none" if quote marks are ordinary characters."""

    time_unit: str | None = None
    """Unit of times that are numbers: s, ms, us or ns."""

    bad_rows: Literal["error", "drop"] = "error"
    """Rows with a missing or unreadable value: stop with an error, or leave them out."""


def reading_arguments(reading: ReadingOptions) -> dict[str, Any]:
    """The options as arguments of `segue.read`."""
    columns = {name: column_of(getattr(reading, name)) for name in ("user", "item", "time", "rating", "session")}
    return {
        **columns,
        "format": reading.format,
        "separator": {r"\t": "\t", "tab": "\t"}.get(reading.separator or "", reading.separator),
        "header": reading.header,
        "quote": reading.quote,
        "time_unit": reading.time_unit,
        "bad_rows": reading.bad_rows,
    }


def column_of(word: str | None) -> str | int | Literal[False] | None:
    """A column's name, its position, or False for none."""
    if word is None:
        return None
    if word.lower() == "false":
        return False
    return int(word) if word.isdigit() else word
