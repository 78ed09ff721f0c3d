"""SASRec: self-attentive sequential recommendation (Kang & McAuley, ICDM 2018), and improved versions of it.

The defaults differ from the paper, because newer settings perform better; `SASRec.as_published()` has those of the
paper. The differences and their sources:

- pre-norm blocks;
- a softmax over all items, or over shared negatives for large catalogues, instead of one negative (Klenitskiy &
  Vasilev, RecSys 2023; Petrov & Macdonald, RecSys 2023), with the logQ correction (Yi et al., RecSys 2019);
- normalised vectors with a temperature;
- all windows of a long history instead of the newest one;
- a frequency branch beside the attention (BSARec, Shin et al., AAAI 2024);
- the counted transitions in the scores, where items have few interactions (Klakow, ICSLP 1998).

Further options are off by default: gated residuals (LiGR, Borisyuk et al. 2025), attention biases by positions and
times (HSTU, Zhai et al., ICML 2024), negatives from the batch (Yang et al., WWW 2020), and a learnt temperature (CLIP,
Radford et al., ICML 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor

from segue.data.histories import Histories
from segue.models.base import Attention
from segue.models.next_item import FORMERLY, HistoryInputs, position_rows
from segue.models.sequence_model import CausalConfig, CausalModel
from segue.nn.moving import moved
from segue.nn.relative import Positions
from segue.nn.transformer import Encoder, FeedForwardKind, Norm, check_heads
from segue.settings import Count, ShareBelowOne


@dataclass(frozen=True)
class SASRec(CausalConfig):
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
        "transitions": False,
    }
    published_training: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "averaging": 0.0}

    dropout: ShareBelowOne = 0.3
    """Dropout of inputs, attention weights and feed-forward layers."""
    heads: Count = 1
    """Attention heads; must divide the width."""
    norm: Norm = "pre"
    """Layer norms of a block: "paper" (queries only), "pre" (inputs), or "ligr" (pre, with gated residuals)."""
    positions: Positions = "absolute"
    """Positions: "absolute" (added to the inputs), "relative" (a bias in the attention) or "both"."""
    time_bias: bool = False
    """Add a bias to the attention by the time between two items; training needs times."""
    frequency: ShareBelowOne = 0.7
    """Share of a low-pass filter over the history beside each attention, which keeps what is lasting; 0 for none."""
    feed_forward: FeedForwardKind = "relu"
    """Activation of the feed-forward layers: relu, gelu or swiglu."""
    inner_width: Count | None = None
    """Width inside the feed-forward layers; that of the hidden states when not given."""

    @property
    def reads_times(self) -> bool:
        """True if the attention has a bias by times."""
        return self.time_bias

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the width, or two settings do not go together."""
        check_heads(self.width, self.heads)
        super().check()

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
            frequency=0.0,
            repeats=False,
            transitions=False,
        )

    def build(self, n_users: int, n_items: int) -> SASRecModel:
        """Return a new module with random weights."""
        return SASRecModel(self.for_catalogue(n_items), n_users, n_items)


class SASRecModel(CausalModel):
    """Module of `SASRec`.

    x = E[items]·√width + P; blocks; final norm; score(i) = ⟨h, E[i]⟩ (without the factor √width), or cos(h, E[i]) /
    temperature.
    """

    config: SASRec
    encoder: Encoder

    def __init__(self, config: SASRec, n_users: int, n_items: int) -> None:
        encoder = Encoder(
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
        super().__init__(config, n_users, n_items, encoder)

    def hidden_states(self, vectors: Tensor, items: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors of that shape, with lengths (b,) and ages (b, length)."""
        out: Tensor = self.encoder(*self._encoder_inputs(vectors, lengths), ages)
        return out

    def _encoder_inputs(self, vectors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (b, length, width) of the encoder, and rows (b, length) of its position table."""
        rows = position_rows(lengths, vectors.shape[1], self.config.max_length)
        return vectors * math.sqrt(self.config.width), rows

    def newest_states(self, inputs: HistoryInputs) -> Tensor:
        """Hidden states (n, width) after the newest item of each history."""
        return self.encoder.newest(*self._newest_arguments(inputs))

    def attention(self, histories: Histories) -> Attention:
        """Attention of the newest item of each history, over its history and itself."""
        inputs = moved(self.inputs(histories), self.device)
        weights = self.encoder.weights(*self._newest_arguments(inputs))
        return Attention(weights, histories.last(self.config.max_length).padded_positions(weights.shape[-1]))

    def _newest_arguments(self, inputs: HistoryInputs) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Arguments of `Encoder.newest`: inputs, rows of the position table, newest positions, and ages."""
        vectors, rows = self._encoder_inputs(self.items(inputs.items), inputs.lengths)
        return vectors, rows, inputs.lengths - 1, inputs.ages if self.config.time_bias else None
