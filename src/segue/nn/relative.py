"""Attention biases by the number of positions and by the time between two items.

A learned number per head is added to the attention score of each pair, as in HSTU (Zhai et al., ICML 2024). In HSTU one
table serves all heads; here each head has its own. The time between two items is known when the later item attends to
the earlier. The program of HSTU uses the time of the item *after* the later one instead, which is that of the target.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Positions = Literal["absolute", "relative", "both"]

BUCKETS = 64
"""Number of time buckets. Bucket 0 holds the shortest times; the times of each next bucket are √2 times longer."""
UNTIMED = BUCKETS
"""Bucket of items with unknown times; its bias is 0."""
_PER_DOUBLING = 2
_GAP_BUCKET = 16.25
"""Position of the usual gap on the scale of buckets, which reach from 1/270 of the gap to 15 million times the gap. The
quarter keeps the borders of the buckets away from the gap times powers of 2, which are frequent among coarse times."""


def time_buckets(ages: Tensor, gap: Tensor) -> Tensor:
    """Buckets (b, length, length) int64 of the time from item j (last index) to item i; 0 if j is later than i.

    Buckets are even in the logarithm of the time in gaps, so the unit of the times does not matter.

    Parameters
    ----------
    ages
        (b, length) int64 time from each item to the newest item of its row.
    gap
        () int64, 1 or more: usual time from one item to the next, in the same unit.
    """
    between = (ages[:, None, :] - ages[:, :, None]).clamp_(min=0).float()
    buckets = between.log2_().sub_(gap.float().log2()).mul_(_PER_DOUBLING).add_(_GAP_BUCKET)
    return buckets.clamp_(0, BUCKETS - 1).long()


class RelativeBias(nn.Module):
    """Biases on the attention scores of one block, by the positions and by the time between two items.

    Parameters
    ----------
    heads
        Number of heads; each has its own biases, which start at 0.
    max_length
        Number of distances between positions.
    positions, times
        Add biases by positions, by times, or by both.
    """

    def __init__(self, heads: int, max_length: int, positions: bool, times: bool) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(heads, max_length)) if positions else None
        self.times = nn.Parameter(torch.zeros(heads, BUCKETS)) if times else None

    def forward(self, length: int, buckets: Tensor | None) -> Tensor | None:
        """Biases (b or 1, heads, length, length) for item i (third index) attending to item j; None without biases.

        Parameters
        ----------
        length
            Number of items in a row.
        buckets
            (b, length, length) from `time_buckets`; bucket `UNTIMED` has bias 0. None if the times are not known.
        """
        bias = None
        if self.positions is not None:
            steps = torch.arange(length, device=self.positions.device)
            bias = self.positions[:, (steps[:, None] - steps).clamp_(min=0)][None]
        if self.times is not None and buckets is not None:
            # Indexing, because the gradient of an embedding is twenty times slower if few rows are read so often.
            times = F.pad(self.times, (0, 1))[:, buckets].transpose(0, 1)
            bias = times if bias is None else bias + times
        return bias
