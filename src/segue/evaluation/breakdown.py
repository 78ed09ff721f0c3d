"""Metrics by length of the history, popularity of the target, step of the session, and ratings of the item."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from segue.data.ragged import Int64
from segue.evaluation.metrics import Floats, summed, user_metrics

_LENGTHS = (0, 1, 6, 11, 21, 51, 101)
_RATINGS = (0, 1, 6, 21, 101, 501)
_STEPS = (*range(1, 12), 21, 51)
_PER_TARGET = ("hr", "ndcg", "mrr")


def by_history_length(
    lengths: Int64,
    metrics: Mapping[str, Floats],
    weights: Mapping[str, Floats] | None = None,
    roots: Collection[str] = (),
) -> pl.DataFrame:
    """Means over the users with histories of similar length.

    Parameters
    ----------
    lengths
        (n,) items in each user's history.
    metrics
        (n,) values by name.
    weights
        (n,) weights by name, for metrics that are the sum of their values over the sum of these.
    roots
        Names of the metrics that are roots of means.

    Returns
    -------
    table
        Columns `history` ("0", "1–5", …), `users`, and every metric; rows without users are left out. A metric is None
        if no user of the row has weight.
    """
    bucket = _buckets(_LENGTHS, lengths)
    return _means("history", _names(_LENGTHS), "users", bucket, metrics, weights or {}, roots)


def by_step(steps: Int64, metrics: Mapping[str, Floats]) -> pl.DataFrame:
    """Means over the steps of sessions, by the number of the step.

    Parameters
    ----------
    steps
        (n,) number of each step within its session, from 1, when the basket is empty.
    metrics
        (n,) values by name.

    Returns
    -------
    table
        Columns `step` ("1", "2", …, "11–20", …), `steps`, and every metric; rows without steps are left out.
    """
    return _means("step", _names(_STEPS), "steps", _buckets(_STEPS, steps), metrics)


def by_item_ratings(counts: Int64, metrics: Mapping[str, Floats], roots: Collection[str] = ()) -> pl.DataFrame:
    """Means over questions, by the number of training ratings of the item.

    Parameters
    ----------
    counts
        (n,) ratings of the item of each question, in the Holdout's training view.
    metrics
        (n,) values by name.
    roots
        Names of the metrics that are roots of means.

    Returns
    -------
    table
        Columns `item_ratings` ("0", "1–5", …), `questions`, and every metric; rows without questions are left out.
    """
    bucket = _buckets(_RATINGS, counts)
    return _means("item_ratings", _names(_RATINGS), "questions", bucket, metrics, {}, roots)


def by_popularity(items: Int64, ranks: Int64, item_counts: Int64, ks: Sequence[int]) -> pl.DataFrame:
    """Means over targets of similar popularity, each target taken by itself.

    Popular items are the most popular ones, which together have a third of the training interactions. Rare items are
    the least popular ones, which have a third too. Usual items are the others, and cold items have none. Items of equal
    count stay together.

    Parameters
    ----------
    items, ranks
        (t,) item code and rank of each target.
    item_counts
        (n_items + 1,) training interactions of each item.
    ks
        Lengths of the lists.

    Returns
    -------
    table
        Columns `popularity` ("popular, 40 or more", …), `targets`, and hr, ndcg and mrr at each k (with one target,
        recall is hr); rows without targets are left out.
    """
    counts = np.sort(item_counts[1:])[::-1]
    total = np.cumsum(counts)
    high, low = (int(counts[np.searchsorted(total, total[-1] * share)]) if total[-1] else 1 for share in (1 / 3, 2 / 3))
    names = [f"popular, {high:,} or more", f"usual, {low:,}–{high - 1:,}", f"rare, 1–{low - 1:,}", "cold, 0"]
    count = item_counts[items]
    bucket = np.select([count >= max(high, 1), count >= max(low, 1), count >= 1], [0, 1, 2], 3)
    metrics = user_metrics(ranks, np.ones(len(ranks), dtype=np.int64), ks)
    kept = {name: values for name, values in metrics.items() if name.split("@")[0] in _PER_TARGET}
    return _means("popularity", names, "targets", bucket, kept)


def _names(firsts: Sequence[int]) -> list[str]:
    """Names of the buckets that begin with these numbers: "1", "11–20", "51 or more"."""
    spans = [str(low) if high == low + 1 else f"{low}–{high - 1}" for low, high in pairwise(firsts)]
    return [*spans, f"{firsts[-1]} or more"]


def _buckets(firsts: Sequence[int], numbers: Int64) -> Int64:
    """Index (n,) of the bucket of each number; the buckets begin with `firsts`."""
    return np.searchsorted(firsts, numbers, side="right") - 1


def _means(
    heading: str,
    names: list[str],
    unit: str,
    bucket: Int64,
    metrics: Mapping[str, Floats],
    weights: Mapping[str, Floats] | None = None,
    roots: Collection[str] = (),
) -> pl.DataFrame:
    """One row per bucket that is not empty: its name, its size, and every metric."""
    weights = weights or {}
    sizes = np.bincount(bucket, minlength=len(names))
    filled = np.flatnonzero(sizes)
    columns: dict[str, object] = {heading: [names[number] for number in filled], unit: sizes[filled]}
    for name, values in metrics.items():
        whole = summed(bucket, weights[name], len(names)) if name in weights else sizes.astype(np.float64)
        total = summed(bucket, values, len(names))
        with np.errstate(invalid="ignore"):
            mean = total[filled] / whole[filled]
        columns[name] = np.sqrt(mean) if name in roots else mean
    return pl.DataFrame(columns).fill_nan(None)
