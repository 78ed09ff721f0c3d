"""The base of all configs: types, ranges, what becomes of values, and the words of its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from segue.errors import ConfigError
from segue.settings import (
    Count,
    Positive,
    Probability,
    Settings,
    Share,
    ShareAboveZero,
    ShareBelowOne,
    Size,
    above,
    at_least,
    between,
    expected,
    field_types,
)


@dataclass(frozen=True)
class Shop(Settings):
    """A config with a field of every kind."""

    width: Count = 64
    warmup: Size = 0
    rate: Positive = 0.1
    dropout: ShareBelowOne = 0.0
    share: Share | None = None
    decay: ShareAboveZero = 1.0
    chance: Probability = 0.5
    power: Annotated[float, between(-1, 1)] = 0.0
    degrees: Annotated[float, above(-273.15)] = 20.0
    shift: int = 0
    scale: float = 1.0
    loss: Literal["bce", "softmax"] = "softmax"
    length: Count | Literal["mean", "max"] | None = 10
    cutoffs: tuple[Count, ...] = (10,)
    betas: tuple[float, float] = (0.9, 0.98)
    names: tuple[Literal["ann", "bob"], ...] = ()
    title: str = "shop"
    note: str | None = None
    exact: bool = False
    folder: Path | None = None
    table: dict[str, int] = field(default_factory=dict)
    hook: Callable[[], int] | None = None
    whatever: Any = None

    def check(self) -> None:
        """Two fields that must agree."""
        if self.width < self.shift:
            raise ConfigError(f"shift={self.shift}: at most width={self.width}.")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, "width=0: expected 1 or more."),
        ({"width": "five"}, "width='five': expected a whole number from 1."),
        ({"width": 1.5}, "width=1.5: expected a whole number from 1."),
        ({"width": True}, "width=True: expected a whole number from 1."),
        ({"width": None}, "width=None: expected a whole number from 1."),
        ({"warmup": -1}, "warmup=-1: expected 0 or more."),
        ({"rate": float("nan")}, "rate=nan: expected a number above 0."),
        ({"rate": float("inf")}, "rate=inf: expected a finite number above 0."),
        ({"rate": 10**400}, "rate=1" + "0" * 58 + "…: expected a number above 0."),
        ({"dropout": 1}, "dropout=1: expected a share from 0 to below 1."),
        ({"share": -0.1}, "share=-0.1: expected a share from 0 to 1 or None."),
        ({"decay": 0}, "decay=0: expected a share above 0 to 1."),
        ({"chance": 2}, "chance=2: expected a probability from 0 to 1."),
        ({"power": -2}, "power=-2: expected a number from -1 to 1."),
        ({"degrees": -300}, "degrees=-300: expected a number above -273.15."),
        ({"shift": 0.5}, "shift=0.5: expected a whole number."),
        ({"scale": "x"}, "scale='x': expected a number."),
        ({"scale": float("nan")}, "scale=nan: expected a number."),
        ({"loss": "hinge"}, "loss='hinge': expected bce or softmax."),
        ({"loss": "sofmax"}, "loss='sofmax': expected bce or softmax; did you mean \"softmax\"?"),
        ({"length": 0}, "length=0: expected a whole number from 1, mean, max or None."),
        ({"length": "maxx"}, "length='maxx': expected a whole number from 1, mean, max or None; did you mean \"max\"?"),
        ({"cutoffs": (5, 0)}, "cutoffs=(5, 0): expected whole numbers from 1."),
        ({"cutoffs": 5}, "cutoffs=5: expected whole numbers from 1."),
        ({"betas": (0.9,)}, "betas=(0.9,): expected 2 numbers."),
        ({"betas": (0.9, float("inf"))}, "betas=(0.9, inf): expected 2 finite numbers."),
        ({"names": ["carl"]}, "names=['carl']: expected ann or bob."),
        ({"title": 3}, "title=3: expected a text."),
        ({"note": 3}, "note=3: expected a text or None."),
        ({"exact": 1}, "exact=1: expected True or False."),
        ({"folder": "x"}, "folder='x': expected a Path or None."),
        ({"table": []}, "table=[]: expected a dict."),
        ({"shift": 65}, "shift=65: at most width=64."),
    ],
)
def test_messages(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Shop(**values)
    assert str(raised.value) == message


def test_what_passes_stays_as_it_is() -> None:
    values = {"rate": 1, "shift": -3, "length": "max", "title": "", "folder": Path(), "hook": int, "table": {"a": 1}}
    made = Shop(**values, whatever=object)
    assert {name: getattr(made, name) for name in values} == values
    assert type(made.rate) is int


def test_lists_become_tuples_and_numpy_numbers_plain_ones() -> None:
    made = Shop(
        cutoffs=[np.int64(5), 10],  # type: ignore[arg-type]
        width=np.int16(3),  # type: ignore[arg-type]
        scale=np.float32(0.5),  # type: ignore[arg-type]
        exact=np.bool_(True),  # type: ignore[arg-type]
    )
    assert made.cutoffs == (5, 10) and type(made.cutoffs) is tuple and type(made.cutoffs[0]) is int
    assert (type(made.width), type(made.scale), made.exact) == (int, float, True)


def test_plain_data_there_and_back() -> None:
    made = Shop(width=3, cutoffs=(1, 2))
    assert Shop.from_dict(made.to_dict()) == made
    with pytest.raises(ConfigError, match="Shop has no setting 'widht'; did you mean \"width\""):
        Shop.from_dict({"widht": 3})


def test_a_config_that_extends_another_is_checked_whole() -> None:
    @dataclass(frozen=True)
    class Larger(Shop):
        depth: Annotated[int, at_least(2)] = 2

    assert list(field_types(Larger))[-1] == "depth"
    for name in ("width", "depth"):
        with pytest.raises(ConfigError, match=f"{name}=0: expected"):
            Larger(**{name: 0})


def test_words_of_the_command_line() -> None:
    assert expected(Count | None, typed=True) == "a whole number from 1 or null"
    assert expected(bool, typed=True) == "true or false"
