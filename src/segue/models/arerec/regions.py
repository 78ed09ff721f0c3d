"""The heart of ARERec: neighbours weighed for a user, and read region by region."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segue.models.arerec.neighbours import NOBODY, RatingBatch
from segue.nn.dropout import Dropout

Contexts = Literal["shared", "interaction"]

_STD = 0.01


class Read(NamedTuple):
    """What the neighbours say to each of u groups of c ratings.

    Attributes
    ----------
    regions
        (u, c, region_size) the strongest product of each region.
    decided
        (u, c, region_size) int64 column of the neighbour that it is of; that of nobody where an empty place decides.
    weights
        (u, heads, c, w) attention; without attention the same for all neighbours looked at.
    """

    regions: Tensor
    decided: Tensor
    weights: Tensor


class RegionAttention(nn.Module):
    """Local context units, attention over the neighbours, and the maximum over them in each region.

    With n_j the vector of neighbour j, e_u and e_i those of user and item, and K the local context units (region_size,
    width) of neighbour and item:

    - w_hj = softmax over j of ⟨W_q e_u, W_k n_j⟩ within head h, divided by √(width / heads);
    - n'_j = W_o [w_1j W_v1 n_j ; w_2j W_v2 n_j ; …], or n_j without attention;
    - region products: (K_iu n'_j) ⊙ (K_ui e_i), of which the maximum over j is taken in each region.

    Where fewer neighbours count than might, an empty place counts as 0 in the maximum, as published. What does not
    depend on the user is computed once: K_iu W_o W_vh n_j for each head, which the weights then add up.

    Parameters
    ----------
    width, heads, region_size
        Of the vectors, the attention and the local context units.
    contexts
        "shared": a local context unit for each user, as a neighbour, and for each item. "interaction": two for each
        rating of training, as published.
    rows
        Rows of the two tables K_iu and K_ui, the one of nobody included.
    attention
        Whether neighbours are weighed.
    limit
        How many neighbours count at most.
    dropouts
        Modules by what is dropped: k_ui, k_iu, neighbour_profile, item_profile, neighbour_rating.
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
        """New local context units, N(0, 0.01) as published; row 0 is that of nobody."""
        like, size = next(self.parameters(), torch.empty(0)), self.region_size * self.width
        # As modules, whose gradients several processes know to be sparse.
        self.k_iu, self.k_ui = (
            nn.Embedding(rows, size, sparse=True, _weight=like.new_empty(rows, size).normal_(std=_STD))
            for rows in (neighbour_rows, item_rows)
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """How many rows the two tables have: K_iu, K_ui."""
        return self.k_iu.num_embeddings, self.k_ui.num_embeddings

    def forward(self, batch: RatingBatch, users: Tensor, neighbours: Tensor, items: Tensor) -> Read:
        """Read the neighbours.

        Parameters
        ----------
        batch
            Says who is whose neighbour.
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
        said = self.dropouts["neighbour_rating"](profile * item[:, None])
        said = said.masked_fill(~batch.inside[..., None], -torch.inf)
        regions, decided = said.max(dim=2)
        empty = (batch.inside[:, :, 1:].sum(2) < self.limit)[..., None]
        held = empty & (regions < 0)
        return Read(regions.masked_fill(held, 0.0), decided.masked_fill(held, NOBODY), weights)

    def _profiles(self, batch: RatingBatch, neighbours: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """What a neighbour says (u, w, heads + 1, r), in each head and, last, at any weight; and of the item (u, w, r).

        The second is (u, 1, r) where the units of an item are shared by its neighbours.
        """
        said = self._answers(neighbours)
        if self.contexts == "shared":
            profiles = _along(self.dropouts["k_iu"](self._units(self.k_iu, batch.neighbours)), said)[batch.which]
            item = _along(self.dropouts["k_ui"](self._units(self.k_ui, batch.items)), items[:, None])
        else:
            profiles = _along(self.dropouts["k_iu"](self._units(self.k_iu, batch.contexts)), said[batch.which])
            item_units = self.dropouts["k_ui"](self._units(self.k_ui, batch.contexts))
            item = _along(item_units, items[:, None, None])[:, :, 0]
        return profiles, self.dropouts["item_profile"](item)

    def _answers(self, neighbours: Tensor) -> Tensor:
        """W_o W_vh n_j of each head, then the bias of W_o (m, heads + 1, width); n_j (m, 1, width) if unweighed."""
        if not self.attention:
            return neighbours[:, None]
        size = self.width // self.heads
        values = self.value(neighbours).view(-1, self.heads, size)
        concat = self.concat.weight.view(self.width, self.heads, size)
        always = self.concat.bias.expand(len(neighbours), 1, -1)
        return torch.cat([torch.einsum("mhe,dhe->mhd", values, concat), always], dim=1)

    def _units(self, table: nn.Embedding, rows: Tensor) -> Tensor:
        """Local context units (…, region_size, width); only the rows that are read get a gradient."""
        units: Tensor = table(rows)
        return units.view(*rows.shape, self.region_size, self.width)

    def _weights(self, batch: RatingBatch, users: Tensor, neighbours: Tensor) -> Tensor:
        """(u, heads, c, w): over those looked at they sum to 1."""
        if not self.attention:
            return (batch.inside / batch.inside.sum(2, keepdim=True))[:, None]
        n, c, width = users.shape
        size = width // self.heads
        queries = self.query(users).view(n, c, self.heads, size).transpose(1, 2)
        keys = self.key(neighbours)[batch.which].view(n, batch.which.shape[1], self.heads, size).permute(0, 2, 3, 1)
        logits = (queries @ keys) / math.sqrt(size)
        weights: Tensor = logits.masked_fill(~batch.inside[:, None], -torch.inf).softmax(dim=-1)
        return weights


def _along(units: Tensor, vectors: Tensor) -> Tensor:
    """(…, r, d) and (…, h, d) → (…, h, r)."""
    return vectors @ units.transpose(-1, -2)
