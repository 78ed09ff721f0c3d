"""Intervals and tests by resampling users.

The mean over a resample depends on the number of draws of each distinct value alone. Metrics take few distinct values,
so it is enough to draw these counts (multinomial, binomial). Bootstrap and randomisation test stay the same, at a
fraction of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_DRAWS_HELD = 4_000_000


def bootstrap_interval(
    values: Floats, resamples: int = 1_000, seed: int = 0, level: float = 0.95, per: Floats | None = None
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (n,), n ≥ 1, or of a ratio of sums (Efron 1979).

    Parameters
    ----------
    values
        One value per user.
    resamples
        Number of resamples of n users.
    seed
        Seed of the resamples.
    level
        Probability that the interval covers.
    per
        (n,) weights above 0: the interval is that of the sum of `values` over the sum of these, of the same users.
        Steps of one session are not independent, so a mean over steps is resampled session by session.
    """
    if per is None:
        return bootstrap_figure([values], lambda mean: mean, resamples, seed, level)
    return bootstrap_figure([values, per], np.divide, resamples, seed, level)


def bootstrap_figure(
    columns: Sequence[Floats], figure: Callable[..., Floats], resamples: int = 1_000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of any function of means over the same users, such as a root of a ratio.

    Parameters
    ----------
    columns
        (n,) values per user, n ≥ 1, each.
    figure
        Function of the means (resamples,) of each column; it returns the figure (resamples,).
    resamples, seed, level
        As in `bootstrap_interval`.
    """
    generator = np.random.default_rng(seed)
    alone = len(columns) == 1
    whole = columns[0] if alone else np.stack(columns, axis=1)
    distinct, counts = np.unique(whole, axis=None if alone else 0, return_counts=True)
    n = len(whole)
    if len(distinct) * 8 < n:
        drawn = generator.multinomial(n, counts / n, size=resamples)
        figures = figure(*(drawn @ column / n for column in distinct.reshape(len(distinct), -1).T))
    else:
        size = max(1, _DRAWS_HELD // n)
        parts = [
            _resampled(columns, figure, generator.integers(0, n, (min(size, resamples - first), n)))
            for first in range(0, resamples, size)
        ]
        figures = np.concatenate(parts)
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _resampled(columns: Sequence[Floats], figure: Callable[..., Floats], drawn: npt.NDArray[np.int64]) -> Floats:
    """Figure (resamples,) of the means over the users in each row of `drawn` (resamples, n)."""
    return figure(*(column[drawn].mean(axis=1) for column in columns))


def sign_flip_p_value(differences: Floats, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test that the mean of `differences` (n,) is zero (Fisher 1935).

    Under the null hypothesis each user's difference is as likely with the other sign. The p-value is the share of
    random signs with a mean at least as far from zero. The observed signs count too, so it is never 0.
    """
    generator = np.random.default_rng(seed)
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    observed = abs(float(differences.sum()))
    size = max(1, _DRAWS_HELD // max(len(sizes), 1))
    extreme = 0
    for first in range(0, resamples, size):
        positive = generator.binomial(counts, 0.5, size=(min(size, resamples - first), len(sizes)))
        sums = np.abs((2 * positive - counts) @ sizes)
        extreme += int((sums >= observed * (1 - 1e-9)).sum())
    return (1 + extreme) / (1 + resamples)
