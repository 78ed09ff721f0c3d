"""Metrics of ranking per user, from the ranks of the targets, and properties of lists of recommendations.

The metrics of ranking are those of trec_eval with binary relevance. The full name of a metric is its name and the
length of the list: "ndcg@10".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64

Floats = npt.NDArray[np.float64]

_NAMES = ("hr", "ndcg", "mrr", "recall", "precision", "map")


def summed(rows: Int64, values: Floats, n: int) -> Floats:
    """Sum (n,) of the values (m,) that belong to each of the rows (m,)."""
    return np.bincount(rows, weights=values, minlength=n).astype(np.float64, copy=False)


def user_metrics(ranks: Int64, lengths: Int64, ks: Sequence[int]) -> dict[str, Floats]:
    """Metrics of ranking for every user.

    With n targets at ranks r₁ < r₂ < … (1 is best) and lists of length k:

    - **hr** (hit rate, success): 1 if r₁ ≤ k, else 0;
    - **recall**: targets within k, over n; **precision**: the same over k;
    - **mrr**: 1 / r₁ if r₁ ≤ k, else 0;
    - **map**: sum of i / rᵢ over the targets within k, over n (average precision, map_cut of trec_eval);
    - **ndcg**: sum of 1 / log₂(1 + rᵢ) over the targets within k, over the same sum for ranks 1 … min(n, k)
      (Järvelin and Kekäläinen 2002, with trec_eval's discount).

    Parameters
    ----------
    ranks
        (sum of lengths,) int64 ranks, user by user, distinct within a user up to the longest list.
    lengths
        (n,) int64 number of targets of each user, at least 1.
    ks
        Lengths of the lists.

    Returns
    -------
    metrics
        (n,) float64 for each name.
    """
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((ranks, rows))
    ranks = ranks[order].astype(np.float64)
    starts = np.cumsum(lengths) - lengths
    position = np.arange(1, len(ranks) + 1) - starts[rows]
    gains = 1 / np.log2(ranks + 1)
    best = ranks[starts]
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks, default=1) + 2)))])
    metrics: dict[str, dict[int, Floats]] = {name: {} for name in _NAMES}
    for k in ks:
        within = ranks <= k

        def summed_within(terms: Floats, within: npt.NDArray[np.bool_] = within) -> Floats:
            return summed(rows, np.where(within, terms, 0.0), len(lengths))

        hits = summed_within(np.ones_like(ranks))
        metrics["hr"][k] = (best <= k).astype(np.float64)
        metrics["ndcg"][k] = summed_within(gains) / ideal[np.minimum(lengths, k)]
        metrics["mrr"][k] = np.where(best <= k, 1 / best, 0.0)
        metrics["recall"][k] = hits / lengths
        metrics["precision"][k] = hits / k
        metrics["map"][k] = summed_within(position / ranks) / lengths
    return {f"{name}@{k}": values for name, by_k in metrics.items() for k, values in by_k.items()}


def novelty(items: Int64, item_counts: Int64) -> Floats:
    """Mean self-information of each list, in bits: −log₂ of the item's share of the training interactions.

    This is the expected free discovery of Vargas and Castells (2011, "Rank and relevance in novelty and diversity
    metrics for recommender systems"), without discount. An item without interactions counts as if it had one.

    Parameters
    ----------
    items
        (n, k) int64 recommended item codes; 0 = no item.
    item_counts
        (n_items + 1,) training interactions of each item.

    Returns
    -------
    bits
        (n,) float64; 0 for an empty list.
    """
    counts = np.maximum(item_counts, 1).astype(np.float64)
    bits = np.log2(max(int(item_counts.sum()), 1)) - np.log2(counts)
    filled = items > 0
    total = np.where(filled, bits[items], 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(filled.sum(axis=1), 1), dtype=np.float64)


def coverage(items: Int64, n_items: int) -> float:
    """Share of the catalogue in at least one of the lists (n, k); code 0 in a list is no item."""
    return float((np.bincount(items.ravel(), minlength=n_items + 1)[1:] > 0).mean())


def gini(items: Int64, n_items: int) -> float:
    """Inequality of the catalogue in the lists (n, k): 0 = all items equally often, near 1 = one item only.

    This is Gini's coefficient of the number of recommendations of each item; items without any count too.
    """
    counts = np.sort(np.bincount(items.ravel(), minlength=n_items + 1)[1:]).astype(np.float64)
    if not counts.sum():
        return 0.0
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float((weights * counts).sum() / (n_items * counts.sum()))
