"""Small random baskets, as a Dataset and as plain lists, for the models that count them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.inference.scorer import Scorer
from segue.models.base import CountingModel, ModelConfig

DAY = 86_400
N_USERS, N_ITEMS = 23, 15


@dataclass(frozen=True)
class World:
    """Baskets of each user, oldest first, with the day of each; items are codes."""

    baskets: list[list[list[int]]]
    days: list[list[int]]

    def dataset(self, sessions: bool = True, times: bool = True) -> Dataset:
        """The same as a Dataset; user i has the code i + 1."""
        lengths = [sum(map(len, user)) for user in self.baskets]
        flat = [item for user in self.baskets for basket in user for item in basket]
        starts = offsets_of(np.array([len(basket) for user in self.baskets for basket in user]))
        when = [
            day * DAY
            for user, days in zip(self.baskets, self.days, strict=True)
            for basket, day in zip(user, days, strict=True)
            for _ in basket
        ]
        return Dataset(
            items=np.array(flat, dtype=np.int32),
            offsets=offsets_of(np.array([0, *lengths])),
            users=Vocabulary(range(len(self.baskets))),
            catalogue=Vocabulary(range(100, 100 + N_ITEMS)),
            times=np.array(when, dtype=np.int64) if times else None,
            time_unit="s" if times else None,
            session_offsets=starts if sessions else None,
        )

    def shares(self) -> npt.NDArray[np.float64]:
        """Share (N_ITEMS + 1,) of each item in all interactions."""
        flat = [item for user in self.baskets for basket in user for item in basket]
        counts = np.bincount(flat, minlength=N_ITEMS + 1).astype(np.float64)
        return counts / counts.sum()


def world(seed: int = 0) -> World:
    """Users with 1 to 9 baskets of 1 to 6 items, some repeated within a basket; the first has one basket of one."""
    generator = np.random.default_rng(seed)
    taste = generator.dirichlet(np.full(N_ITEMS - 2, 0.3), N_USERS)  # the last two items are never taken
    baskets, days = [[[3]]], [[0]]
    for user in range(1, N_USERS):
        n = int(generator.integers(1, 10))
        sizes = generator.integers(1, 7, n)
        baskets.append([(1 + generator.choice(N_ITEMS - 2, size, p=taste[user])).tolist() for size in sizes])
        days.append(np.cumsum(generator.integers(1, 20, n)).tolist())
    return World(baskets, days)


def as_histories(baskets: list[list[list[int]]], users: list[int], days: list[list[int]] | None = None) -> Histories:
    """Histories of users by code (0 = unknown), from their baskets."""
    flat = [item for user in baskets for basket in user for item in basket]
    offsets = offsets_of(np.array([sum(map(len, user)) for user in baskets]))
    sessions = offsets_of(np.array([len(basket) for user in baskets for basket in user]))
    times = None
    if days is not None:
        pairs = [zip(user, own, strict=True) for user, own in zip(baskets, days, strict=True)]
        times = np.array([day * DAY for user in pairs for basket, day in user for _ in basket], dtype=np.int64)
    return Histories(
        np.array(users, dtype=np.int64),
        np.array(flat, dtype=np.int32),
        offsets[:-1],
        offsets[1:],
        times,
        session_offsets=sessions,
    )


def fitted(config: ModelConfig, dataset: Dataset) -> CountingModel:
    """A counted model."""
    model = config.resolved(dataset).build(dataset.n_users, dataset.n_items)
    assert isinstance(model, CountingModel)
    model.count(dataset)
    return model


def scores_of(model: CountingModel, histories: Histories) -> npt.NDArray[np.float64]:
    """Scores (n, N_ITEMS + 1) of the frozen model, which the model itself and single histories must give too."""
    scorer = Scorer.of(model)
    all_at_once = scorer.score_all(scorer.queries(histories), 0, N_ITEMS + 1).numpy()
    with torch.inference_mode():
        unfrozen = model.scores().all(model.encode(model.inputs(histories)), 0, N_ITEMS + 1).numpy()
    assert np.allclose(all_at_once, unfrozen, rtol=1e-6, atol=1e-7)
    for row in range(len(histories)):
        alone: Any = scorer.score_all(scorer.queries(histories.select(slice(row, row + 1))), 0, N_ITEMS + 1).numpy()
        assert np.allclose(alone[0], all_at_once[row], rtol=1e-6, atol=1e-7)
    return all_at_once.astype(np.float64)


QUESTIONS = [[[1, 2], [3], [2, 5, 2]], [[7]], [[1], [1, 4], [6, 6, 2], [9, 1]]]
"""Baskets of three unknown users."""
