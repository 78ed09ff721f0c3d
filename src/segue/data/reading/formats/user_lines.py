"""Text with one line per user."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import polars as pl

from segue.data.reading.columns import Column, known_role, refuse_columns
from segue.data.reading.files import Scratch, with_line_ends
from segue.data.reading.formats.csv_text import WHITESPACE, find_separator, mark_of, refuse_blocks
from segue.data.reading.layout import BROKEN, LINE, ROW, FileFormat, Head, plain_lines, quote
from segue.data.reading.values import kind_of_times
from segue.errors import DataError

_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_DATE = re.compile(r"\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{4}")


@dataclass(frozen=True)
class UserLines(FileFormat):
    """One line per user: `user item item …`."""

    name: ClassVar[str] = "user-lines"

    separator: str = WHITESPACE
    careful: bool = False
    """True if lone carriage returns end lines too."""

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format: no separator fits, and lines differ in length."""
        if head.separator is not None or find_separator(head.lines, mark_of(head.quote)) is not None:
            return False
        separator = _item_separator(head.lines)
        rows = [_words(line, separator) for line in head.lines]
        return len(set(map(len, rows))) > 1 and not any(known_role(word) for word in rows[0])

    @classmethod
    def check_guess(cls, head: Head) -> None:
        """Raise a DataError if the lines may be something else: dates, pairs, ratings, baskets, comments or blocks."""
        separator = _item_separator(head.lines)
        rows = [_words(line, separator) for line in head.lines]
        users = Counter(row[0] for row in rows if len(row) > 1)
        items = [word.strip() for row in rows for word in row[1:] if word.strip()]
        if any(re.fullmatch(r"\w+:", line.strip()) for line in head.lines):
            refuse_blocks(head)
        doubts = {
            "some begin with # or %, like comments": any(line.startswith(("#", "%", "//")) for line in head.lines),
            "some hold dates": any(map(_DATE.match, items)),
            "users end with a colon": any(user.endswith(":") for user in users),
            "items look like pairs": sum(map(_is_pair, items)) * 2 > len(items),
            "some items have a decimal point": all(map(_NUMBER.fullmatch, items))
            and any("." in item for item in items),
            "numbers that can be times stand between the items": _holds_times(rows),
            f"several begin with {quote(max(users, key=users.__getitem__, default=''))}": max(users.values(), default=0)
            > 1,
        }
        reason = next((doubt for doubt, holds in doubts.items() if holds), None)
        if reason is not None:
            raise DataError(
                f"{head.name}: lines of different lengths could be one line per user (user item item …), but {reason}. "
                f"The first line is {quote(head.lines[0])}. Pass format='user-lines' if that is the format, else "
                f"separator= and the positions of the columns (user=, item=, time=), or write one interaction per line."
            )

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The separator of the items."""
        return cls(("user", "item"), head.lines[0], head.separator or _item_separator(head.lines))

    def roles(self, given: Mapping[str, Column], name: str, sample: Callable[[], pl.DataFrame]) -> dict[str, str]:
        """Role → column: users and items alone."""
        refuse_columns(given, ("time", "rating", "session"), f"{name} holds one line per user, which has no column for")
        return {"user": "user", "item": "item"}

    def check_same(self, head: Head, first: str) -> None:
        """Accept any further file that is not empty: there are no names to compare."""
        _ = head.lines

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as one row per interaction: user, item and `ROW`."""
        path = with_line_ends(path, scratch) if self.careful else path
        line = pl.col(LINE).str.strip_chars()
        if self.separator == WHITESPACE:
            words = line.str.replace_all(WHITESPACE, " ").str.split(" ")
        else:
            words = line.str.split(self.separator)
        users = plain_lines(path).select(ROW, LINE, words.alias("item")).filter(pl.col("item").list.len() > 1)
        user, items = pl.col("item").list.first().alias("user"), pl.col("item").list.slice(1)
        # A line with a NUL or a lone carriage return has no right form.
        broken = pl.col(LINE).str.contains("[\r\0]").alias(BROKEN)
        return users.select(ROW, LINE, broken, user, items).explode("item")

    @property
    def by_line(self) -> bool:
        """True: lines are split here."""
        return True

    @property
    def misread(self) -> pl.Expr | None:
        """True for a line that holds a lone carriage return."""
        return None if self.careful else pl.col(BROKEN)

    def corrected(self) -> FileFormat | None:
        """The same layout, in which carriage returns end lines; None if they do already."""
        return None if self.careful else replace(self, careful=True)


def _is_pair(word: str) -> bool:
    return bool(re.fullmatch(r"[^:=]+[:=][^:=]+", word))


def _holds_times(rows: Sequence[Sequence[str]]) -> bool:
    """Whether every other item, and only these, can be a moment of our time."""
    odd = [word for row in rows for word in row[1::2]]
    even = [word for row in rows for word in row[2::2]]
    return any(
        len(words) > 1 and kind_of_times(pl.Series(words)) and kind_of_times(pl.Series([*others, "0"])) is None
        for words, others in ((odd, even), (even, odd))
    )


def _words(line: str, separator: str) -> list[str]:
    return line.split() if separator == WHITESPACE else line.split(separator)


def _item_separator(lines: Sequence[str]) -> str:
    """The separator that occurs in most lines, else blanks."""
    counts = {mark: sum(mark in line for line in lines) for mark in ("\t", ",", ";", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    return best if counts[best] > len(lines) / 2 else WHITESPACE
