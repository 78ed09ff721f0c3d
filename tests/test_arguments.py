"""Arguments of public calls: the messages, and the calls whose meaning is plain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest

import segue
from segue.arguments import check_fields, checked
from segue.errors import ConfigError
from segue.settings import Count
from tests.helpers import cycle_dataset

DATA = cycle_dataset()
FRAME = DATA.to_frame()
SPLIT = segue.leave_last_out(DATA)
MARKOV = segue.fit(segue.Markov(), SPLIT)
EVALUATION = segue.evaluate(MARKOV, SPLIT.test, resamples=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: segue.fit(segue.Markov(), FRAME), "data is a polars DataFrame: expected a Split or a Dataset. Make"),
        (lambda: segue.fit(segue.Markov(), "log.csv"), r"data='log.csv': .* segue.prepare\(log\)"),
        (lambda: segue.fit(MARKOV, DATA), "config is a Recommender: .* It is fitted already"),
        (lambda: segue.fit("sasrek", DATA), 'no model \'sasrek\'; did you mean "sasrec"'),
        (lambda: segue.fit(int, DATA), "config is the class int: expected the config of a model"),
        (lambda: segue.fit(segue.ModelConfig, DATA), "ModelConfig has no default settings"),
        (lambda: segue.fit(segue.Markov(), DATA, training=segue.Markov()), "training is a Markov: expected a Training"),
        (lambda: segue.leave_last_out(FRAME), "dataset is a polars DataFrame: expected a Dataset. Make one with"),
        (lambda: segue.leave_last_out(SPLIT), "dataset is a Split: expected a Dataset. Take one of its parts: split"),
        (lambda: segue.leave_last_n(DATA, "1"), "n='1': expected a whole number from 1"),
        (lambda: segue.evaluate(MARKOV, SPLIT), "holdout is a Split: .* split.test or split.validation"),
        (lambda: segue.evaluate(MARKOV, FRAME), "holdout is a polars DataFrame: .*leave_last_out"),
        (lambda: segue.evaluate(MARKOV, DATA), "holdout is a Dataset: expected a Holdout. Split it first"),
        (lambda: segue.evaluate("run", SPLIT.test), r"recommender='run': expected a Recommender .* segue.load\(path\)"),
        (lambda: segue.evaluate(segue.Markov(), SPLIT.test), r"is a Markov: .* segue.fit\(config, split\)"),
        (lambda: segue.evaluate(MARKOV, SPLIT.test, candidates=0.1), "candidates=0.1: expected a whole number from 1"),
        (lambda: segue.evaluate(MARKOV, SPLIT.test, k="5"), "k='5': expected a whole number from 1"),
        (lambda: segue.evaluate(MARKOV, SPLIT.test, resamples=10**9), "resamples=1000000000: .* to 1,000,000"),
        (lambda: segue.compare(MARKOV, MARKOV), "a is a Recommender: expected an Evaluation. Evaluate it first"),
        (lambda: segue.compare(EVALUATION, "run"), "b='run': expected an Evaluation"),
        (lambda: segue.evaluate_lists([[1, 2]], SPLIT.test), "lists are a list: expected a frame"),
        (lambda: segue.Dataset.open(""), "path='': expected a path"),
        (lambda: DATA.save("a\0b"), "expected a path"),
        (lambda: segue.load("\udcff"), "expected a path"),
        (lambda: segue.fit(segue.Markov(), DATA, out=""), "out='': expected a path or None"),
        (lambda: segue.simulate(users=0), "users=0: expected 1 or more"),
        (lambda: segue.simulate(products=10**7), "the simulation would take .*B of memory, and there are .*: choose"),
        (lambda: segue.Training(seed=10**30), "seed=1000.*: expected .* that 64 bits hold"),
    ],
)  # fmt: skip
def test_wrong_arguments_say_what_to_call(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(segue.SegueError, match=message):
        call()


def test_a_class_and_a_name_stand_for_the_default_config() -> None:
    expected = segue.fit(segue.Markov(), SPLIT).model.config
    assert segue.fit(segue.Markov, SPLIT).model.config == expected
    assert segue.fit("markov", SPLIT).model.config == expected


def test_default_lists_are_no_longer_than_the_catalogue() -> None:
    assert "ndcg@8" in segue.evaluate(MARKOV, SPLIT.test, resamples=0).metrics
    training = segue.Training(epochs=1, cpu=True)
    fitted = segue.fit(segue.SASRec(width=4, blocks=1), SPLIT, training=training, quiet=True)
    assert "ndcg@8" in fitted.metadata["training"]["validation"]
    with pytest.raises(ConfigError, match="k is 10, but the catalogue has only 8 items"):
        segue.evaluate(MARKOV, SPLIT.test, k=10)


# ---- the decorator ---------------------------------------------------------------------------------------------------


@checked
def shop(
    data: segue.Dataset | None,
    counts: Count | Sequence[Count] = 1,
    *,
    kind: Literal["a", "b"] = "a",
    path: str | Path | None = None,
    table: Mapping[str, int] | None = None,
    hook: Callable[[], int] | None = None,
    anything: Any = None,
) -> tuple[Any, ...]:
    """All that was given."""
    return data, counts, kind, path, table, hook, anything


def test_what_fits_passes() -> None:
    given = (DATA, [1, 2], "b", Path("x"), {"a": 1}, len, FRAME)
    result = shop(*given[:2], kind="b", path=given[3], table=given[4], hook=len, anything=FRAME)  # type: ignore[arg-type]
    assert all(one is other for one, other in zip(result, given, strict=True))
    for counts in ((1, 2), {1, 2}, range(1, 3), np.arange(1, 3)):
        assert sorted(shop(None, counts)[1]) == [1, 2]  # type: ignore[arg-type]
    assert type(shop(None, np.int64(3))[1]) is int  # type: ignore[arg-type]
    assert shop.__doc__ == "All that was given." and shop.__name__ == "shop"


@pytest.mark.parametrize(
    "given",
    [
        {"data": 1}, {"data": segue.Dataset}, {"counts": 0}, {"counts": [0]}, {"counts": "12"}, {"counts": True},
        {"counts": {1: 2}}, {"counts": np.array(3.5)}, {"counts": np.zeros((2, 2))}, {"kind": "c"}, {"kind": ["a"]},
        {"path": ""}, {"path": 3}, {"path": b"x"}, {"path": Path("a\0")}, {"table": [1]}, {"hook": 3},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=rf"^{name}(=| is ).*: expected "):
        shop(**{"data": None, **given})


def test_a_wrong_number_of_arguments_is_a_type_error() -> None:
    for call in (lambda: shop(), lambda: shop(None, 1, 2), lambda: shop(None, colour=1), lambda: shop(1, data=None)):
        with pytest.raises((TypeError, ConfigError)):
            call()
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        shop(None, colour=1)  # type: ignore[call-arg]


def test_fields() -> None:
    @dataclass
    class Pair:
        first: pl.DataFrame
        second: int = 0

        def __post_init__(self) -> None:
            check_fields(self)

    assert Pair(FRAME).second == 0
    with pytest.raises(ConfigError, match="first=3: expected a DataFrame"):
        Pair(3)  # type: ignore[arg-type]
