"""V-SKNN: nearest sessions, with weights for the newest items of the session in progress.

Ludewig & Jannach, *Evaluation of Session-based Recommendation Algorithms* (UMUAI 2018), with the weights of the
authors' program session-rec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segue.models.session_neighbours import Float64, Met, Neighbours, SessionInputs, SessionNeighbours
from segue.models.session_neighbours import SessionNeighboursModel as _Model


@dataclass(frozen=True)
class VSKNN(SessionNeighbours):
    """V-SKNN: the score of an item is the sum of the similarities of the nearest sessions with it.

    The similarity of the session in progress s and a stored session t is the sum over their common items of
    position / |s|, the position in s from 1, divided by the number of distinct items of s. Among the `sample` most
    recent sessions with a common item, the `neighbours` most similar ones are chosen. Each adds

    similarity · (1 / step) · (1 + idf · rarity)

    to its items. The step is the number of items of s from the newest one back to the newest common item, from 1.

    Examples
    --------
    >>> recommender = segue.fit(segue.VSKNN(neighbours=20), segue.simulate(40, 6, names=True).dataset())
    >>> recommender.recommend(basket=["beer-03"], k=3)["rank"].to_list()  # a visitor without a history
    [1, 2, 3]
    """

    name: ClassVar[str] = "vsknn"

    def build(self, n_users: int, n_items: int) -> VSKNNModel:
        """An empty module; `count` fills it."""
        return VSKNNModel(self, n_users, n_items)


class VSKNNModel(_Model):
    """Nearest sessions with linear weights of positions."""

    def weights(self, inputs: SessionInputs) -> Float64:
        """Weights (m,): the share of the session up to the item, over the number of distinct items."""
        distinct = np.bincount(inputs.rows, minlength=len(inputs.users))
        weights: Float64 = inputs.places / (inputs.lengths * distinct)[inputs.rows]
        return weights

    def terms(self, inputs: SessionInputs, neighbours: Neighbours, met: Met) -> Float64:
        """Terms (e,): similarity over the step of the newest common item."""
        if not len(met.rows):
            return np.zeros(0)
        newest = np.maximum.reduceat(met.current, met.first)
        steps = inputs.lengths[neighbours.rows] - newest + 1
        terms: Float64 = np.repeat(neighbours.similarities / steps, met.lengths)
        return terms
