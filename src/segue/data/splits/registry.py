"""The splits by name. A new split is one class and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segue.data.dataset import Dataset
from segue.data.splits.base import SplitConfig
from segue.data.splits.by_item import ColdItems
from segue.data.splits.by_row import RandomRows
from segue.data.splits.by_user import HeldOutUsers, LastSessionOut, LeaveLastN, LeaveLastOut, TimeCut
from segue.data.splits.given import Given
from segue.data.splits.holdouts import Split
from segue.errors import ConfigError, nearest

_CLASSES: tuple[type[SplitConfig], ...] = (
    LeaveLastOut,
    LeaveLastN,
    LastSessionOut,
    TimeCut,
    HeldOutUsers,
    RandomRows,
    ColdItems,
    Given,
)

SPLITS: Mapping[str, type[SplitConfig]] = {split.name: split for split in _CLASSES}
"""The config class of every split by its name."""


def split_by(dataset: Dataset, spec: Mapping[str, Any]) -> Split:
    """Split a Dataset as a `Split.spec` describes; missing settings have their defaults.

    Parameters
    ----------
    dataset
        The Dataset to split.
    spec
        `name` is a key of `SPLITS`; the rest are the settings of that split.

    Raises
    ------
    ConfigError
        There is no such split, or it has no such setting.
    DataError
        The Dataset cannot be split so.

    Examples
    --------
    >>> recommender = segue.load("runs/first")                                          # doctest: +SKIP
    >>> split = split_by(recommender.dataset, recommender.metadata["split"])            # doctest: +SKIP
    """
    name = str(spec.get("name"))
    if name not in SPLITS:
        raise ConfigError(f'there is no split "{name}": {nearest(name, SPLITS)}')
    return SPLITS[name].from_spec(spec).split(dataset)
