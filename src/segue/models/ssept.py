"""SSE-PT: a personalised transformer regularised by stochastic shared embeddings (Wu et al., RecSys 2020).

SSE (Wu et al., NeurIPS 2019) is part of the model: training swaps user and item ids for random ones with given
probabilities. SSE-PT++ is `random_window > 0`: training sometimes reads a random stretch of a long history instead of
its newest part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.gaps import usual_gap
from segue.data.histories import Histories
from segue.data.ragged import Int64
from segue.errors import ConfigError
from segue.models.base import Attention, ModelConfig, TrainableModel
from segue.models.features import FeatureNames
from segue.models.features import resolved as with_features
from segue.models.item_table import item_table
from segue.models.negatives import SOFTMAXES
from segue.models.next_item import (
    FORMERLY,
    HistoryInputs,
    LossName,
    NextItemBatch,
    NextItemExamples,
    NextItemLoss,
    Targets,
    history_inputs,
    position_rows,
    why_whole,
)
from segue.models.repeats import PAIRS, Repeats, check_repeats
from segue.models.repeats import resolved as with_repeats
from segue.models.scores import AddedScores, ItemScores
from segue.models.similarity import Similarity
from segue.models.users import user_vectors
from segue.nn.moving import moved
from segue.nn.relative import Positions
from segue.nn.transformer import Encoder, FeedForwardKind, Norm, check_heads, initialise
from segue.settings import Count, Negatives, Penalty, Probability, Share, ShareBelowOne


@dataclass(frozen=True)
class SSEPT(ModelConfig):
    """Encoder of SASRec over item vectors that are concatenated with the vector of the user.

    Examples
    --------
    >>> config = segue.SSEPT(item_width=32, user_width=16)
    >>> config.swap_user > 0
    True
    """

    name: ClassVar[str] = "ssept"
    formerly: ClassVar[Mapping[str, Any]] = FORMERLY
    may_change_on_start: ClassVar[frozenset[str]] = ModelConfig.may_change_on_start | {
        "swap_user",
        "swap_item",
        "swap_target",
        "random_window",
    }
    published_training: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "averaging": 0.0}

    item_width: Count = 50
    """Width of the item vectors."""
    user_width: Count = 50
    """Width of the user vectors; the width of the hidden states is the sum of both."""
    blocks: Count = 2
    """Number of transformer blocks."""
    heads: Count = 1
    """Attention heads; must divide the sum of the widths."""
    max_length: Count = 50
    """Number of a user's newest items that are read."""
    dropout: ShareBelowOne = 0.5
    """Dropout of inputs, attention weights and feed-forward layers."""
    swap_user: Probability = 0.92
    """SSE: probability that training swaps a window's user id for a random one."""
    swap_item: Probability = 0.1
    """SSE: probability that training swaps an input item's id for a random one."""
    swap_target: Probability = 0.1
    """SSE: probability that training swaps a target item's id for a random one."""
    swap_together: bool = False
    """SSE: swap an input item and its target by one draw, with the probability swap_item, as the authors' code does."""
    random_window: Probability = 0.0
    """SSE-PT++: probability that training reads a random stretch of a long history instead of its newest part."""
    loss: LossName = "bce"
    """Loss of the next item."""
    negatives: Negatives = 1
    """Negatives: per position for bce and gbce, shared by the batch for sampled-softmax."""
    calibration: Share = 0.75
    """Calibration t of gBCE: 0 is plain BCE, 1 is fully calibrated."""
    logq: bool = False
    """Correct sampled-softmax for how often each negative is drawn."""
    in_batch: Share = 0.0
    """Share of the negatives of sampled-softmax drawn from the batch's targets; the others are uniform."""
    norm: Norm = "paper"
    """Layer norms of a block: "paper" (queries only), "pre" (inputs), or "ligr" (pre, with gated residuals)."""
    positions: Positions = "absolute"
    """Positions: "absolute" (added to the inputs), "relative" (a bias in the attention) or "both"."""
    time_bias: bool = False
    """Add a bias to the attention by the time between two items; training needs times."""
    feed_forward: FeedForwardKind = "relu"
    """Activation of the feed-forward layers: relu, gelu or swiglu."""
    inner_width: Count | None = None
    """Width inside the feed-forward layers; that of the hidden states when not given."""
    scaled_user: bool = False
    """Scale the user vector by the root of its width in the scores too, as the authors' code does."""
    embedding_l2: Penalty = 0.0
    """L2 penalty on the vectors that a batch reads: inputs, targets, negatives and users."""
    targets: Targets = "item"
    """Targets: the next "item" of each input, or every item of the next "session" of the last input of each one."""
    repeats: bool | None = None
    """Add to the scores of items that the user took before: how often, how long ago and at which pace. When not given,
    true with a softmax if a tenth of the training interactions are repeats."""
    features: FeatureNames = None
    """Columns of the item table whose content is part of the item vectors: names, or "auto" for all but texts. Items
    that nobody has taken are then recommended by their content."""
    own_dropout: ShareBelowOne = 0.2
    """With features: share of the items whose own vector a step leaves out, so that their content stands alone."""

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the sum of the widths, or two settings do not go together."""
        check_heads(self.item_width + self.user_width, self.heads)
        if self.swap_together and self.swap_target != self.swap_item:
            raise ConfigError(
                f"swap_target={self.swap_target} and swap_item={self.swap_item} differ, but swap_together swaps an "
                "input and its target by one draw: give both the same probability."
            )
        check_repeats(self.repeats, self.loss)
        if self.random_window and self.targets == "session":
            raise ConfigError(
                f"random_window={self.random_window} reads stretches that begin anywhere: expected targets='item'."
            )

    @classmethod
    def as_published(cls, item_width: int = 50, user_width: int = 50, max_length: int = 50) -> Self:
        """Return the settings of the paper, with the swaps published for MovieLens 1M.

        The scores and the swaps are those of the authors' code (`scaled_user`, `swap_together`).
        """
        return cls(
            item_width=item_width,
            user_width=user_width,
            max_length=max_length,
            scaled_user=True,
            swap_together=True,
            repeats=False,
        )

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with repeats chosen by their share."""
        repeats = with_repeats(self.repeats, dataset, self.loss in SOFTMAXES)
        return replace(self, repeats=repeats, features=with_features(self.features, dataset))

    def why_whole(self) -> str | None:
        """Return the setting because of which the item table cannot be divided; None if it can be."""
        return why_whole(self.loss, self.features, self.repeats, self.embedding_l2)

    def build(self, n_users: int, n_items: int) -> SSEPTModel:
        """Return a new module with random weights."""
        return SSEPTModel(self, n_users, n_items)


class SSEPTModel(TrainableModel):
    """Module of `SSEPT`.

    x = [E[items]·√item_width ; U[user]·√user_width] + P; the encoder of SASRec; score(i) = ⟨h, [E[i] ; U[user]]⟩. With
    `scaled_user`, U[user]·√user_width stands in the score too.
    Users who were not in training get the mean vector of those who were.
    """

    personal = True
    config: SSEPT

    def __init__(self, config: SSEPT, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.max_history = None if config.repeats else config.max_length
        self.repeats_together = bool(config.repeats)
        self.items = item_table(n_items, config.item_width, config.features, config.own_dropout)
        self.reads_content = bool(config.features)
        self.users = user_vectors(n_users, config.user_width)
        width = config.item_width + config.user_width
        self.encoder = Encoder(
            width,
            config.max_length,
            config.blocks,
            config.heads,
            config.inner_width or width,
            config.dropout,
            config.norm,
            config.feed_forward,
            config.positions,
            config.time_bias,
        )
        self.loss = NextItemLoss(
            config.loss,
            config.negatives,
            config.calibration,
            n_items,
            Similarity("dot"),
            config.logq or bool(config.repeats),
            config.in_batch,
        )
        initialise(self)
        self.repeats = Repeats(n_items) if config.repeats else None

    def prepare(self, dataset: Dataset) -> None:
        """Store the users in training and, if the attention has a bias by time, the usual time between interactions."""
        self.users.trained_on(np.flatnonzero(dataset.lengths >= 2))
        if self.config.time_bias:
            self.encoder.gap.fill_(usual_gap(dataset))
        self.items.prepare(dataset)
        if self.repeats is not None:
            self.repeats.prepare(dataset)

    def examples(self, dataset: Dataset) -> SwappedExamples:
        """Return one window per user, with SSE."""
        return SwappedExamples(dataset, self.config, self.loss, self.items.candidates())

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Rows of the user table (one per unit) and of the item table (inputs, targets and negatives)."""
        rows = self.loss.rows_read(terms)
        return {self.users: units} | ({} if rows is None else {self.items: rows + (PAIRS if self.repeats else 0)})

    def forward(self, batch: NextItemBatch) -> Tensor:
        """Summed loss over all targets of the batch."""
        inputs, scored, catalogue = self.loss.look_up(self.items, batch)
        users = self.users(batch.users)
        ages = batch.ages if self.config.time_bias else None
        hidden = self.hidden_states(inputs, users, batch.lengths, ages).flatten(0, 1).index_select(0, batch.positions)
        item_part, user_part = torch.split(hidden, [self.config.item_width, self.config.user_width], dim=-1)
        owners = self._scored_users(users).index_select(0, batch.positions // batch.items.shape[1])
        offset = (user_part * owners).sum(-1)
        loss = self.loss(item_part, scored, catalogue, batch, offset, self.repeats)
        if self.config.embedding_l2:
            squares = self.loss.squares(inputs, scored, catalogue, batch) + users.square().sum()
            loss = loss + self.config.embedding_l2 * squares
        return loss

    def hidden_states(self, vectors: Tensor, users: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, both widths).

        They are computed from item vectors (b, length, item_width), user vectors (b, user_width), lengths (b,) and ages
        (b, length).
        """
        out: Tensor = self.encoder(*self._encoder_inputs(vectors, users, lengths), ages)
        return out

    def _encoder_inputs(self, vectors: Tensor, users: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, length, both widths) of the encoder, and rows (b, length) of its position table."""
        width = vectors.shape[1]
        item_part = vectors * math.sqrt(self.config.item_width)
        user_part = (users * math.sqrt(self.config.user_width))[:, None].expand(-1, width, -1)
        return torch.cat([item_part, user_part], dim=-1), position_rows(lengths, width, self.config.max_length)

    def inputs(self, histories: Histories) -> HistoryInputs:
        """Return the users and the newest items of each history."""
        config = self.config
        return history_inputs(histories, config.max_length, config.time_bias, repeats=self.repeats is not None)

    def encode(self, inputs: HistoryInputs) -> Tensor:
        """Queries (n, item_width + 1): item part of the newest hidden state, and term of the user for every score."""
        users = self.users.of(inputs.users)
        newest = self.encoder.newest(*self._newest_arguments(inputs, users))
        item_part, user_part = newest.tensor_split([self.config.item_width], dim=-1)
        scored_users = self._scored_users(users)
        queries = torch.cat([item_part, (user_part * scored_users).sum(-1, keepdim=True)], dim=-1)
        return queries if self.repeats is None else self.repeats.queries(queries, inputs.repeated, inputs.features)

    def _scored_users(self, users: Tensor) -> Tensor:
        """User vectors (n, user_width) as they stand in the scores."""
        return users * math.sqrt(self.config.user_width) if self.config.scaled_user else users

    def attention(self, histories: Histories) -> Attention:
        """Attention of the newest item of each history, over its history and itself."""
        inputs = moved(self.inputs(histories), self.device)
        weights = self.encoder.weights(*self._newest_arguments(inputs, self.users.of(inputs.users)))
        return Attention(weights, histories.last(self.config.max_length).padded_positions(weights.shape[-1]))

    def _newest_arguments(self, inputs: HistoryInputs, users: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Arguments of `Encoder.newest`: inputs, rows of the position table, newest positions, and ages."""
        vectors, rows = self._encoder_inputs(self.items(inputs.items), users, inputs.lengths)
        return vectors, rows, inputs.lengths - 1, inputs.ages if self.config.time_bias else None

    def scores(self) -> ItemScores:
        """Products with the item vectors, plus the term of the user and the additions of repeats."""
        products = self.items.products(self.items.all(), offset=True)
        return products if self.repeats is None else AddedScores(products, self.config.item_width + 1)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, item_width)."""
        return self.items.all()


class SwappedExamples(NextItemExamples):
    """Next-item examples with random swaps of ids: stochastic shared embeddings."""

    def __init__(self, dataset: Dataset, config: SSEPT, loss: NextItemLoss, candidates: Int64 | None = None) -> None:
        super().__init__(
            dataset,
            config.max_length,
            loss,
            config.random_window,
            config.time_bias,
            targets=config.targets,
            repeats=bool(config.repeats),
            candidates=candidates,
        )
        self.config = config
        self.catalogue: Int64 = np.arange(1, dataset.n_items + 1) if candidates is None else candidates

    def batch(self, index: Int64, generator: np.random.Generator) -> NextItemBatch:
        """Return the windows at `index`, with users, inputs and targets swapped with their probabilities."""
        batch = super().batch(index, generator)
        if self.config.swap_together:
            return self._swapped_together(batch, generator)
        items = batch.items.flatten()
        inputs = torch.nonzero(items)[:, 0]
        real = _swap(items[inputs], self.config.swap_item, self.catalogue, generator)
        users = _swap(batch.users, self.config.swap_user, self.users, generator)
        targets = _swap(batch.targets, self.config.swap_target, self.catalogue, generator)
        repeats = batch.repeats.as_new(targets != batch.targets) if self.config.repeats else batch.repeats
        items = items.index_copy(0, inputs, real).view_as(batch.items)
        return batch._replace(users=users, items=items, targets=targets, repeats=repeats)

    def _swapped_together(self, batch: NextItemBatch, generator: np.random.Generator) -> NextItemBatch:
        """Swap as the authors' code does.

        One draw per position swaps the input and its target, for two items. An input that was swapped is also the
        target of the position before it, unless that was swapped itself.
        """
        items, n = batch.items.flatten(), len(batch.positions)
        swapped = torch.from_numpy(generator.random(n) < self.config.swap_item)
        drawn = torch.from_numpy(self.catalogue[generator.integers(0, len(self.catalogue), (2, n))])
        inputs = torch.where(swapped, drawn[0], items[batch.positions])
        newest = torch.zeros(n, dtype=torch.bool)
        newest[batch.lengths.cumsum(0) - 1] = True
        targets = torch.where(newest, batch.targets, inputs.roll(-1))
        return batch._replace(
            users=_swap(batch.users, self.config.swap_user, self.users, generator),
            items=items.index_copy(0, batch.positions, inputs).view_as(batch.items),
            targets=torch.where(swapped, drawn[1], targets),
        )


def _swap(codes: Tensor, probability: float, others: Int64, generator: np.random.Generator) -> Tensor:
    """Swap each of the codes (n,) with the given probability for one drawn uniformly from `others`."""
    swapped = generator.random(len(codes)) < probability
    drawn = others[generator.integers(0, len(others), len(codes))]
    return torch.where(torch.from_numpy(swapped), torch.from_numpy(drawn), codes)
