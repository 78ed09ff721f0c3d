from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.splits.by_user import (
    Holdout,
    Split,
    hold_out_users,
    last_session_out,
    leave_last_n,
    leave_last_out,
    random_rows,
    time_cut,
)
from segue.data.splits.registry import split_by
from segue.errors import ConfigError, DataError
from tests.helpers import make_dataset, visible

LOG = {"ann": [1, 2, 3, 4, 5], "bob": [6, 7], "cy": [5, 6, 7], "dan": [], "eve": [1, 1, 2, 2]}
TIMES = {"ann": [1, 2, 3, 4, 5], "bob": [19, 20], "cy": [3, 12, 17], "dan": [], "eve": [9, 13, 14, 18]}
Answers = dict[Any, tuple[list[Any], list[Any]]]


def small() -> Dataset:
    return make_dataset(LOG, TIMES)


def answers(holdout: Holdout) -> Answers:
    """User → (history, targets), raw."""
    data = holdout.dataset
    raw = data.users.decode(holdout.users).to_list()
    histories, targets = holdout.histories(), holdout.targets()
    rows = [
        tuple(data.catalogue.decode(h.items[h.starts[r] : h.ends[r]]).to_list() for h in (histories, targets))
        for r in range(len(holdout))
    ]
    return dict(zip(raw, rows, strict=True))  # type: ignore[arg-type]


# ---- leave-last ------------------------------------------------------------------------------------------------------


def test_leave_last_out() -> None:
    split = leave_last_out(small())
    assert visible(split.train) == {"ann": [1, 2, 3], "bob": [6, 7], "cy": [5], "dan": [], "eve": [1, 1]}
    assert answers(split.validation) == {
        "ann": ([1, 2, 3], [4]),
        "cy": ([5], [6]),
        "eve": ([1, 1], [2]),
    }
    assert answers(split.test) == {
        "ann": ([1, 2, 3, 4], [5]),
        "cy": ([5, 6], [7]),
        "eve": ([1, 1, 2], [2]),
    }
    assert visible(split.refit) == {"ann": [1, 2, 3, 4], "bob": [6, 7], "cy": [5, 6], "dan": [], "eve": [1, 1, 2]}
    assert split.spec == {"name": "leave-last-out"}
    assert (split.validation.name, split.test.name) == ("validation", "test")


def test_leave_last_two() -> None:
    split = leave_last_n(small(), 2)
    assert answers(split.validation) == {"ann": ([1], [2, 3])}
    assert answers(split.test) == {"ann": ([1, 2, 3], [4, 5])}
    assert visible(split.train) == {**LOG, "ann": [1]}
    assert split.test.n_targets.tolist() == [2]


HISTORIES = st.lists(st.lists(st.integers(1, 5), max_size=9), min_size=1, max_size=6)


@settings(deadline=None)
@given(HISTORIES, st.integers(1, 3))
def test_leave_last_n_cuts_every_history_into_three(histories: list[list[int]], n: int) -> None:
    dataset = make_dataset(histories, catalogue=range(1, 6))
    asked = {user: row for user, row in enumerate(histories, 1) if len(row) > 2 * n}
    if not asked:
        with pytest.raises(DataError, match=f"no user has the {2 * n + 1} interactions"):
            leave_last_n(dataset, n)
        return
    split = leave_last_n(dataset, n)
    assert answers(split.validation) == {user: (row[: -2 * n], row[-2 * n : -n]) for user, row in asked.items()}
    assert answers(split.test) == {user: (row[:-n], row[-n:]) for user, row in asked.items()}
    expected = {user: row[: -2 * n] if user in asked else row for user, row in enumerate(histories, 1)}
    assert visible(split.train) == expected == visible(split.validation.training_view())
    assert split.train.items is dataset.items, "a split is a view, not a copy"


def test_a_split_of_a_view_never_looks_behind_its_end() -> None:
    data = small()
    split = leave_last_out(data.until(np.maximum(data.starts, data.ends - 1)))
    assert answers(split.test) == {"ann": ([1, 2, 3], [4]), "eve": ([1, 1], [2])}
    assert visible(split.refit)["bob"] == [6]


@pytest.mark.parametrize("n", [0, -1])
def test_leave_last_needs_a_positive_number(n: int) -> None:
    with pytest.raises(ConfigError, match=f"n={n}: expected 1 or more"):
        leave_last_n(small(), n)


# ---- a cut in time ---------------------------------------------------------------------------------------------------


def test_time_cut() -> None:
    """14 interactions; the shares put the moments at 13 and 18."""
    split = time_cut(small(), test=0.2, validation=0.2)
    assert visible(split.train) == {"ann": LOG["ann"], "bob": [], "cy": [5, 6], "dan": [], "eve": [1]}
    assert answers(split.validation) == {"cy": ([5, 6], [7]), "eve": ([1], [1, 2])}
    assert answers(split.test) == {"eve": ([1, 1, 2], [2])}
    assert split.spec == {"name": "time-cut", "test": 0.2, "validation": 0.2}


def test_the_refit_of_a_time_cut_learns_nothing_after_the_cut() -> None:
    """Bob begins after it: nobody asks about him, and nothing may be learnt of him either."""
    split = time_cut(small(), test=0.2, validation=0.2)
    assert visible(split.refit) == {"ann": LOG["ann"], "bob": [], "cy": [5, 6, 7], "dan": [], "eve": [1, 1, 2]}
    assert visible(split.validation.training_view()) == visible(split.train)


TIMED = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8).map(sorted), min_size=2, max_size=8)
SHARES = st.floats(0.05, 0.45)


def times_of(dataset: Dataset, starts: Any, ends: Any) -> list[int]:
    return [int(t) for start, end in zip(starts, ends, strict=True) for t in dataset.times[start:end]]  # type: ignore[index]


@settings(deadline=None)
@given(TIMED, SHARES, SHARES)
def test_no_part_of_a_time_cut_overlaps_another(times: list[list[int]], test: float, validation: float) -> None:
    dataset = make_dataset([[1] * len(row) for row in times], times)
    try:
        split = time_cut(dataset, test, validation)
    except DataError:
        return
    learnt = times_of(dataset, split.train.starts, split.train.ends)
    learnt_again = times_of(dataset, split.refit.starts, split.refit.ends)
    asked, asked_last = (
        times_of(dataset, part.history_ends, part.target_ends) for part in (split.validation, split.test)
    )
    assert max(learnt) < min(asked) <= max(asked) < min(asked_last)
    assert max(learnt_again) < min(asked_last)
    for part in (split.validation, split.test):
        assert (part.n_targets > 0).all() and (part.histories().lengths > 0).all()
    assert max(times_of(dataset, dataset.starts[split.test.users], split.test.history_ends)) < min(asked_last)


def test_time_cut_needs_times_and_users_on_both_sides() -> None:
    with pytest.raises(DataError, match="needs times"):
        time_cut(make_dataset(LOG))
    with pytest.raises(DataError, match="to learn from and in the validation part"):
        time_cut(make_dataset([[1, 2], [3, 4]], [[1, 1], [1, 1]]))


# ---- users held out --------------------------------------------------------------------------------------------------


def many() -> Dataset:
    return make_dataset([[1, 2, 3][: 1 + user % 3] for user in range(60)])


def test_held_out_users_have_nothing_in_training() -> None:
    data = many()
    split = hold_out_users(data, test=0.2, validation=0.1, seed=1)
    parts = [part.users for part in (split.test, split.validation)]
    assert [len(part) for part in parts] == [8, 4]  # of the 40 with two interactions
    assert not set(parts[0]) & set(parts[1])
    held = np.concatenate(parts)
    assert (split.train.lengths[held] == 0).all()
    others = np.setdiff1d(np.arange(61), held)
    assert (split.train.lengths[others] == data.lengths[others]).all()
    for part in (split.test, split.validation):
        assert (np.diff(part.users) > 0).all()
        assert (part.n_targets == 1).all() and not part.known
        assert (part.histories().users == 0).all(), "the model must not know them"
        assert answers(part) == {user: (visible(data)[user][:-1], visible(data)[user][-1:]) for user in answers(part)}


def test_the_refit_learns_from_validation_users_but_not_from_test_users() -> None:
    split = hold_out_users(many(), seed=1)
    assert (split.refit.lengths[split.test.users] == 0).all()
    assert (split.refit.lengths[split.validation.users] >= 2).all()


def test_the_seed_draws_the_users() -> None:
    first, again, other = (hold_out_users(many(), test=0.3, seed=seed).test.users.tolist() for seed in (1, 1, 2))
    assert first == again != other


def test_too_few_users_to_hold_any_out() -> None:
    with pytest.raises(DataError, match="2 users with two interactions are too few"):
        hold_out_users(make_dataset([[1, 2], [1, 2], [1]]))


# ---- what all splits share -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [time_cut, hold_out_users, random_rows])
@pytest.mark.parametrize(("test", "validation"), [(0.0, 0.1), (1.0, 0.1), (0.5, 0.5), (-0.1, 0.3)])
def test_impossible_shares_are_named(split: Callable[..., Split], test: float, validation: float) -> None:
    together = f"test={test} and validation={validation} are shares: together below 1"
    with pytest.raises(ConfigError, match=rf"(test|validation)=\S+: expected a share above 0 to below 1|{together}"):
        split(small(), test=test, validation=validation)


@pytest.mark.parametrize("split", [time_cut, hold_out_users, random_rows])
def test_a_split_without_validation_trains_on_it(split: Callable[..., Split]) -> None:
    with_it, without = split(small(), test=0.2, validation=0.2), split(small(), test=0.2, validation=0)
    assert len(without.validation) == 0
    assert answers(without.test) == answers(with_it.test)
    assert visible(without.train) == visible(without.refit)


@pytest.mark.parametrize("split", [leave_last_out, time_cut, hold_out_users, random_rows])
def test_no_target_is_in_a_training_view(split: Callable[[Dataset], Split]) -> None:
    """Every interaction is an item of its own, so a target that is learnt would be seen."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 9, 50)
    items = np.split(np.arange(1, lengths.sum() + 1), np.cumsum(lengths)[:-1])
    times = [np.sort(generator.integers(0, 1000, n)) for n in lengths]
    made = split(make_dataset([row.tolist() for row in items], [row.tolist() for row in times]))
    learnt = set(made.train.to_frame()["item"])
    learnt_again = set(made.refit.to_frame()["item"])
    test = {item for _, targets in answers(made.test).values() for item in targets}
    validation = {item for _, targets in answers(made.validation).values() for item in targets}
    assert not learnt & (test | validation) and not test & validation
    assert not learnt_again & test and learnt < learnt_again
    assert test and validation <= learnt_again


def test_samples_are_drawn_once_from_the_seed() -> None:
    holdout = leave_last_out(make_dataset([[1, 2, 3]] * 40)).test
    first, again, other = (holdout.sample(10, seed) for seed in (1, 1, 2))
    assert first.users.tolist() == again.users.tolist() != other.users.tolist()
    assert len(first) == 10 and (np.diff(first.users) > 0).all()
    assert answers(first).items() <= answers(holdout).items()
    assert holdout.sample(40) is holdout is holdout.sample(1000)


def test_the_name_and_the_counts_are_shown() -> None:
    assert repr(leave_last_n(small(), 2).test) == "Holdout(test: 1 users, 2 targets)"


def walks() -> Dataset:
    """40 users with five to eight interactions each, at times of their own."""
    rows = [[(user + step) % 12 + 1 for step in range(5 + user % 4)] for user in range(40)]
    return make_dataset(rows, [[7 * step + user % 5 for step in range(len(row))] for user, row in enumerate(rows)])


# ---- specs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        leave_last_out,
        lambda data: leave_last_n(data, 2),
        lambda data: time_cut(data, 0.2, 0.3),
        lambda data: hold_out_users(data, 0.25, 0.25, seed=7),
        lambda data: random_rows(data, 0.25, 0.25, seed=7, known_items=True),
    ],
)
def test_a_split_is_made_again_of_its_spec(made: Callable[[Dataset], Split]) -> None:
    data = walks()
    first = made(data)
    again = split_by(data, json.loads(json.dumps(first.spec)))
    assert again.spec == first.spec
    assert again.train.fingerprint == first.train.fingerprint
    for one, other in ((first.validation, again.validation), (first.test, again.test)):
        assert one.users.tolist() == other.users.tolist()
        assert one.history_ends.tolist() == other.history_ends.tolist()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, 'there is no split "None"'),
        ({"name": "leave-last-uot"}, 'did you mean "leave-last-out"'),
        ({"name": "leave-last-n"}, "needs n"),
        ({"name": "leave-last-out", "n": 2}, "n=2 means nothing to the split leave-last-out, which has no options"),
        ({"name": "time-cut", "seed": 2}, "which has test, validation"),
    ],
)
def test_impossible_specs_are_named(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_by(walks(), spec)


# ---- last session out ------------------------------------------------------------------------------------------------


def shopping() -> Dataset:
    """Sessions: ann 12 | 34 | 5 | 6, bob 12 | 3, cy 123, dan nothing, eve 1 | 2 | 34."""
    data = make_dataset({"ann": [1, 2, 3, 4, 5, 6], "bob": [1, 2, 3], "cy": [1, 2, 3], "dan": [], "eve": [1, 2, 3, 4]})
    return replace(data, session_offsets=np.array([0, 2, 4, 5, 6, 8, 9, 12, 13, 14, 16]))


def test_last_session_out() -> None:
    split = last_session_out(shopping())
    assert visible(split.train) == {"ann": [1, 2, 3, 4], "bob": [1, 2], "cy": [1, 2, 3], "dan": [], "eve": [1]}
    assert answers(split.validation) == {"ann": ([1, 2, 3, 4], [5]), "eve": ([1], [2])}
    assert answers(split.test) == {
        "ann": ([1, 2, 3, 4, 5], [6]),
        "bob": ([1, 2], [3]),
        "eve": ([1, 2], [3, 4]),
    }
    assert split.spec == {"name": "last-session-out"}
    assert answers(split_by(shopping(), split.spec).test) == answers(split.test)
    assert visible(split.dataset) == visible(shopping())
    assert split.train.sessions.counts.tolist() == [0, 2, 1, 1, 0, 1]
    assert visible(split.refit)["eve"] == [1, 2]


def test_last_session_out_of_a_view_sees_what_is_visible() -> None:
    data = shopping()
    view = data.until(data.ends - np.array([0, 1, 0, 0, 0, 1]))
    split = last_session_out(view)
    assert answers(split.test)["ann"] == ([1, 2, 3, 4], [5])
    assert answers(split.test)["eve"] == ([1, 2], [3])


def test_some_holdouts_are_of_whole_sessions() -> None:
    data = shopping()
    for dataset in (data, data.until(data.ends - np.array([0, 1, 0, 0, 0, 1]))):
        split = last_session_out(dataset)
        assert split.validation.whole_sessions
        assert split.test.whole_sessions
    two = leave_last_n(data, 2)
    assert two.validation.whole_sessions, "ann 34 is a session"
    assert not two.test.whole_sessions, "ann 5 and 6 are two"
    assert not leave_last_out(small()).test.whole_sessions


@settings(deadline=None)
@given(st.data())
def test_whole_sessions_are_found_by_a_plain_loop(data: st.DataObject) -> None:
    sessions = data.draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=5))
    offsets = np.cumsum([0, *(sum(one) for one in sessions)])
    dataset = make_dataset([[1] * sum(one) for one in sessions])
    dataset = replace(dataset, session_offsets=np.cumsum([0, *(n for one in sessions for n in one)]))
    starts = [data.draw(st.integers(low, high - 1)) for low, high in pairwise(offsets)]
    ends = [data.draw(st.integers(start + 1, high)) for start, high in zip(starts, offsets[1:], strict=True)]
    asked = Holdout(dataset, np.arange(1, len(sessions) + 1), np.array(starts), np.array(ends), "test")
    known = list(pairwise(dataset.session_offsets.tolist()))
    assert asked.whole_sessions == all((start, end) in known for start, end in zip(starts, ends, strict=True))


def test_last_session_out_needs_sessions() -> None:
    with pytest.raises(DataError, match="no sessions"):
        last_session_out(small())
    short = replace(make_dataset([[1, 2], [3]]), session_offsets=np.array([0, 1, 2, 3]))
    with pytest.raises(DataError, match="needs; the most that one has is 2"):
        last_session_out(short)
