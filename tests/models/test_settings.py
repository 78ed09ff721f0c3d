"""Checks of the values of every field of every config."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import numpy as np
import pytest

from segue.errors import ConfigError
from segue.models.registry import _HOMES, MODELS, config_from_dict
from segue.settings import Range, Settings, field_types
from segue.training.config import Training

SAVED = Path(__file__).parent.parent / "saved" / "format-1"
CONFIGS: list[type[Settings]] = [*(MODELS[name] for name in _HOMES), Training]
FIELDS = [(config, name) for config in CONFIGS for name in field_types(config)]

TEXTS = {"category", "features", "tracker_project", "tracker_run"}
"""Fields that hold any text but an empty one."""

UNBOUNDED = TEXTS | {"levels", "metric", "trackers"}
"""Fields that hold texts, or numbers of any size. Every other field has a range, or names its values."""


def parts(annotation: Any) -> list[Any]:
    """Types of a union."""
    return (
        list(typing.get_args(annotation))
        if typing.get_origin(annotation) in (UnionType, typing.Union)
        else [annotation]
    )


def ranges(annotation: Any) -> list[tuple[type, Range]]:
    """Number types of a field, with their ranges."""
    annotated = [typing.get_args(part) for part in parts(annotation) if typing.get_origin(part) is typing.Annotated]
    return [(number, mark) for number, *marks in annotated for mark in marks if isinstance(mark, Range)]


def wrong(config: type[Settings], name: str) -> Iterator[Any]:
    """Values that a field must refuse."""
    annotation = field_types(config)[name]
    yield from ({}, object(), b"1", float("nan"), float("inf"), -float("inf"), [[1]], ("a", 1))
    plain = [part for part in parts(annotation) if isinstance(part, type)]
    if type(None) not in plain:
        yield None
    if bool not in plain:
        yield from (True, False)
    if str not in plain:
        yield from ("",) if name in TEXTS else ("1", "", "nonsense")
    for choices in (part for part in parts(annotation) if typing.get_origin(part) is Literal):
        yield from (str(choice)[:-1] + "_" for choice in typing.get_args(choices))
        yield from (str(choice).upper() for choice in typing.get_args(choices))
    if not ranges(annotation):
        yield from (0, 1.5)
    for number, limits in ranges(annotation):
        yield from outside(number, limits)
        if number is int:
            yield from (2.0, 1.5, np.float64(3))


def outside(number: type, limits: Range) -> Iterator[Any]:
    """Numbers at an open limit, and beyond every limit."""
    step = 1 if number is int else 1e-9
    if limits.low != -math.inf:
        yield from (limits.low - step, limits.low - 100)
        yield from [limits.low] * limits.open_low
    if limits.high != math.inf:
        yield from (limits.high + step, limits.high + 100)
        yield from [limits.high] * limits.open_high


def inside(number: type, limits: Range) -> Iterator[Any]:
    """Numbers at a closed limit, and just within every limit."""
    step = 1 if number is int else 1e-9
    whole = int if number is int else float
    if limits.low != -math.inf:
        yield whole(limits.low + step)
        yield from [whole(limits.low)] * (not limits.open_low)
    if limits.high != math.inf:
        yield whole(limits.high - step)
        yield from [whole(limits.high)] * (not limits.open_high)
    else:
        yield 10**6


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_every_field_refuses_what_is_wrong(config: type[Settings], name: str) -> None:
    values = list(wrong(config, name))
    assert len(values) > 8
    for value in values:
        with pytest.raises(ConfigError) as raised:
            config(**{name: value})
        assert str(raised.value).startswith(f"{name}="), (value, str(raised.value))


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_every_number_has_a_range(config: type[Settings], name: str) -> None:
    """Check that no field accepts every number, such as NaN or a width of -3."""
    annotation = field_types(config)[name]
    explicit = [part for part in parts(annotation) if part in (bool, type(None)) or typing.get_origin(part) is Literal]
    assert name in UNBOUNDED or len(explicit) + len(ranges(annotation)) == len(parts(annotation)), annotation


class Checked(Exception):
    """Raised once all types and ranges are accepted."""


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_every_field_takes_what_is_right(config: type[Settings], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check types and ranges, without the rules on several fields."""

    def accepted(self: Settings) -> None:
        raise Checked

    monkeypatch.setattr(config, "check", accepted)
    annotation = field_types(config)[name]
    values = [value for number, limits in ranges(annotation) for value in inside(number, limits)]
    values += [
        choice for part in parts(annotation) if typing.get_origin(part) is Literal for choice in typing.get_args(part)
    ]
    values += [None] * (type(None) in parts(annotation)) + [True, False, np.bool_(True)] * (bool in parts(annotation))
    values += [np.int32(3)] * any(number is int for number, _ in ranges(annotation))
    for value in values or [
        ("a",) if name == "trackers" else "x" if name in ("metric", "tracker_project") else (1.0, 2)
    ]:
        with pytest.raises(Checked):
            config(**{name: value})


@pytest.mark.parametrize("config", CONFIGS)
def test_defaults_pass_and_plain_data_gives_them_back(config: Any) -> None:
    made = config()
    plain = json.loads(json.dumps(made.to_dict()))
    assert config.from_dict(plain) == made
    if config is not Training:
        assert config_from_dict(plain) == made


@pytest.mark.parametrize("config", CONFIGS)
def test_every_field_has_help_of_its_own(config: type[Settings]) -> None:
    """Check the help texts of the command line: one plain text per field, none twice."""
    from segue.cli.options import attribute_docs

    texts = attribute_docs(config)
    assert texts.keys() >= set(field_types(config))
    assert all(texts[name].endswith(".") for name in field_types(config)), texts
    assert len({texts[name] for name in field_types(config)}) == len(field_types(config))


def test_numpy_numbers_become_plain_ones() -> None:
    made = Training(epochs=np.int64(3), learning_rate=np.float64(0.5), cpu=np.bool_(True))  # type: ignore[arg-type]
    assert [type(value) for value in (made.epochs, made.learning_rate, made.cpu)] == [int, float, bool]
    assert json.loads(json.dumps(made.to_dict()))["epochs"] == 3


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SAVED.glob("*/recommender.json")))
def test_settings_of_old_folders_are_read(name: str) -> None:
    saved = json.loads((SAVED / name / "recommender.json").read_text())
    config = config_from_dict(saved["model"])
    assert {**json.loads(json.dumps(config.to_dict())), **saved["model"]} == json.loads(json.dumps(config.to_dict()))
    options = saved["metadata"].get("options")
    if options:
        assert Training.from_dict(options).to_dict() == {**Training().to_dict(), **options}


@pytest.mark.parametrize("config", CONFIGS)
def test_changed_settings_are_checked_too(config: Any) -> None:
    name = next(iter(field_types(config)), None)
    if name is not None:
        with pytest.raises(ConfigError, match=f"^{name}="):
            dataclasses.replace(config(), **{name: object()})
