"""Sessions as training units, compared with plain loops over them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.histories import NOW, Histories
from segue.data.ragged import offsets_of
from segue.errors import DataError
from segue.models.parsrec.examples import SessionBatch, SessionExamples, first_since
from segue.models.parsrec.inputs import basket_inputs
from segue.models.parsrec.parsrec import PARSRec
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


@given(st.lists(st.lists(st.integers(0, 9), max_size=6).map(sorted), min_size=1, max_size=5), st.data())
def test_the_first_time_that_is_late_enough(rows: list[list[int]], data: st.DataObject) -> None:
    earliest = [data.draw(st.integers(-1, 11)) for _ in rows]
    offsets = offsets_of(np.array([len(row) for row in rows]))
    found = first_since(
        np.array([time for row in rows for time in row], dtype=np.int64), offsets[:-1], offsets[1:], np.array(earliest)
    )
    assert (found - offsets[:-1]).tolist() == [
        sum(time < limit for time in row) for row, limit in zip(rows, earliest, strict=True)
    ]


timed_worlds = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=4)), max_size=5),
    min_size=1,
    max_size=4,
).filter(lambda users: any(users))


def make_timed(users: list[list[tuple[int, list[int]]]]) -> Dataset:
    """Sessions with one time each, as in PARSRec's file."""
    ordered = [sorted(sessions, key=lambda session: session[0]) for sessions in users]
    data = make([[items for _, items in sessions] for sessions in ordered])
    times = [time for sessions in ordered for time, items in sessions for _ in items]
    return Dataset(
        data.items,
        data.offsets,
        data.users,
        data.catalogue,
        times=np.array(times, dtype=np.int64),
        session_offsets=data.session_offsets,
        time_unit="s",
    )


@settings(deadline=None)
@given(timed_worlds, st.integers(1, 10), st.none() | st.integers(1, 2))
def test_the_history_is_limited_by_time(
    users: list[list[tuple[int, list[int]]]], longest: int, sessions: int | None
) -> None:
    """In training and in answers: of a session at t the items from t - longest on, before the session."""
    data = make_timed(users)
    expected = []
    for user in users:
        ordered = sorted(user, key=lambda session: session[0])
        for place, (time, _) in enumerate(ordered):
            before = ordered[:place] if sessions is None else ordered[max(0, place - sessions) : place]
            kept = [item for earlier, items in before if earlier >= time - longest for item in items]
            expected.append([kept.count(item) for item in range(N_ITEMS + 1)])
    examples = SessionExamples(data, sessions, longest)
    for index, counts in enumerate(expected):
        assert dense(examples.batch(np.array([index]), np.random.default_rng(0)))[0].tolist() == counts
    begins, all_users = data.sessions.starts, data.sessions.users
    starts = data.starts[all_users]
    offsets = data.session_offsets
    asked = Histories(all_users, data.items, starts, begins, data.times, None, offsets, data.times[begins])  # type: ignore[index]
    inside = Histories(all_users, data.items, starts, begins + 1, data.times, begins, offsets)
    for histories in (asked, inside):
        inputs, _ = basket_inputs(histories, sessions, longest)
        rows = inputs.offsets[inputs.back], inputs.offsets[1:][inputs.back]
        for counts, first, last in zip(expected, *(row.tolist() for row in rows), strict=True):
            assert np.bincount(inputs.columns[first:last], minlength=N_ITEMS + 1).tolist() == counts


def test_a_question_without_a_time_is_asked_at_the_newest_one() -> None:
    data = make_timed([[(1, [1, 2]), (5, [3]), (9, [4])]])
    for as_of in (None, np.array([NOW])):
        histories = Histories(np.array([1]), data.items, data.starts[1:], data.ends[1:], data.times, as_of=as_of)
        assert basket_inputs(histories, None, 4)[0].columns.tolist() == [3, 4]
    untimed = Histories(np.array([1]), data.items, data.starts[1:], data.ends[1:])
    assert basket_inputs(untimed, None, 4)[0].columns.tolist() == [1, 2, 3, 4], "lists have no times to limit"


def test_a_limit_by_time_needs_times() -> None:
    model = PARSRec(user_width=2, item_width=2, history_time=3).build(1, N_ITEMS)
    with pytest.raises(DataError, match="history_time=3 needs times, and this Dataset has none"):
        model.examples(make([[[1, 2]]]))
