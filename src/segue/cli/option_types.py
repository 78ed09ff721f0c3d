"""Kinds of option values: how each type is written on the command line, shown in help and named in errors."""

from __future__ import annotations

import json
import types
import typing
from collections import deque
from typing import Any, Literal

_WORDS = {int: "INT", float: "NUMBER", str: "TEXT"}
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def alternatives(kind: object) -> tuple[object, ...]:
    """The types that `kind` is a union of; itself when it is none."""
    # `int | Literal["max"]` is of the second sort.
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def is_switch(kind: object) -> bool:
    """Whether the option is true or false, and so needs no value."""
    return bool in alternatives(kind)


def element(kind: object) -> type | None:
    """The type of the elements when `kind` is a tuple or list (or may be None instead), else None."""
    for part in alternatives(kind):
        if typing.get_origin(part) in (tuple, list):
            return typing.cast(type, typing.get_args(part)[0])
    return None


def metavar(kind: object) -> str | None:
    """What stands for the value in help; None leaves it to the parser (choices)."""
    if inner := element(kind):
        return "TEXT ..." if inner is str else f"{_WORDS.get(inner, 'VALUE')},..."
    for part in alternatives(kind):
        if isinstance(part, type) and part in _WORDS:
            return _WORDS[part]
        if typing.get_origin(part) is Literal and part is not kind:
            return "{" + ",".join(map(str, typing.get_args(part))) + "}"
    return None


def expected(kind: object) -> str:
    """What values of this kind are, in words: "a whole number or null"."""
    words = []
    for part in alternatives(kind):
        if typing.get_origin(part) is Literal:
            words.append("one of " + ", ".join(map(str, typing.get_args(part))))
        elif inner := element(part):
            words.append({int: "whole numbers", float: "numbers", str: "texts"}.get(inner, "a list"))
        elif part is type(None):
            words.append("null")
        else:
            names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
            words.append(names.get(typing.cast(type, part), getattr(part, "__name__", str(part))))
    return " or ".join(words)


def shown(value: Any) -> str:
    """A default as one would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


def written(kind: object, value: str | None, words: deque[str]) -> str | None:
    """The value of an option as the parser wants it, taking what belongs to it from the words that follow.

    Parameters
    ----------
    kind
        The option's type.
    value
        What stood behind `=`, or None when nothing did.
    words
        What follows on the command line; the words that belong to the value are removed.

    Returns
    -------
    str | None
        None when a value is needed and none is there.
    """
    if is_switch(kind):
        return _bool(value, words)
    if inner := element(kind):
        return _list(inner, value, words)
    if value is None:
        value = words.popleft() if words else None
    parts = alternatives(kind)
    named = any(typing.get_origin(part) is Literal and value in typing.get_args(part) for part in parts)
    optional = type(None) in parts and str not in parts and not named
    return "null" if optional and value is not None and value.lower() == "none" else value


def from_yaml(kind: object, value: Any) -> Any:
    """A value of a YAML file with numbers turned to text where the option holds texts (ids such as 42)."""
    inner = element(kind)
    if inner and value is not None and not isinstance(value, list):
        value = [value]
    if inner is str and isinstance(value, list):
        return [str(one) for one in value]
    is_text = isinstance(value, int | float) and not isinstance(value, bool) and str in alternatives(kind)
    return str(value) if is_text else value


def _bool(value: str | None, words: deque[str]) -> str:
    """`--flag`, `--flag no` and `--flag=no` alike."""
    if value is None:
        follows = bool(words) and words[0].lower() in (*_TRUE, *_FALSE)
        value = words.popleft() if follows else "true"
    return {**dict.fromkeys(_TRUE, "true"), **dict.fromkeys(_FALSE, "false")}.get(value.lower(), value)


def _list(inner: type, value: str | None, words: deque[str]) -> str | None:
    """Values as a JSON list, given as `a b c`, `[a, b, c]` or, where they are not texts, `1,2,3`."""
    found = [value] if value is not None else []
    while value is None and words and not words[0].startswith("--"):
        found.append(words.popleft())
    if not found:
        return None
    if len(found) == 1 and found[0].startswith("["):
        return found[0]
    return json.dumps(found) if inner is str else "[" + ",".join(found) + "]"
