"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and improved versions of it.

The defaults differ from the paper, because newer settings perform better; `SASRec.as_published()` has those of the
paper. The differences and their sources:

- pre-norm blocks;
- a softmax over all items, or over shared negatives for large catalogues, instead of one negative (Klenitskiy &
  Vasilev, RecSys 2023; Petrov & Macdonald, RecSys 2023), with the logQ correction (Yi et al., RecSys 2019);
- normalised vectors with a temperature;
- all windows of a long history instead of the newest one.

Further options are off by default: gated residuals (LiGR, Borisyuk et al. 2025), attention biases by positions and
times (HSTU, Zhai et al., ICML 2024), negatives from the batch (Yang et al., WWW 2020), and a learnt temperature (CLIP,
Radford et al., ICML 2021), and a frequency branch beside the attention (BSARec, Shin et al., AAAI 2024).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.data.gaps import usual_gap
from segue.data.histories import Histories
from segue.models.base import Attention, ModelConfig, TrainableModel
from segue.models.features import FeatureNames
from segue.models.features import resolved as with_features
from segue.models.item_table import item_table
from segue.models.negatives import SMALL_CATALOGUE
from segue.models.next_item import (
    FORMERLY,
    SOFTMAXES,
    HistoryInputs,
    LossName,
    NextItemBatch,
    NextItemExamples,
    NextItemLoss,
    Targets,
    Windows,
    history_inputs,
    position_rows,
    why_whole,
)
from segue.models.repeats import PAIRS, Repeats, RepeatScores, check_repeats
from segue.models.repeats import resolved as with_repeats
from segue.models.scores import ItemScores
from segue.models.similarity import Similarity, check_learnt_temperature
from segue.nn.relative import Positions
from segue.nn.transformer import Encoder, FeedForwardKind, Norm, check_heads, initialise
from segue.settings import Count, Negatives, Penalty, Positive, Share, ShareBelowOne


@dataclass(frozen=True)
class SASRec(ModelConfig):
    """Causal transformer over the items of a user; the same item table scores the next item.

    Examples
    --------
    >>> config = segue.SASRec(width=32, max_length=20)
    >>> config.blocks, config.loss  # the loss is chosen by the size of the catalogue
    (2, None)
    >>> segue.SASRec.as_published().loss
    'bce'
    """

    name: ClassVar[str] = "sasrec"
    formerly: ClassVar[Mapping[str, Any]] = {
        **FORMERLY,
        "learn_temperature": False,
        "windows": "newest",
        "frequency": 0.0,
    }
    published_training: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "averaging": 0.0}

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
    negatives: Negatives = 512
    """Negatives: per position for bce and gbce, shared by the batch for sampled-softmax."""
    calibration: Share = 0.75
    """Calibration t of gBCE: 0 is plain BCE, 1 is fully calibrated."""
    similarity: Literal["dot", "cosine"] = "cosine"
    """Similarity of hidden states and item vectors; the cosine is divided by the temperature."""
    temperature: Positive = 0.07
    """Divisor of the cosine similarity."""
    learn_temperature: bool = False
    """Learn the temperature, between 0.01 and 1, starting at `temperature`."""
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
    frequency: ShareBelowOne = 0.0
    """Share of a low-pass filter over the history beside each attention, which keeps what is lasting; 0 for none."""
    feed_forward: FeedForwardKind = "relu"
    """Activation of the feed-forward layers: relu, gelu or swiglu."""
    inner_width: Count | None = None
    """Width inside the feed-forward layers; that of the hidden states when not given."""
    embedding_l2: Penalty = 0.0
    """L2 penalty on the item vectors that a batch reads: inputs, targets and negatives."""
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
        """Raise a ConfigError if the heads do not divide the width, or the temperature cannot be learnt."""
        check_heads(self.width, self.heads)
        check_repeats(self.repeats, self.loss, SOFTMAXES)
        if self.learn_temperature and self.similarity == "cosine":
            check_learnt_temperature(self.temperature)

    @classmethod
    def as_published(cls, width: int = 50, dropout: float = 0.5, max_length: int = 50) -> Self:
        """Return the settings of the paper: BCE with one negative, dot products, norm on the queries only."""
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
            repeats=False,
        )

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the loss chosen by the size of the catalogue, and repeats by their share."""
        chosen = self._for_catalogue(dataset.n_items)
        repeats = with_repeats(self.repeats, dataset, chosen.loss in SOFTMAXES)
        return replace(chosen, repeats=repeats, features=with_features(self.features, dataset))

    def why_whole(self) -> str | None:
        """Return the setting because of which the item table cannot be divided; None if it can be."""
        return why_whole(self.loss, self.features, self.repeats, self.embedding_l2)

    def build(self, n_users: int, n_items: int) -> SASRecModel:
        """Return a new module with random weights."""
        return SASRecModel(self._for_catalogue(n_items), n_users, n_items)

    def _for_catalogue(self, n_items: int) -> Self:
        return replace(self, loss=self.loss or ("softmax" if n_items <= SMALL_CATALOGUE else "sampled-softmax"))


class SASRecModel(TrainableModel):
    """Module of `SASRec`.

    x = E[items]·√width + P; blocks; final norm; score(i) = ⟨h, E[i]⟩ (without the factor √width), or cos(h, E[i]) /
    temperature.
    """

    config: SASRec

    def __init__(self, config: SASRec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        assert config.loss is not None
        self.max_history = None if config.repeats else config.max_length
        self.repeats_together = bool(config.repeats)
        self.items = item_table(n_items, config.width, config.features, config.own_dropout)
        self.reads_content = bool(config.features)
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
            config.frequency,
        )
        self.similarity = Similarity(config.similarity, config.temperature, config.learn_temperature)
        self.loss = NextItemLoss(
            config.loss,
            config.negatives,
            config.calibration,
            n_items,
            self.similarity,
            config.logq or bool(config.repeats),
            config.in_batch,
        )
        initialise(self)
        self.repeats = Repeats(n_items) if config.repeats else None

    def prepare(self, dataset: Dataset) -> None:
        """Store the usual time between two interactions and the content of the items, and begin the repeats."""
        if self.config.time_bias:
            self.encoder.gap.fill_(usual_gap(dataset))
        self.items.prepare(dataset)
        if self.repeats is not None:
            self.repeats.prepare(dataset)

    def examples(self, dataset: Dataset) -> NextItemExamples:
        """Return windows of the histories according to the settings."""
        config = self.config
        return NextItemExamples(
            dataset,
            config.max_length,
            self.loss,
            with_times=config.time_bias,
            windows=config.windows,
            targets=config.targets,
            repeats=self.repeats is not None,
            candidates=self.items.candidates(),
        )

    def rows_read(self, units: int, terms: int) -> dict[nn.Embedding, int]:
        """Rows of the item table: inputs, targets, negatives and items of the histories."""
        rows = self.loss.rows_read(terms)
        return {} if rows is None else {self.items: rows + (0 if self.repeats is None else PAIRS)}

    def forward(self, batch: NextItemBatch) -> Tensor:
        """Summed loss over all targets of the batch."""
        inputs, scored, catalogue = self.loss.look_up(self.items, batch)
        ages = batch.ages if self.config.time_bias else None
        states = self.hidden_states(inputs, batch.lengths, ages)
        hidden = states.flatten(0, 1).index_select(0, batch.positions)
        loss = self.loss(hidden, scored, catalogue, batch, repeats=self.repeats)
        if self.config.embedding_l2:
            loss = loss + self.config.embedding_l2 * self.loss.squares(inputs, scored, catalogue, batch)
        return loss

    def hidden_states(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors of that shape, with lengths (b,) and ages (b, length)."""
        out: Tensor = self.encoder(*self._encoder_inputs(vectors, lengths), ages)
        return out

    def _encoder_inputs(self, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, length, width) of the encoder, and rows (b, length) of its position table."""
        rows = position_rows(lengths, vectors.shape[1], self.config.max_length)
        return vectors * math.sqrt(self.config.width), rows

    def inputs(self, histories: Histories) -> HistoryInputs:
        """Return the newest items of each history."""
        config = self.config
        return history_inputs(histories, config.max_length, config.time_bias, repeats=self.repeats is not None)

    def encode(self, inputs: HistoryInputs) -> Tensor:
        """Hidden state (n, width) after the newest item of each history, ready for a product."""
        queries = self.similarity.query(self.encoder.newest(*self._newest_arguments(inputs)))
        return queries if self.repeats is None else self.repeats.queries(queries, inputs.repeated, inputs.features)

    def attention(self, histories: Histories) -> Attention:
        """Attention of the newest item of each history, over its history and itself."""
        inputs = self.inputs(histories).to(self.device)
        weights = self.encoder.weights(*self._newest_arguments(inputs))
        return Attention(weights, histories.last(self.config.max_length).padded_positions(weights.shape[-1]))

    def _newest_arguments(self, inputs: HistoryInputs) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Arguments of `Encoder.newest`: inputs, rows of the position table, newest positions, and ages."""
        vectors, rows = self._encoder_inputs(self.items(inputs.items), inputs.lengths)
        return vectors, rows, inputs.lengths - 1, inputs.ages if self.config.time_bias else None

    def scores(self) -> ItemScores:
        """Products with the item vectors, which are normalised once for cosines, plus the additions of repeats."""
        products = self.items.products(self.item_vectors())
        return products if self.repeats is None else RepeatScores(products, self.config.width)

    def item_vectors(self) -> Tensor:
        """Item vectors (n_items + 1, width), ready for a product."""
        return self.similarity.item(self.items.all())
