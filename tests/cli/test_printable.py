"""Texts from data cannot steer a terminal, whichever way they take to it."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from segue.cli.main import main
from segue.cli.output import console, note, write_frame, write_json, write_pairs, write_table
from segue.cli.printable import json_safe, printable

EVIL = "\x1b[2J\x1b]0;mine\x07\x9b31m\x00\r\u202eevil"


def is_safe(text: str) -> bool:
    """Whether a text has no control characters but tabs and line feeds, and turns no direction."""
    return all(one in "\t\n" or unicodedata.category(one) not in ("Cc", "Cs") for one in text) and "\u202e" not in text


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_becomes_safe_and_readable_ones_stay(text: str) -> None:
    assert is_safe(printable(text))
    assert "\n" not in printable(text, one_line=True)
    if is_safe(text) and text.isprintable():
        assert printable(text) == text


@given(st.text())
def test_json_keeps_its_content(text: str) -> None:
    document = json_safe(json.dumps({"id": text}, ensure_ascii=False))
    assert json.loads(document) == {"id": text}
    assert is_safe(document)


def test_every_way_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    write_table([EVIL], [[EVIL]], title=EVIL)
    write_frame(pl.DataFrame({"user": [EVIL], "score": [1.0]}), as_json=False)
    write_frame(pl.DataFrame({"user": [EVIL]}), as_json=True)
    write_json({EVIL: EVIL})
    write_pairs({EVIL: EVIL}, title=EVIL)
    console().print(table)
    console().print(EVIL, markup=False)
    note(EVIL)
    captured = capsys.readouterr()
    assert is_safe(captured.out) and "\\x1b[2J" in captured.out
    assert is_safe(captured.err) and "\\x1b[2J" in captured.err


def test_errors_and_warnings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["describe", f"nowhere{EVIL.replace(chr(0), '')}"]) == 1
    monkeypatch.setattr("segue.cli.main._dispatch", lambda words: warnings.warn(EVIL, stacklevel=1) or 0)
    assert main(["describe", "x"]) == 0
    written = capsys.readouterr()
    assert is_safe(written.err) and "warning: \\x1b[2J" in written.err


@pytest.mark.parametrize("word", ["caf\udce9", "--out=\udcff", "a\0b"])
def test_words_that_are_no_text(word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The shell hands over bytes that are not UTF-8 as halves of characters."""
    assert main(["describe", word]) == 2
    message = capsys.readouterr().err
    assert ("is not UTF-8" if "\0" not in word else "null character") in message
    assert is_safe(message) and message.count("\n") == 1
