"""Causal self-attention encoder of SASRec and SSE-PT: as published, in pre-norm form, or with gated residuals.

A history starts in column 0 with its oldest item, and padding stands *behind* the newest item. So a causal mask is
enough: no item ever attends to padding, and the results at padding are never read.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.errors import ConfigError
from segue.nn.divided import DividedTable
from segue.nn.dropout import Dropout
from segue.nn.frequency import FrequencyBranch, between
from segue.nn.relative import UNTIMED, Positions, RelativeBias, time_buckets

Norm = Literal["paper", "pre", "ligr"]
FeedForwardKind = Literal["relu", "gelu", "swiglu"]

EPSILON = 1e-8


class FeedForward(nn.Module):
    """Position-wise feed-forward: two layers with an activation between, dropout after each.

    `relu` is SASRec's (Kang & McAuley 2018, equation 6); `swiglu` gates a linear map by the SiLU of another
    (Shazeer 2020).
    """

    def __init__(self, width: int, inner: int, kind: FeedForwardKind, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        self.inner = nn.Linear(width, 2 * inner if kind == "swiglu" else inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, width) to (…, width)."""
        if self.kind == "swiglu":
            gate, value = self.inner(x).chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.relu(self.inner(x)) if self.kind == "relu" else F.gelu(self.inner(x))
        out: Tensor = self.dropout(self.outer(self.dropout(hidden)))
        return out


class CausalAttention(nn.Module):
    """Multi-head scaled dot-product attention of each item to itself and to earlier items.

    Parameters
    ----------
    width, heads
        Width of the vectors, which is split evenly over the heads.
    dropout
        Dropout rate of the attention weights.
    output
        Add a linear map after the concatenated heads (SASRec has none).
    """

    def __init__(self, width: int, heads: int, dropout: float, output: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width) if output else nn.Identity()

    def forward(self, queries: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map queries and context (batch, length, width) to (batch, length, width).

        `bias` (batch or 1, heads, length, length) is added to the score of each query (third index) for each item.
        """
        batch, length, width = queries.shape
        shape = (batch, length, self.heads, width // self.heads)
        q = self.query(queries).view(shape).transpose(1, 2)  # (batch, heads, length, width / heads)
        k, v = (part.reshape(shape).transpose(1, 2) for part in self.key_value(context).chunk(2, dim=-1))
        if (self.training and self.dropout.rate and q.device.type == "cpu") or torch.compiler.is_exporting():
            mixed = self._attend(q, k, v, bias)
        else:
            rate = self.dropout.rate if self.training else 0.0
            mask = None if bias is None else bias.to(q.dtype).masked_fill(_future(length, q.device), float("-inf"))
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=rate, is_causal=mask is None)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return out

    def newest(
        self, queries: Tensor, context: Tensor, newest: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Result of `forward` at one position of each row, without dropout, and the attention weights there.

        Keys and values of the whole context are not needed. The key map is applied to the query, whose products with
        the context are the scores. The value map is applied to the weighted mean of the context.

        Parameters
        ----------
        queries
            (batch, width) queries of these positions.
        context, bias
            As in `forward`.
        newest
            (batch,) int64 positions of the queries; each attends to itself and to earlier positions.

        Returns
        -------
        mixed
            (batch, width).
        weights
            (batch, heads, length); over the length they sum to 1.
        """
        batch, length, width = context.shape
        size = width // self.heads
        keys, values = self.key_value.weight.view(2, self.heads, size, width)
        q = self.query(queries).view(batch, self.heads, size)
        # The bias of the keys adds the same to all scores of a row, which does not change the softmax.
        scores = torch.einsum("bhs,hsw->bhw", q, keys) @ context.transpose(1, 2) / math.sqrt(size)
        if bias is not None:
            rows = torch.arange(batch, device=context.device)
            scores = scores + bias.expand(batch, -1, -1, -1)[rows, :, newest]
        future = torch.arange(length, device=context.device) > newest[:, None]
        weights = scores.masked_fill(future[:, None], float("-inf")).softmax(-1)
        mixed = torch.einsum("bhw,hsw->bhs", weights @ context, values).reshape(batch, width)
        return self.output(mixed + self.key_value.bias[width:]), weights

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        """Attention step by step. torch's own is slower on a CPU with dropout of the weights, and longer in ONNX."""
        scores = (q @ k.transpose(2, 3)).div_(math.sqrt(q.shape[3]))
        if bias is not None:
            scores = scores + bias
        scores = scores.masked_fill_(_future(q.shape[2], q.device), float("-inf"))
        out: Tensor = self.dropout(scores.softmax(-1)) @ v
        return out


def _future(length: int, device: torch.device) -> Tensor:
    """Mask (length, length) bool: True if the second position is after the first."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)


class Block(nn.Module):
    """Transformer block.

    `norm="paper"`, as in the code of Kang & McAuley (2018): the query is the layer norm of the input. Keys and values
    come from the input itself, and the residual adds the *normed* query. The feed-forward reads the layer norm of this
    sum, and is added to it. `norm="pre"`: both sub-layers read a layer norm of their input and are added to the input
    itself, with an output projection after the heads. `norm="ligr"`: the same, with a gate on each sub-layer,
    x + σ(W x + b) ⊙ f(norm(x)) (LiGR, Borisyuk et al. 2025; also in eSASRec, Tikhonovich et al. 2025, with the
    feed-forward `swiglu`).

    With a share α of the frequency branch (BSARec, Shin et al., AAAI 2024), the attention's result A becomes
    (1 - α) A + α F, and F is the branch of the layer norm that the queries read. In the paper each of both has a
    residual and a norm of its own before they are weighed; here both share those of the block.

    Parameters
    ----------
    width, heads, inner, dropout, norm, feed_forward
        As in `Encoder`.
    bias
        Attention biases by positions and times, if any.
    frequency
        Share α of the frequency branch; 0 leaves it out.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        norm: Norm,
        feed_forward: FeedForwardKind,
        bias: RelativeBias | None = None,
        frequency: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = CausalAttention(width, heads, dropout, output=norm != "paper")
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = FeedForward(width, inner, feed_forward, dropout)
        self.dropout = Dropout(0.0 if norm == "paper" else dropout)
        self.attention_gate = nn.Linear(width, width) if norm == "ligr" else None
        self.feed_forward_gate = nn.Linear(width, width) if norm == "ligr" else None
        self.bias = bias
        self.frequency = frequency
        self.frequency_branch = FrequencyBranch(width) if frequency else None

    def forward(self, x: Tensor, buckets: Tensor | None = None) -> Tensor:
        """Map x (batch, length, width) to the same shape; buckets (batch, length, length) are those of the times."""
        normed = self.attention_norm(x)
        context = x if self.norm == "paper" else normed
        mixed = self.attention(normed, context, self._bias(x, buckets))
        if self.frequency_branch is not None:
            mixed = between(mixed, self.frequency_branch(normed).to(mixed.dtype), self.frequency)
        return self._after(x, normed, mixed)

    def newest(self, x: Tensor, newest: Tensor, buckets: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Result (batch, width) of `forward` at the positions `newest` (batch,), without dropout.

        The second result is the attention weights (batch, heads, length) of these positions.
        """
        rows = torch.arange(x.shape[0], device=x.device)
        own = x[rows, newest]
        if self.norm == "paper" and self.frequency_branch is None:
            normed, context = self.attention_norm(own), x
        else:
            every = self.attention_norm(x)
            normed, context = every[rows, newest], x if self.norm == "paper" else every
        mixed, weights = self.attention.newest(normed, context, newest, self._bias(x, buckets))
        if self.frequency_branch is not None:
            mixed = between(mixed, self.frequency_branch.newest(every, newest).to(mixed.dtype), self.frequency)
        return self._after(own, normed, mixed), weights

    def _after(self, x: Tensor, normed: Tensor, mixed: Tensor) -> Tensor:
        """Output of the block for the input x, its layer norm and the result of the attention, all (…, width)."""
        if self.norm == "paper":
            x = self.feed_forward_norm(normed + mixed)
            return x + self.feed_forward(x)  # type: ignore[no-any-return]
        x = x + _gated(self.attention_gate, x, self.dropout(mixed))
        return x + _gated(self.feed_forward_gate, x, self.feed_forward(self.feed_forward_norm(x)))

    def _bias(self, x: Tensor, buckets: Tensor | None) -> Tensor | None:
        return None if self.bias is None else self.bias(x.shape[1], buckets)


def _gated(gate: nn.Linear | None, x: Tensor, part: Tensor) -> Tensor:
    """Result `part` of a sub-layer with input x, times its gate if there is one."""
    return part if gate is None else gate(x).sigmoid() * part


class Encoder(nn.Module):
    """Encoder: positions, dropout, blocks and a final layer norm.

    Absolute positions count back from the newest item, which always has the last row of the table, as in the
    left-padded original.

    Parameters
    ----------
    width, max_length, blocks, heads, inner, dropout
        Sizes; `inner` is the width inside the feed-forward.
    norm, feed_forward
        Form of the blocks.
    positions
        "absolute": a table that is added to the inputs; "relative": a bias in every attention; or "both".
    time_bias
        Add a bias by the time between two items to every attention.
    frequency
        Share of the frequency branch beside every attention.

    Attributes
    ----------
    gap
        () int64 usual time from one item to the next, the unit of the time buckets; only with `time_bias`.
    """

    gap: Tensor

    def __init__(
        self,
        width: int,
        max_length: int,
        blocks: int,
        heads: int,
        inner: int,
        dropout: float,
        norm: Norm,
        feed_forward: FeedForwardKind,
        positions: Positions = "absolute",
        time_bias: bool = False,
        frequency: float = 0.0,
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.time_bias = time_bias
        self.positions = None if positions == "relative" else nn.Embedding(max_length, width)
        self.dropout = Dropout(dropout)
        relative = positions != "absolute"

        def block() -> Block:
            bias = RelativeBias(heads, max_length, relative, time_bias) if relative or time_bias else None
            return Block(width, heads, inner, dropout, norm, feed_forward, bias, frequency)

        self.blocks = nn.ModuleList(block() for _ in range(blocks))
        self.final_norm = nn.LayerNorm(width, eps=EPSILON)
        if time_bias:
            self.register_buffer("gap", torch.ones((), dtype=torch.int64))

    def fault(self) -> str | None:
        """A usual gap that is no time, in words; None if there is no fault."""
        wrong = self.time_bias and int(self.gap) < 1
        return f"the usual gap between interactions is {int(self.gap)}" if wrong else None

    def forward(self, x: Tensor, position_rows: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states of the same shape as x.

        Parameters
        ----------
        x
            (batch, length, width) inputs.
        position_rows
            (batch, length) int64 rows of the position table.
        ages
            (batch, length) int64 time from each item to the newest of its row; None if the times are not known.
        """
        x, buckets = self._start(x, position_rows, ages)
        for block in self.blocks:
            x = block(x, buckets)
        out: Tensor = self.final_norm(x)
        return out

    def newest(self, x: Tensor, position_rows: Tensor, newest: Tensor, ages: Tensor | None = None) -> Tensor:
        """Hidden states (batch, width) of `forward` at the positions `newest` (batch,), without dropout.

        The last block is computed only at these positions. Rows with negative ages have no times, so they get no bias
        by time. The other arguments are as in `forward`.
        """
        x, buckets = self._start(x, position_rows, ages)
        if buckets is not None and ages is not None:
            buckets = torch.where(ages[:, :1, None] < 0, UNTIMED, buckets)
        *earlier, last = self.blocks
        for block in earlier:
            x = block(x, buckets)
        out: Tensor = self.final_norm(last.newest(x, newest, buckets)[0])  # type: ignore[operator]
        return out

    def weights(self, x: Tensor, position_rows: Tensor, newest: Tensor, ages: Tensor | None = None) -> Tensor:
        """Attention weights (batch, blocks, heads, length) of the positions `newest` (batch,).

        The other arguments are as in `newest`.
        """
        x, buckets = self._start(x, position_rows, ages)
        if buckets is not None and ages is not None:
            buckets = torch.where(ages[:, :1, None] < 0, UNTIMED, buckets)
        weights = []
        for block in self.blocks:
            weights.append(block.newest(x, newest, buckets)[1])  # type: ignore[operator]
            x = block(x, buckets)
        return torch.stack(weights, dim=1)

    def _start(self, x: Tensor, position_rows: Tensor, ages: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Input of the first block, and the time buckets for all blocks."""
        buckets = time_buckets(ages, self.gap) if self.time_bias and ages is not None else None
        return self.dropout(x if self.positions is None else x + self.positions(position_rows)), buckets


def check_heads(width: int, heads: int) -> None:
    """Raise a ConfigError if the heads do not divide the width."""
    if width % heads:
        raise ConfigError(f"width={width} cannot be split evenly over heads={heads}.")


def initialise(module: nn.Module, deviation: float = 0.02) -> None:
    """Draw all weights: embeddings normal with the given deviation (row 0 too), linear maps Xavier-uniform.

    Biases are 0.
    """
    for part in module.modules():
        if isinstance(part, DividedTable):
            part.draw(partial(nn.init.normal_, std=deviation))
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=deviation)
        elif isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
