"""Where a model is good: metrics by the length of the history and by the popularity of the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from segue.data.ragged import Int64
from segue.evaluation.metrics import Floats, user_metrics

_LENGTHS = (1, 6, 11, 21, 51, 101)
_PER_TARGET = ("hr", "ndcg", "mrr")


def by_history_length(lengths: Int64, metrics: Mapping[str, Floats]) -> pl.DataFrame:
    """Means over the users whose histories are of like length.

    Parameters
    ----------
    lengths
        (n,) items in each user's history.
    metrics
        (n,) values by name.

    Returns
    -------
    table
        Columns `history` ("1–5", …), `users`, and every metric; rows without users are left out.
    """
    names = [f"{low}–{high - 1}" for low, high in pairwise(_LENGTHS)] + [f"{_LENGTHS[-1]} or more"]
    bucket = np.searchsorted(_LENGTHS, lengths, side="right") - 1
    return _means("history", names, "users", bucket, metrics)


def by_popularity(items: Int64, ranks: Int64, item_counts: Int64, ks: Sequence[int]) -> pl.DataFrame:
    """Means over targets, each taken by itself, that are alike in popularity.

    The head are the most popular items that together hold a third of the training interactions, the tail the least
    popular that hold a third, the mid what is between (items of equal count stay together); new items have none.

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
        Columns `popularity` ("head, 40 or more", …), `targets`, and hr, ndcg and mrr at each k (with one target, recall
        is hr); rows without targets are left out.
    """
    counts = np.sort(item_counts[1:])[::-1]
    total = np.cumsum(counts)
    high, low = (int(counts[np.searchsorted(total, total[-1] * share)]) if total[-1] else 1 for share in (1 / 3, 2 / 3))
    names = [f"head, {high:,} or more", f"mid, {low:,}–{high - 1:,}", f"tail, 1–{low - 1:,}", "new, 0"]
    asked = item_counts[items]
    bucket = np.select([asked >= max(high, 1), asked >= max(low, 1), asked >= 1], [0, 1, 2], 3)
    metrics = user_metrics(ranks, np.ones(len(ranks), dtype=np.int64), ks)
    kept = {name: values for name, values in metrics.items() if name.split("@")[0] in _PER_TARGET}
    return _means("popularity", names, "targets", bucket, kept)


def _means(what: str, names: list[str], unit: str, bucket: Int64, metrics: Mapping[str, Floats]) -> pl.DataFrame:
    """One row per bucket that is not empty: its name, its size, and the mean of every metric."""
    sizes = np.bincount(bucket, minlength=len(names))
    filled = np.flatnonzero(sizes)
    columns: dict[str, object] = {what: [names[place] for place in filled], unit: sizes[filled]}
    for name, values in metrics.items():
        columns[name] = np.bincount(bucket, weights=values, minlength=len(names))[filled] / sizes[filled]
    return pl.DataFrame(columns)
