"""Every option of every command with values below, at and beyond its range; made from the options themselves."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import typing
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segue.cli.main import COMMANDS, main
from segue.cli.options import OptionParser
from segue.errors import ConfigError
from segue.models.registry import _HOMES
from segue.settings import NotEmpty, Range, field_types

CASES = [(command, []) for command in COMMANDS if command != "train"]
CASES += [("train", ["--model", name]) for name in _HOMES]
FIRST = ["--model", "sasrec"]
HUGE = 10**30


class Read(Exception):
    """Raised once a command has read its options."""


class Options:
    """The options of one command, without its work."""

    def __init__(self, command: str, words: Sequence[str]) -> None:
        self.kinds: dict[str, Any] = {}
        self.needed: list[str] = []
        self.values: dict[str, Any] = {}
        self.parser = self._declared(command, words)

    def _declared(self, command: str, words: Sequence[str]) -> OptionParser:
        add, parsers = OptionParser.add_options, []

        def note(parser: OptionParser, options: type, under: str = "", *rest: Any, **named: Any) -> None:
            for field in dataclasses.fields(options):
                key = f"{under}.{field.name}".lstrip(".").replace("_", "-")
                if field.metadata.get("positional"):
                    self.needed += ["a", "b"] if command == "compare" else ["a"]
                    continue
                self.kinds[key] = field_types(options)[field.name]
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                    self.needed.append(f"--{key}=c")
            add(parser, options, under, *rest, **named)

        def stop(parser: OptionParser, argv: Sequence[str], former: Any = None) -> None:
            parsers.append(parser)
            raise Read

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OptionParser, "add_options", note)
            patch.setattr(OptionParser, "read", stop)
            with pytest.raises(Read):
                importlib.import_module(f"segue.cli.{command}").main(list(words))
        return parsers[0]

    def read(self, *words: str) -> None:
        """Read a command line as the command does; a ConfigError if it is refused."""
        name = words[0].partition("=")[0]
        self.parser.read([*(word for word in self.needed if word.partition("=")[0] != name), *words])
        for options, under in self.parser._sources:
            made: Any = self.parser.get(options)
            self.values |= {f"{under}.{key}".lstrip("."): getattr(made, key) for key in field_types(options)}


def parts(kind: Any) -> list[Any]:
    """The types that a union is of, ranges included; the elements of a list."""
    if typing.get_origin(kind) in (UnionType, typing.Union):
        return [inner for part in typing.get_args(kind) for inner in parts(part)]
    return [kind]


def marks(kind: Any, mark: type) -> list[tuple[Any, Any]]:
    """Annotated types within, with their marks of one class."""
    annotated = [part for part in parts(kind) if typing.get_origin(part) is typing.Annotated]
    pairs = [(typing.get_args(part)[0], one) for part in annotated for one in typing.get_args(part)[1:]]
    inner = [found for part in parts(kind) for one in typing.get_args(part) * (typing.get_origin(part) is tuple)
             for found in marks(one, mark)]  # fmt: skip
    return [pair for pair in pairs if isinstance(pair[1], mark)] + inner


def numbers(kind: Any) -> set[type]:
    """The types of numbers that an option takes."""
    plain = {part for part in parts(kind) if part in (int, float)}
    return plain | {number for number, _ in marks(kind, Range)}


def takes_text(kind: Any) -> bool:
    """Whether an option takes any text."""
    inner = [one for part in parts(kind) for one in typing.get_args(part) if typing.get_origin(part) is tuple]
    return any(part is str for part in [*parts(kind), *inner]) or bool(marks(kind, NotEmpty))


def refused(kind: Any) -> Iterator[str]:
    """Values that an option must refuse."""
    if marks(kind, NotEmpty):
        yield from ("", " ")
    if takes_text(kind):
        return
    yield from ("nonsense", "", "[", "nan")
    for number, limits in marks(kind, Range):
        step = 1 if number is int else 1e-6
        if limits.low != -math.inf:
            yield from (f"{number(limits.low) - step:g}", f"{number(limits.low) - 1000:g}")
            yield from [f"{limits.low:g}"] * limits.open_low
        if limits.high != math.inf:
            yield from (str(number(limits.high) + step), f"{limits.high + 1000:g}")
            yield from [f"{limits.high:g}"] * limits.open_high
    if numbers(kind) == {int}:
        yield from ("1.5", str(HUGE), str(-HUGE), "1e400")


def accepted(kind: Any) -> Iterator[str]:
    """Values that an option must accept."""
    for number, limits in marks(kind, Range):
        step = 1 if number is int else 1e-6
        if limits.low != -math.inf:
            yield f"{number(limits.low) + step:g}"
            yield from [f"{limits.low:g}"] * (not limits.open_low)
        if limits.high != math.inf:
            yield str(number(limits.high) - step)
            yield from [str(number(limits.high))] * (not limits.open_high)
    for part in parts(kind):
        if typing.get_origin(part) is Literal:
            yield from map(str, typing.get_args(part))
    if bool in parts(kind):
        yield from ("true", "false")


@pytest.mark.parametrize(("command", "words"), CASES, ids=lambda case: case if isinstance(case, str) else "".join(case))
def test_values_below_at_and_beyond_every_range(command: str, words: list[str]) -> None:
    options = Options(command, words)
    assert options.kinds
    for key, kind in options.kinds.items():
        if words and words != FIRST and not key.startswith("model."):
            continue  # the same as of the first model
        of_train = command == "tune" and key.startswith(("training.", "model.", "split"))
        limit = 1 if of_train else None
        for value in islice(refused(kind), limit):
            with pytest.raises(ConfigError) as raised:
                options.read(f"--{key}={value}")
            assert f"--{key}" in str(raised.value), (key, value, str(raised.value))
            assert "expected" in str(raised.value), (key, value, str(raised.value))
        for value in islice(accepted(kind), limit):
            try:
                options.read(f"--{key}={value}")
            except ConfigError as error:  # a rule between options may refuse it, but not its own range
                assert f"--{key}={value}: expected" not in str(error), (key, value, str(error))


def test_wrong_values_come_of_every_kind_of_option() -> None:
    """The values above say something: most options have some to refuse."""
    options = Options("train", FIRST)
    assert {"-1", str(HUGE), "nan"} <= set(refused(options.kinds["training.seed"]))
    assert "1" in set(refused(options.kinds["training.beta2"]))
    assert set(refused(options.kinds["out"])) == {"", " "}
    assert set(accepted(options.kinds["split-test"])) == {"1e-06", "0.999999"}
    free = [key for key, kind in options.kinds.items() if not list(refused(kind))]
    assert set(free) == {"model.features", "split-since", "training.metric", "training.trackers"}


@pytest.mark.parametrize(("command", "words"), CASES, ids=lambda case: case if isinstance(case, str) else "".join(case))
def test_a_wrong_value_is_a_message_and_exit_code_2(
    command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(command, words)
    key, value = next((key, value) for key, kind in options.kinds.items() for value in refused(kind))
    assert main([command, *words, *options.needed, f"--{key}={value}"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("segue: ") and "Traceback" not in message


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def is_json_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


@pytest.fixture(scope="module")
def explain() -> Options:
    return Options("explain", [])


@settings(max_examples=40)
@given(text=TEXT.filter(lambda text: not is_json_list(text)))
@example(text="#")
@example(text="--")
@example(text="\u00a0# 7")
def test_any_text_is_an_id(text: str, explain: Options) -> None:
    """Ids may look like a list, a number, a word of YAML or an option."""
    explain.read(f"--item={text}")
    assert explain.values["item"] == (text,)
    if text.lower() not in ("none", "null"):
        explain.read(f"--user={text}")
        assert explain.values["user"] == text


@pytest.mark.parametrize("ids", [["[1"], ["[deleted]"], ["[a, b]", "c"], ["[", "]"], ["null"], ["1e3", "007"]])
def test_ids_that_look_like_something_else(ids: list[str]) -> None:
    options = Options("similar", [])
    options.read("--items", *ids)
    assert options.values["items"] == tuple(ids)


def test_an_id_like_a_comment_in_a_file_of_options(tmp_path: Path, explain: Options) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({"user": "# 7", "item": ["#", "8"]}), encoding="utf-8")
    explain.read(f"--config={file}")
    assert explain.values["user"] == "# 7" and explain.values["item"] == ("#", "8")


def test_ids_in_a_file_of_options(tmp_path: Path) -> None:
    ids = ["caf\u00e9", "\U0001f600", "\\ud83d\\ude00", "\u2028", "[x", "1e3"]
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({"items": ids}), encoding="utf-8")
    options = Options("similar", [])
    del options.needed[1]
    options.read(f"--config={file}")
    assert options.values["items"] == tuple(ids)
