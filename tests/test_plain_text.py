"""Text files in another encoding are refused by every reader, with the line and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import segue
from segue.cli.asking import read_ids
from segue.cli.configfile import read_config
from segue.data.tables.reading import read_table
from segue.errors import ConfigError, DataError, SegueError
from segue.evaluation.explanations.labels import _read as read_labels
from segue.plain_text import read_text
from segue.serving.tokens import read_tokens

READERS: list[tuple[Callable[[Path], object], type[SegueError], str]] = [
    (segue.read, DataError, "user,item,Größe\n1,2,3\n"),
    (segue.read, DataError, "Käufer;Ware\n1;2\n3;4\n"),
    (segue.read, DataError, "user,item\n1,2\nä,3\n"),
    (lambda path: read_table(path, "item"), DataError, "sku,Größe\n1,2\n"),
    (lambda path: read_table(path, "item"), DataError, "sku,size\n" + "1,2\n" * 5_000 + "2,groß\n"),
    (lambda path: read_table(path, "item"), DataError, '[{"sku": 1,\n"size": "groß"}]'),
    (lambda path: read_table(path, "item"), DataError, '{"sku": 1, "size": "groß"}\n'),
    (read_ids, DataError, "anna\nMüller\n"),
    (read_labels, DataError, "user,group\nMüller,1\n"),
    (read_config, ConfigError, "out: runs/größe\n"),
    (read_tokens, ConfigError, "[tokens.müller]\n"),
]


@pytest.mark.parametrize(("reader", "error", "text"), READERS)
def test_the_line_and_the_way_out_are_named(
    tmp_path: Path, reader: Callable[[Path], object], error: type[SegueError], text: str
) -> None:
    path = tmp_path / "given.txt"
    path.write_text(text, encoding="latin-1")
    before = text[: next(place for place, letter in enumerate(text) if ord(letter) > 127)]
    line = before.count("\n") + 1
    with pytest.raises(error, match=rf"given\.txt, line {line}: byte 0x.. at column .* is not UTF-8\. .*iconv"):
        reader(path)


def test_a_character_that_is_cut_off_and_a_mark_of_the_order_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "given.txt"
    path.write_bytes("a\nä".encode()[:-1])
    with pytest.raises(DataError, match=r"line 2: byte 0xc3 at column 1"):
        read_text(path)
    path.write_bytes("\ufeffä\n".encode())
    assert read_text(path) == "ä\n"
