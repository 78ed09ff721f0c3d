"""TIFU-KNN: personal item frequencies with decay within and between groups of baskets, and those of similar users.

Hu, He, Gao & Zhang, *Modeling Personalized Item Frequency Information for Next-basket Recommendation* (SIGIR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.ragged import Int64
from segue.models.base import ModelConfig
from segue.models.popularity import popularity
from segue.models.sparse import (
    BasketInputs,
    Floats,
    SparseModel,
    add_into,
    baskets_of,
    csr,
    histories_of_all,
    mean_entries,
    nearest,
)
from segue.settings import Count, Positive, ShareAboveZero, between

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class TIFUKNN(ModelConfig):
    """TIFU-KNN: decayed item frequencies of the user, mixed with those of the nearest users.

    The baskets of a history are grouped from the newest on, `group_size` in each; the oldest group may have fewer. With
    k groups, the vector of a user is the sum over the groups, the g-th newest from 0,

    v = Σ_g group_decay^g · (Σ_j within_decay^j · basket_j / size of the group) / k

    with the j-th newest basket of the group from 0, as a vector of zeros and ones. The score is

    alpha · v + (1 - alpha) · mean of the vectors of the nearest users + smoothing · popularity

    where users are near by the Euclidean distance of their vectors. Popularity only orders items that neither the user
    nor a neighbour has. A session is a basket; without sessions each interaction is one. The defaults are those
    of the paper's program for Ta-Feng, which `as_published` gives, except alpha: 0.3 was chosen on a validation part of
    The Complete Journey.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.TIFUKNN(neighbours=10), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    neighbours: Count = 300
    """Number of nearest users."""

    group_size: Count = 7
    """Number of baskets in a group."""

    within_decay: ShareAboveZero = 0.9
    """Weight of a basket relative to the next one in its group."""

    group_decay: ShareAboveZero = 0.7
    """Weight of a group relative to the next one."""

    alpha: Annotated[float, between(0, 1)] = 0.3
    """Share of the user's own vector in the score; the rest is that of the neighbours."""

    smoothing: Positive = 1e-4
    """Weight of popularity, which orders items without any other score."""

    name: ClassVar[str] = "tifu-knn"

    @classmethod
    def as_published(cls) -> Self:
        """The setting of the paper's program for the Ta-Feng data."""
        return cls(neighbours=300, group_size=7, within_decay=0.9, group_decay=0.7, alpha=0.7)

    def build(self, n_users: int, n_items: int) -> TIFUKNNModel:
        """An empty module; `count` fills it."""
        return TIFUKNNModel(self, n_users, n_items)


class TIFUKNNModel(SparseModel):
    """Vectors of the users of the fit, and popularity.

    Buffers
    -------
    vectors_values, vectors_columns, vectors_offsets
        Sparse (n_users + 1, n_items + 1) vectors of the users; empty for users without history.
    shares
        (n_items + 1,) float32 popularity.
    usual_length
        () float32 mean number of distinct items of a history of the fit.
    """

    config: TIFUKNN
    shares: Tensor
    usual_length: Tensor
    reads_both = ("vectors",)

    def __init__(self, config: TIFUKNN, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.add_matrix("vectors", n_users + 1, n_items + 1)
        self.register_buffer("shares", torch.zeros(n_items + 1))
        self.register_buffer("usual_length", torch.ones(()))
        self._squares: Floats | None = None

    def count(self, dataset: Dataset) -> None:
        """Make the vectors of all users from their visible histories."""
        everyone = np.arange(self.n_users + 1)
        vectors = self._vectors(BasketInputs(everyone, *baskets_of(histories_of_all(dataset))))
        self.usual_length.fill_(mean_entries(vectors))
        self.set_matrix("vectors", vectors)
        self.set_buffer("shares", popularity(dataset))

    def rows_of_scores(self, inputs: BasketInputs) -> Floats:
        """Mix the vectors of the histories with those of the nearest users."""
        own = self._vectors(inputs)
        chosen = self._nearest(own, inputs.users)
        counts = np.maximum(chosen.sum(1, keepdims=True), 1)
        weights = np.multiply(chosen, ((1 - self.config.alpha) / counts).astype(np.float32))
        scores = self.times(weights, "vectors", self.config.neighbours)
        scores += self.config.smoothing * self.shares.cpu().numpy()
        own.data *= self.config.alpha
        return add_into(scores, own)

    def settle(self) -> None:
        """Make the matrices and the squared lengths of the vectors once."""
        super().settle()
        self._squares = self._squared_lengths()

    def _nearest(self, own: csr_matrix, users: Int64) -> npt.NDArray[np.bool_]:
        """Mask (n, n_users + 1) of the nearest other users of the vectors (n, n_items + 1)."""
        squares = self._squared_lengths() if self._squares is None else self._squares
        distances = self.times_transposed(own, "vectors", float(self.usual_length))
        distances *= -2
        distances += squares
        known = np.flatnonzero(users)
        distances[known, users[known]] = np.inf
        return nearest(distances, self.config.neighbours)

    def _squared_lengths(self) -> Floats:
        """Squared lengths (n_users + 1,) of the vectors of the users; infinite for users without history."""
        vectors = self.matrix("vectors")
        rows = np.repeat(np.arange(vectors.shape[0]), np.diff(vectors.indptr))
        squares = np.bincount(rows, vectors.data.astype(np.float64) ** 2, minlength=vectors.shape[0])
        return np.where(np.diff(vectors.indptr) > 0, squares, np.inf).astype(np.float32)

    def _vectors(self, inputs: BasketInputs) -> csr_matrix:
        """Sparse vectors (n, n_items + 1) of n histories."""
        size = self.config.group_size
        group, place = np.divmod(inputs.later, size)
        groups = -(-inputs.counts // size)
        in_oldest = inputs.counts - size * (groups - 1)
        lengths = np.where(group == groups[inputs.rows] - 1, in_oldest[inputs.rows], size)
        weights = self.config.group_decay ** group.astype(np.float64)
        weights *= self.config.within_decay ** place.astype(np.float64)
        weights /= lengths * groups[inputs.rows]
        return csr(weights, inputs.rows, inputs.items, (len(inputs.users), self.n_items + 1))
