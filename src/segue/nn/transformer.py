"""The causal self-attention encoder of SASRec and SSE-PT, as published and in the pre-norm form.

Histories stand oldest first from column 0, with padding *behind* the newest item. A causal mask is then all that is
needed: no item ever looks at padding, and what is computed at padding is never read.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segue.errors import ConfigError
from segue.nn.dropout import Dropout

Norm = Literal["paper", "pre"]
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
        """x (…, width) → (…, width)."""
        if self.kind == "swiglu":
            gate, value = self.inner(x).chunk(2, dim=-1)
            hidden = F.silu(gate) * value
        else:
            hidden = F.relu(self.inner(x)) if self.kind == "relu" else F.gelu(self.inner(x))
        out: Tensor = self.dropout(self.outer(self.dropout(hidden)))
        return out


class CausalAttention(nn.Module):
    """Multi-head scaled dot-product attention in which an item sees itself and what came before.

    Parameters
    ----------
    width, heads
        `width` is split evenly over `heads`.
    dropout
        On the attention weights.
    output
        Whether a linear map follows the concatenated heads (SASRec has none).
    """

    def __init__(self, width: int, heads: int, dropout: float, output: bool) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = Dropout(dropout)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width) if output else nn.Identity()

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """queries, context (batch, length, width) → (batch, length, width)."""
        batch, length, width = queries.shape
        shape = (batch, length, self.heads, width // self.heads)
        q = self.query(queries).view(shape).transpose(1, 2)  # (batch, heads, length, width / heads)
        k, v = (part.reshape(shape).transpose(1, 2) for part in self.key_value(context).chunk(2, dim=-1))
        if self.training and self.dropout.rate and q.device.type == "cpu":
            mixed = self._attend(q, k, v)
        else:
            rate = self.dropout.rate if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return out

    def weights(self, queries: Tensor, context: Tensor, newest: Tensor) -> Tensor:
        """What `forward` weighs the context with at one place, which the fused kernel does not give back.

        Parameters
        ----------
        queries, context
            (batch, length, width), as of `forward`.
        newest
            (batch,) int64: the place that looks; it sees itself and what came before.

        Returns
        -------
        (batch, heads, length); over the length they sum to 1.
        """
        batch, length, width = context.shape
        size = width // self.heads
        rows = torch.arange(batch, device=context.device)
        q = self.query(queries[rows, newest]).view(batch, self.heads, 1, size)
        k = self.key_value(context)[..., :width].view(batch, length, self.heads, size).transpose(1, 2)
        scores = (q @ k.transpose(2, 3)).squeeze(2) / math.sqrt(size)
        future = torch.arange(length, device=context.device) > newest[:, None]
        out: Tensor = scores.masked_fill(future[:, None], float("-inf")).softmax(-1)
        return out

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention step by step: torch's own is slower on a CPU when the weights are dropped out."""
        length = q.shape[2]
        future = torch.ones(length, length, dtype=torch.bool).triu_(1)
        scores = (q @ k.transpose(2, 3)).div_(math.sqrt(q.shape[3])).masked_fill_(future, float("-inf"))
        out: Tensor = self.dropout(scores.softmax(-1)) @ v
        return out


class Block(nn.Module):
    """One transformer block.

    `norm="paper"`, as in the code of Kang & McAuley (2018): the query is the layer-normed input, keys and values
    come from the input as it is, and the residual adds the *normed* query; the feed-forward reads, and is added to,
    the layer norm of that. `norm="pre"`: both sub-layers read a layer norm of their input and are added to the input
    itself, with an output projection after the heads.
    """

    def __init__(
        self, width: int, heads: int, inner: int, dropout: float, norm: Norm, feed_forward: FeedForwardKind
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention_norm = nn.LayerNorm(width, eps=EPSILON)
        self.attention = CausalAttention(width, heads, dropout, output=norm == "pre")
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPSILON)
        self.feed_forward = FeedForward(width, inner, feed_forward, dropout)
        self.dropout = Dropout(dropout if norm == "pre" else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, length, width) → (batch, length, width)."""
        normed = self.attention_norm(x)
        if self.norm == "paper":
            x = self.feed_forward_norm(normed + self.attention(normed, x))
            return x + self.feed_forward(x)  # type: ignore[no-any-return]
        x = x + self.dropout(self.attention(normed, normed))
        return x + self.feed_forward(self.feed_forward_norm(x))  # type: ignore[no-any-return]

    def weights(self, x: Tensor, newest: Tensor) -> Tensor:
        """x (batch, length, width) → attention weights (batch, heads, length) of the places `newest` (batch,)."""
        normed = self.attention_norm(x)
        found: Tensor = self.attention.weights(normed, x if self.norm == "paper" else normed, newest)
        return found


class Encoder(nn.Module):
    """Positions, dropout, blocks and a final layer norm.

    Positions count back from the newest item: it always has the last row of the table, as in the left-padded original.
    """

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
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.positions = nn.Embedding(max_length, width)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, inner, dropout, norm, feed_forward) for _ in range(blocks))
        self.final_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """x (batch, length, width) inputs, places (batch, length) int64 rows of the position table → like x."""
        x = self.dropout(x + self.positions(places))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.final_norm(x)
        return out

    def weights(self, x: Tensor, places: Tensor, newest: Tensor) -> Tensor:
        """x and places as in `forward` → attention weights (batch, blocks, heads, length) of the places `newest`
        (batch,)."""
        x = self.dropout(x + self.positions(places))
        found = []
        for block in self.blocks:
            found.append(block.weights(x, newest))  # type: ignore[operator]
            x = block(x)
        return torch.stack(found, dim=1)


def check_sizes(width: int, heads: int, blocks: int, max_length: int, dropout: float) -> None:
    """Raise a ConfigError when an encoder of these sizes cannot be."""
    for name, value in (("width", width), ("heads", heads), ("blocks", blocks), ("max_length", max_length)):
        if value < 1:
            raise ConfigError(f"{name}={value}: expected 1 or more.")
    if width % heads:
        raise ConfigError(f"width={width} cannot be split evenly over heads={heads}.")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout={dropout}: expected a share from 0 up to, not including, 1.")


def initialise(module: nn.Module, deviation: float = 0.02) -> None:
    """Draw all weights anew: embeddings normal with the given deviation (row 0 too), linear maps Xavier-uniform,
    biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=deviation)
        elif isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
