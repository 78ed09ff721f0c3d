"""Baselines that rank the most popular items for every user: of all time, or recent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import positions
from segue.models.base import CountingModel, ModelConfig
from segue.models.scores import ProductScores
from segue.settings import Positive


@dataclass(frozen=True)
class Popularity(ModelConfig):
    """Most popular: the score of an item is its share of all interactions, the same for every user.

    Examples
    --------
    >>> split = segue.last_session_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.Popularity(), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    name: ClassVar[str] = "popularity"

    def build(self, n_users: int, n_items: int) -> PopularityModel:
        """An empty module; `count` fills it."""
        return PopularityModel(self, n_users, n_items)


@dataclass(frozen=True)
class RecentPopularity(ModelConfig):
    """Most popular recently: like `Popularity`, but older interactions have less weight.

    The age of an interaction is the share of all interactions after it, from 0 (the newest) to almost 1 (the oldest).
    So bursts, pauses, stray dates and the unit of time do not matter. The weight is 2^(-age / half_life). In a log
    without times the order between users is unknown; the age is then the share of the user's own interactions after it.

    Examples
    --------
    >>> split = segue.leave_last_out(segue.simulate(40, 6).dataset())
    >>> recommender = segue.fit(segue.RecentPopularity(), split)
    >>> recommender.recommend(7, k=3)["rank"].to_list()
    [1, 2, 3]
    """

    half_life: Positive = 0.1
    """Age at which an interaction weighs half as much as the newest, as a share of all interactions."""

    name: ClassVar[str] = "recent-popularity"

    def build(self, n_users: int, n_items: int) -> PopularityModel:
        """An empty module; `count` fills it."""
        return PopularityModel(self, n_users, n_items)


class PopularityInputs(NamedTuple):
    """Inputs of n histories; only their number matters.

    Attributes
    ----------
    ones
        (n, 1) float32, all 1.
    """

    ones: Tensor


class PopularityModel(CountingModel):
    """One score per item, the same for every user.

    Buffers
    -------
    shares
        (n_items + 1,) float32 share of each item in the (weighted) interactions; they sum to 1, and code 0 has 0.
    """

    max_history = 1
    counting_scores = True
    shares: Tensor

    def __init__(self, config: Popularity | RecentPopularity, n_users: int, n_items: int) -> None:
        super().__init__(config, n_users, n_items)
        self.half_life = config.half_life if isinstance(config, RecentPopularity) else None
        self.register_buffer("shares", torch.zeros(n_items + 1))

    def fault(self) -> str | None:
        """Shares below 0."""
        return "shares holds numbers below 0" if bool((self.shares < 0).any()) else None

    def count(self, dataset: Dataset) -> None:
        """Count the visible interactions, weighted by age if the config says so."""
        if self.half_life is None:
            self.shares.copy_(torch.from_numpy(popularity(dataset)))
        else:
            visible = dataset.compact()
            weights = np.exp2(-_ages(visible) / self.half_life)
            counts = np.bincount(visible.items, weights, minlength=self.n_items + 1)
            self.shares.copy_(torch.from_numpy(_shares(counts)))

    def inputs(self, histories: Histories) -> PopularityInputs:
        """Return a factor 1 per history."""
        return PopularityInputs(torch.ones((len(histories), 1)))

    def encode(self, inputs: PopularityInputs) -> Tensor:
        """Return the factors (n, 1)."""
        return inputs.ones

    def scores(self) -> ProductScores:
        """Shares, the same in every row."""
        return ProductScores(self.shares[:, None])


def popularity(dataset: Dataset) -> npt.NDArray[np.float32]:
    """Share (n_items + 1,) float32 of each item in the visible interactions; 0 for code 0."""
    return _shares(dataset.item_counts())


def _shares(counts: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    shares: npt.NDArray[np.float32] = (counts / max(float(counts.sum()), 1e-300)).astype(np.float32)
    return shares


def _ages(visible: Dataset) -> npt.NDArray[np.float64]:
    """Age of each interaction of a compact Dataset: the share of interactions after it, of all or of the user's own."""
    if visible.times is not None:
        ordered = np.sort(visible.times)
        after = len(ordered) - np.searchsorted(ordered, visible.times, side="right")
        return after / max(len(ordered), 1)
    after = np.repeat(visible.ends, visible.lengths) - 1 - positions(visible.starts, visible.ends)
    ages: npt.NDArray[np.float64] = after / np.repeat(visible.lengths, visible.lengths)
    return ages
