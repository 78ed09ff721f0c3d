"""Files of a log begin with different numbers of blank lines: each keeps all its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import segue

BLANK = [("", ""), ("\r\n\n", ""), ("", "\n\n\n"), ("\n", " \n\n")]
"""Beginnings of two files."""

Options = dict[str, Any]


def rows(part: int, end: str) -> str:
    return "".join(f"u{part}\t{item}\t{1_577_836_800 + 10 * part + item}{end}" for item in range(3))


@pytest.mark.parametrize("blank", BLANK)
@pytest.mark.parametrize(
    ("names", "end", "options"),
    [
        ("user_id\titem_id\ttimestamp\n", "\n", {}),
        ("user_id\titem_id\ttimestamp\r\n", "\r\n", {}),
        ("user_id\titem_id\ttimestamp\n", "\n", {"bad_rows": "drop"}),
        ("user_id\titem_id\ttimestamp\ttitle\n", '\t"of two\nlines"\n', {}),
        ("", "\n", {"user": 0, "item": 1, "time": 2}),
    ],
    ids=["plain", "windows", "drop", "quoted text", "no header"],
)
def test_each_file_keeps_all_its_rows(
    blank: tuple[str, str], names: str, end: str, options: Options, tmp_path: Path
) -> None:
    for part in (0, 1):
        (tmp_path / f"part-{part}.tsv").write_text(blank[part] + names + rows(part, end), newline="")
    log = segue.read(tmp_path, **options).collect()
    assert sorted(log["user"].to_list()) == ["u0"] * 3 + ["u1"] * 3
    assert sorted(log["item"].to_list()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("blank", BLANK)
def test_session_files_keep_all_their_sessions(blank: tuple[str, str], tmp_path: Path) -> None:
    names = "user_id,time,session_length,session_items\n"
    for part, sessions in enumerate(["1,1,2,3,4\n2,2,1,5\n", "1,3,1,7\n"]):
        (tmp_path / f"part-{part}.csv").write_text(blank[part] + names + sessions)
    assert sorted(segue.read(tmp_path).collect()["item"].to_list()) == [3, 4, 5, 7]
