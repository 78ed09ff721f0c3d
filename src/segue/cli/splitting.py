"""Options of splits, made from the settings of all splits in the registry."""

from __future__ import annotations

import dataclasses
import inspect
import operator
import typing
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from segue.cli.option_types import as_typed
from segue.cli.options import attribute_docs
from segue.errors import ConfigError
from segue.settings import Settings, field_types

if TYPE_CHECKING:
    from segue.data.splits.base import SplitConfig

_PREFIX = "split_"


@dataclasses.dataclass(frozen=True)
class SplitOptions(Settings):
    """The split."""

    split: str | None
    """Name of the split."""

    def spec(self, usual: Mapping[str, Any]) -> dict[str, Any]:
        """The split as plain data, as runs keep it.

        Parameters
        ----------
        usual
            The split to take if none is named, as plain data.

        Raises
        ------
        ConfigError
            An option does not belong to the split, or the split lacks one that it needs.
        """
        from segue.data.splits.registry import SPLITS

        base = dict(usual) if self.split is None else {"name": self.split}
        split = str(base["name"])
        config = SPLITS[split]
        given = {
            field.name.removeprefix(_PREFIX): getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name.startswith(_PREFIX) and getattr(self, field.name) is not None
        }
        known = [field.name for field in dataclasses.fields(config)]
        for option in given:
            if option not in known:
                listed = ", ".join(map(_flag, known)) or "no options"
                raise ConfigError(f"{_flag(option)} means nothing to --split {split}, which has {listed}.")
        missing = [option for option in config.required() if option not in {**base, **given}]
        if missing:
            raise ConfigError(f"--split {split} needs {', '.join(map(_flag, missing))}.")
        return {**base, **given}


def split_options() -> type[SplitOptions]:
    """`SplitOptions` with one flat option per setting, such as `--split-test`, shared by all splits that have it."""
    from segue.data.splits.registry import SPLITS

    choices: Any = Literal[tuple(SPLITS)] | None
    listed = "; ".join(f"{name}: {_summary(config)}" for name, config in SPLITS.items())
    text = (
        f"Interactions held out for test and validation. {listed}. When not given, the one that suits the model: "
        "last-session-out for parsrec, leave-last-out for others."
    )
    fields: list[Any] = [("split", choices, dataclasses.field(default=None, metadata={"help": text}))]
    settings = dict.fromkeys(field.name for config in SPLITS.values() for field in dataclasses.fields(config))
    for name in settings:
        owners = {split: config for split, config in SPLITS.items() if name in typing.get_type_hints(config)}
        option_type = reduce(operator.or_, [field_types(config)[name] for config in owners.values()])
        field: Any = dataclasses.field(default=None, metadata={"help": _help(name, owners)})
        fields.append((_PREFIX + name, option_type | None, field))
    made = dataclasses.make_dataclass("SplitOptions", fields, bases=(SplitOptions,), frozen=True)
    made.__doc__ = SplitOptions.__doc__
    return typing.cast(type[SplitOptions], made)


def _summary(config: type[SplitConfig]) -> str:
    line = (inspect.getdoc(config) or "").splitlines()[0].rstrip(".")
    return (line[0].lower() + line[1:]).replace("%", "%%")


def _help(name: str, owners: Mapping[str, type[SplitConfig]]) -> str:
    """Help text of a setting: the splits that have it, its meaning and its default."""
    first, *_ = owners.values()
    text = attribute_docs(first)[name].rstrip(".")
    defaults: dict[str, list[str]] = {}
    for split, config in owners.items():
        default = next(field.default for field in dataclasses.fields(config) if field.name == name)
        if default is not dataclasses.MISSING:
            defaults.setdefault(as_typed(default), []).append(split)
    (usual, _), *others = defaults.items() if defaults else [("", [])]
    exceptions = "".join(f"; {value} for {_listing(splits)}" for value, splits in others)
    default_text = f" (default: {usual}{exceptions})" if usual else ""
    return f"{_listing(list(owners))}: {text[0].lower() + text[1:]}.{default_text}"


def _listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _flag(option: str) -> str:
    return f"--{_PREFIX}{option}".replace("_", "-")
