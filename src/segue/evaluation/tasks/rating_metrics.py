"""Metrics of rating prediction: HR and NDCG among the items that a user rated, as ARERec has them, and calibration.

Ties are never broken by the order of rows. Items of a user that are tied stand in random order, and every figure is its
expectation over these orders, in closed form: a model that gives all items the same rating scores what chance does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from segue.data.ragged import Int64
from segue.evaluation.metrics import Floats, summed

_BINS = 10


class Places(NamedTuple):
    """Where n questions stand among those of their user, highest value first, ties in random order.

    Attributes
    ----------
    first, stop
        (n,) int64: each of the places `first` … `stop - 1`, from 0, is equally likely.
    """

    first: Int64
    stop: Int64

    @classmethod
    def of(cls, rows: Int64, values: Floats) -> Places:
        """The places of values (n,) within rows (n,)."""
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
        """(n,) probability of one of the first k places."""
        return np.clip((k - self.first) / (self.stop - self.first), 0.0, 1.0)

    def discount(self, k: int) -> Floats:
        """(n,) expected discount: 1 / log₂(1 + r) at place r, from 1, of the first k, and 0 behind them."""
        sums = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
        within = sums[np.minimum(self.stop, k)] - sums[np.minimum(self.first, k)]
        return np.asarray(within / (self.stop - self.first), dtype=np.float64)


def own_metrics(
    rows: Int64, users: int, truth: Floats, predicted: Floats, ks: Sequence[int], cutoff: float
) -> dict[str, Floats]:
    """HR and NDCG among the items that each user rated, per user (Padungkiatwattana et al. 2022, "ARERec").

    Of a user with at least k questions, compare the k with the highest true ratings with the k with the highest
    predictions:

    - **own_hr**: of those of the former that are rated `cutoff` or more, the share that is among the latter;
    - **own_ndcg**: sum of (2^rating - 1) / log₂(1 + r) of the latter, where r from 1 is the predicted place and the
      rating the true one, over the same sum in the order of the true ratings.

    Tied predictions, and tied true ratings at the border of the k, are taken in random order, independently; the
    figures are expectations over these orders.

    Parameters
    ----------
    rows
        (n,) int64 number of the user of each question, from 0.
    users
        How many users there are.
    truth, predicted
        (n,) ratings; of `predicted` only the order matters.
    ks
        Lengths of the lists.
    cutoff
        The lowest rating of an item that was liked.

    Returns
    -------
    metrics
        (users,) float64 for each name; NaN for users with fewer than k questions, for `own_hr` also where none is rated
        `cutoff` or more, for `own_ndcg` where none is rated above 0 (ratings below 0 gain nothing).
    """
    true, guessed = Places.of(rows, truth), Places.of(rows, predicted)
    liked = truth >= cutoff
    asked, n_liked = (np.bincount(rows, weights=one, minlength=users) for one in (None, liked))
    gains = _gains(rows, users, truth)
    found: dict[str, dict[int, Floats]] = {"own_hr": {}, "own_ndcg": {}}

    for k in ks:
        hits = summed(rows, np.where(liked, true.within(k) * guessed.within(k), 0.0), users)
        found["own_hr"][k] = _ratio(hits, np.where(asked >= k, np.minimum(n_liked, k), 0.0))
        ideal = np.where(asked >= k, summed(rows, gains * true.discount(k), users), 0.0)
        found["own_ndcg"][k] = _ratio(summed(rows, gains * guessed.discount(k), users), ideal)
    return {f"{name}@{k}": values for name, by_k in found.items() for k, values in by_k.items()}


def calibration(expected: Floats, truth: Floats) -> pl.DataFrame:
    """Do people give what is expected of them? Questions in tenths by the expected rating; equal ones stay together.

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
    names = [f"{lowest[place]:.2f}–{highest[place]:.2f}" for place in filled]
    return pl.DataFrame(
        {"expected": names, "questions": sizes[filled]} | dict(zip(("mean_expected", "mean_true"), means, strict=True))
    )


def calibration_error(table: pl.DataFrame) -> float:
    """Expected calibration error: how far the two means of `calibration` are apart, over questions, in ratings."""
    sizes, expected, true = (table[name].to_numpy() for name in ("questions", "mean_expected", "mean_true"))
    return float((sizes * np.abs(expected - true)).sum() / sizes.sum())


def by_level(levels: Sequence[float], places: Int64, expected: Floats, predicted: Floats) -> pl.DataFrame:
    """How often each level of the scale was given, and how often it was expected to be.

    Parameters
    ----------
    levels
        (c,) the scale.
    places
        (n,) int64 which level was given in each question.
    expected
        (n,) expected ratings.
    predicted
        (c,) summed probability of each level over all questions.

    Returns
    -------
    table
        Columns `level`, `questions` (in which it was given), `predicted` (in how many it was expected to be), and
        `mean_expected` (rating, where it was given).
    """
    sizes = np.bincount(places, minlength=len(levels))
    totals = summed(places, expected, len(levels))
    means = [total / size if size else None for total, size in zip(totals.tolist(), sizes.tolist(), strict=True)]
    names = [f"{level:g}" for level in levels]
    return pl.DataFrame({"level": names, "questions": sizes, "predicted": predicted, "mean_expected": means})


def _gains(rows: Int64, users: int, truth: Floats) -> Floats:
    """(n,) 2^rating - 1, over 2^(highest rating of the user): no scale is too long, and no ratio of sums changes."""
    ratings = np.maximum(truth, 0.0)
    top = np.zeros(users)
    np.maximum.at(top, rows, ratings)
    return np.asarray(np.exp2(ratings - top[rows]) - np.exp2(-top[rows]), dtype=np.float64)


def _ratio(values: Floats, over: Floats) -> Floats:
    ratio = np.full(len(values), np.nan)
    np.divide(values, over, out=ratio, where=over > 0)
    return ratio
