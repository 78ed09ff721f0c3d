"""Models that no memory holds are refused before they are built."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
import torch

import segue
from segue.data.tables.table import Table
from segue.errors import ConfigError, TrainingError
from segue.models.registry import _HOMES, MODELS
from segue.settings import Range, field_types
from segue.training.size import _Count, _counted, check_size, memory_errors
from tests.helpers import cycle_dataset, make_dataset

DATA = replace(
    make_dataset([[1, 2, 3], [2, 3, 1]], ratings=[[1, 2, 3], [3, 2, 1]], times=[[1, 2, 3], [1, 2, 3]]),
    item_table=Table(pl.DataFrame({"shop": ["one", "one", "one"]}), {"shop": "category"}, "item"),
)
HARMLESS = {
    "max_length",
    "steps",
    "history_length",
    "group",
    "sweeps",
    "heads",
    "neighbours",
    "group_size",
    "sample",
    "newest_every",
    "burn_in",
}
"""Settings that make no tensor larger: the data limit what they reach."""


@pytest.mark.parametrize("name", _HOMES)
def test_the_count_is_that_of_the_model(name: str) -> None:
    config, size = MODELS[name]().resolved(DATA), _Count()
    with _counted(size), torch.device("meta"):
        config.build(DATA.n_users, DATA.n_items)
    model = config.build(DATA.n_users, DATA.n_items)
    tensors = [*model.parameters(), *model.buffers()]
    assert size.tensors >= len(tensors)
    assert size.bytes >= sum(tensor.numel() * tensor.element_size() for tensor in tensors) > 0


def sizes() -> list[tuple[str, str]]:
    """Model and setting of every whole number without an upper limit."""
    found = []
    for name in _HOMES:
        for setting, kind in field_types(MODELS[name]).items():
            marks = [mark for mark in getattr(kind, "__metadata__", ()) if isinstance(mark, Range)]
            if getattr(kind, "__origin__", None) is int and marks and marks[0].high == float("inf"):
                found.append((name, setting))
    return found


@pytest.mark.parametrize(("name", "setting"), sizes())
@pytest.mark.parametrize("value", [10**9, 2**62])
def test_a_size_beyond_the_memory_ends_at_once(name: str, setting: str, value: int) -> None:
    """It is refused, or harmless: a length that no history reaches."""
    started = time.process_time()
    try:
        config = MODELS[name](**{setting: value}).resolved(DATA)
        check_size(config, DATA)
    except ConfigError as error:
        assert any(
            word in str(error) for word in ("memory", "tensors of weights", "expected", "split evenly", "divide")
        )
    else:
        assert setting in HARMLESS, setting
    assert time.process_time() - started < 10


@pytest.mark.parametrize("wrong", [{"blocks": 10**9}, {"width": 10**9}, {"max_length": 10**10}, {"inner_width": 10**9}])
def test_fit_refuses_before_it_works(wrong: dict[str, Any], tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="choose smaller sizes"):
        segue.fit(segue.SASRec(**wrong), cycle_dataset(), out=tmp_path / "run", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_full_memory_in_training_says_what_to_do() -> None:
    for error in (MemoryError("Unable to allocate 7 GiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(TrainingError, match="choose a smaller batch_size"), memory_errors():
            raise error
    with pytest.raises(RuntimeError, match="a fault"), memory_errors():
        raise RuntimeError("a fault")
