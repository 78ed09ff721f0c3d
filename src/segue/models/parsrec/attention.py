"""Attention of PARSRec, with one query per session over the items of the basket."""

from __future__ import annotations

import math
from typing import NamedTuple

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
        self, query: Tensor, mapped: Tensor, basket: Tensor, inside: Tensor, composed: Composed
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

        Returns
        -------
        Results (n, output_width), and attention weights (n, heads, length).
        """
        logits = torch.bmm(mapped.view(len(query), self.heads, -1), basket.transpose(1, 2))
        weights = logits.masked_fill(~inside[:, None], -torch.inf).softmax(-1)
        means = torch.bmm(weights, basket).flatten(1)
        return self.finish(query, torch.addmm(composed.output_bias, means, composed.output_map.T)), weights

    def alone(self, query: Tensor, item: Tensor, composed: Composed) -> Tensor:
        """Attend to a single item (item_width,), which gets the whole attention."""
        attention = torch.addmv(composed.output_bias, composed.output_map, item.repeat(self.heads))
        return self.finish(query, attention)

    def finish(self, query: Tensor, attention: Tensor) -> Tensor:
        """Apply residual, norm and linear map."""
        out: Tensor = self.linear(self.norm(query + attention))
        return out
