from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from segue.cli.options import OptionParser
from segue.cli.splitting import split_options
from segue.data.splits.registry import SPLITS
from segue.errors import ConfigError
from tests.data.splits.test_registry import FirstUsers


def spec(*words: str) -> dict[str, Any]:
    options = split_options()
    parser = OptionParser("train")
    parser.add_options(options)
    parser.read(words)
    return parser.get(options).spec({"name": "leave-last-out"})


def test_splits_are_spelled_as_ever() -> None:
    assert spec() == {"name": "leave-last-out"}
    assert spec("--split", "leave-last-n", "--split-n", "3") == {"name": "leave-last-n", "n": 3}
    assert spec("--split=time-cut", "--split-test=0.2", "--split-validation", "0.3") == {
        "name": "time-cut",
        "test": 0.2,
        "validation": 0.3,
    }
    assert spec("--split", "random-rows", "--split-seed", "2", "--split-known-items") == {
        "name": "random-rows",
        "seed": 2,
        "known_items": True,
    }


def test_a_new_split_brings_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match='no option "--split-users"'):
        spec("--split-users", "2")
    monkeypatch.setitem(SPLITS, FirstUsers.name, FirstUsers)  # type: ignore[misc]
    assert spec("--split", "first-users", "--split-users", "2") == {"name": "first-users", "users": 2}
    with pytest.raises(ConfigError, match="--split first-users needs --split-users"):
        spec("--split", "first-users")
    with pytest.raises(ConfigError, match="--split-n means nothing to --split first-users, which has --split-users"):
        spec("--split", "first-users", "--split-n", "2")


def test_every_option_says_which_splits_have_it_and_its_default() -> None:
    texts = {field.name: field.metadata["help"] for field in dataclasses.fields(split_options())}
    assert texts["split_test"].startswith("time-cut, held-out-users and random-rows: share")
    assert texts["split_test"].endswith("(default: 0.1; 0.2 for random-rows)")
    assert texts["split_known_items"].endswith("(default: false)")
    assert all(f"{name}: " in texts["split"] for name in SPLITS)
