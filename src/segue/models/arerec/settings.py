"""Settings of ARERec; some are taken from the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from segue.data.dataset import Dataset
from segue.errors import ConfigError, DataError
from segue.models.arerec.neighbours import LookBack
from segue.models.arerec.regions import Contexts
from segue.models.arerec.scale import MOST_LEVELS, scale_of
from segue.models.base import ModelConfig
from segue.models.ratings import training_ratings
from segue.settings import Count, Penalty, ShareBelowOne


@dataclass(frozen=True)
class ARERecSettings(ModelConfig):
    """Settings of ARERec; `ARERec` is the config that builds the module."""

    width: Count = 64
    """Width of the user and item vectors."""
    region_size: Count = 7
    """Number of regions: rows of a local context unit."""
    heads: Count = 2
    """Attention heads; must divide the width."""
    contexts: Contexts = "shared"
    """Local context units: "shared" (one per user and per item), or "interaction" (two per training rating, as
    published)."""
    look_back: LookBack | None = None
    """Neighbours' ratings: "past" (before the predicted one), "train" (all but the user's own), or "reference" (as
    published, with the answer among them: only for comparison). When not given, "past" if times are known, and "train"
    with random-rows or without times."""
    history_length: Count | Literal["mean", "max"] = 100
    """Most neighbours per item; "mean" or "max" use that length of the items' training histories."""
    keep: Literal["newest", "oldest"] = "newest"
    """Neighbours to keep if an item has more."""
    levels: tuple[float, ...] | None = None
    """Levels of the rating scale; taken from the data when not given."""
    attention: bool = True
    """Weight the neighbours for the user."""
    biases: bool = True
    """Add the biases of user and item; not in the published model."""
    neighbour_ratings: bool = True
    """Add the neighbours' ratings, weighted by the user's agreement with each; not in the published model."""
    group: Count = 16
    """Most ratings of one item that are learnt together, as one example of `batch_size`."""
    dropout_user: ShareBelowOne = 0.3
    """Dropout of the users' vectors."""
    dropout_neighbour: ShareBelowOne = 0.3
    """Dropout of the neighbours' vectors."""
    dropout_item: ShareBelowOne = 0.3
    """Dropout of the items' vectors."""
    dropout_k_ui: ShareBelowOne = 0.5
    """Dropout of the items' local context units."""
    dropout_k_iu: ShareBelowOne = 0.5
    """Dropout of the neighbours' local context units."""
    dropout_neighbour_profile: ShareBelowOne = 0.0
    """Dropout of the neighbours' profiles."""
    dropout_item_profile: ShareBelowOne = 0.0
    """Dropout of the items' profiles."""
    dropout_neighbour_rating: ShareBelowOne = 0.0
    """Dropout of the products of neighbours' and items' profiles."""
    dropout_user_rating: ShareBelowOne = 0.5
    """Dropout of the strongest product of each region."""
    l2_query: Penalty = 0.0
    """L2 penalty on the attention's query weights."""
    l2_key: Penalty = 0.0
    """L2 penalty on the attention's key weights."""
    l2_value: Penalty = 0.0
    """L2 penalty on the attention's value weights."""
    l2_concat: Penalty = 0.0
    """L2 penalty on the map of the joined heads."""
    l2_output: Penalty = 0.0
    """L2 penalty on the map from regions to levels."""
    l2_agreement: Penalty = 8e-4
    """L2 penalty on the agreement vectors that a step reads."""

    def check(self) -> None:
        """Raise a ConfigError for settings that contradict each other, or levels that are not a scale."""
        if self.width % self.heads:
            raise ConfigError(f"heads={self.heads} does not divide width={self.width}.")
        levels = self.levels
        if levels is not None:
            if len(levels) < 2 or list(levels) != sorted(set(levels)):
                raise ConfigError(f"levels={levels}: expected two or more numbers, ascending.")
            if len(levels) > MOST_LEVELS:
                raise ConfigError(f"levels: {len(levels):,} of them are not a scale; expected {MOST_LEVELS} at most.")
        if self.look_back == "reference" and self.neighbour_ratings:
            raise ConfigError(
                "look_back='reference' reads the rating that is predicted; with neighbour_ratings=True the model would "
                "copy it. Set neighbour_ratings=False, as published."
            )

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with levels, history length and look_back filled in from the visible ratings.

        Raises
        ------
        DataError
            The ratings are missing, are not a scale or are not on the scale given, or look_back="past" without times.
        """
        known = training_ratings(dataset)
        look_back = self.look_back
        if look_back is None:
            look_back = "past" if dataset.times is not None and dataset.in_order else "train"
        if look_back == "past" and dataset.times is None:
            raise DataError("look_back='past' needs times, and this Dataset has none: use look_back='train'.")
        length = self.history_length
        if not isinstance(length, int):
            counts = np.bincount(known.items)
            counts = counts[counts > 0]
            length = int(counts.max() if length == "max" else np.ceil(counts.mean()))
        return replace(self, levels=scale_of(known.ratings, self.levels), history_length=length, look_back=look_back)
