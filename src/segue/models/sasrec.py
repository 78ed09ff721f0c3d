"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and its better-performing relatives.

The defaults are not the paper's: they are what does well today (`SASRec.as_published()` gives the paper's). What
differs, and its source: pre-norm blocks; a softmax over all items, or over shared negatives where they are many,
instead of one negative (Klenitskiy & Vasilev, RecSys 2023; Petrov & Macdonald, RecSys 2023), with the logQ correction
(Yi et al., RecSys 2019); normalised vectors with a temperature; all windows of a long history instead of its newest.
Further options, off by default: gated residuals (LiGR, Borisyuk et al. 2025); attention that knows places and times
(HSTU, Zhai et al., ICML 2024); negatives from the batch (Yang et al., WWW 2020), and a temperature that is learnt
(CLIP, Radford et al., ICML 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.models.base import Attention, ModelConfig, TrainableModel
from segue.models.next_item import (
    FORMERLY,
    LossName,
    NextItemBatch,
    NextItemExamples,
    NextItemLoss,
    Windows,
    newest_ages,
    newest_items,
    places,
    usual_gap,
)
from segue.models.similarity import Similarity, check_learnt_temperature
from segue.nn.relative import Positions
from segue.nn.transformer import Encoder, FeedForwardKind, Norm, check_heads, initialise
from segue.settings import Count, Penalty, Positive, Share, ShareBelowOne

_SMALL_CATALOGUE = 5_000
"""Up to so many items the full softmax costs little more than a sampled one."""


@dataclass(frozen=True)
class SASRec(ModelConfig):
    """A causal transformer over a user's items; the next item is scored against the same item table.

    Examples
    --------
    >>> SASRec(width=50, loss="bce", negatives=1).width
    50
    """

    name: ClassVar[str] = "sasrec"
    formerly: ClassVar[Mapping[str, Any]] = {**FORMERLY, "learn_temperature": False, "windows": "newest"}

    width: Count = 64
    """Width of the item vectors and of the hidden states."""
    blocks: Count = 2
    """Number of transformer blocks."""
    heads: Count = 1
    """Attention heads; must divide the width."""
    max_length: Count = 50
    """Number of a user's newest items that are read."""
    windows: Windows = "all"
    """Windows of a longer history to learn from: the "newest" alone, or "all"."""
    dropout: ShareBelowOne = 0.3
    """Dropout of inputs, attention weights and feed-forward layers."""
    loss: LossName | None = None
    """Loss of the next item. When not given, softmax for up to 5,000 items, and sampled-softmax for more."""
    negatives: Count = 512
    """Negatives: per position for bce and gbce, shared by the batch for sampled-softmax."""
    calibration: Share = 0.75
    """Calibration t of gBCE: 0 is plain BCE, 1 is fully calibrated."""
    similarity: Literal["dot", "cosine"] = "cosine"
    """Similarity of hidden states and item vectors; the cosine is divided by the temperature."""
    temperature: Positive = 0.07
    """Divisor of the cosine similarity."""
    learn_temperature: bool = False
    """Learn the temperature, between 0.01 and 1, starting at the one given."""
    logq: bool = True
    """Correct sampled-softmax for how often each negative is drawn."""
    in_batch: Share = 0.0
    """Share of the negatives of sampled-softmax drawn from the batch's targets; the others are uniform."""
    norm: Norm = "pre"
    """Layer norms of a block: "paper" (queries only), "pre" (inputs), or "ligr" (pre, with gated residuals)."""
    positions: Positions = "absolute"
    """Positions: "absolute" (added to the inputs), "relative" (a bias in the attention) or "both"."""
    time_bias: bool = False
    """Add a bias to the attention by the time between two items; training needs times."""
    feed_forward: FeedForwardKind = "relu"
    """Activation of the feed-forward layers: relu, gelu or swiglu."""
    inner_width: Count | None = None
    """Width inside the feed-forward layers; that of the hidden states when not given."""
    embedding_l2: Penalty = 0.0
    """L2 penalty on the item vectors that a batch reads."""

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the width, or the temperature cannot be learnt."""
        check_heads(self.width, self.heads)
        if self.learn_temperature and self.similarity == "cosine":
            check_learnt_temperature(self.temperature)

    @classmethod
    def as_published(cls, width: int = 50, dropout: float = 0.5, max_length: int = 50) -> Self:
        """The paper's model: one-negative BCE, dot products, norm on the queries only."""
        return cls(
            width=width,
            dropout=dropout,
            max_length=max_length,
            windows="newest",
            loss="bce",
            negatives=1,
            logq=False,
            similarity="dot",
            norm="paper",
        )

    def resolved(self, dataset: Dataset) -> Self:
        """The same settings, with the loss named."""
        return self._for_catalogue(dataset.n_items)

    def build(self, n_users: int, n_items: int) -> SASRecModel:
        """A new module with random weights."""
        return SASRecModel(self._for_catalogue(n_items), n_users, n_items)

    def _for_catalogue(self, n_items: int) -> Self:
        return replace(self, loss=self.loss or ("softmax" if n_items <= _SMALL_CATALOGUE else "sampled-softmax"))


class SASRecModel(TrainableModel):
    """The module of `SASRec`.

    x = E[items]·√width + P; blocks; final norm; score(i) = ⟨h, E[i]⟩ (the table as it is, not times √width), or
    cos(h, E[i]) / temperature.
    """

    config: SASRec

    def __init__(self, config: SASRec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        assert config.loss is not None
        self.max_history = config.max_length
        self.items = nn.Embedding(n_items + 1, config.width)
        self.encoder = Encoder(
            config.width,
            config.max_length,
            config.blocks,
            config.heads,
            config.inner_width or config.width,
            config.dropout,
            config.norm,
            config.feed_forward,
            config.positions,
            config.time_bias,
        )
        self.similarity = Similarity(config.similarity, config.temperature, config.learn_temperature)
        self.loss = NextItemLoss(
            config.loss,
            config.negatives,
            config.calibration,
            n_items,
            self.similarity,
            config.logq,
            config.in_batch,
        )
        self._vectors: Tensor | None = None
        initialise(self)

    def examples(self, dataset: Dataset) -> NextItemExamples:
        """The windows that the settings ask for."""
        config = self.config
        examples = NextItemExamples(
            dataset, config.max_length, self.loss, with_times=config.time_bias, windows=config.windows
        )
        if self.config.time_bias:
            self.encoder.gap.fill_(usual_gap(dataset))
        return examples

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Of the item table: inputs, targets and negatives."""
        rows = self.loss.rows_read(terms)
        return {} if rows is None else {self.items: rows}

    def forward(self, batch: NextItemBatch) -> Tensor:
        """The summed loss over all targets of the batch."""
        inputs, scored = self.loss.look_up(self.items, batch)
        hidden = (
            self.encode(inputs, batch.lengths, batch.ages if self.config.time_bias else None)
            .flatten(0, 1)
            .index_select(0, batch.where)
        )
        loss = self.loss(hidden, scored, self.items.weight, batch)
        if self.config.embedding_l2:
            loss = loss + self.config.embedding_l2 * inputs.flatten(0, 1).index_select(0, batch.where).square().sum()
        return loss

    def encode(self, inputs: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Item vectors inputs (b, length, width) with real lengths (b,) and, where times are known, ages (b, length) →
        hidden states (b, length, width)."""
        out: Tensor = self.encoder(*self._read(inputs, lengths), ages)
        return out

    def _read(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder is given: inputs (b, length, width) and places (b, length)."""
        where = places(lengths, inputs.shape[1], self.config.max_length)
        return inputs * math.sqrt(self.config.width), where

    def queries(self, histories: Histories) -> Tensor:
        """Hidden state (n, width) after the newest item of each history."""
        return self.similarity.query(self.encoder.newest(*self._asked(histories)))

    def attention(self, histories: Histories) -> Attention:
        """What the newest item of each history looks at, itself included."""
        weights = self.encoder.weights(*self._asked(histories))
        return Attention(weights, histories.last(self.config.max_length).places(weights.shape[-1]))

    def _asked(self, histories: Histories) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What the encoder is given to answer for n histories: inputs, places, the newest place of each, and ages."""
        items, lengths = newest_items(histories, self.config.max_length, self.device)
        ages = newest_ages(histories, items.shape[1], self.device)
        return *self._read(self.items(items), lengths), lengths - 1, ages

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """Scores (batch, stop - start) of the codes from `start` up to `stop`."""
        return torch.mm(queries, self.item_vectors()[start:stop].T, out=out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        """Scores (batch, n) of items (batch, n)."""
        return torch.einsum("bd,bnd->bn", queries, F.embedding(items, self.item_vectors()))

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width), normalised once per evaluation when cosines are asked for."""
        if self.training:
            return self.similarity.item(self.items.weight)
        if self._vectors is None:
            self._vectors = self.similarity.item(self.items.weight.detach())
        return self._vectors

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; what was derived from the weights is forgotten."""
        self._vectors = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or convert the module; what was derived from the weights is forgotten."""
        self._vectors = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]
