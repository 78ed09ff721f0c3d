from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from segue import Dataset, prepare, read, write_session_file
from segue.errors import ColumnError, ConfigError, DataError, SegueError
from segue.files import read_json
from tests.data.test_sessions import baskets
from tests.helpers import make_dataset

WriteFile = Callable[..., Path]
HEADER = "user_id,time,session_length,session_items\n"
TOY = HEADER + "7,1,2,30,40\n3,1,1,2\n7,2,3,40,50,60\n"


def test_it_is_known_by_its_header(write_file: WriteFile) -> None:
    log = read(write_file("toy.txt", TOY))
    assert (log.format, log.rows, log.time_unit) == ("session-file", 6, "s")
    assert log.columns == {"user": "user_id", "item": "session_items", "time": "time", "session": "line"}
    assert log.collect().rows()[:3] == [(7, 30, 1, 2), (7, 40, 1, 2), (3, 2, 1, 3)]


@pytest.mark.parametrize(
    "content",
    [TOY, TOY.replace("\n", "\r\n"), TOY.replace(",", ", "), "\n" + TOY + "\n\n", "\ufeff" + TOY, TOY.rstrip()],
)
def test_it_is_read_and_prepared(write_file: WriteFile, content: str) -> None:
    data = prepare(write_file("toy.txt.gz", content))
    assert baskets(data) == {3: [[2]], 7: [[30, 40], [40, 50, 60]]}
    assert data.metadata["notes"] == []


def test_sessions_of_one_moment_stay_apart(write_file: WriteFile) -> None:
    data = prepare(write_file("toy.txt", HEADER + "1,5,2,3,2\n1,5,2,9,8\n"))
    assert baskets(data) == {1: [[3, 2], [9, 8]]}


def test_times_out_of_order_are_sorted_and_it_is_said(write_file: WriteFile) -> None:
    path = write_file("toy.txt", HEADER + "1,5,1,3\n2,1,1,4\n1,4,2,9,8\n1,3,1,7\n2,1,1,5\n")
    with pytest.warns(UserWarning, match=r"toy\.txt: 2 sessions stood behind a later one of their user"):
        data = prepare(path)
    assert baskets(data) == {1: [[7], [9, 8], [3]], 2: [[4], [5]]}


def test_without_its_times_the_file_keeps_its_order(write_file: WriteFile) -> None:
    data = prepare(read(write_file("toy.txt", HEADER + "1,5,1,3\n1,4,2,9,8\n"), time=False))
    assert data.times is None
    assert baskets(data) == {1: [[3], [9, 8]]}


def test_ids_may_be_large_or_words(write_file: WriteFile) -> None:
    large = prepare(write_file("large.txt", HEADER + f"1,1,2,32768,{2**40}\n"))
    assert baskets(large) == {1: [[32768, 2**40]]}
    words = prepare(write_file("words.txt", HEADER + "ann,1,2,tea,milk\n"))
    assert baskets(words) == {"ann": [["tea", "milk"]]}


BAD = [
    ("7,1,3,30,40", r"line 3 says 3 items, and 2 follow: \"7,1,3,30,40\""),
    ("7,1,1,30,40", "line 3 says 1 items, and 2 follow"),
    ("7,1,2,30,0", "line 3 holds the item 0; expected ids from 2"),
    ("7,1,2,1,30", "line 3 holds the item 1; expected ids from 2"),
    ("7,1,0", "line 3 is an empty session"),
    ("7,1,2", "line 3 says 2 items, and 0 follow"),
    ("7,1", "line 3 has 2 fields; expected user,time,n,item1"),
    ("7,1,two,30,40", 'line 3 has "two" as the number of items'),
    ("7,1,-1,30,40", 'line 3 has "-1" as the number of items'),
    (",1,1,30", "line 3: the user .* is missing"),
    ("7,,1,30", "line 3: the time .* is missing"),
    ("7,x,1,30", "line 3: the time .* is 'x'"),
    ("7,1,2,30,", "line 3: the item .* is missing"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_lines_are_named_or_left_out(write_file: WriteFile, line: str, message: str) -> None:
    path = write_file("toy.txt", HEADER + f"1,1,1,20\n{line}\n1,2,2,20,21\n")
    for call in (read, prepare):
        with pytest.raises(DataError, match=f"toy.txt, {message}"):
            call(path)
    log = read(path, bad_rows="drop")
    assert log.dropped >= 1
    assert baskets(prepare(log))[1] == [[20], [20, 21]]


def test_what_is_in_the_way_is_said(write_file: WriteFile) -> None:
    with pytest.raises(DataError, match=r"a header .* and no sessions"):
        read(write_file("empty.txt", HEADER))
    with pytest.raises(DataError, match="expected user_id,time,session_length,session_items, found"):
        read(write_file("other.txt", "1,2,3\n"), format="session-file")
    with pytest.raises(ConfigError, match="columns are known: leave out user"):
        read(write_file("toy.txt", TOY), user="user_id")


def test_sessions_of_several_files_stay_apart(write_file: WriteFile) -> None:
    first = write_file("part-1.txt", HEADER + "1,5,2,3,2\n")
    write_file("part-2.txt", HEADER + "1,5,2,9,8\n")
    assert baskets(prepare(first.parent / "part-*.txt")) == {1: [[3, 2], [9, 8]]}
    write_file("part-2.txt", HEADER + "1,5,2,9\n")
    with pytest.raises(DataError, match=r"part-2\.txt, line 2 says 2 items"):
        read(first.parent / "part-*.txt")


# ---- the file of types ---------------------------------------------------------------------------------------------

TYPES = {"session_length": "int16", "session_items": "object", "history": "object", "time": "int", "user_id": "int32"}


def typed(write_file: WriteFile, content: str, **types: str) -> Path:
    write_file("toy_columns_dtype.json", json.dumps(TYPES | types))
    return write_file("toy.txt", content)


def test_types_beside_the_file_are_honoured(write_file: WriteFile) -> None:
    path = typed(write_file, TOY)
    assert baskets(prepare(path)) == {3: [[2]], 7: [[30, 40], [40, 50, 60]]}
    as_text = prepare(typed(write_file, TOY, user_id="object"))
    assert as_text.users.ids.to_list() == ["3", "7"]


def test_ids_wider_than_the_stated_type_are_not_cut(write_file: WriteFile) -> None:
    data = prepare(typed(write_file, HEADER + f"{2**33},1,1,70000\n", user_id="int16"))
    assert baskets(data) == {2**33: [[70000]]}


def test_values_against_the_stated_types_are_named(write_file: WriteFile) -> None:
    with pytest.raises(DataError, match=r"line 3: the user .* is 'ann'; expected an integer id, as .*dtype\.json says"):
        read(typed(write_file, HEADER + "1,1,1,5\nann,2,1,5\n"))
    with pytest.raises(ColumnError, match=r"begins with '2024-05-01'; .*dtype\.json says that it holds integers"):
        read(typed(write_file, HEADER + "1,2024-05-01,1,5\n"))
    assert read(typed(write_file, HEADER + "1,2024-05-01,1,5\n", time="object")).time_unit == "us"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "expected an object"), ('{"user": "int"}', 'unknown column "user"'),
     ('{"user_id": "complex"}', "unknown type 'complex'")],
)  # fmt: skip
def test_a_bad_file_of_types_is_named(write_file: WriteFile, content: str, message: str) -> None:
    write_file("toy_columns_dtype.json", content)
    with pytest.raises(DataError, match=rf"toy_columns_dtype\.json.*{message}"):
        read(write_file("toy.txt", TOY))


# ---- writing -------------------------------------------------------------------------------------------------------


def test_written_and_read_again(write_file: WriteFile, tmp_path: Path) -> None:
    data = prepare(write_file("toy.txt", TOY))
    path = write_session_file(data, tmp_path / "again.txt")
    assert path.read_text() == HEADER + "3,1,1,2\n7,1,2,30,40\n7,2,3,40,50,60\n"
    assert read_json(tmp_path / "again_columns_dtype.json")["user_id"] == "int32"
    assert prepare(path).fingerprint == data.fingerprint


def test_a_view_is_written_as_what_is_visible(write_file: WriteFile, tmp_path: Path) -> None:
    data = prepare(write_file("toy.txt", TOY))
    view = data.until(data.ends - np.array([0, 0, 1]))
    assert write_session_file(view, tmp_path / "v.txt").read_text().endswith("7,2,2,40,50\n")


def test_codes_stand_in_for_ids_the_file_cannot_hold(tmp_path: Path) -> None:
    log = pl.DataFrame({"user": ["b", "a"], "item": [0, 5], "session": [1, 1]})
    data = prepare(log)
    with pytest.raises(DataError, match="users are called 'a'"):
        write_session_file(data, tmp_path / "x.txt")
    low = prepare(log.with_columns(user=pl.Series([4, 3])))
    with pytest.raises(DataError, match="there is an item 0"):
        write_session_file(low, tmp_path / "x.txt")
    assert list(tmp_path.iterdir()) == []
    path = write_session_file(data, tmp_path / "x.txt", ids="codes")
    assert path.read_text() == HEADER + "1,0,1,3\n2,0,1,2\n"


def test_only_sessions_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sessions"):
        write_session_file(make_dataset([[2, 3]]), tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="ids='names': expected raw or codes"):
        write_session_file(make_dataset([[2, 3]]), tmp_path / "x.txt", ids="names")  # type: ignore[arg-type]
    assert issubclass(DataError, SegueError)


@pytest.mark.realdata
def test_the_published_file(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "parsrec" / "synthetic.txt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = prepare(path, out=tmp_path / "data")
    assert (data.n_users, data.n_items, data.n_interactions, len(data.sessions)) == (1024, 2000, 428_434, 102_400)
    assert (data.sessions.counts[1:] == 100).all()
    again = write_session_file(Dataset.open(tmp_path / "data"), tmp_path / "again.txt")
    assert sorted(again.read_text().splitlines()) == sorted(path.read_text().splitlines())
