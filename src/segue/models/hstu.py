"""HSTU: hierarchical sequential transduction units (Zhai et al., ICML 2024).

*Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for Generative Recommendations*, equations 1
to 3, as in the authors' program for public data sets. A block is, for inputs X and each head,

    U, V, Q, K = split(SiLU(norm(X) W))
    A = SiLU(Q Kᵀ + bias of the positions + bias of the times) / n, for each item and the earlier ones
    X ← X + (U ⊙ norm(A V)) W₂ + b₂

There is no softmax, so that the sum of the weights can tell how much of the history speaks for something. n is
`max_length`; both norms have no weights. Five things differ from the program:

- each head has its own biases;
- the time between two items is known when the later one attends, while the program reads the time of its target;
- buckets of times are even in the logarithm of the usual gap, so that the unit of the times does not matter;
- linear maps start Xavier-uniform, as in SASRec, and not with a deviation of 0.02;
- the training has the windows and the loss of segue's other models by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.data.dataset import Dataset
from segue.models.next_item import position_rows
from segue.models.sequence_model import CausalConfig, CausalModel, SequenceEncoder
from segue.nn.dropout import Dropout
from segue.nn.relative import UNTIMED, Positions, RelativeBias, time_buckets
from segue.nn.transformer import check_heads
from segue.settings import Count

_EPSILON = 1e-6


@dataclass(frozen=True)
class HSTU(CausalConfig):
    """Pointwise attention with gates and biases by position and time (Zhai et al., ICML 2024).

    Examples
    --------
    >>> segue.HSTU(width=50, time_bias=False).heads
    1
    """

    name: ClassVar[str] = "hstu"
    published_training: ClassVar[Mapping[str, Any]] = {"batch_size": 128, "averaging": 0.0}

    heads: Count = 1
    """Attention heads; must divide the width."""
    positions: Positions = "both"
    """Positions: "absolute" (added to the inputs), "relative" (a bias in the attention) or "both"."""
    time_bias: bool | None = None
    """Add a bias to the attention by the time between two items. When not given, true if the Dataset has times."""

    @property
    def reads_times(self) -> bool:
        """True if the attention has a bias by times."""
        return bool(self.time_bias)

    def check(self) -> None:
        """Raise a ConfigError if the heads do not divide the width, or two settings do not go together."""
        check_heads(self.width, self.heads)
        super().check()

    @classmethod
    def as_published(cls, width: int = 50, dropout: float = 0.2, max_length: int = 200) -> Self:
        """Return the settings of the authors' program for MovieLens 1M (`hstu-sampled-softmax-n128-final.gin`)."""
        return cls(
            width=width,
            dropout=dropout,
            max_length=max_length,
            windows="newest",
            loss="sampled-softmax",
            negatives=128,
            logq=False,
            temperature=0.05,
            repeats=False,
            transitions=False,
        )

    def resolved(self, dataset: Dataset) -> Self:
        """Return the settings with the loss, the repeats and the bias by times chosen from the data."""
        timed = dataset.times is not None if self.time_bias is None else self.time_bias
        return replace(super().resolved(dataset), time_bias=timed)

    def build(self, n_users: int, n_items: int) -> HSTUModel:
        """Return a new module with random weights."""
        return HSTUModel(self.for_catalogue(n_items), n_users, n_items)


class HSTUModel(CausalModel):
    """Module of `HSTU`: x = E[items]·√width + P; blocks; score(i) = cos(h, E[i]) / temperature, or ⟨h, E[i]⟩."""

    config: HSTU

    def __init__(self, config: HSTU, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items, TransductionEncoder(config))


class TransductionUnit(nn.Module):
    """Block of HSTU: pointwise attention of each item to itself and to earlier items, with a gate.

    Parameters
    ----------
    width, heads
        Width of the vectors, which is split evenly over the heads.
    max_length
        Largest number of items, the divisor of the attention.
    dropout
        Dropout rate before the last map.
    bias
        Attention biases by positions and times.
    """

    def __init__(self, width: int, heads: int, max_length: int, dropout: float, bias: RelativeBias) -> None:
        super().__init__()
        self.heads, self.max_length = heads, max_length
        self.inner = nn.Linear(width, 4 * width, bias=False)
        self.outer = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.bias = bias

    def forward(self, x: Tensor, buckets: Tensor | None) -> Tensor:
        """Map x (b, length, width) to the same shape; buckets (b, length, length) are those of the times."""
        batch, length, width = x.shape
        gate, *parts = F.silu(self.inner(_normed(x))).chunk(4, dim=-1)
        shape = (batch, length, self.heads, width // self.heads)
        value, query, key = (part.reshape(shape).transpose(1, 2) for part in parts)
        scores = query @ key.transpose(2, 3)
        bias = self.bias(length, buckets)
        weights = (F.silu(scores if bias is None else scores + bias) / self.max_length).tril()
        mixed = (weights @ value).transpose(1, 2).reshape(x.shape)
        out: Tensor = x + self.outer(self.dropout(gate * _normed(mixed)))
        return out


class TransductionEncoder(SequenceEncoder):
    """Positions, dropout and blocks of HSTU.

    Absolute positions count back from the newest item, which always has the last row of the table.

    Parameters
    ----------
    config
        Settings of the model.
    """

    def __init__(self, config: HSTU) -> None:
        super().__init__()
        self.width, self.max_length = config.width, config.max_length
        self.positions = None if config.positions == "relative" else nn.Embedding(config.max_length, config.width)
        self.dropout = Dropout(config.dropout)

        def block() -> TransductionUnit:
            relative = config.positions != "absolute"
            bias = RelativeBias(config.heads, config.max_length, relative, config.reads_times)
            return TransductionUnit(config.width, config.heads, config.max_length, config.dropout, bias)

        self.blocks = nn.ModuleList(block() for _ in range(config.blocks))
        if config.reads_times:
            self.register_buffer("gap", torch.ones((), dtype=torch.int64))
        self.reads_times = config.reads_times

    def forward(self, vectors: Tensor, lengths: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (b, length, width) of item vectors; see `SequenceEncoder`."""
        x = vectors * math.sqrt(self.width)
        if self.positions is not None:
            x = x + self.positions(position_rows(lengths, x.shape[1], self.max_length))
        x = self.dropout(x)
        buckets = None
        if self.reads_times and ages is not None:
            buckets = torch.where(ages[:, :1, None] < 0, UNTIMED, time_buckets(ages, self.gap))
        for block in self.blocks:
            x = block(x, buckets)
        out: Tensor = x
        return out

    def fault(self) -> str | None:
        """A usual gap that is no time, in words; None if there is no fault."""
        wrong = self.reads_times and int(self.gap) < 1
        return f"the usual gap between interactions is {int(self.gap)}" if wrong else None


def _normed(x: Tensor) -> Tensor:
    """Vectors (…, width) with mean 0 and variance 1."""
    return F.layer_norm(x, x.shape[-1:], eps=_EPSILON)
