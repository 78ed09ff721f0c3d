"""Region attention of ARERec: neighbours weighted for a user, and compared region by region."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segue.models.arerec.neighbours import NO_NEIGHBOUR, RatingBatch
from segue.nn.dropout import Dropout

Contexts = Literal["shared", "interaction"]

_STD = 0.01


class RegionReading(NamedTuple):
    """Strongest neighbours in each region, for u groups of c ratings.

    Attributes
    ----------
    regions
        (u, c, region_size) strongest product of each region.
    decided
        (u, c, region_size) int64 column of the strongest neighbour; `NO_NEIGHBOUR` if a padding slot wins.
    weights
        (u, heads, c, w) attention weights; without attention all neighbours weigh the same.
    """

    regions: Tensor
    decided: Tensor
    weights: Tensor


class RegionAttention(nn.Module):
    """Local context units, attention over the neighbours, and the maximum over them in each region.

    Let n_j be the vector of neighbour j, e_u and e_i those of user and item, and K the local context units
    (region_size, width) of neighbour and item:

    - w_hj = softmax over j of ⟨W_q e_u, W_k n_j⟩ within head h, divided by √(width / heads);
    - n'_j = W_o [w_1j W_v1 n_j ; w_2j W_v2 n_j ; …], or n_j without attention;
    - region products: the maximum over j of (K_iu n'_j) ⊙ (K_ui e_i) in each region.

    With fewer neighbours than the limit, a padding slot counts as 0 in the maximum, as published. The parts that do not
    depend on the user, K_iu W_o W_vh n_j for each head, are computed once. The weights then add them up.

    Parameters
    ----------
    width, heads, region_size
        Width of the vectors, number of attention heads, and rows of a local context unit.
    contexts
        "shared": a local context unit for each user, as a neighbour, and for each item. "interaction": two for each
        rating of training, as published.
    rows
        Number of rows of the two tables K_iu and K_ui, with row 0.
    attention
        Weight the neighbours by attention.
    limit
        Largest number of neighbours.
    dropouts
        Dropout rates of k_ui, k_iu, neighbour_profile, item_profile and neighbour_rating.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        region_size: int,
        contexts: Contexts,
        rows: tuple[int, int],
        attention: bool,
        limit: int,
        dropouts: dict[str, float],
    ) -> None:
        super().__init__()
        self.heads, self.region_size, self.contexts, self.limit = heads, region_size, contexts, limit
        self.attention = attention
        if attention:
            self.query, self.key, self.value, self.concat = (nn.Linear(width, width) for _ in range(4))
        self.dropouts = nn.ModuleDict({name: Dropout(rate) for name, rate in dropouts.items()})
        self.width = width
        self.make_tables(*rows)

    def make_tables(self, neighbour_rows: int, item_rows: int) -> None:
        """Draw new local context units from N(0, 0.01), as published; row 0 is that of the empty neighbour."""
        like, size = next(self.parameters(), torch.empty(0)), self.region_size * self.width
        # Modules, so that several processes know that their gradients are sparse.
        self.k_iu, self.k_ui = (
            nn.Embedding(rows, size, sparse=True, _weight=like.new_empty(rows, size).normal_(std=_STD))
            for rows in (neighbour_rows, item_rows)
        )

    def keep_rows(self, stays: Tensor) -> None:
        """Keep only these rows (rows,) bool of both tables."""
        for table in (self.k_iu, self.k_ui):
            table.weight = nn.Parameter(table.weight.detach()[stays])
            table.num_embeddings = len(table.weight)

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of rows of the tables K_iu and K_ui."""
        return self.k_iu.num_embeddings, self.k_ui.num_embeddings

    def forward(self, batch: RatingBatch, users: Tensor, neighbours: Tensor, items: Tensor) -> RegionReading:
        """Compare the neighbours in each region.

        Parameters
        ----------
        batch
            Groups of ratings with their neighbours.
        users, neighbours, items
            (u, c, width), (m, width) and (u, width) vectors.
        """
        profiles, item = self._profiles(batch, neighbours, items)
        weights = self._weights(batch, users, neighbours)
        profile = profiles[:, None, :, -1]
        if self.attention:
            for head in range(self.heads):
                profile = profile + weights[:, head, :, :, None] * profiles[:, None, :, head]
        profile = self.dropouts["neighbour_profile"](profile)
        products = self.dropouts["neighbour_rating"](profile * item[:, None])
        products = products.masked_fill(~batch.inside[..., None], -torch.inf)
        regions, decided = products.max(dim=2)
        has_padding = (batch.inside[:, :, 1:].sum(2) < self.limit)[..., None]
        padding_wins = has_padding & (regions < 0)
        return RegionReading(
            regions.masked_fill(padding_wins, 0.0), decided.masked_fill(padding_wins, NO_NEIGHBOUR), weights
        )

    def _profiles(self, batch: RatingBatch, neighbours: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Region profiles of the neighbours (u, w, heads + 1, r) and of the items (u, w, r).

        The profiles of a neighbour are one per head and, last, one without weight. The item profiles are (u, 1, r) if
        all neighbours of an item share its units.
        """
        values = self._values(neighbours)
        if self.contexts == "shared":
            profiles = _along(self.dropouts["k_iu"](self._units(self.k_iu, batch.neighbours)), values)[
                batch.neighbour_index
            ]
            item = _along(self.dropouts["k_ui"](self._units(self.k_ui, batch.items)), items[:, None])
        else:
            profiles = _along(
                self.dropouts["k_iu"](self._units(self.k_iu, batch.contexts)), values[batch.neighbour_index]
            )
            item_units = self.dropouts["k_ui"](self._units(self.k_ui, batch.contexts))
            item = _along(item_units, items[:, None, None])[:, :, 0]
        return profiles, self.dropouts["item_profile"](item)

    def _values(self, neighbours: Tensor) -> Tensor:
        """W_o W_vh n_j of each head, then the bias of W_o (m, heads + 1, width); n_j (m, 1, width) if unweighted."""
        if not self.attention:
            return neighbours[:, None]
        size = self.width // self.heads
        values = self.value(neighbours).view(-1, self.heads, size)
        concat = self.concat.weight.view(self.width, self.heads, size)
        bias = self.concat.bias.expand(len(neighbours), 1, -1)
        return torch.cat([torch.einsum("mhe,dhe->mhd", values, concat), bias], dim=1)

    def _units(self, table: nn.Embedding, rows: Tensor) -> Tensor:
        """Local context units (…, region_size, width); only rows that are read get a gradient."""
        units: Tensor = table(rows)
        return units.view(*rows.shape, self.region_size, self.width)

    def _weights(self, batch: RatingBatch, users: Tensor, neighbours: Tensor) -> Tensor:
        """Attention weights (u, heads, c, w); they sum to 1 over the neighbours that a rating reads."""
        if not self.attention:
            return (batch.inside / batch.inside.sum(2, keepdim=True))[:, None]
        n, c, width = users.shape
        size = width // self.heads
        queries = self.query(users).view(n, c, self.heads, size).transpose(1, 2)
        keys = (
            self.key(neighbours)[batch.neighbour_index]
            .view(n, batch.neighbour_index.shape[1], self.heads, size)
            .permute(0, 2, 3, 1)
        )
        logits = (queries @ keys) / math.sqrt(size)
        weights: Tensor = logits.masked_fill(~batch.inside[:, None], -torch.inf).softmax(dim=-1)
        return weights


def _along(units: Tensor, vectors: Tensor) -> Tensor:
    """Products (…, h, r) of units (…, r, d) and vectors (…, h, d)."""
    return vectors @ units.transpose(-1, -2)
