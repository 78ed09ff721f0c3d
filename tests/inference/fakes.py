"""Models with known scores, and small Datasets for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import offsets_of
from segue.data.vocabulary import Vocabulary
from segue.models.base import Attention, Model, ModelConfig
from segue.models.scores import ItemScores


class Given(NamedTuple):
    queries: Tensor


class FakeScores(ItemScores):
    def __init__(self, model: Fake) -> None:
        self._model = model

    def all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return self._model.score_all(queries, start, stop, out)

    def of(self, queries: Tensor, items: Tensor) -> Tensor:
        return self._model.score_items(queries, items)


class Fake(Model):
    """Model defined by three functions: queries of histories, scores of all items, scores of some items."""

    def inputs(self, histories: Histories) -> Given:
        return Given(self.queries(histories))

    def encode(self, inputs: Given) -> Tensor:
        return inputs.queries

    def scores(self) -> FakeScores:
        return FakeScores(self)

    @abstractmethod
    def queries(self, histories: Histories) -> Tensor: ...

    @abstractmethod
    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor: ...

    @abstractmethod
    def score_items(self, queries: Tensor, items: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class TableConfig(ModelConfig):
    name = "table"

    def build(self, n_users: int, n_items: int) -> Table:
        return Table(np.zeros((n_users + 1, n_items + 1), dtype=np.float32))


class Table(Fake):
    """Model with the score `table[u, i]` of item i for user u."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__(TableConfig(), table.shape[0] - 1, table.shape[1] - 1)
        self.register_buffer("table", torch.as_tensor(table, dtype=torch.float32))

    def queries(self, histories: Histories) -> Tensor:
        return torch.from_numpy(histories.users.astype(np.int64))

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        scores = self.table[queries, start:stop]
        return scores if out is None else out.copy_(scores)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        return self.table[queries[:, None], items]


class Dot(Fake):
    """Model with item vectors; the query is the sum of the newest 50 of the history."""

    max_history = 50

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(TableConfig(), 0, len(vectors) - 1)
        self.vectors = torch.nn.Parameter(torch.as_tensor(vectors, dtype=torch.float32))

    def queries(self, histories: Histories) -> Tensor:
        items = torch.from_numpy(histories.padded(min(50, int(histories.lengths.max()))))
        return (self.vectors[items] * (items > 0)[:, :, None]).sum(dim=1)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return torch.mm(queries, self.vectors[start:stop].T, out=out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        return torch.bmm(self.vectors[items], queries[:, :, None]).squeeze(2)


def dataset(histories: Sequence[Sequence[int]], n_items: int, raw_users: Sequence[str | int] | None = None) -> Dataset:
    """Dataset in which user u (from 1) has `histories[u - 1]`; raw ids are u, and the item codes times ten."""
    lengths = np.array([0, *map(len, histories)])
    flat = np.array([item for history in histories for item in history], dtype=np.int32)
    users = Vocabulary(range(1, len(histories) + 1) if raw_users is None else raw_users)
    return Dataset(flat, offsets_of(lengths), users, Vocabulary(range(10, 10 * n_items + 10, 10)))


def random_dataset(n_users: int, n_items: int, longest: int, seed: int = 0) -> Dataset:
    """Dataset of users with 3 to `longest` interactions; items repeat, and low codes are more popular."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, n_items + 1)
    lengths = generator.integers(3, longest + 1, n_users)
    flat = generator.choice(n_items, size=int(lengths.sum()), p=weights / weights.sum()) + 1
    return dataset(np.split(flat, np.cumsum(lengths)[:-1]), n_items)


class Attentive(Fake):
    """Nonlinear model of the user, the earlier sessions (older ones count less) and the basket.

    It has two heads of attention over the basket: with equal weights, and with weights by item code.
    """

    personal = True

    def __init__(self, n_users: int, n_items: int, seed: int = 0) -> None:
        super().__init__(TableConfig(), n_users, n_items)
        generator = np.random.default_rng(seed)
        self.vectors = generator.normal(size=(n_items + 1, 4))
        self.user_vectors = generator.normal(size=(n_users + 1, 4))

    def query(self, user: int, sessions: Sequence[Sequence[int]], basket: Sequence[int]) -> np.ndarray:
        """Query of one user with earlier sessions and a basket."""
        query = self.user_vectors[user] + np.tanh(self.vectors[list(basket)].sum(0))
        for age, session in enumerate(reversed(sessions)):
            query = query + 0.5**age * np.tanh(self.vectors[list(session)].sum(0))
        return query

    def queries(self, histories: Histories) -> Tensor:
        rows = []
        for user, start, end, begin in zip(*self._of(histories), strict=True):
            assert begin <= end
            cuts = histories.session_offsets
            inner = [] if cuts is None else cuts[(cuts > start) & (cuts < begin)]
            sessions = [part.tolist() for part in np.split(histories.items[start:begin], inner - start)]
            rows.append(self.query(user, [part for part in sessions if part], histories.items[begin:end]))
        return torch.from_numpy(np.array(rows, dtype=np.float32))

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        return torch.mm(queries, torch.from_numpy(self.vectors[start:stop].T.astype(np.float32)), out=out)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        vectors = torch.from_numpy(self.vectors.astype(np.float32))
        return torch.bmm(vectors[items], queries[:, :, None]).squeeze(2)

    def attention(self, histories: Histories) -> Attention:
        _, _, ends, begins = self._of(histories)
        width = int((ends - begins).max())
        positions = np.where(np.arange(width) < (ends - begins)[:, None], begins[:, None] + np.arange(width), -1)
        inside = positions >= 0
        even = inside / np.maximum(inside.sum(1, keepdims=True), 1)
        codes = np.where(inside, histories.items[np.where(inside, positions, 0)], 0)
        heads = [even, codes / np.maximum(codes.sum(1, keepdims=True), 1)]
        return Attention(torch.from_numpy(np.stack(heads, 1)[:, None].astype(np.float32)), positions)

    @staticmethod
    def _of(histories: Histories) -> tuple[np.ndarray, ...]:
        begins = histories.ends if histories.baskets is None else histories.baskets
        return histories.users, histories.starts, histories.ends, begins


@dataclass(frozen=True)
class ShopperConfig(ModelConfig):
    name = "shopper"

    def build(self, n_users: int, n_items: int) -> Shopper:
        return Shopper(n_users, n_items)


class Shopper(Fake):
    """Model of the user, the history, its last session and the basket; scores are whole numbers.

    An item raises the score of the item with the next code: by 1 in the history, by 3 more in its last session, by 20
    in the basket. User u raises the score of item u by 2 (user 0 that of the last item).
    """

    def __init__(self, n_users: int, n_items: int) -> None:
        super().__init__(ShopperConfig(), n_users, n_items)

    def queries(self, histories: Histories) -> Tensor:
        """Scores of all items, as queries."""
        rows = []
        for row in range(len(histories)):
            start, end = int(histories.starts[row]), int(histories.ends[row])
            middle = end if histories.baskets is None else int(histories.baskets[row])
            items = histories.items
            last: list[int] = []
            if histories.session_offsets is not None:
                begins = [int(begin) for begin in histories.session_offsets if start <= begin < middle]
                last = items[begins[-1] : middle].tolist() if begins else []
            history, basket = items[start:middle].tolist(), items[middle:end].tolist()
            rows.append(shopper_scores(int(histories.users[row]), history, last, basket, self.n_items))
        return torch.tensor(rows, dtype=torch.float32).reshape(len(rows), self.n_items + 1)

    def score_all(self, queries: Tensor, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        scores = queries[:, start:stop]
        return scores.clone() if out is None else out.copy_(scores)

    def score_items(self, queries: Tensor, items: Tensor) -> Tensor:
        return queries.gather(1, items)


def shopper_scores(user: int, history: list[int], last: list[int], basket: list[int], n_items: int) -> list[int]:
    """Scores by `Shopper` of the codes 0 … n_items."""
    scores = [0] * (n_items + 1)
    scores[(user - 1) % n_items + 1] += 2
    for items, weight in ((history, 1), (last, 3), (basket, 20)):
        for item in items:
            scores[item % n_items + 1] += weight
    return scores


def session_dataset(
    sessions: Sequence[Sequence[Sequence[int]]], n_items: int, raw_users: Sequence[str | int] | None = None
) -> Dataset:
    """Dataset like that of `dataset`, in which user u has the sessions `sessions[u - 1]`."""
    plain = dataset([[item for session in user for item in session] for user in sessions], n_items, raw_users)
    lengths = np.array([len(session) for user in sessions for session in user], dtype=np.int64)
    return replace(plain, session_offsets=offsets_of(lengths))
