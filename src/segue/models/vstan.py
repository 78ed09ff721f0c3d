"""VSTAN: nearest sessions, with weights for the recency of items and sessions and the distance to common items.

Garg, Gupta, Malhotra, Vig & Shroff, *Sequence and Time Aware Neighborhood for Session-based Recommendations* (STAN,
SIGIR 2019), joined with V-SKNN by Ludewig, Mauro, Latifi & Jannach, *Empirical Analysis of Session-based Recommendation
Algorithms* (UMUAI 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.data.sessions import UNITS_PER_SECOND
from segue.errors import ConfigError
from segue.models.session_neighbours import Float64, Met, Neighbours, SessionInputs, SessionNeighbours
from segue.models.session_neighbours import SessionNeighboursModel as _Model
from segue.settings import Penalty, Positive

_DAY = 86_400


@dataclass(frozen=True)
class VSTAN(SessionNeighbours):
    """VSTAN: nearest sessions, weighted by the recency of items and sessions and by the distance to common items.

    With w = exp((position - |s|) / position_scale) for the items of the session in progress s, the similarity to a
    stored session t is the cosine Σ w over common items / (√(Σ w² over s) · √|t|), times exp(-age of t / age_scale).
    Each of the `neighbours` most similar sessions adds to its items

    similarity · exp(-distance / distance_scale) · (1 + idf · rarity) · exp((newest - |s|) / match_scale)

    The distance is that of the item in t to the last common item, in positions; newest is the position in s of the
    newest common item. The settings are the defaults of the authors' program session-rec, except the numbers of
    neighbours and of the sample, which they choose for each Dataset.

    Examples
    --------
    >>> recommender = segue.fit(segue.VSTAN(neighbours=20), segue.simulate(40, 6, names=True).dataset())
    >>> recommender.recommend(basket=["beer-03"], k=3)["rank"].to_list()  # a visitor without a history
    [1, 2, 3]
    """

    position_scale: Positive = 1.02
    """Positions after which an item of the session in progress weighs 1/e in the similarity."""

    age_scale: Positive | None = 5.0
    """Days after which a stored session weighs 1/e; None means no weight by age."""

    distance_scale: Positive = 2.05
    """Positions from the last common item at which an item of a neighbour weighs 1/e."""

    match_scale: Positive = 1.02
    """Positions after which a common item of the session in progress gives its neighbour 1/e of the weight."""

    idf: Penalty = 5.0
    """Weight of rare items: scores are multiplied by 1 + idf · log(sessions / sessions with the item)."""

    name: ClassVar[str] = "vstan"

    def resolved(self, dataset: Dataset) -> VSTAN:
        """Return the settings with the unit that fits the Dataset.

        Raises
        ------
        ConfigError
            Sessions are weighted by age, and the Dataset has no times.
        """
        if self.age_scale is not None and dataset.times is None:
            raise ConfigError(
                f"vstan weighs sessions by age (age_scale={self.age_scale:g} days), and the Dataset has no times: "
                "prepare it with times, give age_scale=None (--model.age-scale null), or use vsknn."
            )
        return super().resolved(dataset)

    def build(self, n_users: int, n_items: int) -> VSTANModel:
        """An empty module; `count` fills it."""
        return VSTANModel(self, n_users, n_items)


class VSTANModel(_Model):
    """Nearest sessions with exponential weights.

    Buffers
    -------
    day
        () int64 length of a day in the unit of the times.
    """

    config: VSTAN
    day: Tensor

    def __init__(self, config: VSTAN, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.register_buffer("day", torch.tensor(_DAY))

    def count(self, dataset: Dataset) -> None:
        """Store the visible sessions or histories, and the unit of their times."""
        super().count(dataset)
        self.day.fill_(_DAY * UNITS_PER_SECOND[dataset.time_unit or "s"])

    def weights(self, inputs: SessionInputs) -> Float64:
        """Weights (m,): exponential in the distance from the end of the session, of length 1 for each session."""
        distance = inputs.places - inputs.lengths[inputs.rows]
        weights: Float64 = np.exp(distance / self.config.position_scale)
        squares = np.bincount(inputs.rows, weights**2, minlength=len(inputs.users))
        return np.asarray(weights / np.sqrt(squares)[inputs.rows])

    def adjusted(self, similarities: Float64, sessions: Int64, rows: Int64, inputs: SessionInputs) -> Float64:
        """Divide by the length of the stored sessions, and weigh them by age.

        The age is taken from the newest stored session: a shift of all ages scales all scores of a history.
        """
        stored = np.diff(self.matrix("sessions").indptr)
        adjusted = similarities / np.sqrt(stored[sessions])
        if self.config.age_scale is None:
            return np.asarray(adjusted)
        times = self.session_times.cpu().numpy()
        ages = (times[0] - times[sessions]) / float(self.day)
        return np.asarray(adjusted * np.exp(-ages / self.config.age_scale))

    def terms(self, inputs: SessionInputs, neighbours: Neighbours, met: Met) -> Float64:
        """Terms (e,): similarity, weighted by the distance to the last common item and by the newest common item."""
        if not len(met.rows):
            return np.zeros(0)
        places = self.matrix("sessions").data.take(met.entries).astype(np.float64)
        newest = np.maximum.reduceat(met.current, met.first)
        common = np.maximum.reduceat(np.where(met.current > 0, places, 0.0), met.first)
        match = np.exp((newest - inputs.lengths[neighbours.rows]) / self.config.match_scale)
        distance = np.abs(places - np.repeat(common, met.lengths))
        strength = np.repeat(neighbours.similarities * match, met.lengths)
        return np.asarray(strength * np.exp(-distance / self.config.distance_scale))
