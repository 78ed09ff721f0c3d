"""Text with one line per session, as PARSRec reads it, and the file of types that may stand beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl

from segue.data.reading.columns import ROLES, Column, refuse_columns
from segue.data.reading.files import Scratch
from segue.data.reading.layout import (
    BROKEN,
    LINE,
    MARK,
    ROW,
    FileFormat,
    Head,
    NoRowsError,
    first_line,
    plain_lines,
    quote,
)
from segue.data.reading.values import STATED_INTEGERS, STATED_NUMBERS, STATED_TEXTS, Stated
from segue.errors import DataError, StorageError
from segue.files import read_json

SESSION_HEADER = "user_id,time,session_length,session_items"

_STATED = f"{MARK}stated"
_COLUMNS = ("user_id", "time", "session_length", "session_items", "history")
_ROLES = {"user": "user_id", "item": "session_items", "time": "time", "session": "line"}


@dataclass(frozen=True)
class SessionFile(FileFormat):
    """One line per session: `user,time,n,item1,…,itemn`, below a line of names."""

    name: ClassVar[str] = "session-file"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        return head.lines[0].replace(" ", "").lower() == SESSION_HEADER

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The layout, if the names are those of a session file."""
        lines, line = head.lines, head.blank_lines + 1
        if not cls.recognizes(head):
            raise DataError(f"{head.name}, line {line}: expected {SESSION_HEADER}, found {quote(lines[0])}.")
        if len(lines) == 1:
            raise NoRowsError(f"{head.name} holds a header ({quote(lines[0])}) and no sessions.")
        return cls(tuple(_ROLES.values()), lines[1])

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column; the columns are known."""
        refuse_columns(given, ROLES, f"{name} is a session file, whose columns are known: leave out")
        return {role: column for role, column in _ROLES.items() if given[role] is not False}

    def stated_types(self, path: Path) -> Mapping[str, Stated]:
        """Column → its type as stated in `<name>_columns_dtype.json` beside the file; empty without that file.

        Raises
        ------
        DataError
            The file of types is not a JSON object of the types of known columns.
        """
        file = types_beside(path)
        if not file.is_file():
            return {}
        try:
            content: Any = read_json(file)
        except StorageError as error:
            raise DataError(str(error)) from None
        if not isinstance(content, dict):
            raise DataError(f'{file}: expected an object such as {{"user_id": "int32"}}, found {content!r}.')
        known = STATED_INTEGERS | STATED_TEXTS | STATED_NUMBERS
        for column, dtype in content.items():
            if column not in _COLUMNS:
                raise DataError(f'{file}: unknown column "{column}"; a session file has {", ".join(_COLUMNS)}.')
            if not isinstance(dtype, str) or (dtype not in known and not dtype.startswith("datetime64")):
                raise DataError(f'{file}: "{column}" has the unknown type {dtype!r}; expected int32, int64, object, ….')
        # The type "object" of the list of items says that it is a list, and nothing of the items.
        return {column: Stated(dtype, str(file)) for column, dtype in content.items() if column != "session_items"}

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as one row per interaction; each line of each file is a session of its own."""
        fields = pl.col(LINE).str.replace_all(" ", "", literal=True).str.split(",")
        user, time, stated = (fields.list.get(position, null_on_oob=True) for position in range(3))
        sessions = plain_lines(path).filter(pl.col(ROW) > first_line(path)).select(
            ROW,
            LINE,
            (pl.col(ROW).cast(pl.Int64) + (number << 40)).alias("line"),
            user.alias("user_id"),
            time.alias("time"),
            stated.alias(_STATED),
            fields.list.slice(3).alias("session_items"),
        )  # fmt: skip
        items = pl.col("session_items").list
        complete = (pl.col(_STATED).cast(pl.Int64, strict=False) == items.len()) & (items.len() > 0)
        reserved = items.contains("0") | items.contains("1")
        marked = sessions.with_columns(
            (~complete.fill_null(False) | reserved | pl.col(LINE).str.contains("[\r\0]")).alias(BROKEN)
        ).drop(_STATED)
        return marked.explode("session_items", empty_as_null=True)

    @property
    def by_line(self) -> bool:
        """True: lines are split here."""
        return True

    def broken_line(self, name: str, number: int, line: str, count: int) -> DataError:
        """The error for a line that is not a session; `count` items stand in such lines."""
        fields = [field.strip() for field in line.split(",")]
        items = fields[3:]
        if "\r" in line or "\0" in line:
            problem = "holds a lone carriage return or a NUL"
        elif len(fields) < 3:
            problem = f"has {len(fields)} fields; expected user,time,n,item1,…,itemn"
        elif not fields[2].isdigit():
            problem = f'has "{fields[2]}" as the number of items; expected a whole number'
        elif not items and fields[2] == "0":
            problem = "is an empty session; expected at least one item"
        elif len(items) != int(fields[2]):
            problem = f"says {fields[2]} items, and {len(items)} follow"
        else:
            item = next((item for item in items if item in ("0", "1")), "0")
            problem = f"holds the item {item}; expected ids from 2, since 0 and 1 mark the begin and end of a basket"
        more = f" {count:,} items stand in lines like this." if count > 1 else ""
        return DataError(
            f"{name}, line {number} {problem}: {quote(line)}.{more} "
            f"Correct the file, or leave such lines out with bad_rows='drop'."
        )


def types_beside(path: Path) -> Path:
    """Path of the file that states the types of a session file.

    >>> types_beside(Path("data/synthetic.txt.gz")).name
    'synthetic_columns_dtype.json'
    """
    name = path.name.removesuffix(".gz")
    return path.with_name(f"{name.rpartition('.')[0] or name}_columns_dtype.json")
