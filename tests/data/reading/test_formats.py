from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.cli.options import attribute_docs
from segue.cli.prepare import ReadingOptions
from segue.data.reading.files import Scratch
from segue.data.reading.formats import json_array
from segue.data.reading.formats.registry import FORMATS
from segue.data.reading.layout import LINE, ROW, FileFormat, Head, plain_lines
from segue.data.reading.read import read
from segue.errors import ColumnError, DataError

WriteFile = Callable[..., Path]

ROWS = [("A2", 714, 1252800000, 5.0), ("A1", 715, 1252800001, 4.5)]
RECORDS: list[dict[str, Any]] = [
    {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": time, "helpful": [0, 1], "ok": True}
    for user, item, time, rating in ROWS
]


# ---- all formats -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs(FileFormat):
    """Lines such as `user=1 item=2`."""

    name: ClassVar[str] = "pairs"

    @classmethod
    def recognizes(cls, head: Head) -> bool:
        return head.lines[0].startswith("user=")

    @classmethod
    def detect(cls, head: Head) -> Self:
        return cls(tuple(word.partition("=")[0] for word in head.lines[0].split()), head.lines[0])

    def scan(
        self, path: Path, name: str, scratch: Scratch, columns: tuple[str, ...] = (), number: int = 0
    ) -> pl.LazyFrame:
        values = {field: pl.col(LINE).str.extract(rf"{field}=(\w+)") for field in self.fields}
        return plain_lines(path).select(ROW, **values)


def test_a_new_format_takes_one_class_and_one_line(write_file: WriteFile) -> None:
    before = dict(FORMATS)
    FORMATS.clear()  # type: ignore[attr-defined]
    FORMATS.update({Pairs.name: Pairs, **before})  # type: ignore[attr-defined]
    try:
        log = read(write_file("x.log", "user=1 item=7\nuser=2 item=8\n"))
        assert (log.format, log.collect().rows()) == ("pairs", [(1, 7), (2, 8)])
        with pytest.raises(DataError, match=r"x\.log, line 3: the item \(column \"item\"\) is missing"):
            read(write_file("x.log", "user=1 item=7\nuser=2 item=8\nuser=3\n"))
        with pytest.raises(DataError, match=r"x\.log, line 2: byte 0xe9 at column 8 is not UTF-8"):
            read(write_file("x.log", b"user=1 item=7\nuser=2 \xe9 item=8\n"))
    finally:
        FORMATS.clear()  # type: ignore[attr-defined]
        FORMATS.update(before)  # type: ignore[attr-defined]


def test_help_names_every_format() -> None:
    help_text = attribute_docs(ReadingOptions)["format"]
    read_docs = read.__doc__ or ""
    for name in FORMATS:
        assert name in help_text.replace(",", " ").split() or f"{name}." in help_text.split()
        assert f'"{name}"' in read_docs


# ---- JSON arrays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("around", [("", ""), ("\n  ", "\n\n"), ("\ufeff", "")])
def test_a_json_array(write_file: WriteFile, gz: str, indent: int | None, around: tuple[str, str]) -> None:
    text = around[0] + json.dumps(RECORDS, indent=indent) + around[1]
    log = read(write_file("reviews.json" + gz, text))
    assert (log.format, log.time_unit, log.rows) == ("json", "s", 2)
    assert log.collect().rows() == ROWS
    assert read(write_file("reviews.json" + gz, text), format="json", item="asin").collect().rows() == ROWS


def test_a_json_array_is_read_as_json_lines_are(write_file: WriteFile) -> None:
    records = [
        *RECORDS,
        {"asin": 2**60, "reviewerID": 'é"\\', "extra": None, "unixReviewTime": 1252800000, "overall": 1},
    ]
    array = read(write_file("x.json", json.dumps(records)))
    lines = read(write_file("x.jsonl", "".join(json.dumps(record) + "\n" for record in records)))
    assert array.collect().equals(lines.collect()) and array.columns == lines.columns


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)), min_size=1),
    st.sampled_from([None, 0, 3]),
    st.integers(1, 9),
)
def test_any_array_is_read_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], indent: int | None, piece: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    records = [{"user": user, "item": "x" + item, "list": [1, {"a": "]}"}]} for user, item in rows]
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "_PIECE", piece)
        assert read(path).collect().rows() == [(user, "x" + item) for user, item in rows]


def test_arrays_of_a_folder_make_one_log(write_file: WriteFile) -> None:
    write_file("logs/a.json", json.dumps(RECORDS))
    path = write_file("logs/b.json", "[]")
    write_file("logs/c.json", json.dumps([{"asin": 9, "reviewerID": "B", "overall": 1, "unixReviewTime": 1252800009}]))
    assert read(path.parent).collect().rows() == [*ROWS, ("B", 9, 1252800009, 1.0)]


def test_bad_values_name_the_object(write_file: WriteFile) -> None:
    path = write_file("x.json", json.dumps([*RECORDS, {**RECORDS[0], "unixReviewTime": "soon"}, {"reviewerID": "A"}]))
    with pytest.raises(DataError, match=r"x\.json, object 3: the time \(column \"unixReviewTime\"\) is 'soon'"):
        read(path)
    log = read(path, bad_rows="drop")
    assert (log.rows, log.dropped) == (2, 2)
    with pytest.raises(ColumnError, match=r'"helpful" \(item\) holds lists or objects'):
        read(path, item="helpful")


GOOD = json.dumps(RECORDS)[1:-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"x\.json is empty: it holds no interactions, only an empty JSON array"),
        ("[", r"x\.json ends without the closing \] of its JSON array: it is truncated"),
        (f"[{GOOD}", r"x\.json ends without the closing \]"),
        (f"[{GOOD},", r"x\.json ends without the closing \]"),
        (f"[{GOOD[:-9]}", r'object 2 is damaged or truncated: expected a JSON object, found "\{"reviewerID'),
        (f'[{GOOD}, {{"asin": oops}}]', r'object 3 is damaged or truncated: .* found "\{"asin": oops\}\]"'),
        (f"[{GOOD}, 7]", r'object 3 is damaged or truncated: expected a JSON object, found "7\]"'),
        (f"[{GOOD} {GOOD}]", r'expected a comma or \] after object 2, found "\{"reviewerID'),
        (f"[{GOOD},]", r'object 3 is damaged or truncated: expected a JSON object, found "\]"'),
        (f"[{GOOD}] []", r'expected the end of the file after the array, found "\[\]"'),
        ("[1, 2]", r'object 1 is damaged or truncated: expected a JSON object, found "1, 2\]"'),
        ("[[1, 2]]", r"object 1 is damaged or truncated"),
        ("[" * 100_000, r"object 1 is damaged or truncated"),
        ('[{"a":' + "[" * 100_000, r"object 1 is damaged or truncated"),
    ],
)
def test_damaged_arrays_name_the_object(write_file: WriteFile, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(write_file("x.json", text))


def test_damage_far_below_the_first_objects_is_named(write_file: WriteFile) -> None:
    many = ",\n".join([GOOD] * 20_000)
    with pytest.raises(DataError, match=r"object 40001 is damaged or truncated"):
        read(write_file("x.json", f"[{many}, {{]"))
    with pytest.raises(DataError, match=r"x\.json, line 20001: byte 0xe9 at column 3 is not UTF-8"):
        read(write_file("y/x.json", f"[{many},\n  ".encode() + b"\xe9]"))


def test_json_lines_are_not_an_array(write_file: WriteFile) -> None:
    text = "".join(json.dumps(record) + "\n" for record in RECORDS)
    with pytest.raises(
        DataError, match=r"expected a JSON array of objects, found .* One object per line is format='jsonl'"
    ):
        read(write_file("x.json", text), format="json")
    with pytest.raises(DataError, match=r"x\.json, line 1: expected a JSON object per line"):
        read(write_file("x.json", json.dumps(RECORDS)), format="jsonl")
