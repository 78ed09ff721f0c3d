"""User vectors of several models, with a mean vector for unknown users."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segue.data.ragged import Int64
from segue.nn.divided import DividedTable, Division, current_division


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
        self._register(n_users)

    def _register(self, n_users: int) -> None:
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


class DividedUserVectors(DividedTable, UserVectors):
    """User vectors that are divided over processes (`DividedTable`); the known users are marked in every process."""

    def __init__(self, n_users: int, width: int, division: Division) -> None:
        DividedTable.__init__(self, n_users + 1, width, division)
        self._register(n_users)

    def whole(self, weight: Tensor) -> UserVectors:
        """Return the same table, whole, with this weight (n_users + 1, width)."""
        with torch.device("meta"):
            table = UserVectors(*weight[1:].shape)
        table.weight = nn.Parameter(weight)
        table._register(len(weight) - 1)
        table.known = self.known
        return table

    def _mean(self) -> Tensor:
        own = self.weight[self.known[self.codes.start : self.codes.stop]]
        number = int(self.known.sum())
        if number:
            return self.division.total(own.sum(0)) / number
        return self.division.total(self.weight[0].clone() if 0 in self.codes else own.sum(0))


def user_vectors(n_users: int, width: int) -> UserVectors:
    """Table of the vectors of a model's users, whole or divided (`dividing`)."""
    division = current_division()
    return UserVectors(n_users, width) if division is None else DividedUserVectors(n_users, width, division)
