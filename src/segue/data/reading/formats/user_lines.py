"""Text with one line per user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, known_role, refuse_columns
from segue.data.reading.files import Scratch
from segue.data.reading.formats.csv_text import WHITESPACE, find_separator
from segue.data.reading.layout import LINE, ROW, FileFormat, Head, plain_lines


@dataclass(frozen=True)
class UserLines(FileFormat):
    """One line per user: `user item item …`."""

    name: ClassVar[str] = "user-lines"

    separator: str = WHITESPACE

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format: no separator fits, and lines differ in length."""
        if head.separator is not None or find_separator(head.lines) is not None:
            return False
        rows = [_words(line, _item_separator(head.lines)) for line in head.lines]
        return len(set(map(len, rows))) > 1 and not any(known_role(word) for word in rows[0])

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The separator of the items."""
        return cls(("user", "item"), head.lines[0], head.separator or _item_separator(head.lines))

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column: users and items alone."""
        refuse_columns(given, ("time", "rating", "session"), f"{name} holds one line per user, which has no column for")
        return {"user": "user", "item": "item"}

    def check_same(self, head: Head, first: str) -> None:
        """Accept any further file: there are no names to compare."""

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as one row per interaction: user, item and `ROW`."""
        line = pl.col(LINE).str.strip_chars()
        if self.separator == WHITESPACE:
            words = line.str.replace_all(WHITESPACE, " ").str.split(" ")
        else:
            words = line.str.split(self.separator)
        users = plain_lines(path).select(ROW, words.alias("item")).filter(pl.col("item").list.len() > 1)
        return users.select(ROW, user=pl.col("item").list.first(), item=pl.col("item").list.slice(1)).explode("item")


def _words(line: str, separator: str) -> list[str]:
    return line.split() if separator == WHITESPACE else line.split(separator)


def _item_separator(lines: Sequence[str]) -> str:
    """The separator that occurs in most lines, else blanks."""
    counts = {mark: sum(mark in line for line in lines) for mark in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] > len(lines) / 2 else WHITESPACE
