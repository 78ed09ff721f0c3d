"""Complete model from outside of segue: the next item from the newest one. Tests copy this file into a package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue import Dataset, ModelConfig, TrainableModel
from segue.data.histories import Histories
from segue.data.ragged import positions
from segue.models.scores import ProductScores
from segue.settings import Count, ShareBelowOne


@dataclass(frozen=True)
class LastItem(ModelConfig):
    """Factorised transitions from the newest item to the next."""

    name: ClassVar[str] = "last-item"

    width: Count = 8
    """Width of the item vectors."""
    dropout: ShareBelowOne = 0.0
    """Dropout of the newest item's vector."""
    start: Literal["small", "large"] = "small"
    """Size of the initial weights."""

    def build(self, n_users: int, n_items: int) -> LastItemModel:
        """Return a new module with random weights."""
        return LastItemModel(self, n_users, n_items)


class Steps(NamedTuple):
    """Newest items and targets, both (n,) int64."""

    newest: Tensor
    targets: Tensor


class Transitions:
    """Every visible step from an item to the next, as units of training of length 1."""

    usual_batch = 32
    usual_averaging = 0.0

    def __init__(self, dataset: Dataset) -> None:
        users = np.flatnonzero(dataset.lengths >= 2)
        before = positions(dataset.starts[users], dataset.ends[users] - 1)
        self.newest = dataset.items[before].astype(np.int64)
        self.targets = dataset.items[before + 1].astype(np.int64)
        self.lengths = self.weights = np.ones(len(before), dtype=np.int64)

    def batch(self, index: Any, generator: np.random.Generator) -> Steps:
        """Return the units at `index`."""
        return Steps(torch.from_numpy(self.newest[index]), torch.from_numpy(self.targets[index]))


class Newest(NamedTuple):
    """The newest item (n,) int64 of each history."""

    items: Tensor


class LastItemModel(TrainableModel):
    """score(i) = ⟨A[newest], B[i]⟩."""

    max_history = 1
    config: LastItem

    def __init__(self, config: LastItem, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.sources = nn.Embedding(n_items + 1, config.width)
        self.targets = nn.Embedding(n_items + 1, config.width)
        for table in (self.sources, self.targets):
            nn.init.normal_(table.weight, std=0.1 if config.start == "small" else 1.0)

    def examples(self, dataset: Dataset) -> Transitions:
        """Return one unit per visible transition."""
        return Transitions(dataset)

    def forward(self, batch: Steps) -> Tensor:
        """Summed cross-entropy over the catalogue."""
        hidden = F.dropout(self.sources(batch.newest), self.config.dropout, self.training)
        return F.cross_entropy(hidden @ self.targets.weight[1:].T, batch.targets - 1, reduction="sum")

    def inputs(self, histories: Histories) -> Newest:
        """Return the newest item of each history."""
        return Newest(torch.from_numpy(histories.items[histories.ends - 1].astype(np.int64)))

    def encode(self, inputs: Newest) -> Tensor:
        """Vectors (n, width) of the newest items."""
        return self.sources(inputs.items)  # type: ignore[no-any-return]

    def scores(self) -> ProductScores:
        """Products with the target vectors."""
        return ProductScores(self.targets.weight)
