"""The levels of a rating scale: found in the data, or given and held against it."""

from __future__ import annotations

import numpy as np

from segue.data.ragged import Int64
from segue.errors import DataError
from segue.models.rating_bias import Float64

MOST_LEVELS = 101
"""Levels that a scale may have: 0 to 10 in tenths, or 0 to 100."""


def scale_of(ratings: Float64, levels: tuple[float, ...] | None) -> tuple[float, ...]:
    """The levels of a scale, ascending.

    Parameters
    ----------
    ratings
        (n,) the ratings to learn from.
    levels
        What the scale should be; found in the ratings when None.

    Raises
    ------
    DataError
        There is one single level, there are too many to be a scale, or ratings are not on the levels given.
    """
    found, counts = np.unique(ratings, return_counts=True)
    if levels is not None:
        places_on(ratings, levels)
    elif len(found) > MOST_LEVELS:
        raise DataError(
            f"the ratings take {len(found):,} different values, from {found[0]:g} to {found[-1]:g}: too many for the "
            "levels of a scale. Round them in the log, or predict them with matrix-factorization."
        )
    if len(found) < 2:
        raise DataError(
            f"all {int(counts.sum()):,} ratings are {found[0]:g}: with one single level there is nothing to predict. "
            "If they only say that something was taken, use a model of what comes next, such as sasrec."
        )
    return tuple(float(level) for level in found) if levels is None else levels


def places_on(ratings: Float64, levels: tuple[float, ...]) -> Int64:
    """The place (n,) of each rating (n,) on the scale, from 0.

    Raises
    ------
    DataError
        A rating is none of the levels.
    """
    scale = np.asarray(levels)
    places = np.searchsorted(_middles(scale), ratings).astype(np.int64)
    strange = np.unique(ratings[np.abs(scale[places] - ratings) > _tolerance(scale)])
    if len(strange):
        shown = ", ".join(f"{rating:g}" for rating in strange[:5]) + (", …" if len(strange) > 5 else "")
        raise DataError(
            f"ratings of {shown} are none of the {len(levels)} levels {', '.join(f'{level:g}' for level in levels)}: "
            "give all levels of the scale, or none to have them found."
        )
    return places


def _middles(scale: Float64) -> Float64:
    middles: Float64 = (scale[1:] + scale[:-1]) / 2
    return middles


def _tolerance(scale: Float64) -> float:
    """Ratings are stored as float32."""
    return float(np.abs(scale).max()) * 1e-6
