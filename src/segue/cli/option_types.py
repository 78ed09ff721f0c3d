"""Types of options: values as they are typed on the command line, read from YAML, and shown in help."""

from __future__ import annotations

import json
import re
import types
import typing
from collections import deque
from typing import Any, Literal

_WORDS = {int: "INT", float: "NUMBER", str: "TEXT"}
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def alternatives(kind: object) -> tuple[object, ...]:
    """The types that `kind` is a union of; itself alone if it is none."""
    # `int | Literal["max"]` is a typing.Union.
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def is_switch(kind: object) -> bool:
    """Return whether the option is true or false, and so needs no value."""
    return bool in alternatives(kind)


def element(kind: object) -> type | None:
    """The type of the elements if `kind` is a tuple or list (or None instead of one), else None."""
    for part in alternatives(kind):
        if typing.get_origin(part) in (tuple, list):
            return typing.cast(type, typing.get_args(part)[0])
    return None


def metavar(kind: object) -> str | None:
    """The word for the value in help; None leaves it to the parser (choices)."""
    if inner := element(kind):
        return "TEXT ..." if inner is str else f"{_WORDS.get(inner, 'VALUE')},..."
    for part in alternatives(kind):
        if isinstance(part, type) and part in _WORDS:
            return _WORDS[part]
        if typing.get_origin(part) is Literal and part is not kind:
            return "{" + ",".join(map(str, typing.get_args(part))) + "}"
    return None


def as_typed(value: Any) -> str:
    """A default as it is typed on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value)


def take_value(kind: object, value: str | None, words: deque[str]) -> str | None:
    """The value of an option as the parser reads it; words that belong to it are taken from those that follow.

    Parameters
    ----------
    kind
        The option's type.
    value
        The text behind `=`, or None without one.
    words
        The words that follow on the command line; those that belong to the value are removed.

    Returns
    -------
    str | None
        None if a value is needed and there is none.
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
    """A value of a YAML file; numbers become texts if the option holds texts (ids such as 42)."""
    inner = element(kind)
    if inner and value is not None and not isinstance(value, list):
        value = [value]
    if inner is str and isinstance(value, list):
        return [str(one) for one in value]
    is_text = isinstance(value, int | float) and not isinstance(value, bool) and str in alternatives(kind)
    return str(value) if is_text else value


def _bool(value: str | None, words: deque[str]) -> str:
    """The value of `--flag`, `--flag no` or `--flag=no`."""
    if value is None:
        is_given = bool(words) and words[0].lower() in (*_TRUE, *_FALSE)
        value = words.popleft() if is_given else "true"
    return {**dict.fromkeys(_TRUE, "true"), **dict.fromkeys(_FALSE, "false")}.get(value.lower(), value)


def _list(inner: type, value: str | None, words: deque[str]) -> str | None:
    """Values as a JSON list, given as `a b c`, `["a", "b"]` or, if they are not texts, `1,2,3`."""
    given = [value] if value is not None else []
    while value is None and words and not words[0].startswith("--"):
        given.append(words.popleft())
    if not given:
        return None
    if len(given) == 1 and given[0].startswith("[") and (inner is not str or _is_json_list(given[0])):
        return given[0] if inner is not str else as_json(json.loads(given[0]))
    is_text = inner is str or not all(word.strip() for word in given)
    return as_json(given) if is_text else "[" + ",".join(given) + "]"


def as_json(content: Any) -> str:
    r"""Plain data as JSON in ASCII that YAML reads too: an emoji is written as \U0001f600, and not as two halves."""
    document = json.dumps(content, default=str, ensure_ascii=False)
    return _BEYOND_ASCII.sub(lambda match: _escape(ord(match[0])), document)


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_json_list(text: str) -> bool:
    """Return whether a text is a list in JSON; a text such as "[deleted]" is an id."""
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False
