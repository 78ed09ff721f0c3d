from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.item_histories import item_order
from segue.data.splits.by_user import random_rows
from segue.data.splits.holdouts import Holdout
from segue.errors import DataError
from tests.helpers import make_dataset

Row = tuple[int, int, int, float]


def rows_of(data: Dataset, low: int, high: int, user: int) -> list[Row]:
    assert data.times is not None and data.ratings is not None
    return [(user, int(data.items[p]), int(data.times[p]), float(data.ratings[p])) for p in range(low, high)]


def visible_rows(data: Dataset) -> list[Row]:
    bounds = zip(data.starts.tolist(), data.ends.tolist(), strict=True)
    return [row for user, (low, high) in enumerate(bounds) for row in rows_of(data, low, high, user)]


def targets(part: Holdout) -> list[Row]:
    bounds = zip(part.users.tolist(), part.history_ends.tolist(), part.target_ends.tolist(), strict=True)
    return [row for user, low, high in bounds for row in rows_of(part.dataset, low, high, user)]


def histories(part: Holdout) -> list[list[Row]]:
    found = part.histories()
    bounds = zip(part.users.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True)
    return [rows_of(part.dataset, low, high, user) for user, low, high in bounds]


LOGS = st.lists(st.lists(st.integers(1, 6), max_size=9), min_size=1, max_size=8)


def numbered(log: list[list[int]]) -> Dataset:
    """Every interaction has a time and a rating of its own, so that it is known again anywhere."""
    flat = iter(range(1000))
    times = [[next(flat) for _ in row] for row in log]
    return make_dataset(log, times, [[time / 2 for time in row] for row in times], catalogue=range(1, 7))


def plain(data: Dataset, test: float, validation: float, seed: int, known_items: bool) -> dict[str, list[Row]]:
    """The same parts, by a loop over the rows."""
    rows = visible_rows(data)
    drawn = np.random.default_rng(seed).permutation(len(rows)).tolist()
    n_test, n_validation = round(len(rows) * test), round(len(rows) * validation)
    of_test, of_validation = set(drawn[:n_test]), set(drawn[n_test : n_test + n_validation])
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": [], "refit": []}
    for place, row in enumerate(rows):
        name = "test" if place in of_test else "validation" if place in of_validation else "train"
        parts[name].append(row)
        if name != "test":
            parts["refit"].append(row)
    users, items = {row[0] for row in parts["train"]}, {row[1] for row in parts["train"]}
    for name in ("validation", "test"):
        parts[name] = [row for row in parts[name] if row[0] in users and (row[1] in items or not known_items)]
    return parts


@settings(deadline=None, max_examples=200)
@given(LOGS, st.floats(0.05, 0.6), st.floats(0.05, 0.35), st.integers(0, 9), st.booleans(), st.booleans())
def test_rows_fall_where_a_plain_loop_puts_them(
    log: list[list[int]], test: float, validation: float, seed: int, known_items: bool, sorted_once: bool
) -> None:
    data = numbered(log)
    if sorted_once:
        data = Dataset(**{**data.__dict__, "by_item": item_order(data.items, data.times)})
    expected = plain(data, test, validation, seed, known_items)
    if not expected["validation"] or not expected["test"]:
        with pytest.raises(DataError, match=r"to learn from and in the (validation|test) part"):
            random_rows(data, test, validation, seed, known_items)
        return
    split = random_rows(data, test, validation, seed, known_items)
    assert visible_rows(split.train) == expected["train"] == visible_rows(split.validation.training_view())
    assert sorted(visible_rows(split.refit)) == sorted(expected["refit"])
    assert targets(split.validation) == expected["validation"]
    assert targets(split.test) == expected["test"]
    for part, learnt in ((split.validation, expected["train"]), (split.test, expected["refit"])):
        assert [sorted(row) for row in histories(part)] == [sorted(r for r in learnt if r[0] == u) for u in part.users]
        assert part.known and (part.users > 0).all()
    transposed = split.train.item_histories
    assert list(zip(transposed.users.tolist(), transposed.times.tolist(), strict=True)) == [  # type: ignore[union-attr]
        (row[0], row[2]) for row in sorted(expected["train"], key=lambda row: (row[1], row[2]))
    ]
    assert split.dataset is data and split.train.session_offsets is None


def ladder() -> Dataset:
    return numbered([[1 + (user + step) % 6 for step in range(5)] for user in range(40)])


def test_as_many_rows_as_asked_for_and_others_with_another_seed() -> None:
    split = random_rows(ladder())
    assert len(visible_rows(split.train)) == 200 - 40 - 20
    assert len(visible_rows(split.refit)) == 200 - 40
    assert split.spec == {"name": "random-rows", "test": 0.2, "validation": 0.1, "seed": 0, "known_items": False}
    again, other = random_rows(ladder()), random_rows(ladder(), seed=1)
    assert targets(again.test) == targets(split.test) != targets(other.test)


def test_of_a_view_only_what_is_visible_is_drawn() -> None:
    data = ladder()
    view = data.until(data.ends - np.where(np.arange(41) % 2, 2, 0))
    split = random_rows(view)
    parts = visible_rows(split.refit) + targets(split.test)
    assert set(parts) <= set(visible_rows(view)) and len(visible_rows(split.refit)) == 160 - 32


def test_too_few_rows_to_ask_about() -> None:
    with pytest.raises(DataError, match="in the validation part: change the shares"):
        random_rows(make_dataset([[1, 2], [3]]))
