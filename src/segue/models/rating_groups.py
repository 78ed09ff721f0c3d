"""Ratings grouped by user or by item, in blocks of similar size, for one regression per user or item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from segue.data.ragged import Int64, offsets_of

_RATINGS = 1 << 16
"""Number of ratings whose factors are held at once, with padding."""


class RatingGroups:
    """Positions of the ratings of each owner, a user or an item.

    Parameters
    ----------
    owners
        (n,) int64 code of the owner of each rating.
    n_codes
        Number of codes of owners.

    Attributes
    ----------
    counts
        (n_codes,) int64 number of ratings of each owner.
    """

    def __init__(self, owners: Int64, n_codes: int) -> None:
        self._order = np.argsort(owners, kind="stable")
        self.counts = np.bincount(owners, minlength=n_codes)
        self._starts = offsets_of(self.counts)[:-1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Blocks of owners with similar numbers of ratings: codes (g,), and positions (g, most) of their ratings.

        The third array (g, most) is False at padding.
        """
        order = np.argsort(-self.counts, kind="stable")
        order = order[: np.count_nonzero(self.counts)]
        first = 0
        while first < len(order):
            most = int(self.counts[order[first]])
            codes = order[first : first + max(1, _RATINGS // most)]
            columns = np.arange(most)
            real = columns < self.counts[codes, None]
            positions = self._order[np.where(real, self._starts[codes, None] + columns, 0)]
            yield torch.from_numpy(codes), torch.from_numpy(positions), torch.from_numpy(real)
            first += len(codes)

    def normal_equations(self, design: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Σ d dᵀ (n_codes, width, width) and Σ d t (n_codes, width), over the ratings of each owner.

        Parameters
        ----------
        design
            (n, width) d of each rating.
        targets
            (n,) t of each rating.
        """
        width = design.shape[1]
        left, right = design.new_zeros(len(self.counts), width, width), design.new_zeros(len(self.counts), width)
        for codes, positions, real in self:
            rows = design[positions] * real[..., None]
            left[codes] = rows.mT @ rows
            right[codes] = (rows.mT @ (targets[positions] * real)[..., None])[..., 0]
        return left, right
