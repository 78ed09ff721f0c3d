"""Settings of ARERec, and those that are found in the data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

import numpy as np

from segue.data.dataset import Dataset
from segue.errors import ConfigError, DataError
from segue.models.arerec.neighbours import LookBack
from segue.models.arerec.regions import Contexts
from segue.models.arerec.scale import MOST_LEVELS, scale_of
from segue.models.base import ModelConfig
from segue.models.ratings import training_ratings


@dataclass(frozen=True)
class ARERecSettings(ModelConfig):
    """Settings of ARERec; `ARERec` is the config that builds the module."""

    width: int = 64
    """Width of the user and item vectors."""
    region_size: int = 7
    """Number of regions: rows of a local context unit."""
    heads: int = 2
    """Attention heads; must divide the width."""
    contexts: Contexts = "shared"
    """Local context units: "shared", one per user and one per item; or "interaction", as published, two for each rating
    of training."""
    look_back: LookBack | None = None
    """Whose ratings count: of the "past", before the one asked about; of "train", all of training but the user's own;
    or "reference", as published, where the histories hold what is to be predicted, for comparison alone. When not
    given: "train" with the split random-rows, where the order of time means nothing, and without times; else "past"."""
    history_length: int | Literal["mean", "max"] = 100
    """How many neighbours count at most; or the mean or the longest history of an item in training."""
    keep: Literal["newest", "oldest"] = "newest"
    """Which of more than these."""
    levels: tuple[float, ...] | None = None
    """The levels of the rating scale; found in the data when not given."""
    attention: bool = True
    """Weigh the neighbours for the user."""
    biases: bool = True
    """Add how far user and item lie above the mean; not in the published model."""
    neighbour_ratings: bool = True
    """Add what the neighbours gave, above their own habits, times how far the user agrees with each; not in the
    published model, which knows who rated an item and not how."""
    group: int = 16
    """Ratings of one item that are learnt together, at most: one unit of `batch_size`. What their neighbours bring is
    computed, and dropped, once for all of them."""
    dropout_user: float = 0.3
    """Dropout of the vectors of the user asked about."""
    dropout_neighbour: float = 0.3
    """Of the neighbours' vectors."""
    dropout_item: float = 0.3
    """Of the item's vector."""
    dropout_k_ui: float = 0.5
    """Of the items' local context units."""
    dropout_k_iu: float = 0.5
    """Of the neighbours' local context units."""
    dropout_neighbour_profile: float = 0.0
    """Of the neighbours' profiles."""
    dropout_item_profile: float = 0.0
    """Of the item's profile."""
    dropout_neighbour_rating: float = 0.0
    """Of the products of both."""
    dropout_user_rating: float = 0.5
    """Of what is left of them after the maximum."""
    l2_query: float = 0.0
    """Penalty on the squares of the attention's query weights, added to the mean loss."""
    l2_key: float = 0.0
    """On its key weights."""
    l2_value: float = 0.0
    """On its value weights."""
    l2_concat: float = 0.0
    """On the map of its joined heads."""
    l2_output: float = 0.0
    """On the map from regions to levels."""
    l2_agreement: float = 8e-4
    """On the vectors that agreement is the product of: those that a step reads."""

    def __post_init__(self) -> None:
        if isinstance(self.levels, list):
            object.__setattr__(self, "levels", tuple(self.levels))
        for name in ("width", "region_size", "heads", "group"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 1 or more.")
        if self.width % self.heads:
            raise ConfigError(f"heads={self.heads} does not divide width={self.width}.")
        for name, value in vars(self).items():
            if name.startswith("dropout") and not 0 <= value < 1:
                raise ConfigError(f"{name}={value}: expected a share from 0 to below 1.")
            if name.startswith("l2") and value < 0:
                raise ConfigError(f"{name}={value}: expected 0 or more.")
        self._check_choices()
        if self.look_back == "reference" and self.neighbour_ratings:
            raise ConfigError(
                "look_back='reference' puts the rating that is asked for among those that are read; with "
                "neighbour_ratings=True the model would copy it. Set neighbour_ratings=False, as published."
            )

    def _check_choices(self) -> None:
        choices = {
            "contexts": get_args(Contexts),
            "keep": ("newest", "oldest"),
            "look_back": (None, *get_args(LookBack)),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                expected = ", ".join(filter(None, known))
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {expected}.")
        length, levels = self.history_length, self.levels
        if length not in ("mean", "max") and (not isinstance(length, int) or length < 1):
            raise ConfigError(f"history_length={length!r}: expected a whole number from 1, mean or max.")
        if levels is not None:
            if len(levels) < 2 or list(levels) != sorted(set(levels)) or not np.isfinite(levels).all():
                raise ConfigError(f"levels={levels}: expected two or more numbers, ascending.")
            if len(levels) > MOST_LEVELS:
                raise ConfigError(f"levels: {len(levels):,} of them are no scale; expected {MOST_LEVELS} at most.")

    def resolved(self, dataset: Dataset) -> Self:
        """With levels, history length and look_back as the visible ratings have them.

        Raises
        ------
        DataError
            No ratings, no scale, ratings that are not on the scale given, or look_back="past" without times.
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
