"""Metrics per user from the ranks of the targets, those of sessions, and what lists of recommendations are like.

All of the first kind are those of trec_eval with binary relevance. A name is a metric and, where it looks at a list,
the length of it: "ndcg@10", "rmse".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from segue.data.ragged import Int64

Floats = npt.NDArray[np.float64]

NAMES = ("hr", "ndcg", "mrr", "recall", "precision", "map")
"""The metrics of accuracy."""

SESSION_NAMES = ("sess_prec", "step_hr", "step_ndcg")
"""The metrics of sessions that are completed step by step."""

OWN_NAMES = ("own_hr", "own_ndcg")
"""The metrics of rating prediction that rank the items that a user rated."""

PER_QUESTION = {"rmse": "squared_errors", "mae": "absolute_errors", "log_loss": "surprises"}
"""The metrics of rating prediction that are means over questions, and the column per user that holds their sums."""

_ERRORS = frozenset({*PER_QUESTION, "ece"})


def lower_is_better(metric: str) -> bool:
    """Whether the metric is an error; of all others more is better."""
    return metric.partition("@")[0] in _ERRORS


def summed(rows: Int64, values: Floats, n: int) -> Floats:
    """(n,) sum of the values (m,) of each of the rows (m,)."""
    return np.bincount(rows, weights=values, minlength=n).astype(np.float64, copy=False)


@overload
def combined(metric: str, total: float, weight: float) -> float: ...
@overload
def combined(metric: str, total: Floats, weight: Floats) -> Floats: ...
def combined(metric: str, total: Floats | float, weight: Floats | float) -> Floats | float:
    """A metric from the sum of its values and the sum of their weights: the ratio, of `rmse` the root of it."""
    ratio = total / weight
    return np.sqrt(ratio) if metric == "rmse" else ratio


def user_metrics(ranks: Int64, lengths: Int64, ks: Sequence[int]) -> dict[str, Floats]:
    """Every metric of accuracy for every user.

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
    place = np.arange(1, len(ranks) + 1) - starts[rows]
    gains = 1 / np.log2(ranks + 1)
    best = ranks[starts]
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks, default=1) + 2)))])
    metrics: dict[str, dict[int, Floats]] = {name: {} for name in NAMES}
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
        metrics["map"][k] = summed_within(place / ranks) / lengths
    return {f"{name}@{k}": values for name, by_k in metrics.items() for k, values in by_k.items()}


def session_terms(hits: Floats, gains: Floats, lengths: Floats) -> dict[str, tuple[Floats, Floats | None]]:
    """What each of `SESSION_NAMES` is the mean of, session by session.

    Parameters
    ----------
    hits
        (n,) steps of each session at which an item of it stood within the list.
    gains
        (n,) sum over those steps of 1 / log₂(1 + r), with r from 1 the rank of the best of its items.
    lengths
        (n,) steps of each session.

    Returns
    -------
    terms
        Values and None: the metric is their mean. Values and weights, (n,) each: it is the sum of the first over the
        sum of the second, which is the mean over all steps.
    """
    return {"sess_prec": (hits / lengths, None), "step_hr": (hits, lengths), "step_ndcg": (gains, lengths)}


def novelty(items: Int64, item_counts: Int64) -> Floats:
    """Mean self-information of each list, in bits: −log₂ of the share of the training interactions that an item holds.

    It is the expected free discovery of Vargas and Castells (2011, "Rank and relevance in novelty and diversity metrics
    for recommender systems"), without discount. An item without interactions counts as if it had one.

    Parameters
    ----------
    items
        (n, k) int64 recommended item codes, 0 = none.
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
    """Share of the catalogue that stands in at least one of the lists (n, k); 0 in a list is no item."""
    return float((np.bincount(items.ravel(), minlength=n_items + 1)[1:] > 0).mean())


def gini(items: Int64, n_items: int) -> float:
    """How unequally the lists (n, k) share out the catalogue: 0 = every item equally often, towards 1 = one item only.

    It is Gini's coefficient of how often each item of the catalogue is recommended, those that never are included.
    """
    counts = np.sort(np.bincount(items.ravel(), minlength=n_items + 1)[1:]).astype(np.float64)
    if not counts.sum():
        return 0.0
    weights = 2 * np.arange(1, n_items + 1) - n_items - 1
    return float((weights * counts).sum() / (n_items * counts.sum()))
