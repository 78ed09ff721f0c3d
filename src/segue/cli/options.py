"""Command-line options and YAML from frozen dataclasses: one definition gives flags, `--config`, `--help` and checks.

A command declares its options as frozen dataclasses, with a docstring under each field, and reads them:

    parser = OptionParser("train")
    parser.add_options(TrainOptions)
    parser.add_options(Training, under="training")
    parser.read(argv)
    options, training = parser.get(TrainOptions), parser.get(Training)

Options are spelt with dashes or underscores. Flags win over the `--config` file. An unknown option, in the file or on
the command line, is a `ConfigError` that names the nearest known one.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import textwrap
import typing
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

from docstring_parser import ParseError, parse_from_object
from jsonargparse import ArgumentParser

from segue.cli import option_types
from segue.cli.configfile import flat, read_config, replaced
from segue.cli.main import COMMANDS
from segue.errors import ConfigError, SegueError, nearest
from segue.settings import complaint, field_types

T = TypeVar("T")


_ARGUMENT = re.compile(r"""(?<![\w.\-"'])([a-z]\w*)=('[^']*'|"[^"]*"|[\w…\-]*(?:\.\d+)?)""")
"""An argument in a message, written as in Python: `bad_rows='drop'`, `min_rating=3.0`, `user=…`."""

_TEXT = "\ufdd0"
"""Stands before a text that begins with "#", which the parser would take for a comment. No text has this character."""

POSITIONAL = {"positional": True}
"""Metadata of a field that is given by its position on the command line, without a flag:
`dataset: str = field(metadata=POSITIONAL)`."""


def peek(argv: Sequence[str], name: str, default: str, aliases: Mapping[str, str] | None = None) -> str:
    """The value of one option, read before there is a parser for the others.

    Parameters
    ----------
    argv
        The command line. A `--config` file named there is read as well.
    name
        The option's full name, such as "model.name".
    default
        The value if the option is not given.
    aliases
        As for `OptionParser`.
    """
    named = [name, *(short for short, full in (aliases or {}).items() if full == name)]
    value = default
    for path in _values_of(argv, ["config"]):
        content: Any = read_config(path, aliases)
        for part in name.split("."):
            content = content.get(part) if isinstance(content, dict) else None
        value = value if content is None else str(content)
    return [value, *_values_of(argv, named)][-1]


class OptionParser:
    """The options of one command.

    Parameters
    ----------
    command
        The command's name in `segue.cli.main.COMMANDS`, which holds its summary and example.
    notes
        Text at the end of `--help`, below the example. Further examples come first, indented by two blanks.
    aliases
        Short names of options: with `{"model": "model.name"}`, `--model` and the YAML `model: sasrec` set `model.name`.
    """

    def __init__(self, command: str, notes: str = "", aliases: Mapping[str, str] | None = None) -> None:
        summary, example = COMMANDS[command]
        between = "\n" if notes.startswith("  ") else "\n\n"
        self._prog = f"segue {command}"
        self._parser = ArgumentParser(
            prog=self._prog,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example:\n  {example}{between if notes else ''}{notes}",
            formatter_class=_HelpFormatter,
            exit_on_error=False,
            print_config="--print-config",
            default_env=False,
        )
        self._aliases = dict(aliases or {})
        self._types: dict[str, object] = {}
        self._ranges: dict[str, object] = {}
        self._positionals: list[str] = []
        self._sources: list[tuple[type, str]] = []
        self._in_file: dict[str, str] = {}
        self._former: dict[str, Any] = {}
        self._values: Any = None
        self._parser.add_argument(
            "--config", action="config", metavar="FILE", help="YAML file of options; flags win over it."
        )

    def add_options(
        self, options: type, under: str = "", title: str = "", texts: Mapping[str, str] | None = None
    ) -> None:
        """Declare an option for each field of a frozen dataclass.

        Parameters
        ----------
        options
            The dataclass. Its docstring's first line is the heading in `--help`.
        under
            Put before the names: "training" makes the field `epochs` the option `--training.epochs`.
        title
            Another heading.
        texts
            Help of fields by name, in place of their docstrings.
        """
        documented = attribute_docs(options) | dict(texts or {})
        hints, ranges = typing.get_type_hints(options), field_types(options)
        group = self._parser.add_argument_group(title or (inspect.getdoc(options) or under).splitlines()[0].rstrip("."))
        for field in dataclasses.fields(options):
            key, kind = f"{under}.{field.name}".lstrip("."), hints[field.name]
            text = field.metadata.get("help", documented.get(field.name))
            self._types[key], self._ranges[key] = kind, ranges[field.name]
            if field.metadata.get("positional"):
                self._positionals.append(key)
                several: dict[str, Any] = {"nargs": "+"} if option_types.element(kind) else {}
                self._parser.add_argument(key, type=option_types.element(kind) or kind, help=text, **several)
                continue
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            extra: dict[str, Any] = {"metavar": option_types.metavar(kind)} if option_types.metavar(kind) else {}
            extra |= {"required": True} if default is dataclasses.MISSING else {"default": default}
            extra |= {"metavar": ""} if option_types.is_switch(kind) and default is False else {}
            short = "".join(f"--{_spelt(alias)} for short. " for alias, full in self._aliases.items() if full == key)
            group.add_argument(f"--{_spelt(key)}", type=kind, help=short + (text or ""), **extra)
        self._sources.append((options, under))

    def read(self, argv: Sequence[str], former: Mapping[str, Any] | None = None) -> None:
        """Read the command line and its configuration files; `get` then returns the options.

        Parameters
        ----------
        argv
            The command line.
        former
            Values of options, nested as in YAML, that take the place of their defaults.

        Raises
        ------
        ConfigError
            An option is unknown, lacks its value, or has an impossible one.
        """
        self._former = dict(former or {})
        self._parser.usage = " ".join([self._prog, *self._positionals, "[options]"])
        try:
            self._values = self._parser.parse_args(self._tidy(argv))
        except argparse.ArgumentError as error:
            self._fail(str(error))

    def get(self, options: type[T]) -> T:
        """The options declared by `add_options(options, ...)`, as an instance of that dataclass.

        Raises
        ------
        ConfigError
            A value is out of range, or values do not go together.
        """
        under = next(under for declared, under in self._sources if declared is options)
        values = self._values[under] if under else self._values
        given = {field.name: values[field.name] for field in dataclasses.fields(options)}  # type: ignore[arg-type]
        with self.errors_as_typed(under):
            try:
                return options(**{name: _plain(one) for name, one in given.items()})
            except ConfigError as error:
                first = re.match(r"(\w+)=", str(error))
                file = self._in_file.get(f"{under}.{first[1]}".lstrip(".")) if first else None
                raise error if file is None else ConfigError(f"{file}: {error}") from None

    @contextmanager
    def errors_as_typed(self, under: str | None = None) -> Iterator[None]:
        """Within, errors name options as they are typed: `bad_rows='drop'` becomes `--bad-rows=drop`.

        If several options share a name, the one `under` this prefix is meant.
        """
        try:
            yield
        except SegueError as error:
            raise type(error)(self._as_typed(str(error), under)) from error

    def _as_typed(self, message: str, under: str | None) -> str:
        words = {"True": "true", "False": "false", "None": "null"}

        def typed(match: re.Match[str]) -> str:
            name, value = match[1], match[2].strip("'\"")
            keys = [key for key in self._types if key.rpartition(".")[2] == name and key not in self._positionals]
            exact = [key for key in keys if key.rpartition(".")[0] == under] or keys
            return f"--{_spelt(exact[0])}={words.get(value, value)}" if len(exact) == 1 else match[0]

        return _ARGUMENT.sub(typed, message)

    # ---- the command line, word by word -------------------------------------------------------------------------

    def _tidy(self, argv: Sequence[str]) -> list[str]:
        """The same command line with options as `--name=value`, names checked, and configuration files in front."""
        words = deque(argv)
        files = ["--config=" + json.dumps(self._former)] if self._former else []
        rest: list[str] = []
        for word in _drain(words):
            if word == "--":
                rest.append(word)
                rest.extend(words)
                break
            if word in ("-h", "--help") or not word.startswith("--"):
                rest.append(word)
                continue
            name, equals, value = word[2:].partition("=")
            if _key(name) == "print_config":
                rest.append(f"--print-config={value}")
            elif name == "config":
                files.append("--config=" + self._config(self._needed(name, value if equals else None, words)))
            else:
                rest.append(self._option(name, value if equals else None, words))
        return files + rest

    def _option(self, name: str, value: str | None, words: deque[str]) -> str:
        """One option with its value, which is taken from the words that follow if none is attached."""
        key = self._aliases.get(_key(name), _key(name))
        outer, dot, last = key.rpartition(".")
        positive = outer + dot + last.removeprefix("no_")
        if key not in self._types and option_types.is_switch(self._types.get(positive)):
            key, value = positive, "false"
        if key not in self._types or key in self._positionals:
            raise ConfigError(f'{self._prog} has no option "--{name}": {nearest("--" + _spelt(name), self._flags())}')
        self._in_file.pop(key, None)
        taken = self._needed(name, value, words, self._types[key])
        return f"--{_spelt(key)}={self._guarded(key, taken)}"

    def _guarded(self, key: str, value: Any) -> Any:
        """The value of an option; a text that the parser would take for something else is marked, until `get`.

        It takes "# 7" for a comment, and "--" for the end of the options.
        """
        is_other = isinstance(value, str) and (value.lstrip().startswith("#") or value == "--")
        return _TEXT + value if is_other and str in option_types.alternatives(self._types[key]) else value

    def _needed(self, name: str, value: str | None, words: deque[str], kind: object = str) -> str:
        taken = option_types.take_value(kind, value, words)
        if taken is None:
            raise ConfigError(f"{self._prog}: --{name} needs a value, and none follows.")
        return taken

    def _flags(self) -> list[str]:
        """Every option as it is typed."""
        declared = [_spelt(key) for key in self._types if key not in self._positionals]
        return [f"--{name}" for name in [*declared, *self._aliases, "config", "print-config", "help"]]

    def _config(self, path: str) -> str:
        """The checked content of a configuration file, as JSON, which jsonargparse accepts in place of a path."""
        content = read_config(path, self._aliases)
        for key in flat(content):
            if key not in self._types:
                raise ConfigError(f'{path}: unknown option "{key}": {nearest(key, self._types)}')
            self._in_file[key] = path
        content = replaced(
            content, lambda key, value: self._guarded(key, option_types.from_yaml(self._types[key], value))
        )
        return option_types.as_json(content)

    def _fail(self, message: str) -> NoReturn:
        """Raise an error of jsonargparse in the words of the command line."""
        message = " ".join(message.split())
        named = re.match(r'Parser key "([^"]+)"', message)
        missing = re.fullmatch(r"the following arguments are required: (.+)", message)
        if named and named[1] in self._types:
            key = named[1]
            where = f"{self._in_file[key]}: " if key in self._in_file else ""
            given = re.search(r"(?:Given value|Got value): (.+?)(?: - Expected .*)?$", message)
            value = f"={given[1]}" if given else ""
            wrong = complaint(given[1] if given else None, self._ranges[key], typed=True)
            message = f"{where}--{_spelt(key)}{value}: {wrong}"
        elif missing:
            wanted = [key if key in self._positionals else f"--{_spelt(key)}" for key in missing[1].split(", ")]
            message = f"{self._prog} needs {', '.join(wanted)}."
        elif message.startswith("unrecognized arguments: "):
            message = f'{self._prog} did not expect "{message.removeprefix("unrecognized arguments: ")}".'
        raise ConfigError(f"{message}\n`{self._prog} --help` lists the options.") from None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with the default of each option, and examples on lines of their own. Names are not broken at hyphens."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.dest == "print_config":
            return "Print all options as YAML, for use with --config, and exit (=skip_default: only the changed ones)."
        text = action.help or ""
        if action.required and action.option_strings:
            return f"{text} (required)"
        if action.default in (None, (), argparse.SUPPRESS) or action.default is False or not action.option_strings:
            return text
        return f"{text} (default: {option_types.as_typed(action.default)})"


def attribute_docs(options: type) -> dict[str, str]:
    """The docstring under each field, in one line; those of base classes too."""
    texts: dict[str, str] = {}
    for declaring in reversed(options.__mro__):
        if dataclasses.is_dataclass(declaring):
            texts |= _own_attribute_docs(declaring)
    return texts


@lru_cache(maxsize=256)  # parsing takes longer than all else that makes a parser, and configs share base classes
def _own_attribute_docs(declaring: type) -> dict[str, str]:
    """The docstrings under the fields that a class itself declares; none if it has no source."""
    try:
        documented = parse_from_object(declaring)
    except (ParseError, OSError):
        return {}
    return {p.arg_name: " ".join((p.description or "").split()).replace("%", "%%") for p in documented.params}


def _values_of(argv: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Values of the named options, in order."""
    words = deque(argv)
    for word in _drain(words):
        name, equals, value = word.partition("=")
        if word.startswith("--") and _key(name[2:]) in names and (equals or words):
            yield value if equals else words[0]


def _drain(words: deque[str]) -> Iterator[str]:
    while words:
        yield words.popleft()


def _key(name: str) -> str:
    return name.replace("-", "_")


def _plain(value: Any) -> Any:
    """A value as the commands take it."""
    if isinstance(value, list):
        return tuple(value)
    return value.removeprefix(_TEXT) if isinstance(value, str) else value


def _spelt(key: str) -> str:
    return key.replace("_", "-")
