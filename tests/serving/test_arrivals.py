"""Numbers of arrived ids are those of a dict that is filled one by one."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.serving import arrivals
from segue.serving.arrivals import Arrivals

TEXTS = st.lists(st.sampled_from(["", "a", "b", "ä", "a much longer text than fits inline", "z"]), max_size=9)


@settings(max_examples=80)
@given(parts=st.lists(TEXTS, max_size=5), few=st.integers(0, 10), single=TEXTS, settled=st.booleans())
def test_numbers_follow_the_order_of_arrival(
    parts: list[list[str]], few: int, single: list[str], settled: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals, "_FEW", few)
        found, expected = Arrivals(7), dict[str, int]()
        for part in parts:
            numbers = [expected.setdefault(text, 7 + len(expected)) for text in part]
            assert found.numbers(pl.Series(part, dtype=pl.String)).tolist() == numbers
            for text in single:
                assert found.number(text) == expected.setdefault(text, 7 + len(expected))
            if settled:
                found.settle()
        assert found == expected and list(found) == list(expected)
