from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest

from segue.data.dataset import Dataset
from segue.data.splits.base import SharesConfig, SplitConfig
from segue.data.splits.by_row import RandomRows
from segue.data.splits.by_user import HeldOutUsers, LeaveLastN, TimeCut, leave_last_n
from segue.data.splits.holdouts import Holdout, Split
from segue.data.splits.registry import SPLITS, split_by
from segue.errors import ConfigError
from tests.helpers import make_dataset


@dataclasses.dataclass(frozen=True)
class FirstUsers(SplitConfig):
    """The last interaction of the first users."""

    name: ClassVar[str] = "first-users"

    users: int
    """Number of users in each part."""

    def split(self, dataset: Dataset) -> Split:
        parts = np.arange(1, 1 + self.users), np.arange(1 + self.users, 1 + 2 * self.users)
        ends = dataset.ends.copy()
        for part in parts:
            ends[part] -= 1
        test, validation = (Holdout(dataset, p, ends[p], dataset.ends[p], "test") for p in parts)
        return Split(dataset, dataset.until(ends), validation, test, self.spec)


def test_a_new_split_takes_one_class_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SPLITS, FirstUsers.name, FirstUsers)  # type: ignore[misc]
    data = make_dataset([[1, 2, 3]] * 4)
    split = split_by(data, {"name": "first-users", "users": 1})
    assert split.train.lengths.tolist() == [0, 2, 2, 3, 3]
    assert split_by(data, split.spec).spec == {"name": "first-users", "users": 1}
    with pytest.raises(ConfigError, match=r"the split first-users needs users"):
        split_by(data, {"name": "first-users"})


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_is_described_by_its_spec(name: str) -> None:
    config = SPLITS[name](**dict.fromkeys(SPLITS[name].required(), 3))
    assert config.spec["name"] == name and config.from_spec(config.spec) == config


def test_the_functions_of_the_splits_keep_the_specs_of_older_runs() -> None:
    assert leave_last_n(make_dataset([[1, 2, 3]]), 1).spec == {"name": "leave-last-n", "n": 1}
    assert TimeCut().spec == {"name": "time-cut", "test": 0.1, "validation": 0.1}
    assert HeldOutUsers().spec == {"name": "held-out-users", "test": 0.1, "validation": 0.1, "seed": 0}
    assert RandomRows.from_spec({"name": "random-rows", "seed": 3}) == RandomRows(0.2, 0.1, 3, False)


@pytest.mark.parametrize("config", [config for config in SPLITS.values() if issubclass(config, SharesConfig)])
@pytest.mark.parametrize("shares", [{"test": 0.0}, {"test": 0.95}, {"validation": "much"}, {"test": float("nan")}])
def test_impossible_shares_are_refused_at_once(config: type[SharesConfig], shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"expected a share above 0 to below 1|are shares: together below 1"):
        config(**shares)


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
@pytest.mark.parametrize("config", [HeldOutUsers, RandomRows])
def test_impossible_seeds_are_refused_at_once(config: type[HeldOutUsers], seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"seed={seed!r}: expected (a whole number from 0|0 or more)"):
        config(seed=seed)


def test_other_impossible_settings_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="known_items='no': expected True or False"):
        RandomRows(known_items="no")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"n=2\.5: expected a whole number from 1"):
        LeaveLastN(2.5)  # type: ignore[arg-type]
