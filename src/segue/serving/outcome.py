"""Outcome of variants: the share of the shown items that users took, from the stored events."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from segue.errors import DataError
from segue.evaluation.metrics import Floats
from segue.evaluation.resampling import bootstrap_interval
from segue.serving.store.base import SHOWN, TOOK, Store


@dataclass(frozen=True)
class VariantOutcome:
    """Outcome of one variant."""

    variant: str
    """Name of the variant."""

    users: int
    """Number of users who were shown items."""

    shown: int
    """Number of shown items, each counted once for each recommendation."""

    taken: int
    """Number of them that the user took afterwards."""

    share: float
    """Share of the shown items that were taken."""

    low: float
    """Lower end of the 95 % bootstrap interval of the share, over users."""

    high: float
    """Upper end of it."""


@dataclass(frozen=True)
class VariantDifference:
    """Difference of two variants, whose users are different people."""

    a: str
    """Name of the first variant."""

    b: str
    """Name of the second variant."""

    difference: float
    """Share of b minus share of a."""

    low: float
    """Lower end of the 95 % bootstrap interval of the difference."""

    high: float
    """Upper end of it."""

    p_value: float
    """Two-sided p-value of the randomisation test that deals the users to the variants at random."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of all variants, and their differences from the first."""

    variants: tuple[VariantOutcome, ...]
    differences: tuple[VariantDifference, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "variants": [asdict(one) for one in self.variants],
            "differences": [asdict(one) for one in self.differences],
        }


def outcome(
    store: Store, received_from: int | None = None, within: float | None = None, resamples: int = 10_000, seed: int = 0
) -> Outcome:
    """Compute the outcome of each variant.

    A shown item counts as taken if the same user has an event `took` with it, at the time of showing or later. Users
    are the units of the interval and of the test, because the items of one user are not independent.

    Parameters
    ----------
    store
        The store of events.
    received_from
        Time, in microseconds since 1970, from which events count; None for all.
    within
        Seconds after the showing in which the item must be taken; None for any time.
    resamples
        Number of resamples of the users, and of deals for the p-values.
    seed
        Seed of both.

    Raises
    ------
    DataError
        No event of the type `shown` names the recommendation that it belongs to.
    """
    parts = [
        pl.DataFrame(
            [(row.kind, row.user, row.item, row.time, row.recommendation_id) for row in rows],
            schema={"kind": pl.Int8, "user": str, "item": str, "time": pl.Int64, "recommendation": str},
            orient="row",
        )
        for rows in store.export(received_from, (TOOK, SHOWN))
    ]
    events = pl.concat(parts) if parts else pl.DataFrame()
    shown = events.filter(pl.col("kind") == SHOWN, pl.col("recommendation").is_not_null()) if len(events) else events
    if not len(shown):
        raise DataError(
            "no event of the type shown names its recommendation: send one for each shown item, with the "
            "recommendation_id of the answer."
        )
    shown = shown.group_by("recommendation", "user", "item").agg(pl.col("time").min())
    taken = events.filter(pl.col("kind") == TOOK).select("user", "item", pl.col("time").alias("taken"))
    later = shown.join(taken, on=["user", "item"]).filter(pl.col("taken") >= pl.col("time"))
    if within is not None:
        later = later.filter(pl.col("taken") - pl.col("time") <= round(within * 1e6))
    hits = later.select("recommendation", "user", "item").unique().with_columns(hit=pl.lit(1))
    joined = shown.join(hits, on=["recommendation", "user", "item"], how="left").with_columns(
        pl.col("hit").fill_null(0), variant=pl.col("recommendation").str.replace(r"\.[^.]*$", "")
    )
    per_user = joined.group_by("variant", "user").agg(shown=pl.len(), taken=pl.col("hit").sum()).sort("variant", "user")
    columns: dict[str, tuple[Floats, Floats]] = {
        str(name): (part["taken"].to_numpy().astype(np.float64), part["shown"].to_numpy().astype(np.float64))
        for (name,), part in per_user.group_by("variant", maintain_order=True)
    }
    variants = tuple(_variant(name, *pair, resamples, seed) for name, pair in columns.items())
    first, *others = columns
    differences = tuple(_difference(first, other, columns[first], columns[other], resamples, seed) for other in others)
    return Outcome(variants, differences)


def _variant(name: str, taken: Floats, shown: Floats, resamples: int, seed: int) -> VariantOutcome:
    low, high = bootstrap_interval(taken, resamples, seed, per=shown)
    share = float(taken.sum() / shown.sum())
    return VariantOutcome(name, len(shown), int(shown.sum()), int(taken.sum()), share, low, high)


def _difference(
    a: str, b: str, one: tuple[Floats, Floats], other: tuple[Floats, Floats], resamples: int, seed: int
) -> VariantDifference:
    """Difference of the shares; both variants are resampled on their own."""
    rng = np.random.default_rng(seed)
    drawn = _resampled_share(*other, resamples, rng) - _resampled_share(*one, resamples, rng)
    low, high = np.quantile(drawn, [0.025, 0.975])
    taken, shown = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    observed = float(other[0].sum() / other[1].sum() - one[0].sum() / one[1].sum())
    extreme = 0
    for _ in range(resamples):
        second = rng.permutation(len(taken))[: len(other[0])]
        second_taken, second_shown = taken[second].sum(), shown[second].sum()
        dealt = second_taken / second_shown - (taken.sum() - second_taken) / (shown.sum() - second_shown)
        extreme += abs(dealt) >= abs(observed) * (1 - 1e-9)
    return VariantDifference(a, b, observed, float(low), float(high), (1 + extreme) / (1 + resamples))


def _resampled_share(taken: Floats, shown: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Shares (resamples,) of resampled users."""
    shares = []
    size = max(1, 4_000_000 // len(taken))
    for first in range(0, resamples, size):
        drawn = rng.integers(0, len(taken), (min(size, resamples - first), len(taken)))
        shares.append(taken[drawn].sum(1) / shown[drawn].sum(1))
    return np.concatenate(shares)
