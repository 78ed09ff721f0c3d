"""The shard of a user: a fixed function of the id, even over the shards."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from segue.data.user_hash import shards_of

MASK = 2**64 - 1


def mixed(value: int) -> int:
    """SplitMix64 in whole numbers of Python."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def polynomial(text: str) -> int:
    content = text.encode()
    return sum((byte + 1) * pow(0x100000001B3, place + 1, 2**64) for place, byte in enumerate(content)) & MASK


@given(st.lists(st.integers(-(2**63), 2**63 - 1)), st.integers(1, 50))
def test_integers(ids: list[int], shards: int) -> None:
    expected = [mixed(one & MASK) % shards for one in ids]
    assert shards_of(pl.Series(ids, dtype=pl.Int64), shards).tolist() == expected


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.integers(1, 50))
def test_texts(ids: list[str], shards: int) -> None:
    expected = [mixed(polynomial(one)) % shards for one in ids]
    assert shards_of(pl.Series(ids, dtype=pl.String), shards).tolist() == expected


def test_shards_are_even() -> None:
    for ids in (pl.Series(np.arange(80_000)), pl.Series([f"user-{n}" for n in range(80_000)])):
        counts = np.bincount(shards_of(ids, 8))
        assert counts.min() > 9_600 and counts.max() < 10_400
