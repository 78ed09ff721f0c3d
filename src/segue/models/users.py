"""User vectors of several models, with a mean vector for unknown users."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.data.ragged import Int64


class UserVectors(nn.Embedding):
    """Table (n_users + 1, width) of user vectors. Users who were not in training get the mean of those who were.

    Buffers
    -------
    known
        (n_users + 1,) bool, True for users with trained vectors.
    """

    known: Tensor
    mean: Tensor | None

    def __init__(self, n_users: int, width: int, sparse: bool = False) -> None:
        super().__init__(n_users + 1, width, sparse=sparse)
        self.register_buffer("known", torch.zeros(n_users + 1, dtype=torch.bool))
        self.register_buffer("mean", None, persistent=False)

    def trained_on(self, users: Int64) -> None:
        """Mark these user codes (n,) as known."""
        self.known[torch.from_numpy(users).to(self.known.device)] = True

    def of(self, users: Tensor) -> Tensor:
        """Vectors (…, width) of user codes (…), known or not."""
        mean = self._mean() if self.mean is None else self.mean
        return torch.where(self.known[users][..., None], self(users), mean)

    def settle(self) -> None:
        """Compute the mean once, for a model whose training has ended."""
        self.mean = self._mean()

    def _mean(self) -> Tensor:
        return self.weight[self.known].mean(0) if self.known.any() else self.weight[0]
