"""Files that hold one JSON array of objects, on one line or on many."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self, TextIO

import polars as pl

from segue.data.reading.files import Scratch
from segue.data.reading.formats.records import NOT_JSON, SAMPLED_RECORDS, Records, as_integer, scan_json_lines
from segue.data.reading.layout import Head, NoRowsError, quote
from segue.errors import DataError

_PIECE = 1 << 20  # characters read at a time
_LARGEST = 1 << 24  # characters of the largest object
_SHOWN = 200  # characters of an excerpt
_BLANK = re.compile(r"\s*")
_COMMA = re.compile(r"\s*,\s*(?=\{)")


@dataclass(frozen=True)
class JsonArray(Records):
    """One JSON array of objects: `[{"user_id": 1, "item_id": 7}, …]`. It is read piece by piece."""

    name: ClassVar[str] = "json"
    unit: ClassVar[str] = "object"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        """True if a file with this beginning has this format."""
        return head.lines[0].lstrip().startswith("[")

    @classmethod
    def detect(cls, head: Head) -> Self:
        """The fields of the first objects."""
        if not cls.recognizes(head):
            raise DataError(
                f"{head.name}: expected a JSON array of objects, found {quote(head.lines[0])}. "
                f"One object per line is format='jsonl'."
            )
        sampled = list(itertools.islice(_objects(head.path, head.name), SAMPLED_RECORDS))
        if not sampled:
            raise NoRowsError(f"{head.name} is empty: it holds no interactions, only an empty JSON array.")
        return cls.of([json.loads(line, parse_int=as_integer) for line in sampled], sampled[0])

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        """A file as a lazy frame of its columns and `ROW`, the number of the object."""
        lines = scratch.path("objects.jsonl")
        with lines.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in _objects(path, name))
        return scan_json_lines(lines, columns or self.fields)


def _objects(path: Path, name: str) -> Iterator[str]:
    """The objects of the array, each as one line of text.

    Raises
    ------
    DataError
        The file is not an array of objects, is damaged or truncated, or is not UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig") as stream:
            text = _Text(stream)
            text.expect("[", f"{name}: expected a JSON array")
            number = 0
            while number or text.next() != "]":
                if text.next() == "":
                    raise DataError(f"{name} ends without the closing ] of its JSON array: it is truncated.")
                number += 1
                yield text.object(f"{name}, object {number}")
                if text.at_next_object():
                    continue
                if text.next() == "]":
                    break
                if text.next() != "":
                    text.expect(",", f"{name}: expected a comma or ] after object {number}")
            text.expect("]", f"{name}: expected ]")
            text.expect("", f"{name}: expected the end of the file after the array")
    except UnicodeDecodeError:
        damage = JsonArray().find_damage(path, name)
        raise damage or DataError(f"{name} is not UTF-8.") from None


class _Text:
    """Text of a file, read piece by piece, with a position in it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text = ""
        self._position = 0
        self._ended = False
        self._decoder = json.JSONDecoder(parse_float=_as_is, parse_int=_as_is, parse_constant=_refuse)

    def next(self) -> str:
        """The next character that is not blank; empty at the end of the file."""
        while True:
            match = _BLANK.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text) or self._ended:
                return self._text[self._position : self._position + 1]
            self._read()

    def expect(self, character: str, problem: str) -> None:
        """Pass over a character, or raise a DataError with the problem and the text that stands there."""
        if self.next() != character:
            raise DataError(f"{problem}, found {self._excerpt()}.")
        self._position += len(character)

    def at_next_object(self) -> bool:
        """Pass over a comma that an object follows. False if there is none in the text that has been read."""
        match = _COMMA.match(self._text, self._position)
        self._position = match.end() if match else self._position
        return match is not None

    def object(self, label: str) -> str:
        """Pass over the next object and return it as one line."""
        while self.next() == "{":
            start = self._position
            try:
                _, self._position = self._decoder.raw_decode(self._text, start)
            except (ValueError, RecursionError):
                if self._ended or len(self._text) - start > _LARGEST:
                    break
                self._read()
                continue
            return self._text[start : self._position].replace("\n", " ").replace("\r", " ")
        excerpt = self._excerpt()
        if NOT_JSON.search(self._text[self._position : self._position + _SHOWN]):
            raise DataError(
                f"{label} holds NaN or Infinity, which are not JSON: {excerpt}. Write null for a missing value."
            )
        raise DataError(f"{label} is damaged or truncated: expected a JSON object, found {excerpt}.")

    def _read(self) -> None:
        """Read on: at least as much as waits, so that a large object is parsed only a few times."""
        rest = self._text[self._position :]
        piece = self._stream.read(max(_PIECE, len(rest)))
        self._text, self._position, self._ended = rest + piece, 0, not piece

    def _excerpt(self) -> str:
        if self.next() == "":
            return "the end of the file"
        return quote(" ".join(self._text[self._position : self._position + _SHOWN].split()))


def _as_is(number: str) -> str:
    return number


def _refuse(constant: str) -> str:
    raise ValueError(f"{constant} is not JSON")
