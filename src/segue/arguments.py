"""Arguments of public calls: checked against the types of the signature before any work begins.

    @checked
    def leave_last_n(dataset: Dataset, n: Count) -> Split: ...

`leave_last_n(frame, 1)` is then a ConfigError that names the argument, the value and the type, and says how to make a
Dataset of a frame. `check_fields` does the same for the fields of a dataclass.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ParamSpec, TypeVar

from segue.errors import ConfigError
from segue.settings import MISFIT, complaint, fit

P = ParamSpec("P")
R = TypeVar("R")

_LONGEST = 60
"""Characters of a value that a message shows."""

_FRAMES = (
    "DataFrame",
    "LazyFrame",
    "Table",
    "Log",
    "DuckDBPyRelation",
    "str",
    "PosixPath",
    "WindowsPath",
    "list",
    "dict",
)
_ADVICE: dict[str, dict[str, str]] = {
    "Dataset": {
        "Split": "Take one of its parts: split.train, or split.dataset for all of it.",
        "Holdout": "Take its holdout.dataset.",
        "Recommender": "Take its recommender.dataset.",
        **dict.fromkeys(_FRAMES, "Make one with segue.prepare(log), or open a folder with segue.Dataset.open(path)."),
    },
    "Split": {
        "Holdout": "Pass the whole split that it is a part of.",
        **dict.fromkeys(_FRAMES, "Make a Dataset with segue.prepare(log) and split it, as segue.leave_last_out does."),
    },
    "Holdout": {
        "Split": "Take one of its parts: split.test or split.validation.",
        "Dataset": "Split it first: split = segue.leave_last_out(dataset), then split.test.",
        **dict.fromkeys(_FRAMES, "Prepare and split the log: segue.leave_last_out(segue.prepare(log)).test."),
    },
    "Evaluation": {
        "Recommender": "Evaluate it first: segue.evaluate(recommender, split.test).",
        **dict.fromkeys(
            ("str", "PosixPath", "WindowsPath"), "segue.load(run) opens a run; segue.evaluate measures it."
        ),
    },
    "HasScorer": {
        **dict.fromkeys(("str", "PosixPath", "WindowsPath"), "Open it first: segue.load(path)."),
        "ModelConfig": "Fit it first: segue.fit(config, split).",
    },
    "ModelConfig": {
        "Recommender": "It is fitted already; pass a config, such as segue.SASRec().",
        "Training": "Pass the config of a model first, such as segue.SASRec(), and this as training=.",
    },
}
"""Way out by the name of the expected type, then by the name of the type that was found or of one of its bases."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its signature, ranges included, at every call.

    A value that is the default passes as it is. Values become what their types want, as in `Settings`: a NumPy number
    becomes a plain one. A wrong number of arguments, or an unknown name, stays Python's own TypeError.

    Raises
    ------
    ConfigError
        An argument has the wrong type or is out of range.
    """
    parameters: list[_Parameter] = []

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> R:
        if not parameters:
            parameters.extend(_parameters(function))
        values = list(given)
        for index, parameter in enumerate(parameters):
            if index < len(values):
                values[index] = parameter.fitted(values[index])
            elif parameter.name in named:
                named[parameter.name] = parameter.fitted(named[parameter.name])
        return function(*values, **named)

    return call


def check_fields(instance: Any) -> None:
    """Check the fields of a dataclass against their types; to be called in `__post_init__`.

    Raises
    ------
    ConfigError
        A field has the wrong type.
    """
    for field in _fields(type(instance)):  # type: ignore[arg-type]
        field.fitted(getattr(instance, field.name))


def require(name: str, value: Any, kind: Any) -> Any:
    """Return a value as its type wants it.

    Raises
    ------
    ConfigError
        The value does not fit. The message names it, says what was expected and, if it is known, the way out.
    """
    fitting = fit(value, kind)
    if fitting is MISFIT:
        raise ConfigError(f"{name}{_shown(value)}: {complaint(value, kind)}{_advice(value, kind)}")
    return fitting


@dataclass(frozen=True)
class _Parameter:
    """Name, type and default of an argument or a field."""

    name: str
    kind: Any
    default: Any

    def fitted(self, value: Any) -> Any:
        """The value as the type wants it; the default as it is."""
        return value if value is self.default or self.kind is Any else require(self.name, value, self.kind)


def _parameters(function: Callable[..., Any]) -> list[_Parameter]:
    """All parameters of a function, in order; a method's `self` passes."""
    space = getattr(function, "__globals__", {})
    return [
        _Parameter(parameter.name, _evaluated(parameter.annotation, space), parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


@functools.cache
def _fields(kind: type[Any]) -> list[_Parameter]:
    """All fields of a dataclass."""
    space = vars(sys.modules[kind.__module__])
    return [_Parameter(field.name, _evaluated(field.type, space), field.default) for field in fields(kind)]


def _evaluated(annotation: Any, space: dict[str, Any]) -> Any:
    """The type of an annotation; Any if there is none, or if its names are imported for type checkers alone."""
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, space)
    except NameError:
        return Any


def _shown(value: Any) -> str:
    """ "=5" or "='x'" of plain values, " is a polars DataFrame" of all others."""
    if isinstance(value, type):
        return f" is the class {value.__name__}"
    if value is None or isinstance(value, bool | int | float | str | bytes | list | tuple | set | dict):
        shown = repr(value)
        return "=" + (shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…")
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return (
        f" is a {kind.__name__}" if package in ("builtins", "segue", "__main__") else f" is a {package} {kind.__name__}"
    )


def _advice(value: Any, kind: Any) -> str:
    """A sentence about the way from the value to the expected type; empty if none is known."""
    names = {getattr(part, "__name__", "") for part in _classes(kind)}
    bases = [base.__name__ for base in (value.__mro__ if isinstance(value, type) else type(value).__mro__)]
    known = (
        advice[base]
        for name in _ADVICE
        if name in names
        for advice in [_ADVICE[name]]
        for base in bases
        if base in advice
    )
    found = next(known, "")
    return f" {found}" if found else ""


def _classes(kind: Any) -> list[Any]:
    """The type itself, and the types that it is a union of."""
    return [kind, *getattr(kind, "__args__", ())]
