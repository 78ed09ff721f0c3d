"""PARSRec's attention: one query per session over the items of the basket."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segue.nn.transformer import EPSILON


class Composed(NamedTuple):
    """The maps of one attention block, multiplied out once per batch.

    With a single query per session, W_q and W_k meet only as W_kᵀ W_q, and W_v and W_o only as W_o W_v: neither keys
    nor values of the items are ever formed, and the attention reads the item vectors themselves. (A bias of the keys
    would add the same to every weight of a softmax, so there is none.)

    Attributes
    ----------
    asking
        (heads · item_width, query_width): the query as each head holds it against the item vectors, scaled.
    asking_bias
        (heads · item_width,).
    answering
        (query_width, heads · item_width): from what the heads gathered to the output.
    answering_bias
        (query_width,).
    """

    asking: Tensor
    asking_bias: Tensor
    answering: Tensor
    answering_bias: Tensor


class BasketAttention(nn.Module):
    """Attention of one query over the items of the basket, then LN(query + attention), then a linear map.

    Parameters
    ----------
    query_width, item_width, output_width
        Of the query, of the items (keys and values), and of what comes out.
    heads
        Divides `query_width`.
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
        """The maps, multiplied out."""
        heads, width = self.heads, self.key.in_features
        size = self.query.out_features // heads
        key = self.key.weight.view(heads, size, width).transpose(1, 2) / math.sqrt(size)
        asking = torch.bmm(key, self.query.weight.view(heads, size, -1)).flatten(0, 1)
        asking_bias = torch.bmm(key, self.query.bias.view(heads, size, 1)).flatten()
        outputs = self.output.weight.view(-1, heads, size).transpose(0, 1)
        answering = torch.bmm(outputs, self.value.weight.view(heads, size, width)).transpose(0, 1).flatten(1)
        return Composed(asking, asking_bias, answering, self.output(self.value.bias))

    def forward(
        self, query: Tensor, asked: Tensor, basket: Tensor, inside: Tensor, composed: Composed
    ) -> tuple[Tensor, Tensor]:
        """One step.

        Parameters
        ----------
        query
            (n, query_width).
        asked
            (n, heads · item_width): the query through `asking`.
        basket
            (n, length, item_width) item vectors.
        inside
            (n, length) bool: which of them are in the basket; at least one of each row.
        composed
            The maps.

        Returns
        -------
        (n, output_width), and the attention weights (n, heads, length).
        """
        # Products of such thin matrices are faster term by term than as one matrix product per session.
        fits = (asked.view(len(query), self.heads, 1, -1) * basket[:, None]).sum(-1)
        weights = fits.masked_fill(~inside[:, None], -torch.inf).softmax(-1)
        gathered = (weights[..., None] * basket[:, None]).sum(2).flatten(1)
        return self.finish(query, torch.addmm(composed.answering_bias, gathered, composed.answering.T)), weights

    def alone(self, query: Tensor, item: Tensor, composed: Composed) -> Tensor:
        """The same over one item (item_width,), which has all of the attention."""
        answer = torch.addmv(composed.answering_bias, composed.answering, item.repeat(self.heads))
        return self.finish(query, answer)

    def finish(self, query: Tensor, attention: Tensor) -> Tensor:
        """Residual, norm and linear map."""
        out: Tensor = self.linear(self.norm(query + attention))
        return out
