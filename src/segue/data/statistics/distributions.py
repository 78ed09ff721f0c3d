"""Distributions of counts, in a few numbers and as histograms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 40


@dataclass(frozen=True)
class Spread:
    """Distribution of counts in a few numbers, such as interactions per user or per item."""

    min: int
    mean: float
    median: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True)
class Histogram:
    """Histogram: `counts[i]` values lie from `edges[i]` to below `edges[i + 1]`; the last bin includes its end."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def spread_of(counts: npt.NDArray[np.int64]) -> Spread:
    """The Spread of counts (n,)."""
    if not len(counts):
        return Spread(0, 0.0, 0.0, 0.0, 0.0, 0)
    median, p90, p99 = (float(value) for value in np.quantile(counts, [0.5, 0.9, 0.99]))
    return Spread(int(counts.min()), float(counts.mean()), median, p90, p99, int(counts.max()))


def histogram_of(counts: npt.NDArray[np.int64]) -> Histogram:
    """Equal bins of whole numbers up to the 99th percentile, and one bin for all above."""
    if not len(counts):
        return Histogram((0.0, 1.0), (0,))
    low, high, top = int(counts.min()), int(np.quantile(counts, 0.99)) + 1, int(counts.max()) + 1
    width = -(-(high - low) // _BINS)
    edges = np.arange(low, high + width, width)
    if edges[-1] < top:
        edges = np.append(edges, top)
    in_bins, _ = np.histogram(counts, bins=edges)
    return Histogram(tuple(edges.astype(float).tolist()), tuple(in_bins.tolist()))
