"""What models with user vectors share: who is known, and what stands in for everyone else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.data.ragged import Int64


class UserVectors(nn.Embedding):
    """A table (n_users + 1, width) of user vectors; someone who was not in training has the mean of those who were.

    Buffers
    -------
    known
        (n_users + 1,) bool: the users whose vectors were trained.
    """

    known: Tensor

    def __init__(self, n_users: int, width: int, sparse: bool = False) -> None:
        super().__init__(n_users + 1, width, sparse=sparse)
        self.register_buffer("known", torch.zeros(n_users + 1, dtype=torch.bool))

    def trained_on(self, users: Int64) -> None:
        """From now on these user codes (n,) are known."""
        self.known[torch.from_numpy(users).to(self.known.device)] = True

    def of(self, users: Tensor) -> Tensor:
        """Vectors (…, width) of user codes (…), known or not."""
        mean = self.weight[self.known].mean(0) if self.known.any() else self.weight[0]
        return torch.where(self.known[users][..., None], self(users), mean)
