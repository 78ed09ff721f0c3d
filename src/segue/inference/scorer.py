"""The Scorer: a frozen model with its item table prepared, which any number of threads may use at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.histories import Histories
from segue.errors import ConfigError
from segue.inference.index import fingerprint_of
from segue.models.base import Attention, Model, ModelConfig
from segue.models.scores import ItemScores
from segue.nn.moving import moved


@runtime_checkable
class HasScorer(Protocol):
    """Object with a Scorer, such as a Recommender."""

    @property
    def scorer(self) -> Scorer:
        """The frozen model."""
        ...


@dataclass(frozen=True, eq=False)
class Scorer:
    """Frozen model that turns histories into queries, and queries into scores. It knows codes, and no raw ids.

    Nothing changes it, so any number of threads may use it at once. It can be pickled for other processes.

    Attributes
    ----------
    model
        A copy of the fitted model (`Model.frozen`) that shares its memory.
    items
        Scores of items, with a prepared item table.
    """

    model: Model
    items: ItemScores

    @classmethod
    def of(cls, model: Model) -> Scorer:
        """Make the Scorer of a model with its present weights. Do not train the model while the Scorer is in use."""
        frozen = model.frozen()
        with torch.no_grad():
            return cls(frozen, frozen.scores())

    @property
    def config(self) -> ModelConfig:
        """Settings of the model."""
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
        """Number of newest items of a history that the model reads; None = all."""
        return self.model.max_history

    @property
    def needs_history(self) -> bool:
        """False if the model answers even unknown users without a history."""
        return self.model.needs_history

    @property
    def query_size(self) -> int:
        """Number of elements of a query if it is as long as the catalogue; else 0, as queries are then short."""
        return self.n_items + 1 if self.model.dense_queries else 0

    @cached_property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.model.device

    @cached_property
    def cold(self) -> Tensor | None:
        """Codes (m,) int64 of the items that the model cannot score (`Model.cold`), ascending; None without any."""
        codes = self.model.cold
        return None if codes is None or not len(codes) else torch.from_numpy(codes).to(self.device)

    @cached_property
    def products_fingerprint(self) -> str | None:
        """Hash of the item vectors that scores are products with; None if scores are no products."""
        products = self.items.products
        return None if products is None else fingerprint_of(products.vectors.float().cpu().numpy())

    def queries(self, histories: Histories) -> Tensor:
        """Encode n histories as queries (n, …). Histories must not be empty if the model `needs_history`."""
        device = self.device
        with torch.inference_mode():
            inputs = self.model.inputs(histories)
            if device.type != "cpu":
                inputs = moved(inputs, device)
            return self.model.encode(inputs)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) float32 of the item codes start … stop - 1, written to `out` if it is given."""
        with torch.inference_mode():
            return self.items.all(queries, start, stop, out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) float32 of `items` (batch, n) int64."""
        with torch.inference_mode():
            return self.items.of(queries, items)

    def item_vectors(self) -> Tensor | None:
        """Vectors (n_items + 1, width); their cosine is the similarity of two items. None if the model has none."""
        with torch.inference_mode():
            return self.model.item_vectors()

    def dense_item_vectors(self) -> npt.NDArray[np.float32]:
        """Vectors (n_items + 1, width) in a new array, 0 for code 0.

        Raises
        ------
        ConfigError
            The model has no dense item vectors.
        """
        vectors = self.item_vectors()
        if vectors is None or vectors.is_sparse:
            raise ConfigError(
                f"the model {self.config.name!r} has no dense item vectors for diversity: name a column of the item "
                "table with diversity_by=, of categories or vectors."
            )
        dense: npt.NDArray[np.float32] = vectors.detach().float().cpu().numpy().copy()
        dense[0] = 0
        return dense

    def attention(self, histories: Histories) -> Attention | None:
        """Attention of the queries of n histories over their items, or None if the model has no attention."""
        with torch.inference_mode():
            return self.model.attention(histories)


def scorer_of(source: Scorer | HasScorer | Model) -> Scorer:
    """Scorer of a Recommender or of a fitted model; a Scorer as it is."""
    if isinstance(source, Scorer):
        return source
    return Scorer.of(source) if isinstance(source, Model) else source.scorer
