"""Settings: frozen dataclasses whose values are checked against their types and ranges when they are made.

A field declares its range with its type:

    @dataclass(frozen=True)
    class Shop(Settings):
        width: Count = 64
        rate: Annotated[float, above(0)] = 0.1
        loss: Literal["bce", "softmax"] = "softmax"

`Shop(width=0)` is then a ConfigError that names the field: "width=0: expected 1 or more." Rules that concern several
fields are written in `check`.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from segue.errors import ConfigError, closest, nearest

_LONGEST = 60
"""Characters of a value that a message shows."""

_LARGEST = 2**63 - 1
"""Largest whole number: arrays, tensors and generators hold 64 bits."""

_MANY = (collections.abc.Sequence, collections.abc.Collection)
"""Types of several values in any order of containers: lists, tuples, sets, ranges and arrays fit them."""


# ---- ranges ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of numbers, as the metadata of `Annotated`; made by `at_least`, `above` and `between`.

    Parameters
    ----------
    low, high
        The limits.
    open_low, open_high
        Whether a limit itself is outside the range.
    noun, plural
        Name of such numbers in messages; that of the type when empty.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    noun: str = ""
    plural: str = ""

    def __contains__(self, value: float) -> bool:
        above_low = value > self.low if self.open_low else value >= self.low
        below_high = value < self.high if self.open_high else value <= self.high
        return above_low and below_high

    def limits(self) -> str:
        """The limits in words: "from 0 to below 1"."""
        low = "" if self.low == -math.inf else f"{'above' if self.open_low else 'from'} {self.low:g}"
        if self.high == math.inf:
            return low
        written = f"{self.high:,.0f}" if float(self.high).is_integer() else f"{self.high:g}"
        high = f"{'below ' if self.open_high else ''}{written}"
        return f"{low} to {high}" if low else f"up to {high}"


def at_least(low: float) -> Range:
    """Range of the numbers from `low`."""
    return Range(low)


def above(low: float) -> Range:
    """Range of the numbers above `low`."""
    return Range(low, open_low=True)


def between(low: float, high: float) -> Range:
    """Range of the numbers from `low` to `high`, both included."""
    return Range(low, high)


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """Texts that are not empty, and that a file system can hold, as the metadata of `Annotated`.

    Parameters
    ----------
    noun
        Name of such texts in messages.
    """

    noun: str

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and is_path(value)


def is_path(text: str) -> bool:
    """Return whether a text can be a path or a name: not blank, without a null character, and Unicode throughout."""
    return bool(text.strip()) and "\0" not in text and not any("\ud800" <= one <= "\udfff" for one in text)


Count = Annotated[int, at_least(1)]
"""A whole number from 1."""
Size = Annotated[int, at_least(0)]
"""A whole number from 0."""
Seed = Annotated[int, at_least(0)]
"""A whole number from 0 that decides random draws."""
Positive = Annotated[float, above(0)]
"""A number above 0."""
Penalty = Annotated[float, at_least(0)]
"""A number from 0."""
Share = Annotated[float, Range(0, 1, noun="a share", plural="shares")]
"""A share from 0 to 1."""
ShareAboveZero = Annotated[float, Range(0, 1, open_low=True, noun="a share", plural="shares")]
"""A share above 0, to 1."""
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True, noun="a share", plural="shares")]
"""A share from 0 to below 1, as of dropout."""
ShareWithin = Annotated[float, Range(0, 1, open_low=True, open_high=True, noun="a share", plural="shares")]
"""A share above 0 and below 1, as of a part of a whole."""
Probability = Annotated[float, Range(0, 1, noun="a probability", plural="probabilities")]
"""A probability from 0 to 1."""
PathText = Annotated[str, NotEmpty("a path")]
"""Path of a file or folder."""
Word = Annotated[str, NotEmpty("a text that is not empty")]
"""A text that is not empty."""
Negatives = Annotated[int, Range(1, 1_000_000)]
"""Number of negatives that are drawn at a time."""
ShardCount = Annotated[int, Range(1, 10_000, noun="a number of shards", plural="numbers of shards")]
"""A number of shards; each step has files for every one of them."""
Resamples = Annotated[int, Range(0, 1_000_000)]
"""Number of resamples; a million is more than any interval needs."""


# ---- settings -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Settings:
    """Base of all configs: every value is checked against the type and the range of its field.

    Whole numbers pass as numbers, but True and False pass as neither. Lists become tuples, and NumPy's numbers plain
    ones. None passes only if the type names it. Numbers that are not finite never pass.

    Raises
    ------
    ConfigError
        A value has the wrong type or is out of range. The message names the field, the value and what was expected.
    """

    def __post_init__(self) -> None:
        own: Any = type(self)
        for name, kind in field_types(own).items():
            value = getattr(self, name)
            fitting = fit(value, kind)
            if fitting is MISFIT:
                raise ConfigError(_complaint(name, value, kind))
            if fitting is not value:
                object.__setattr__(self, name, fitting)
        self.check()

    def check(self) -> None:
        """Raise a ConfigError if values do not go together. Types and ranges are checked before."""

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Self:
        """Settings from what `to_dict` gave.

        Raises
        ------
        ConfigError
            A setting is unknown (the message names the nearest) or has an impossible value.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                raise ConfigError(f"{getattr(cls, 'name', cls.__name__)} has no setting {key!r}; {nearest(key, known)}")
        return cls(**settings)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """These settings with other values for some of them, by name; raises what `from_dict` raises."""
        return self.from_dict(self.to_dict() | dict(values))


@cache
def field_types(settings: type[Any]) -> dict[str, Any]:
    """Type of every field of a dataclass by the field's name, ranges included."""
    hints = typing.get_type_hints(settings, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


# ---- the check of one value -----------------------------------------------------------------------------------------


class _Misfit:
    """Type of `MISFIT`."""


MISFIT = _Misfit()
"""Result of `fit` for a value that does not fit."""


def fit(value: Any, kind: Any) -> Any:
    """The value as the type wants it (a list as a tuple, a NumPy number as a plain one), or `MISFIT`."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and not isinstance(value, numpy.datetime64):
        value = value.item()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        fitting = fit(value, arguments[0])
        ranges = [mark for mark in arguments[1:] if isinstance(mark, Range | NotEmpty)]
        return fitting if fitting is None or all(_is_in(fitting, one) for one in ranges) else MISFIT
    if origin in (types.UnionType, typing.Union):
        if Path in arguments and isinstance(value, str | Path) and not is_path(str(value)):
            return MISFIT
        results = (fit(value, part) for part in arguments)
        return next((fitting for fitting in results if fitting is not MISFIT), MISFIT)
    if origin is Literal:
        return value if any(type(value) is type(one) and value == one for one in arguments) else MISFIT
    if origin is tuple:
        return _fit_tuple(value, arguments)
    if origin is type:
        return value if isinstance(value, type) and issubclass(value, arguments[0]) else MISFIT
    if origin in _MANY:
        return _fit_many(value, arguments[0])
    return value if _is_a(value, kind if origin is None else origin) else MISFIT


def _is_a(value: Any, kind: Any) -> bool:
    """True if a value is of a class; `int` and `float` exclude NaN, infinities, True and False."""
    if kind is None:
        return value is None
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST - 1 <= value <= _LARGEST
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value)
    if isinstance(value, type) and getattr(kind, "_is_protocol", False):
        return False  # a class has the attributes of its instances
    try:
        return isinstance(value, kind)
    except TypeError:  # Any, and other types that Python cannot check
        return True


def _fit_tuple(value: Any, kinds: tuple[Any, ...]) -> Any:
    """A tuple with every element fitted, or `MISFIT`."""
    if not isinstance(value, list | tuple):
        return MISFIT
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        return MISFIT
    fitting = tuple(fit(one, kind) for one, kind in zip(value, kinds, strict=True))
    if any(one is MISFIT for one in fitting):
        return MISFIT
    same = isinstance(value, tuple) and all(one is other for one, other in zip(value, fitting, strict=True))
    return value if same else fitting


def _fit_many(value: Any, kind: Any) -> Any:
    """A list with every element fitted, or `MISFIT`; the value itself if all elements stay as they are."""
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__") or not hasattr(value, "__iter__"):
        return MISFIT
    try:
        elements = list(value)
    except TypeError:  # an array without dimensions
        return MISFIT
    fitting = [fit(one, kind) for one in elements]
    if any(one is MISFIT for one in fitting):
        return MISFIT
    return value if all(one is other for one, other in zip(elements, fitting, strict=True)) else fitting


def _is_in(value: Any, limits: Range | NotEmpty) -> bool:
    return value is not MISFIT and value in limits


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False


# ---- messages -------------------------------------------------------------------------------------------------------


def expected(kind: Any, typed: bool = False) -> str:
    """Values of a type in words: "a whole number from 1, mean or max".

    Parameters
    ----------
    kind
        The type, with its ranges.
    typed
        Name true, false and null as on the command line and in YAML, not as in Python.
    """
    *others, last = _alternatives(kind, typed)
    return f"{', '.join(others)} or {last}" if others else last


def _complaint(name: str, value: Any, kind: Any) -> str:
    """The message about an impossible value."""
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
    return f"{name}={shown}: " + complaint(value, kind)


def complaint(value: Any, kind: Any, typed: bool = False) -> str:
    """The expected value, in words, and the nearest word that the type names.

    Parameters
    ----------
    value
        The value as it was found.
    kind, typed
        As of `expected`.
    """
    wanted = _short(value, kind) or expected(kind, typed)
    numbers = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, float) and math.isinf(one) for one in numbers):
        wanted = wanted.replace("a number", "a finite number", 1).replace("numbers", "finite numbers", 1)
    if isinstance(value, int) and not -_LARGEST - 1 <= value <= _LARGEST and "whole number" in wanted:
        wanted += " that 64 bits hold"
    near = closest(value, _choices(kind)) if isinstance(value, str) else None
    return f"expected {wanted}" + ("." if near is None else f'; did you mean "{near}"?')


def _short(value: Any, kind: Any) -> str | None:
    """ "1 or more", for a number that is of the right type and only too small; None in all other cases."""
    parts = [part for part in _parts(kind) if part is not type(None)]
    if len(parts) != 1 or typing.get_origin(parts[0]) is not Annotated or not _is_finite_number(value):
        return None
    number, *marks = typing.get_args(parts[0])
    ranges = [mark for mark in marks if isinstance(mark, Range)]
    if len(ranges) != 1 or number not in (int, float) or fit(value, number) is MISFIT:
        return None
    limits = ranges[0]
    if limits.high != math.inf or limits.open_low or limits.noun:
        return None
    return f"{limits.low:g} or more" + (", or None" if len(_parts(kind)) > 1 else "")


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and _is_finite(value)


def _parts(kind: Any) -> tuple[Any, ...]:
    """The types that `kind` is a union of; itself alone if it is none."""
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def _choices(kind: Any) -> Iterator[str]:
    """Words that a type names, by `Literal`, anywhere in it."""
    if typing.get_origin(kind) is Literal:
        yield from (str(one) for one in typing.get_args(kind))
        return
    for part in typing.get_args(kind):
        yield from _choices(part)


def _alternatives(kind: Any, typed: bool, plural: bool = False, limits: Range | None = None) -> list[str]:
    """Values of each type of a union, in words."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        ranges = [mark for mark in arguments[1:] if isinstance(mark, Range)]
        nouns = [mark.noun for mark in arguments[1:] if isinstance(mark, NotEmpty)]
        return nouns[:1] or _alternatives(arguments[0], typed, plural, ranges[0] if ranges else limits)
    if origin in (types.UnionType, typing.Union):
        if {str, Path} <= set(arguments):
            others = [part for part in arguments if part not in (str, Path)]
            return ["a path", *(words for part in others for words in _alternatives(part, typed, plural, limits))]
        return [words for part in arguments for words in _alternatives(part, typed, plural, limits)]
    if origin is Literal:
        return [str(one) for one in arguments]
    if origin in (tuple, list, *_MANY) and arguments:
        inner = _alternatives(arguments[0], typed, plural=True)
        fixed = origin is tuple and arguments[-1] is not ...
        return [f"{len(arguments)} {' or '.join(inner)}" if fixed else " or ".join(inner)]
    if origin is type:
        return [f"the class of {_noun(arguments[0])}"]
    if kind is bool:
        return ["true", "false"] if typed else ["True", "False"]
    if kind in (None, type(None)):
        return ["null" if typed else "None"]
    kind = origin if origin is not None else kind
    names = {int: ("a whole number", "whole numbers"), float: ("a number", "numbers"), str: ("a text", "texts")}
    noun = names.get(kind, (_noun(kind),) * 2)[plural]
    if limits is None:
        return [noun]
    return [f"{(limits.plural if plural else limits.noun) or noun} {limits.limits()}"]


_NOUNS = {
    "HasScorer": "a Recommender",
    "Model": "a fitted model",
    "ModelConfig": "the config of a model, such as segue.SASRec()",
    "ndarray": "a NumPy array",
    "Callable": "a function",
    "Mapping": "a dict",
    "dict": "a dict",
    "Iterable": "a list",
}


def _noun(kind: Any) -> str:
    """A type in words: "a Dataset"."""
    name = getattr(kind, "__name__", str(kind))
    return _NOUNS.get(name, f"{'an' if name[:1] in 'AEIOU' else 'a'} {name}")
