"""What attention may know of two items besides their vectors: how many places, and how much time, lie between them.

A learned number per head is added to the attention score of each pair, as in HSTU (Zhai et al., ICML 2024); there one
table serves all heads, here each head has its own. The time between two items is known when the later of them looks
back at the earlier; HSTU's program takes the time of the item *after* the later one, which is the target's own.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Positions = Literal["absolute", "relative", "both"]

BUCKETS = 64
"""Kinds of time between two items: at bucket 0 next to none, then each √2 times the one before."""
UNTIMED = BUCKETS
"""The bucket of items whose times are not known: its bias is 0."""
_PER_DOUBLING = 2
_OF_A_GAP = 16.25
"""Where in the buckets the usual gap stands: they reach from 1/270 of it to 15 million times it. A quarter off, since a
bucket's border must not lie on a multiple of the gap by a power of 2, which coarse times often are."""


def time_buckets(ages: Tensor, gap: Tensor) -> Tensor:
    """Buckets (b, length, length) int64 of the time from item j (last index) to item i; 0 where j is the later.

    Buckets are even in the logarithm and count in gaps, so the unit of the times does not matter.

    Parameters
    ----------
    ages
        (b, length) int64: how long before the newest item of its row each item came.
    gap
        () int64, 1 or more: the usual time from one item to the next, in the same unit.
    """
    between = (ages[:, None, :] - ages[:, :, None]).clamp_(min=0).float()
    buckets = between.log2_().sub_(gap.float().log2()).mul_(_PER_DOUBLING).add_(_OF_A_GAP)
    return buckets.clamp_(0, BUCKETS - 1).long()


class RelativeBias(nn.Module):
    """What is added to the attention scores of one block, by the places and the time between two items.

    Parameters
    ----------
    heads
        Each has numbers of its own; all begin at 0.
    max_length
        How many distances there are.
    positions, times
        Which of the two is there.
    """

    def __init__(self, heads: int, max_length: int, positions: bool, times: bool) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(heads, max_length)) if positions else None
        self.times = nn.Parameter(torch.zeros(heads, BUCKETS)) if times else None

    def forward(self, length: int, buckets: Tensor | None) -> Tensor | None:
        """(b or 1, heads, length, length): for item i (third index) looking at j; None if nothing is known.

        Parameters
        ----------
        length
            Items in a row.
        buckets
            (b, length, length), as of `time_buckets`; their part is 0 in bucket `UNTIMED`. None: it is 0 everywhere.
        """
        bias = None
        if self.positions is not None:
            steps = torch.arange(length, device=self.positions.device)
            bias = self.positions[:, (steps[:, None] - steps).clamp_(min=0)][None]
        if self.times is not None and buckets is not None:
            # By indexing: the gradient of an embedding is twenty times slower where so few rows are read so often.
            times = F.pad(self.times, (0, 1))[:, buckets].transpose(0, 1)
            bias = times if bias is None else bias + times
        return bias
