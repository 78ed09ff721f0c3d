"""LRURec: linear recurrent units over the items of a user (Yue et al., WSDM 2024).

*Linear Recurrent Units for Sequential Recommendation*, on the units of Orvieto et al., *Resurrecting Recurrent Neural
Networks for Long Sequences* (ICML 2023). A unit has a complex decay for each of its channels,

    λ = exp(-exp(ν) + i exp(θ)),   hₜ = λ ⊙ hₜ₋₁ + γ ⊙ (B xₜ + b),   yₜ = norm(Re(C hₜ) + c + xₜ),

and a feed-forward with GELU and a norm follows it. |λ| is below 1 and starts between 0.8 and 0.99, which keeps the slow
part of a history. Without a nonlinear step between the states, all of them are computed at once: after k rounds a state
holds the newest 2ᵏ inputs, hₜ ← hₜ + λ^(2ᵏ) ⊙ hₜ₋₂ₖ with the states of the round before.

The authors double blocks of a left-padded history instead, and draw all weights from a truncated normal distribution.
Their scores have a bias for each item, which is left out here. Complex numbers are pairs of real ones, so that the
encoder exports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.models.sequence_model import CausalConfig, CausalModel, SequenceEncoder
from segue.nn.dropout import Dropout
from segue.nn.transformer import FeedForward
from segue.settings import Count

_SMALLEST, _LARGEST = 0.8, 0.99
"""Absolute values between which the decays start."""
_EPSILON = 1e-5


@dataclass(frozen=True)
class LRURec(CausalConfig):
    """Linear recurrent units over the items of a user (Yue et al., WSDM 2024).

    Examples
    --------
    >>> segue.LRURec(width=32).blocks
    2
    """

    name: ClassVar[str] = "lrurec"
    published_training: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "clip_norm": 5.0,
        "batch_size": 128,
        "averaging": 0.0,
    }

    inner_width: Count | None = None
    """Width inside the feed-forward layers; four times that of the hidden states when not given."""

    @classmethod
    def as_published(cls, width: int = 64, dropout: float = 0.2, max_length: int = 50) -> Self:
        """Return the settings of the authors' program: cross-entropy over all items, dot products."""
        return cls(
            width=width,
            dropout=dropout,
            max_length=max_length,
            loss="softmax",
            similarity="dot",
            repeats=False,
            transitions=False,
        )

    def build(self, n_users: int, n_items: int) -> LRURecModel:
        """Return a new module with random weights."""
        return LRURecModel(self.for_catalogue(n_items), n_users, n_items)


class LRURecModel(CausalModel):
    """Module of `LRURec`: x = norm(E[items]); blocks; score(i) = cos(h, E[i]) / temperature, or ⟨h, E[i]⟩."""

    config: LRURec

    def __init__(self, config: LRURec, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items, RecurrentEncoder(config))


class LinearRecurrence(nn.Module):
    """Linear recurrent unit with twice as many complex channels as the width; see the equations of the module.

    Parameters
    ----------
    width
        Width of inputs and outputs.
    max_length
        Largest number of items.

    Parameters of the module
    ------------------------
    decay, angle, scale
        (2 · width,) logarithms of -log |λ|, of the angle of λ, and of γ.
    """

    def __init__(self, width: int, max_length: int) -> None:
        super().__init__()
        channels = 2 * width
        self.rounds = math.ceil(math.log2(max_length)) if max_length > 1 else 0
        squares = torch.rand(channels) * (_LARGEST**2 - _SMALLEST**2) + _SMALLEST**2
        self.decay = nn.Parameter((-0.5 * squares.log()).log())
        self.angle = nn.Parameter((2 * math.pi * torch.rand(channels).clamp(min=1e-6)).log())
        self.scale = nn.Parameter(0.5 * (1 - squares).log())
        self.inner = nn.Linear(width, 2 * channels)
        self.outer = nn.Linear(2 * channels, width)

    def forward(self, x: Tensor) -> Tensor:
        """Re(C h) + c (b, length, width) for inputs of that shape, oldest first."""
        real, imaginary = (part * self.scale.exp() for part in self.inner(x).chunk(2, dim=-1))
        log_size, angle = -self.decay.exp(), self.angle.exp()
        for step in (1 << number for number in range(self.rounds)):
            size, turn = (step * log_size).exp(), step * angle
            a, b = size * turn.cos(), size * turn.sin()
            before_real, before_imaginary = _shifted(real, step), _shifted(imaginary, step)
            real, imaginary = (
                real + a * before_real - b * before_imaginary,
                imaginary + a * before_imaginary + b * before_real,
            )
        out: Tensor = self.outer(torch.cat([real, imaginary], dim=-1))
        return out


def _shifted(x: Tensor, step: int) -> Tensor:
    """Rows (b, length, channels) moved back by `step` positions, with zeros before the first."""
    return F.pad(x, (0, 0, step, 0))[:, : x.shape[1]]


class RecurrentBlock(nn.Module):
    """Linear recurrent unit and feed-forward, each with a norm after its residual.

    Parameters
    ----------
    width, max_length, inner, dropout
        Sizes; `inner` is the width inside the feed-forward.
    """

    def __init__(self, width: int, max_length: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.recurrence = LinearRecurrence(width, max_length)
        self.recurrence_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.feed_forward = FeedForward(width, inner, "gelu", dropout)
        self.feed_forward_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (b, length, width) to the same shape."""
        x = self.recurrence_norm(x + self.dropout(self.recurrence(x)))
        out: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return out


class RecurrentEncoder(SequenceEncoder):
    """Norm, dropout and blocks of LRURec.

    Parameters
    ----------
    config
        Settings of the model.
    """

    def __init__(self, config: LRURec) -> None:
        super().__init__()
        width, inner = config.width, config.inner_width or 4 * config.width
        self.input_norm = nn.LayerNorm(width, eps=_EPSILON)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            RecurrentBlock(width, config.max_length, inner, config.dropout) for _ in range(config.blocks)
        )

    def forward(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors; see `SequenceEncoder`. Times are not read."""
        x: Tensor = self.input_norm(self.dropout(vectors))
        for block in self.blocks:
            x = block(x)
        return x
