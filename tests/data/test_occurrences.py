"""Occurrences of items in histories, compared with plain loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.occurrences import FAST, FEATURES, SLOW, Occurrences, repeat_share
from segue.data.ragged import offsets_of
from tests.helpers import make_dataset

N_ITEMS = 5
worlds = st.lists(
    st.lists(st.lists(st.integers(1, N_ITEMS), min_size=1, max_size=4), min_size=1, max_size=6), min_size=1, max_size=4
)


def make(users: list[list[list[int]]], times: bool = True) -> Dataset:
    rows = [[item for session in sessions for item in session] for sessions in users]
    stamps = [
        [10 * number**2 for number, session in enumerate(sessions) for _ in session] for sessions in users
    ]  # one time per session, with growing gaps
    data = make_dataset(rows, stamps if times else None, catalogue=range(1, N_ITEMS + 1))
    lengths = [len(session) for sessions in users for session in sessions]
    offsets = offsets_of(np.array(lengths))
    return Dataset(
        data.items, data.offsets, data.users, data.catalogue, data.times, time_unit="s", session_offsets=offsets
    )


def by_hand(sessions: list[list[int]], item: int, timed: bool = True) -> list[float]:
    """Features of an item in a history of whole sessions."""
    numbers = [number for number, session in enumerate(sessions) if item in session]
    last = len(sessions) - 1
    moments = [10 * last**2 - 10 * numbers[place] ** 2 for place in (-1, 0)] if timed else [-1, -1]
    decayed = [sum(decay ** (last - number) for number in numbers) for decay in (FAST, SLOW)]
    return [len(numbers), last - numbers[-1], last - numbers[0], *decayed, *moments, len(sessions)]


@given(worlds, st.booleans())
@settings(max_examples=60, deadline=None)
def test_features_are_those_of_a_plain_loop(users: list[list[list[int]]], timed: bool) -> None:
    data = make(users, timed)
    starts, ends = data.starts[1:], data.ends[1:]
    expected = {
        (row, item): by_hand(sessions, item, timed)
        for row, sessions in enumerate(users)
        for item in {item for session in sessions for item in session}
    }
    whole = Occurrences.in_dataset(data)
    rows, places = whole.newest(starts, ends)
    of_dataset = whole.features(places, starts[rows], ends[rows])
    known, offsets = Occurrences.in_histories(data.histories(np.arange(1, len(users) + 1)))
    owners, entries = known.newest(offsets[:-1], offsets[1:])
    of_histories = known.features(entries, offsets[owners], offsets[owners + 1])
    for own_rows, items, features in (
        (rows, data.items[places], of_dataset),
        (owners, known.items[entries], of_histories),
    ):
        assert features.shape == (len(expected), len(FEATURES))
        for row, item, values in zip(own_rows.tolist(), items.tolist(), features, strict=True):
            np.testing.assert_allclose(values, expected[row, item], rtol=1e-5)


@given(worlds)
@settings(max_examples=40, deadline=None)
def test_the_facts_of_an_interaction_do_not_depend_on_later_ones(users: list[list[list[int]]]) -> None:
    whole = Occurrences.in_dataset(make(users))
    position = 0
    for sessions in users:
        for number in range(len(sessions)):
            earlier = {item for session in sessions[:number] for item in session}
            for item in sessions[number]:
                assert (whole.before[position] >= 0) == (item in earlier)
                if item in earlier:
                    assert whole.items[whole.before[position]] == item
                position += 1


def test_without_sessions_a_step_is_an_interaction() -> None:
    known, offsets = Occurrences.in_histories(Histories.from_lists([[3, 1, 3, 2]]))
    rows, places = known.newest(offsets[:-1], offsets[1:])
    features = known.features(places, offsets[rows], offsets[rows + 1])
    of_three = features[known.items[places] == 3][0]
    np.testing.assert_allclose(of_three, [2, 1, 3, FAST + FAST**3, SLOW + SLOW**3, -1, -1, 4], rtol=1e-6)


def test_the_session_in_progress_does_not_count() -> None:
    histories = Histories.from_lists([[3, 1, 3]])
    begun = Histories(histories.users, histories.items, histories.starts, histories.ends, baskets=histories.ends - 1)
    known, _ = Occurrences.in_histories(begun)
    assert known.items.tolist() == [3, 1]


def test_times_after_the_question_count_as_the_question() -> None:
    histories = Histories.from_lists([[1, 2]])
    asked = Histories(
        histories.users, histories.items, histories.starts, histories.ends, np.array([5, 90]), as_of=np.array([20])
    )
    known, _ = Occurrences.in_histories(asked)
    assert known.times is not None and known.times.tolist() == [5, 20]


def test_the_share_of_repeats() -> None:
    assert repeat_share(make([[[1, 1], [1, 2]], [[3]]])) == 1 / 5
    assert repeat_share(make_dataset([[1, 2, 1, 1]])) == 1 / 2
    assert repeat_share(make_dataset([[]], catalogue=[1])) == 0
