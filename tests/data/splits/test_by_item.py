from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.item_histories import item_order
from segue.data.splits.by_item import ColdItems, cold_items
from segue.data.splits.holdouts import Holdout, Split
from segue.errors import ConfigError, DataError
from tests.helpers import make_dataset

LOGS = st.lists(st.lists(st.integers(1, 12), max_size=8), min_size=1, max_size=12)


def rows(data: Dataset) -> dict[int, list[int]]:
    return {user: data.items[data.starts[user] : data.ends[user]].tolist() for user in range(1, data.n_users + 1)}


def answers(holdout: Holdout) -> dict[int, tuple[list[int], int]]:
    data, found = holdout.dataset, {}
    for user, end, last in zip(holdout.users, holdout.history_ends, holdout.target_ends, strict=True):
        assert last == end + 1
        found[int(user)] = data.items[data.starts[user] : end].tolist(), int(data.items[end])
    return found


def drawn(data: Dataset, share: float, seed: int) -> tuple[set[int], set[int]]:
    taken = sorted(set(data.items.tolist()))
    n = max(1, round(share * len(taken)))
    order = np.random.default_rng(seed).permutation(taken).tolist()
    return set(order[:n]), set(order[n : 2 * n])


def plain(data: Dataset, cold: set[int], cold_in_validation: set[int]) -> dict[str, dict]:
    """The parts by a loop over users."""
    train, refit, validation, test = {}, {}, {}, {}
    for user, items in rows(data).items():
        warm = [i not in cold | cold_in_validation for i in items]
        kept = list(zip(items, warm, strict=True))
        tested = any(warm[:-1])
        if tested:
            *kept, (target, _) = kept
            test[user] = [i for i, is_warm in kept if is_warm], target
        refit[user] = [i for i, is_warm in kept if is_warm]
        places = [place for place, (item, _) in enumerate(kept) if item not in cold]
        if places and any(is_warm for place, (_, is_warm) in enumerate(kept) if place != places[-1]):
            target = kept.pop(places[-1])[0]
            validation[user] = [i for i, is_warm in kept if is_warm], target
        train[user] = [i for i, is_warm in kept if is_warm]
    return {"train": train, "refit": refit, "validation": validation, "test": test}


def equal(split: Split, expected: dict[str, dict]) -> bool:
    return {
        "train": rows(split.train),
        "refit": rows(split.refit),
        "validation": answers(split.validation),
        "test": answers(split.test),
    } == expected


@settings(deadline=None, max_examples=200)
@given(LOGS, st.floats(0.05, 0.6), st.integers(0, 5))
def test_parts_are_those_of_a_plain_loop(log: list[list[int]], share: float, seed: int) -> None:
    data = make_dataset(log, catalogue=range(1, 13))
    cold, cold_in_validation = drawn(data, share, seed) if any(log) else (set(), set())
    expected = plain(data, cold, cold_in_validation)
    n_taken = len(set(data.items.tolist()))
    if 2 * max(1, round(share * n_taken)) >= n_taken or not expected["validation"] or not expected["test"]:
        with pytest.raises(DataError, match="give a smaller share"):
            cold_items(data, share, seed=seed)
        return
    split = cold_items(data, share, seed=seed)
    assert equal(split, expected)
    assert split.dataset is data and split.spec == {"name": "cold-items", "share": share, "since": None, "seed": seed}
    learnt = set(split.train.items[split.train._visible()].tolist())
    assert not learnt & (cold | cold_in_validation)


def test_items_that_first_occur_later_are_cold() -> None:
    times = [[10, 20, 30, 40], [10, 15, 35, 50], [5, 6, 7]]
    data = make_dataset([[1, 2, 3, 4], [2, 1, 2, 3], [1, 2, 1]], times)
    split = cold_items(data, since=30)
    assert equal(split, plain(data, {3, 4}, set()))
    assert answers(split.test) == {1: ([1, 2], 4), 2: ([2, 1, 2], 3), 3: ([1, 2], 1)}
    assert split.validation.dataset.times is not None
    assert split.validation.dataset.times[split.validation.history_ends].tolist() == [20, 35, 6]
    for since in (3, 99):
        with pytest.raises(DataError, match="of the 4 items first occur at since"):
            cold_items(data, since=since)
    with pytest.raises(DataError, match="since needs times"):
        cold_items(make_dataset([[1, 2, 3]]), since=3)
    with pytest.raises(ConfigError, match="since='soon' is not a time"):
        cold_items(data, since="soon")


def test_sessions_and_the_order_by_item_follow() -> None:
    made = make_dataset([[1, 2, 3, 1, 2], [3, 1, 2, 2]])
    data = replace(made, session_offsets=np.array([0, 2, 4, 5, 6, 8, 9]), by_item=item_order(made.items, None))
    split = ColdItems(share=0.34, seed=1).split(data)
    part = split.test.dataset
    assert part.session_offsets is not None and part.session_offsets[-1] == len(part.items)
    assert (np.diff(part.session_offsets) > 0).all()
    assert part.by_item is not None and part.by_item.tolist() == item_order(part.items, None).tolist()
