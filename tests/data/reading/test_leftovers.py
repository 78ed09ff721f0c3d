"""Broken lines that are dropped, and numbers that count time from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import segue
from segue.errors import DataError

ROWS = [{"user_id": user, "item_id": 10 + user, "timestamp": 1577836800 + user} for user in range(1, 6)]


@pytest.mark.parametrize("broken", ['{"user_id": 1, "item', "nonsense", '{"user_id": NaN}', "[1, 2]", "\xff{"])
@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("dump", [json.dumps, str], ids=["json", "python"])
def test_broken_records_are_dropped_and_counted(dump: Any, broken: str, place: int, tmp_path: Path) -> None:
    lines = [dump(row).encode() for row in ROWS]
    lines.insert(place, broken.encode("latin-1"))
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    name = "jsonl" if dump is json.dumps else "python-dict"
    with pytest.raises(DataError):
        segue.read(path, format=name)
    log = segue.read(path, format=name, bad_rows="drop")
    assert (log.rows, log.dropped) == (5, 1)
    assert log.collect().sort("user").rows() == [tuple(row.values()) for row in ROWS]
    prepared = segue.prepare(path, format=name, bad_rows="drop")
    assert (prepared.n_interactions, prepared.metadata["bad_rows_dropped"]) == (5, 1)


def test_broken_records_in_two_files(tmp_path: Path) -> None:
    for number, rows in enumerate((ROWS[:2], ROWS[2:])):
        text = "".join(json.dumps(row) + "\n" for row in rows) + '{"user_id": 4, "ite'
        (tmp_path / f"{number}.jsonl").write_text(text)
    log = segue.read(tmp_path, bad_rows="drop")
    assert (log.rows, log.dropped) == (5, 2)


def frame(times: list[Any], name: str) -> pl.DataFrame:
    return pl.DataFrame({"user": [1, 2, 3], "item": [4, 5, 6], name: times})


@pytest.mark.parametrize("name", ["timestamp", "date"])
def test_ticks_are_no_nanoseconds(name: str) -> None:
    ticks = frame([637134336000000000, 637135336000000000, 637136336000000000], name)
    with pytest.raises(DataError, match=r"look like \.NET ticks.*621355968000000000"):
        segue.read(ticks, time=name)
    assert segue.read(ticks, time=name, time_unit="ns").time_unit == "ns"
    seconds = ticks.with_columns((pl.col(name) - 621355968000000000) // 10_000_000)
    moments = segue.read(seconds, time=name).collect()["time"]
    assert moments[0] == 1577836800, "2020-01-01"


def test_nanoseconds_stay_nanoseconds() -> None:
    assert segue.read(frame([1577836800 * 10**9 + step for step in range(3)], "timestamp")).time_unit == "ns"


@pytest.mark.parametrize(
    ("times", "name"), [([43831.5, 43832.25, 43833.0], "timestamp"), ([43831, 43832, 43833], "date")]
)
def test_day_numbers_of_excel(times: list[Any], name: str) -> None:
    with pytest.raises(DataError, match=r"look like day numbers of Excel.*\(days - 25569\) \* 86400"):
        segue.read(frame(times, name), time=name)
    kept = segue.read(frame([int(one) for one in times], name), time=name, time_unit="s").collect()["time"]
    assert kept.to_list() == [43831, 43832, 43833]


def test_steps_of_that_size_stay_counts() -> None:
    assert segue.read(frame([30000, 40000, 50000], "step"), time="step").collect()["time"].to_list()[0] == 30000


@pytest.mark.parametrize("title", ['"D, \\"x\\", y"', '"ends \\""'])
def test_an_escaped_quote_mark_names_the_way_out(title: str, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    text = f'user_id,item_id,timestamp,title\n1,10,1577836800,"A"\n1,11,1577836801,{title}\n2,10,1577836802,"E, F"\n'
    path.write_text(text)
    with pytest.raises(DataError, match=r"line 3.*backslash before a quote mark.*sed 's/"):
        segue.read(path)
    path.write_text(text.replace('\\"', '""'))  # as the message says
    assert segue.read(path).rows == 3


@pytest.mark.parametrize("column", ["user_id", "item_id"])
@pytest.mark.parametrize("value", ["9007199254740993.0", "1e16", "-1.2e20"])
@pytest.mark.parametrize("usual", [1, "u1"])
def test_floats_that_lost_digits_far_behind_the_first_lines(
    column: str, value: str, usual: int | str, tmp_path: Path
) -> None:
    rows = [{"user_id": usual, "item_id": usual, "timestamp": 1577836800 + step} for step in range(400)]
    late = {"user_id": usual, "item_id": usual, "timestamp": 1577837300, column: "#"}
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, late]).replace('"#"', value))
    with pytest.raises(DataError, match=rf'line 401: the column "{column}" holds .*2\^53 on, which has lost digits'):
        segue.read(path)


def test_other_floats_and_texts_are_no_such_ids(tmp_path: Path) -> None:
    rows = [{"user_id": 1, "item_id": 10, "timestamp": 1577836800.5 + step, "price": 1e20} for step in range(250)]
    rows += [{"user_id": 2.0, "item_id": 1e3, "timestamp": 1577837300.5, "note": '{"user_id": 1e20}'}]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert segue.read(path).collect().row(-1)[:2] == (2, 1000)
