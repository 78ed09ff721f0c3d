"""Baskets of simulated users, drawn in blocks of users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.ragged import Int64
from segue.data.simulation.planted import (
    BLOCK,
    CATEGORIES,
    FIRST_ITEM,
    SESSIONS,
    Floats,
    Market,
    Planted,
    Singles,
    generator,
)

_SHAPE, _LOCATION, _SCALE = 0.8047, 2.0, 1.4738  # of the Weibull distribution of lengths
_JITTER = 1e-6  # decides at random between categories whose utilities differ only by rounding
_UTILITIES = 1 << 20  # utilities drawn at a time


def baskets(truth: Planted, root: Floats, block: int) -> pl.DataFrame:
    """The log of the users from `block * BLOCK` on.

    Parameters
    ----------
    truth
        Tastes, prices and groups of the users.
    root
        (2, categories, categories) `root_of(truth.omega)`.
    block
        Number of the block, from 0.

    Returns
    -------
    DataFrame
        user, session, time, item, all int32: a row per item, sorted by user and session.
    """
    market = truth.market
    rng = generator(market.seed, SESSIONS, block)
    first = block * BLOCK
    size = min(BLOCK, market.users - first)
    lengths = _lengths(rng, market, size * market.sessions)
    chosen = _categories(rng, market, root[truth.groups[first : first + size]], lengths)
    session = np.repeat(np.arange(len(lengths)), lengths)  # of all the users of the block
    user = session // market.sessions
    utilities = truth.tastes_of_block(block) - (market.price_effect * truth.prices).astype(np.float32)
    product = _products(rng, utilities, user, chosen, market.noise)
    step = (session % market.sessions).astype(np.int32)
    item = (chosen * market.products + product + FIRST_ITEM).astype(np.int32)
    return pl.DataFrame({"user": (user + first).astype(np.int32), "session": step, "time": step, "item": item})


def _lengths(rng: np.random.Generator, market: Market, count: int) -> Int64:
    """Lengths (count,) of sessions."""
    drawn = np.ceil(rng.weibull(_SHAPE, size=count) * _SCALE + _LOCATION)
    return np.clip(drawn, market.shortest, min(market.longest, market.categories)).astype(np.int64)


def _categories(rng: np.random.Generator, market: Market, roots: Floats, lengths: Int64) -> Int64:
    """The categories (sum of lengths,) of highest utility in each session, in random order within the session.

    `roots` (users, C, C) is the root of each user's Ω; `lengths` (users · sessions,).
    """
    shape = (len(roots), market.sessions, market.categories)
    utility = rng.standard_normal(shape, dtype=np.float32) @ roots.transpose(0, 2, 1).astype(np.float32)
    utility += rng.standard_normal(shape, dtype=np.float32) * np.float32(_JITTER)
    utility += np.float32(market.incidence)
    ranked = np.argsort(-utility.reshape(len(lengths), -1), axis=1)[:, : lengths.max()]
    taken = np.arange(ranked.shape[1]) < lengths[:, None]
    sort_keys = rng.random(ranked.shape, dtype=np.float32)
    sort_keys[~taken] = 2.0  # behind all that are taken, so that the mask still holds
    shuffled = np.take_along_axis(ranked, np.argsort(sort_keys, axis=1), axis=1)
    return np.asarray(shuffled[taken], dtype=np.int64)


def _products(
    rng: np.random.Generator, utilities: Singles, user: Int64, category: Int64, noise: float
) -> npt.NDArray[np.int64]:
    """The product (n,) of highest utility for each pair of user and category (n,); noise is drawn only for these."""
    n_products = utilities.shape[2]
    best = np.empty(len(user), dtype=np.int64)
    step = max(1, _UTILITIES // n_products)
    for start in range(0, len(user), step):
        part = slice(start, start + step)
        drawn = rng.standard_normal((len(user[part]), n_products), dtype=np.float32)
        drawn *= np.float32(noise)
        drawn += utilities[user[part], category[part]]
        best[part] = drawn.argmax(axis=1)
    return best


def named(log: pl.DataFrame, market: Market) -> pl.DataFrame:
    """The log with names in the place of integers."""
    width = max(2, len(str(market.products)))
    words = [
        f"{category}-{number:0{width}d}"
        for category in CATEGORIES[: market.categories]
        for number in range(1, market.products + 1)
    ]
    digits = max(4, len(str(market.users)))
    user = "user-" + (pl.col("user") + 1).cast(pl.String).str.zfill(digits)
    items = pl.Series("item", words).gather(log["item"] - FIRST_ITEM)
    return log.with_columns(user.alias("user"), items)
