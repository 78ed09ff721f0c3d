"""Stable hash of user ids: the shard of a user is the same on every machine and in every version."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.spool import chunks

HASH_RULE = "splitmix64"
"""Name of the rule in manifests."""

_PRIME = np.uint64(0x100000001B3)  # the prime of the FNV hash
_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_IDS = 1 << 20

UInt64 = npt.NDArray[np.uint64]


def shards_of(ids: pl.Series, n_shards: int) -> npt.NDArray[np.int64]:
    """Shard (n,), from 0, of each user id: its hash modulo the number of shards.

    An integer is mixed by the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", 2014). The bytes of a text are the coefficients of a polynomial modulo 2⁶⁴, which is mixed likewise.

    Parameters
    ----------
    ids
        (n,) ids of the type Int64 or String, without nulls.
    n_shards
        Number of shards.

    >>> shards_of(pl.Series([1, 2, 3, 4]), 4).tolist(), shards_of(pl.Series(["ann", "bob"]), 4).tolist()
    ([1, 2, 1, 2], [3, 2])
    """
    numbers = np.empty(len(ids), dtype=np.int64)
    for part in chunks(len(ids), _IDS):
        piece = ids[part]
        values = piece.to_numpy().view(np.uint64) if piece.dtype == pl.Int64 else _polynomials(piece)
        numbers[part] = (_mixed(values) % np.uint64(n_shards)).astype(np.int64)
    return numbers


def _mixed(values: UInt64) -> UInt64:
    """The finalizer of SplitMix64."""
    with np.errstate(over="ignore"):
        mixed = values + _STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        return mixed ^ (mixed >> np.uint64(31))


def _polynomials(ids: pl.Series) -> UInt64:
    """Σ (byte + 1) · prime^position modulo 2⁶⁴ of the UTF-8 bytes of each text (n,)."""
    lengths: npt.NDArray[Any] = ids.str.len_bytes().to_numpy().astype(np.int64)
    content = np.frombuffer("".join(ids).encode(), dtype=np.uint8)
    ends = np.cumsum(lengths)
    position = np.arange(len(content)) - np.repeat(ends - lengths, lengths)
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.full(int(lengths.max(initial=0)) + 1, _PRIME))
        terms = (content.astype(np.uint64) + np.uint64(1)) * powers[position]
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(terms, dtype=np.uint64)])
        return np.asarray(sums[ends] - sums[ends - lengths], dtype=np.uint64)
