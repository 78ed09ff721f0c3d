"""Levels of a rating scale, taken from the data or checked against it."""

from __future__ import annotations

import numpy as np

from segue.data.ragged import Int64
from segue.errors import DataError
from segue.models.rating_bias import Float64

MOST_LEVELS = 101
"""Largest number of levels of a scale, such as 0 to 10 in tenths, or 0 to 100."""


def scale_of(ratings: Float64, levels: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the levels of a scale, ascending.

    Parameters
    ----------
    ratings
        (n,) ratings to learn from.
    levels
        Levels of the scale; taken from the ratings if None.

    Raises
    ------
    DataError
        The ratings have a single level, too many levels for a scale, or a level that is not among those given.
    """
    values, counts = np.unique(ratings, return_counts=True)
    if levels is not None:
        level_indices(ratings, levels)
    elif len(values) > MOST_LEVELS:
        raise DataError(
            f"the ratings take {len(values):,} different values, from {values[0]:g} to {values[-1]:g}: too many for "
            "the levels of a scale. Round them in the log, or predict them with matrix-factorization."
        )
    if len(values) < 2:
        raise DataError(
            f"all {int(counts.sum()):,} ratings are {values[0]:g}: with a single level there is nothing to predict. "
            "If they only mark interactions, use a model of the next item, such as sasrec."
        )
    return tuple(float(level) for level in values) if levels is None else levels


def level_indices(ratings: Float64, levels: tuple[float, ...]) -> Int64:
    """Index (n,) of the level of each rating (n,), from 0.

    Raises
    ------
    DataError
        A rating is not among the levels.
    """
    scale = np.asarray(levels)
    indices = np.searchsorted(_middles(scale), ratings).astype(np.int64)
    unknown = np.unique(ratings[np.abs(scale[indices] - ratings) > _tolerance(scale)])
    if len(unknown):
        examples = ", ".join(f"{rating:g}" for rating in unknown[:5]) + (", …" if len(unknown) > 5 else "")
        expected = ", ".join(f"{level:g}" for level in levels)
        raise DataError(
            f"ratings of {examples} are none of the {len(levels)} levels {expected}: "
            "give all levels of the scale, or none to take them from the data."
        )
    return indices


def _middles(scale: Float64) -> Float64:
    middles: Float64 = (scale[1:] + scale[:-1]) / 2
    return middles


def _tolerance(scale: Float64) -> float:
    """Tolerance of the comparison, because ratings are stored as float32."""
    return float(np.abs(scale).max()) * 1e-6
