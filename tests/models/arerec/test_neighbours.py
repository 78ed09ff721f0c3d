"""Windows, groups and batches of item histories, compared with plain loops, and checks against leaks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.ragged import offsets_of, positions, rows_of
from segue.data.splits.by_user import Split, leave_last_out, random_rows
from segue.models.arerec.arerec import ARERec
from segue.models.arerec.model import ARERecModel
from segue.models.arerec.neighbours import (
    ItemNeighbours,
    LookBack,
    RatingExamples,
    first_not_before,
    group_offsets,
    padded_positions,
)
from segue.training.config import Training
from segue.training.fit import fit
from tests.helpers import prepared
from tests.models.rating_models import rated_dataset

N_USERS, N_ITEMS, LAST = 5, 4, 6
KEEPS, LOOK_BACKS = st.sampled_from(["newest", "oldest"]), st.sampled_from(["past", "train", "reference"])
ROW = st.tuples(st.integers(1, N_ITEMS), st.integers(1, N_USERS), st.integers(0, LAST), st.integers(0, 3))
"""Item, user, time, index of the rating on the scale."""
Row = tuple[int, int, int, int]


def index_of(rows: list[Row], look_back: LookBack, limit: int, keep: Any) -> tuple[ItemNeighbours, list[Row]]:
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    items, users, times, levels = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    offsets = offsets_of(np.bincount(items, minlength=N_ITEMS + 1))
    users, levels = users.astype(np.int32), levels.astype(np.uint8)
    return ItemNeighbours(users, levels, times, offsets, look_back, limit, keep), rows


def neighbours_of(index: ItemNeighbours, rows: list[Row], item: int, user: int, moment: int) -> list[int]:
    """Indices in `rows` of the neighbours of a rating, with a plain loop."""
    own = [number for number, row in enumerate(rows) if row[0] == item]
    if index.look_back == "past":
        own = [number for number in own if rows[number][2] < moment]
    most = index.limit + (index.look_back == "train")
    own = own[-most:] if index.keep == "newest" else own[:most]
    own = [number for number in own if index.look_back != "train" or rows[number][1] != user]
    return own[-index.limit :] if index.keep == "newest" else own[: index.limit]


@given(
    st.lists(ROW, max_size=25),
    st.lists(st.tuples(st.integers(0, N_ITEMS), st.lists(st.tuples(st.integers(0, N_USERS), st.integers(-1, LAST + 1)),
             min_size=3, max_size=3)), min_size=1, max_size=4),
    LOOK_BACKS, st.integers(1, 6), KEEPS,
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_batch_has_the_neighbours_of_each_rating(
    rows: list[Row], groups: list[tuple[int, list[tuple[int, int]]]], look_back: LookBack, limit: int, keep: Any
) -> None:
    index, rows = index_of(rows, look_back, limit, keep)
    items = np.array([item for item, _ in groups])
    users, moments = (np.array([[pair[part] for pair in pairs] for _, pairs in groups]) for part in (0, 1))
    levels = np.arange(users.size).reshape(users.shape)
    batch = index.batch(items, users, levels, moments)
    assert batch.items.tolist() == items.tolist() and batch.users.tolist() == users.tolist()
    assert batch.levels.tolist() == levels.tolist()
    assert batch.neighbours[0] == 0 and len(batch.neighbours.unique()) == len(batch.neighbours)
    assert (
        (batch.neighbour_index[:, 0] == 0).all()
        and (batch.contexts[:, 0] == 0).all()
        and (batch.neighbour_levels[:, 0] == -1).all()
    )
    for u, (item, pairs) in enumerate(groups):
        union: set[int] = set()
        for c, (user, moment) in enumerate(pairs):
            expected = neighbours_of(index, rows, item, user, moment)
            columns = batch.inside[u, c].nonzero()[:, 0].tolist()
            if not expected:
                assert columns == [0]
                continue
            assert (batch.contexts[u, columns] - 1).tolist() == expected
            union |= set(expected)
        real = batch.contexts[u].nonzero()[:, 0]
        rated = (batch.contexts[u, real] - 1).tolist()
        assert union <= set(rated) and rated == sorted(rated)
        assert batch.neighbours[batch.neighbour_index[u, real]].tolist() == [rows[number][1] for number in rated]
        assert batch.neighbour_levels[u, real].tolist() == [rows[number][3] for number in rated]
        behind = (batch.contexts[u] == 0).nonzero()[:, 0]
        assert (batch.neighbour_index[u, behind] == 0).all() and (batch.neighbour_levels[u, behind] == -1).all()


@given(st.lists(ROW, max_size=25), LOOK_BACKS, st.integers(1, 6), KEEPS)
@settings(max_examples=150, deadline=None)
def test_windows_are_slices_of_the_history(rows: list[Row], look_back: LookBack, limit: int, keep: Any) -> None:
    index, rows = index_of(rows, look_back, limit, keep)
    # One more, if one of them may be the user's own.
    wide = replace(index, look_back="reference", limit=limit + 1) if look_back == "train" else index
    items, moments = np.meshgrid(np.arange(N_ITEMS + 1), np.arange(-1, LAST + 2))
    starts, ends = index.windows(items, moments)
    for item, moment, start, end in zip(*(array.ravel() for array in (items, moments, starts, ends)), strict=True):
        assert list(range(start, end)) == neighbours_of(wide, rows, item, 0, moment)
    assert index.counts.tolist() == [sum(row[0] == item for row in rows) for item in range(N_ITEMS + 1)]


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=5), st.integers(-1, 10))
def test_first_not_before(slices: list[list[int]], moment: int) -> None:
    offsets = offsets_of(np.array([len(part) for part in slices]))
    times = np.array([time for part in slices for time in sorted(part)], dtype=np.int64)
    first = first_not_before(times, offsets[:-1], offsets[1:], np.full(len(slices), moment))
    assert (first - offsets[:-1]).tolist() == [sum(time < moment for time in part) for part in slices]


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 5))
def test_group_offsets(items: list[int], size: int) -> None:
    items = sorted(items)
    offsets = group_offsets(np.array(items, dtype=np.int64), size).tolist()
    groups = [items[start:end] for start, end in pairwise(offsets)]
    expected = []
    for item in sorted(set(items)):
        own = [item] * items.count(item)
        expected += [own[low : low + size] for low in range(0, len(own), size)]
    assert groups == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_padded_positions(lengths: list[int]) -> None:
    offsets = offsets_of(np.array(lengths))
    padded, real = padded_positions(offsets[:-1], offsets[1:])
    assert padded.shape == real.shape == (len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        own = list(range(offsets[row], offsets[row + 1]))
        assert padded[row].tolist() == own + [own[-1]] * (max(lengths) - length)
        assert real[row].tolist() == [True] * length + [False] * (max(lengths) - length)


@given(st.lists(ROW, min_size=1, max_size=30, unique_by=lambda row: row[:2]), LOOK_BACKS, st.integers(1, 6), KEEPS,
       st.integers(1, 4))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_every_rating_is_learnt_once_and_never_sees_itself(
    rows: list[Row], look_back: LookBack, limit: int, keep: Any, size: int
) -> None:
    index, rows = index_of(rows, look_back, limit, keep)
    columns = (np.array([row[part] for row in rows], dtype=np.int64) for part in (0, 1, 3, 2))
    examples = RatingExamples(index, *columns, size)
    assert (examples.weights <= size).all() and examples.weights.sum() == len(rows)
    assert len(examples.lengths) == len(examples.weights)
    batch = examples.batch(np.arange(len(examples.weights)), np.random.default_rng(0))
    learnt = []
    for u, c in (batch.levels >= 0).nonzero().tolist():
        item, user = int(batch.items[u]), int(batch.users[u, c])
        number = next(number for number, row in enumerate(rows) if row[:2] == (item, user))
        learnt.append(number)
        assert int(batch.levels[u, c]) == rows[number][3]
        neighbours = [int(number) - 1 for number in batch.contexts[u, batch.inside[u, c]] if number]
        assert neighbours == neighbours_of(index, rows, item, user, rows[number][2])
        if look_back != "reference":
            assert number not in neighbours
    assert sorted(learnt) == list(range(len(rows)))
    assert (batch.users[batch.levels < 0] == 0).all()


# ---- leaks into a fitted model --------------------------------------------------------------------------------------


def timed() -> Dataset:
    """Return ratings with many equal times."""
    data = rated_dataset(n_users=25, n_items=12, longest=14)
    assert data.times is not None
    return replace(data, times=data.times // 400)


@pytest.mark.parametrize("look_back", ["past", "train"])
@pytest.mark.parametrize("split", [leave_last_out, random_rows])
def test_no_training_rating_sees_itself_or_ratings_of_its_time(split: Any, look_back: LookBack) -> None:
    train: Dataset = split(timed()).train
    config = ARERec(width=4, look_back=look_back, history_length=5, group=3).resolved(train)
    model: ARERecModel = config.build(train.n_users, train.n_items)
    examples = prepared(model, train)
    index, batch = model.index, examples.batch(np.arange(len(examples.weights)), np.random.default_rng(0))
    assert index.times is not None and train.times is not None
    visible = positions(train.starts, train.ends)
    users, items, times = rows_of(train.starts, train.ends), train.items[visible], train.times[visible]
    times_of: dict[tuple[int, int], set[int]] = {}
    for user, item, time in zip(users.tolist(), items.tolist(), times.tolist(), strict=True):
        times_of.setdefault((user, item), set()).add(time)
    checked = 0
    for u, c in (batch.levels >= 0).nonzero().tolist():
        user, own = int(batch.users[u, c]), times_of[int(batch.users[u, c]), int(batch.items[u])]
        for number in (batch.contexts[u, batch.inside[u, c]] - 1).tolist():
            if number < 0:
                continue
            checked += 1
            if look_back == "train":
                assert index.users[number] != user
            else:
                assert index.times[number] < max(own)
    assert checked > 200


def weights_of(split: Split, **changes: Any) -> dict[str, torch.Tensor]:
    config = ARERec(**{"width": 4, "levels": (1.0, 2.0, 3.0, 4.0, 5.0), **changes})
    # Without validation, since the tests change the held-out part.
    return fit(config, split.train, training=Training(epochs=2, cpu=True), quiet=True).model.state_dict()


def with_other_answers(split: Split) -> Split:
    """Reverse the ratings of all held-out interactions, and change their items."""
    whole = split.test.dataset
    assert whole.ratings is not None and whole.times is not None
    hidden = np.ones(len(whole.items), dtype=bool)
    hidden[positions(split.train.starts, split.train.ends)] = False
    assert hidden.sum() > 30
    ratings = np.where(hidden, 6 - whole.ratings, whole.ratings).astype(np.float32)
    items = np.where(hidden, whole.items % whole.n_items + 1, whole.items).astype(np.int32)
    changed = replace(split.train, ratings=ratings, items=items, by_item=None)
    return replace(split, train=changed)


def without_answers(split: Split) -> Split:
    """Keep only the training part."""
    return replace(split, train=split.train.compact())


SMALL: dict[str, dict[str, Any]] = {
    "shared": {},
    "interaction": {"contexts": "interaction"},
    "published": {"contexts": "interaction", "biases": False, "neighbour_ratings": False},
}


@pytest.mark.parametrize("change", [with_other_answers, without_answers])
@pytest.mark.parametrize("look_back", ["past", "train"])
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("split", [leave_last_out, random_rows])
def test_nothing_held_out_is_learnt(split: Any, shape: dict[str, Any], look_back: LookBack, change: Any) -> None:
    parts = split(timed())
    first = weights_of(parts, look_back=look_back, **shape)
    second = weights_of(change(parts), look_back=look_back, **shape)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("change", [with_other_answers, without_answers])
def test_the_published_way_leaks_the_held_out_part(change: Any) -> None:
    parts = random_rows(timed())
    shape = {**SMALL["published"], "look_back": "reference"}
    first, second = weights_of(parts, **shape), weights_of(change(parts), **shape)
    assert not torch.equal(first["users.weight"], second["users.weight"])
