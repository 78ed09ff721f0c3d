"""Metrics of rating prediction: HR and NDCG among the items that a user rated, as in ARERec, and calibration.

The order of rows never breaks ties. Tied items of a user stand in random order, and every figure is its expectation
over these orders, in closed form. So a model with the same rating for all items scores as chance does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from segue.data.ragged import Int64, offsets_of
from segue.evaluation.metrics import Floats, summed

_BINS = 10


class RankRanges(NamedTuple):
    """Ranks of n questions among those of their user, highest value first, ties in random order.

    Attributes
    ----------
    first, stop
        (n,) int64: each of the ranks `first` … `stop - 1`, from 0, is equally likely.
    """

    first: Int64
    stop: Int64

    @classmethod
    def of(cls, rows: Int64, values: Floats) -> RankRanges:
        """Ranks of values (n,) within rows (n,)."""
        order = np.lexsort((-values, rows))
        row, value = rows[order], values[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (row[1:] != row[:-1]) | (value[1:] != value[:-1])
        begins = np.flatnonzero(new)
        group = np.cumsum(new) - 1
        ends = np.append(begins[1:], len(order))
        shift = np.searchsorted(row, row)  # where the row begins
        first, stop = np.empty_like(rows), np.empty_like(rows)
        first[order], stop[order] = begins[group] - shift, ends[group] - shift
        return cls(first, stop)

    def within(self, k: int) -> Floats:
        """Probability (n,) of one of the first k ranks."""
        return np.clip((k - self.first) / (self.stop - self.first), 0.0, 1.0)

    def discount(self, k: int) -> Floats:
        """Expected discount (n,): 1 / log₂(1 + r) at rank r, from 1 to k, and 0 behind k."""
        sums = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        within = sums[np.minimum(self.stop, k)] - sums[np.minimum(self.first, k)]
        return np.asarray(within / (self.stop - self.first), dtype=np.float64)


def own_metrics(
    rows: Int64,
    users: int,
    truth: Floats,
    predicted: Floats,
    ks: Sequence[int],
    cutoff: float,
    published_gains: bool = False,
) -> dict[str, Floats]:
    """HR and NDCG among the items that each user rated, per user (Padungkiatwattana et al. 2022, "ARERec").

    For a user with at least k questions, T is the k items with the highest true ratings, and P is the k items with the
    highest predictions:

    - **own_hr**: the share of the items in T with a rating of `cutoff` or more that are in P;
    - **own_ndcg**: sum over P of (2^rating - 1) / log₂(1 + r), with the true rating and the predicted rank r from 1,
      over the same sum in the order of the true ratings. With `published_gains`, as the published code computes it: the
      sum is over T. An item at place p of P has the gain of the p-th highest true rating, and 0 if it is not in P. Its
      r is the rank of its own true rating, and tied ratings share the lowest rank.

    Tied predictions, and tied true ratings at the border of T, stand in random order, independently. The figures are
    expectations over these orders.

    Parameters
    ----------
    rows
        (n,) int64 row of the user of each question, from 0.
    users
        Number of users.
    truth, predicted
        (n,) ratings; only the order of `predicted` matters.
    ks
        Lengths of the lists.
    cutoff
        Lowest rating of a liked item.
    published_gains
        Compute the NDCG as the published code does.

    Returns
    -------
    metrics
        (users,) float64 for each name. NaN for users with fewer than k questions; `own_hr` also without a rating of
        `cutoff` or more, and `own_ndcg` without a rating above 0 (ratings below 0 gain nothing).
    """
    true, guessed = RankRanges.of(rows, truth), RankRanges.of(rows, predicted)
    liked = truth >= cutoff
    counts, n_liked = (np.bincount(rows, weights=weights, minlength=users) for weights in (None, liked))
    gains = _gains(rows, users, truth)
    metrics: dict[str, dict[int, Floats]] = {"own_hr": {}, "own_ndcg": {}}

    for k in ks:
        hits = summed(rows, np.where(liked, true.within(k) * guessed.within(k), 0.0), users)
        metrics["own_hr"][k] = _ratio(hits, np.where(counts >= k, np.minimum(n_liked, k), 0.0))
        if published_gains:
            weights = true.within(k) / np.log2(true.first + 2)
            predicted_gains, ideal_gains = weights * _gains_at(rows, users, gains, guessed, k), weights * gains
        else:
            predicted_gains, ideal_gains = gains * guessed.discount(k), gains * true.discount(k)
        ideal = np.where(counts >= k, summed(rows, ideal_gains, users), 0.0)
        metrics["own_ndcg"][k] = _ratio(summed(rows, predicted_gains, users), ideal)
    return {f"{name}@{k}": values for name, by_k in metrics.items() for k, values in by_k.items()}


def calibration(expected: Floats, truth: Floats) -> pl.DataFrame:
    """Mean true rating by expected rating: questions in tenths by the expected rating; equal ones stay together.

    Returns
    -------
    table
        Columns `expected` ("3.21–3.48"), `questions`, `mean_expected` and `mean_true`.
    """
    shares = np.arange(1, _BINS) / _BINS
    edges = np.unique(np.quantile(expected, shares, method="inverted_cdf"))
    bins = np.searchsorted(edges, expected)
    sizes = np.bincount(bins, minlength=_BINS)
    filled = np.flatnonzero(sizes)
    lowest, highest = np.full(_BINS, np.inf), np.full(_BINS, -np.inf)
    np.minimum.at(lowest, bins, expected)
    np.maximum.at(highest, bins, expected)
    means = (np.bincount(bins, weights=values, minlength=_BINS)[filled] / sizes[filled] for values in (expected, truth))
    names = [f"{lowest[number]:.2f}–{highest[number]:.2f}" for number in filled]
    return pl.DataFrame(
        {"expected": names, "questions": sizes[filled]} | dict(zip(("mean_expected", "mean_true"), means, strict=True))
    )


def calibration_error(table: pl.DataFrame) -> float:
    """Expected calibration error: mean distance of the two means of `calibration`, over questions, in ratings."""
    sizes, expected, true = (table[name].to_numpy() for name in ("questions", "mean_expected", "mean_true"))
    return float((sizes * np.abs(expected - true)).sum() / sizes.sum())


def by_level(levels: Sequence[float], true_levels: Int64, expected: Floats, frequencies: Floats) -> pl.DataFrame:
    """Frequency of each level of the scale, as given and as expected.

    Parameters
    ----------
    levels
        (c,) the scale.
    true_levels
        (n,) int64 index of the level given in each question.
    expected
        (n,) expected ratings.
    frequencies
        (c,) probability of each level, summed over all questions.

    Returns
    -------
    table
        Columns `level`, `questions` (number with this level), `predicted` (expected number), and `mean_expected`
        (mean expected rating of the questions with this level).
    """
    sizes = np.bincount(true_levels, minlength=len(levels))
    totals = summed(true_levels, expected, len(levels))
    means = [total / size if size else None for total, size in zip(totals.tolist(), sizes.tolist(), strict=True)]
    names = [f"{level:g}" for level in levels]
    return pl.DataFrame({"level": names, "questions": sizes, "predicted": frequencies, "mean_expected": means})


def _gains(rows: Int64, users: int, truth: Floats) -> Floats:
    """Gains (n,): 2^rating - 1, over 2^(highest rating of the user) so that long scales do not overflow."""
    ratings = np.maximum(truth, 0.0)
    top = np.zeros(users)
    np.maximum.at(top, rows, ratings)
    return np.asarray(np.exp2(ratings - top[rows]) - np.exp2(-top[rows]), dtype=np.float64)


def _gains_at(rows: Int64, users: int, gains: Floats, ranks: RankRanges, k: int) -> Floats:
    """Expected gain (n,) of the p-th best item of the user, for a question at rank p of `ranks`; 0 behind k."""
    order = np.lexsort((-gains, rows))
    shift = offsets_of(np.bincount(rows, minlength=users))[:-1]
    within = np.arange(len(rows)) - shift[rows[order]] < k
    begins = shift[rows] + ranks.first
    new = np.zeros(len(rows), dtype=np.int64)
    new[begins] = 1
    group = np.cumsum(new) - 1  # ranks that tied questions share
    sums = np.bincount(group, weights=np.where(within, gains[order], 0.0))
    return np.asarray(sums[group[begins]] / (ranks.stop - ranks.first), dtype=np.float64)


def _ratio(values: Floats, over: Floats) -> Floats:
    ratio = np.full(len(values), np.nan)
    np.divide(values, over, out=ratio, where=over > 0)
    return ratio
