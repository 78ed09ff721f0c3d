"""The base class of all splits: settings with checked ranges, and the split of a Dataset that they describe."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.splits.holdouts import Holdout, Split, holdout_after
from segue.errors import ConfigError
from segue.settings import Settings, ShareBelowOne, ShareWithin

Bools = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class SplitConfig(Settings, ABC):
    """Settings of a split.

    To add a split, write a frozen dataclass with a name, a documented field per setting and the method `split`, and
    list it in `registry.py`. The type of a field gives its range; rules between fields are written in `check`. The
    command line then offers it. The first line of its docstring is its description in `--help`.
    """

    name: ClassVar[str]

    @abstractmethod
    def split(self, dataset: Dataset) -> Split:
        """Split the visible interactions of a Dataset."""

    @property
    def spec(self) -> dict[str, object]:
        """The settings as plain data, including the name."""
        return {"name": self.name, **dataclasses.asdict(self)}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """Create the settings that a spec describes; missing ones have their defaults.

        Raises
        ------
        ConfigError
            A setting is unknown, required and missing, or out of range.
        """
        options = {option: value for option, value in spec.items() if option != "name"}
        known = {field.name: field for field in dataclasses.fields(cls)}
        for option, value in options.items():
            if option not in known:
                listed = ", ".join(known) or "no options"
                raise ConfigError(f"{option}={value!r} means nothing to the split {cls.name}, which has {listed}.")
        missing = [option for option in cls.required() if option not in options]
        if missing:
            raise ConfigError(f"the split {cls.name} needs {', '.join(missing)}, and the spec does not give it.")
        return cls(**options)

    @classmethod
    def required(cls) -> list[str]:
        """Names of the settings without a default."""
        return [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]


@dataclasses.dataclass(frozen=True)
class SharesConfig(SplitConfig):
    """Settings of a split into shares."""

    test: ShareWithin = 0.1
    """Share of the interactions (or users, if users are held out) in the test part."""

    validation: ShareBelowOne = 0.1
    """Share of the interactions (or users) in the validation part; 0 for none, so that the last epoch is kept."""

    def check(self) -> None:
        """Raise a ConfigError unless the parts leave something to train on."""
        if self.test + self.validation >= 1:
            raise ConfigError(
                f"test={self.test!r} and validation={self.validation!r} are shares: together below 1, to leave "
                "something to train on."
            )

    def validation_part(self, dataset: Dataset, first: Int64, second: Int64, known: Bools | None = None) -> Holdout:
        """Holdout of the interactions from `first` to `second`, as of `holdout_after`; empty if none is wanted."""
        if self.validation:
            return holdout_after(dataset, first, second, "validation", known)
        nobody = np.empty(0, dtype=np.int64)
        return Holdout(dataset, nobody, nobody, nobody, "validation")
