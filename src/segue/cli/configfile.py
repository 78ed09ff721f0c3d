"""Options from a YAML file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from segue.errors import ConfigError
from segue.plain_text import read_text


def read_config(path: str | Path, aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Options in a YAML file, nested, with underscores for dashes and full names for aliases.

    Parameters
    ----------
    path
        The file.
    aliases
        `{"model": "model.name"}` turns `model: sasrec` into `model: {name: sasrec}`.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or is not a mapping of options.
    """
    try:
        content = yaml.safe_load(read_text(Path(path), error=ConfigError))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected options as `name: value`, found a {type(content).__name__}.")
    options = _underscored(content)
    for short, full in (aliases or {}).items():
        value = options.get(short)
        if value is not None and not isinstance(value, dict):
            outer, _, inner = full.partition(".")
            del options[short]
            options.setdefault(outer, {})[inner] = value
    return options


def flat(options: Mapping[str, Any], under: str = "") -> Iterator[str]:
    """Dotted names of all values: `{"a": {"b": 1}}` gives "a.b"."""
    for name, value in options.items():
        key = f"{under}.{name}" if under else name
        if isinstance(value, Mapping) and value:
            yield from flat(value, key)
        else:
            yield key


def replaced(options: Mapping[str, Any], replace: Callable[[str, Any], Any], under: str = "") -> dict[str, Any]:
    """The same options with each value replaced by `replace(dotted name, value)`."""
    result = {}
    for name, value in options.items():
        key = f"{under}.{name}" if under else name
        inner = isinstance(value, Mapping) and bool(value)
        result[name] = replaced(value, replace, key) if inner else replace(key, value)
    return result


def _underscored(options: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name).replace("-", "_"): _underscored(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
    }
