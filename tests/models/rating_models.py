"""Two tiny rating models for tests, a counting and a trained one, with a scale of levels or without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.models.base import CountingModel, ModelConfig, TrainableModel
from segue.models.ratings import Rated, RatingModel, training_ratings


@dataclass(frozen=True)
class ItemLevels(ModelConfig):
    name = "item-levels"
    task = "ratings"

    levels: tuple[float, ...] | None = None
    """Levels of the scale; those of the training ratings when not given."""
    probable: bool = True
    """Predict the probability of each level."""
    look_back: str | None = None
    """Setting of a model that may read held-out ratings."""

    def resolved(self, dataset: Dataset) -> ItemLevels:
        return self if self.levels else replace(self, levels=tuple(np.unique(training_ratings(dataset).ratings)))

    def build(self, n_users: int, n_items: int) -> ItemLevelsModel:
        return ItemLevelsModel(self, n_users, n_items)


class ItemLevelsModel(RatingModel, CountingModel):
    """Counts of the levels of each item, plus one."""

    config: ItemLevels

    def __init__(self, config: ItemLevels, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(n_items + 1, len(config.levels or ())))

    @property
    def levels(self) -> tuple[float, ...] | None:
        return self.config.levels if self.config.probable else None

    def count(self, dataset: Dataset) -> None:
        known = training_ratings(dataset)
        indices = np.searchsorted(np.asarray(self.config.levels), known.ratings)
        self.counts.index_put_(
            (torch.from_numpy(known.items), torch.from_numpy(indices)), torch.ones(len(indices)), accumulate=True
        )

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        shares = self.counts[items] + 1
        shares = shares / shares.sum(dim=1, keepdim=True)
        expected = shares @ torch.tensor(self.config.levels, dtype=torch.float32)
        return Rated(expected, shares if self.config.probable else None)

    def unrated(self) -> Tensor:
        return self.counts.sum(dim=1) == 0


class Pairs(NamedTuple):
    users: Tensor
    items: Tensor
    levels: Tensor


@dataclass(frozen=True)
class LevelBiases(ModelConfig):
    name = "level-biases"
    task = "ratings"

    levels: tuple[float, ...] | None = None
    """Levels of the scale; those of the training ratings when not given."""
    look_back: str = "train"
    """Setting of a model that reads earlier ratings."""

    def resolved(self, dataset: Dataset) -> LevelBiases:
        return self if self.levels else replace(self, levels=tuple(np.unique(training_ratings(dataset).ratings)))

    def build(self, n_users: int, n_items: int) -> LevelBiasesModel:
        return LevelBiasesModel(self, n_users, n_items)


class LevelBiasesModel(RatingModel, TrainableModel):
    """Logits of the levels for each item and each user, learnt with cross-entropy."""

    config: LevelBiases

    def __init__(self, config: LevelBiases, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        assert config.levels, "resolved(dataset) comes first"
        self.of_items = torch.nn.Embedding(n_items + 1, len(config.levels))
        self.of_users = torch.nn.Embedding(n_users + 1, len(config.levels))

    @property
    def levels(self) -> tuple[float, ...] | None:
        return self.config.levels

    def examples(self, dataset: Dataset) -> PairExamples:
        return PairExamples(dataset, self.config.levels or ())

    def forward(self, batch: Pairs) -> Tensor:
        logits = self.of_items(batch.items) + self.of_users(batch.users)
        return torch.nn.functional.cross_entropy(logits, batch.levels, reduction="sum")

    def rate(self, users: Tensor, items: Tensor, moments: Tensor) -> Rated:
        shares = (self.of_items(items) + self.of_users(users)).softmax(dim=1)
        return Rated(shares @ torch.tensor(self.config.levels, dtype=torch.float32), shares)


class PairExamples:
    def __init__(self, dataset: Dataset, levels: tuple[float, ...]) -> None:
        known = training_ratings(dataset)
        self.arrays = known.users, known.items, np.searchsorted(np.asarray(levels), known.ratings)
        self.lengths = self.weights = np.ones(len(known.users), dtype=np.int64)
        self.usual_batch, self.usual_averaging = 128, 0.0

    def batch(self, index: np.ndarray, generator: np.random.Generator) -> Pairs:
        return Pairs(*(torch.from_numpy(array[index]) for array in self.arrays))


def rated_dataset(n_users: int = 60, n_items: int = 25, longest: int = 40, seed: int = 0) -> Dataset:
    """Return ratings 1 … 5 of users and items with different biases, at ascending times."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(9, longest + 1, n_users)
    offsets = offsets_of(np.array([0, *lengths]))
    n = int(offsets[-1])
    items = generator.integers(1, n_items + 1, n)
    user_bias, item_bias = generator.normal(0, 0.6, n_users), generator.normal(0, 0.9, n_items + 1)
    noise = generator.normal(0, 0.6, n)
    ratings = np.clip(np.round(3.4 + np.repeat(user_bias, lengths) + item_bias[items] + noise), 1, 5)
    times = np.concatenate([np.sort(generator.integers(0, 10_000, length)) for length in lengths])
    return Dataset(
        items.astype(np.int32),
        offsets,
        Vocabulary(range(1, n_users + 1)),
        Vocabulary(range(10, 10 * n_items + 10, 10)),
        times=times,
        ratings=ratings.astype(np.float32),
        time_unit="s",
    )
