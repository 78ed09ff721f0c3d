"""Attention of PARSRec, with one query per session over the items of the basket."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segue.nn.transformer import EPSILON


class Composed(NamedTuple):
    """Linear maps of an attention block, multiplied together once per batch.

    With a single query per session, only the products W_kᵀ W_q and W_o W_v are needed. So the keys and values of the
    items are never computed, and the attention reads the item vectors themselves. The keys have no bias, because it
    would not change the softmax.

    Attributes
    ----------
    query_map
        (heads · item_width, query_width) scaled map from the query to its products with the item vectors, per head.
    query_bias
        (heads · item_width,) bias of the same map.
    output_map
        (query_width, heads · item_width) map from the weighted item vectors of the heads to the output.
    output_bias
        (query_width,) bias of the same map.
    """

    query_map: Tensor
    query_bias: Tensor
    output_map: Tensor
    output_bias: Tensor


class BasketGradient:
    """Gradient of the item vectors of baskets that many steps attend to, computed once for all steps.

    A step adds to the gradient of every item vector of every basket, though its weights are few: as many as heads. So
    its backward pass only notes them, and one product over all steps makes the gradient.
    """

    def __init__(self) -> None:
        self.noted: list[tuple[Tensor, Tensor]] = []

    def token(self, basket: Tensor) -> Tensor:
        """Scalar that stands for the vectors (n, length, width) as an argument of the steps."""
        token: Tensor = _Basket.apply(basket, self)  # type: ignore[no-untyped-call]
        return token

    def note(self, weights: Tensor, vectors: Tensor) -> None:
        """Note that Σⱼ weights[:, j, l] · vectors[:, j] is part of the gradient of item l.

        Weights are (n, j, length), vectors (n, j, width). The n baskets are the first ones, and never fewer than those
        of the note before.
        """
        self.noted.append((weights, vectors))

    def total(self, shape: torch.Size) -> Tensor:
        """The gradient of all notes, in this shape; the notes are removed."""
        total = self.noted[0][1].new_zeros(shape)
        while self.noted:
            n = len(self.noted[-1][0])
            alike = []
            while self.noted and len(self.noted[-1][0]) == n:
                alike.append(self.noted.pop())
            weights, vectors = (torch.cat(parts, dim=1) for parts in zip(*alike, strict=True))
            total[:n].baddbmm_(weights.transpose(1, 2), vectors)
        return total


class _Basket(torch.autograd.Function):
    """The token of a `BasketGradient`: its backward pass runs when those of all steps have."""

    @staticmethod
    def forward(ctx: Any, basket: Tensor, gradient: BasketGradient) -> Tensor:
        ctx.gradient, ctx.shape = gradient, basket.shape
        return basket.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, None]:
        return ctx.gradient.total(ctx.shape), None


class _Attend(torch.autograd.Function):
    """Attention of mapped queries (n, heads, width) over items (n, length, width): means (n, heads, width), weights."""

    @staticmethod
    def forward(
        ctx: Any, mapped: Tensor, token: Tensor, basket: Tensor, inside: Tensor, gradient: BasketGradient
    ) -> tuple[Tensor, Tensor]:
        weights = _weights(mapped, basket, inside)
        ctx.gradient = gradient
        ctx.save_for_backward(mapped, basket, weights)
        ctx.mark_non_differentiable(weights)
        return torch.bmm(weights, basket), weights

    @staticmethod
    def backward(ctx: Any, of_means: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        mapped, basket, weights = ctx.saved_tensors
        of_weights = torch.bmm(of_means, basket.transpose(1, 2))
        of_logits = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
        ctx.gradient.note(torch.cat([of_logits, weights], dim=1), torch.cat([mapped, of_means], dim=1))
        return torch.bmm(of_logits, basket), of_means.new_zeros(()), None, None, None


def _weights(mapped: Tensor, basket: Tensor, inside: Tensor) -> Tensor:
    """Attention weights (n, heads, length) of mapped queries (n, heads, width) over the items inside the baskets."""
    logits = torch.bmm(mapped, basket.transpose(1, 2))
    return logits.masked_fill(~inside[:, None], -torch.inf).softmax(-1)


class BasketAttention(nn.Module):
    """Attention of one query over the items of the basket, LN(query + attention), and a linear map.

    Parameters
    ----------
    query_width, item_width, output_width
        Widths of the query, of the items (keys and values) and of the result.
    heads
        Number of heads; must divide `query_width`.
    """

    def __init__(self, query_width: int, item_width: int, output_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(query_width, query_width)
        self.key = nn.Linear(item_width, query_width, bias=False)
        self.value = nn.Linear(item_width, query_width)
        self.output = nn.Linear(query_width, query_width)
        self.norm = nn.LayerNorm(query_width, eps=EPSILON)
        self.linear = nn.Linear(query_width, output_width)
        for layer in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(layer.weight)
        for biased in (self.query, self.value, self.output):
            nn.init.zeros_(biased.bias)

    def composed(self) -> Composed:
        """Multiply the maps together."""
        heads, width = self.heads, self.key.in_features
        size = self.query.out_features // heads
        key = self.key.weight.view(heads, size, width).transpose(1, 2) / math.sqrt(size)
        query_map = torch.bmm(key, self.query.weight.view(heads, size, -1)).flatten(0, 1)
        query_bias = torch.bmm(key, self.query.bias.view(heads, size, 1)).flatten()
        outputs = self.output.weight.view(-1, heads, size).transpose(0, 1)
        output_map = torch.bmm(outputs, self.value.weight.view(heads, size, width)).transpose(0, 1).flatten(1)
        return Composed(query_map, query_bias, output_map, self.output(self.value.bias))

    def forward(
        self,
        query: Tensor,
        mapped: Tensor,
        basket: Tensor,
        inside: Tensor,
        composed: Composed,
        gradient: tuple[BasketGradient, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend to the items of the baskets.

        Parameters
        ----------
        query
            (n, query_width) queries.
        mapped
            (n, heads · item_width) queries after `query_map`.
        basket
            (n, length, item_width) item vectors.
        inside
            (n, length) bool, True for items in the basket; at least one in each row.
        composed
            Linear maps of this block.
        gradient
            In training, what collects the gradient of the item vectors, and its token; the basket then has none.

        Returns
        -------
        Results (n, output_width), and attention weights (n, heads, length). With `gradient` the weights have none.
        """
        mapped = mapped.view(len(query), self.heads, -1)
        if gradient is None:
            weights = _weights(mapped, basket, inside)
            means = torch.bmm(weights, basket)
        else:
            collected, token = gradient
            with torch.autocast(mapped.device.type, enabled=False):
                means, weights = _Attend.apply(  # type: ignore[no-untyped-call]
                    mapped.to(basket.dtype), token, basket, inside, collected
                )
        attention = torch.addmm(composed.output_bias, means.flatten(1), composed.output_map.T)
        return self.finish(query, attention), weights

    def alone(self, query: Tensor, item: Tensor, composed: Composed) -> Tensor:
        """Attend to a single item (item_width,), which gets the whole attention."""
        attention = torch.addmv(composed.output_bias, composed.output_map, item.repeat(self.heads))
        return self.finish(query, attention)

    def finish(self, query: Tensor, attention: Tensor) -> Tensor:
        """Apply residual, norm and linear map."""
        out: Tensor = self.linear(self.norm(query + attention))
        return out
