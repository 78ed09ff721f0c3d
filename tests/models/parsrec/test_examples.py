"""Sessions as training units, compared with plain loops over them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.ragged import offsets_of
from segue.models.parsrec.examples import SessionBatch, SessionExamples
from tests.helpers import make_dataset

N_ITEMS = 7
worlds = st.lists(
    st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=5), max_size=5), min_size=1, max_size=5
).filter(lambda users: any(users))


def make(users: list[list[list[int]]]) -> Dataset:
    data = make_dataset(
        [[item for session in sessions for item in session] for sessions in users], catalogue=range(1, N_ITEMS + 1)
    )
    lengths = [len(session) for sessions in users for session in sessions]
    return Dataset(data.items, data.offsets, data.users, data.catalogue, session_offsets=offsets_of(np.array(lengths)))


def dense(batch: SessionBatch, transposed: bool = False) -> np.ndarray:
    parts = (batch.item_offsets, batch.item_columns, batch.item_values) if transposed else batch[4:7]
    offsets, columns, values = (part.numpy() for part in parts)
    size = (len(offsets) - 1, len(batch.users) if transposed else N_ITEMS + 1)
    matrix = np.zeros(size)
    for row in range(size[0]):
        for entry in range(offsets[row], offsets[row + 1]):
            matrix[row, columns[entry]] += values[entry]
    return matrix


@settings(deadline=None)
@given(worlds, st.none() | st.integers(0, 3), st.integers(0, 9))
def test_a_batch_equals_a_loop_over_the_sessions(users: list[list[list[int]]], limit: int | None, seed: int) -> None:
    examples = SessionExamples(make(users), limit)
    expected = Counter()
    for user, sessions in enumerate(users, start=1):
        for n, session in enumerate(sessions):
            before = sessions[:n] if limit is None else sessions[max(0, n - limit) : n]
            history = Counter(item for earlier in before for item in earlier)
            counts = tuple(history[item] for item in range(N_ITEMS + 1))
            expected[user, frozenset(session), counts] += 1
    batch = examples.batch(np.arange(len(examples.lengths)), np.random.default_rng(seed))
    lengths = batch.lengths.tolist()
    assert lengths == sorted(lengths, reverse=True) == (batch.items > 0).sum(1).tolist()
    units = Counter()
    for row, (user, length) in enumerate(zip(batch.users.tolist(), lengths, strict=True)):
        items = batch.items[row, :length].tolist()
        assert len(set(items)) == length and not batch.items[row, length:].any()
        counts = dense(batch)[row]
        assert counts.sum() == batch.sizes[row]
        units[user, frozenset(items), tuple(counts.astype(int))] += 1
    assert units == expected
    assert (dense(batch, transposed=True) == dense(batch).T).all()
    assert examples.weights.sum() == sum(lengths)


def test_each_item_is_first_in_turn() -> None:
    examples = SessionExamples(make([[[1, 2, 3]]]))
    generator = np.random.default_rng(0)
    orders = Counter(tuple(examples.batch(np.array([0]), generator).items[0].tolist()) for _ in range(3_000))
    assert len(orders) == 6 and min(orders.values()) > 400
