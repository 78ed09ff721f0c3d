"""The Scorer: a fitted model, frozen, with all that asking needs prepared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.models.base import Attention, Model, ModelConfig
from segue.models.scores import ItemScores


@runtime_checkable
class HasScorer(Protocol):
    """Anything that carries a Scorer, as a Recommender does."""

    @property
    def scorer(self) -> Scorer:
        """The Scorer."""
        ...


@dataclass(frozen=True, eq=False)
class Scorer:
    """A frozen model: from histories to queries, and from queries to scores. Codes only; no raw ids.

    Nothing changes it, so any number of threads may ask it at once. It can be pickled for other processes.

    Attributes
    ----------
    model
        A twin of the fitted model (`Model.frozen`), on the same memory.
    items
        Scores of items, with the item table prepared.
    """

    model: Model
    items: ItemScores

    @classmethod
    def of(cls, model: Model) -> Scorer:
        """The Scorer of a model as its weights are now; do not train the model while the Scorer is in use."""
        twin = model.frozen()
        with torch.no_grad():
            return cls(twin, twin.scores())

    @property
    def config(self) -> ModelConfig:
        """The model's settings."""
        return self.model.config

    @property
    def n_users(self) -> int:
        """Number of user codes."""
        return self.model.n_users

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return self.model.n_items

    @property
    def max_history(self) -> int | None:
        """Number of a history's newest items that matter; None = all."""
        return self.model.max_history

    @property
    def needs_history(self) -> bool:
        """False if even an unknown user without a history is answered."""
        return self.model.needs_history

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.model.device

    def queries(self, histories: Histories) -> Tensor:
        """Queries (n, …) of n histories, not empty if the model `needs_history`."""
        device = self.device
        with torch.inference_mode():
            inputs = self.model.inputs(histories)
            if device.type != "cpu":
                inputs = type(inputs)(*(tensor.to(device) for tensor in inputs))
            return self.model.encode(inputs)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) float32 of the item codes start … stop - 1; `out` may receive them."""
        with torch.inference_mode():
            return self.items.all(queries, start, stop, out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) float32 of `items` (batch, n) int64."""
        with torch.inference_mode():
            return self.items.of(queries, items)

    def item_vectors(self) -> Tensor | None:
        """Vectors (n_items + 1, width) whose cosine says how alike two items are, or None if there are none."""
        with torch.inference_mode():
            return self.model.item_vectors()

    def attention(self, histories: Histories) -> Attention | None:
        """Attention of the queries of n histories over their items, or None if the model has no attention."""
        with torch.inference_mode():
            return self.model.attention(histories)


def scorer_of(source: Scorer | HasScorer | Model) -> Scorer:
    """The Scorer of a Recommender or of a fitted model; a Scorer itself."""
    if isinstance(source, Scorer):
        return source
    return Scorer.of(source) if isinstance(source, Model) else source.scorer
