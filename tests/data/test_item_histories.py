from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data import item_histories
from segue.data.dataset import Dataset
from segue.data.item_histories import item_order, item_order_within, save_item_order
from segue.data.ragged import positions
from segue.files import read_json, write_json
from tests.helpers import make_dataset

Row = tuple[int, int | None, int, int, float | None]


def small() -> Dataset:
    """Item 1 was had by bob at 2, ann at 3 and cy at 3; item 2 by cy at 1 and bob at 9; item 3 by nobody."""
    return make_dataset(
        {"ann": [1], "bob": [1, 2], "cy": [2, 1], "dan": []},
        {"ann": [3], "bob": [2, 9], "cy": [1, 3], "dan": []},
        {"ann": [5], "bob": [4, 3], "cy": [2, 1], "dan": []},
        catalogue=[1, 2, 3],
    )


def by_loop(data: Dataset) -> list[Row]:
    """(item, time, position, user, rating) of all that is visible, in the order that item histories have."""
    rows: list[Row] = []
    for user in range(data.n_users + 1):
        for place in range(int(data.starts[user]), int(data.ends[user])):
            time = None if data.times is None else int(data.times[place])
            rating = None if data.ratings is None else float(data.ratings[place])
            rows.append((int(data.items[place]), time, place, user, rating))
    return sorted(rows, key=lambda row: (row[0], row[1] or 0, row[2]))


def check(data: Dataset) -> None:
    """The item histories are those of the loop."""
    found, expected = data.item_histories, by_loop(data)
    assert found.order.tolist() == [row[2] for row in expected]
    assert found.order.dtype == np.int32
    assert found.users.tolist() == [row[3] for row in expected]
    assert found.users.dtype == np.int32
    for values, place, there in ((found.times, 1, data.times), (found.ratings, 4, data.ratings)):
        assert (values is None) == (there is None)
        if values is not None:
            assert values.tolist() == [row[place] for row in expected]
    assert len(found.offsets) == data.n_items + 2 and found.lengths[0] == 0
    for item in range(data.n_items + 1):
        mine = found.order[found.offsets[item] : found.offsets[item + 1]]
        assert mine.tolist() == [row[2] for row in expected if row[0] == item]


def test_the_history_of_an_item_is_who_had_it_oldest_first() -> None:
    found = small().item_histories
    assert small().users.decode(found.users).to_list() == ["bob", "ann", "cy", "cy", "bob"]
    assert found.offsets.tolist() == [0, 0, 3, 5, 5]
    assert found.ratings is not None and found.ratings.tolist() == [4, 5, 1, 2, 3]
    assert repr(found) == "ItemHistories(3 items, 5 interactions)"


LOGS = st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 3)), max_size=7), min_size=1, max_size=6)


def dataset_of(log: list[list[tuple[int, int]]], timed: bool, rated: bool) -> Dataset:
    rows = [sorted(row, key=lambda one: one[1]) for row in log]
    return make_dataset(
        [[item for item, _ in row] for row in rows],
        [[time for _, time in row] for row in rows] if timed else None,
        [[item * 0.5 for item, _ in row] for row in rows] if rated else None,
        catalogue=range(1, 5),
    )


@settings(deadline=None)
@given(LOGS, st.booleans(), st.booleans(), st.data())
def test_item_histories_of_whole_datasets_and_of_views(
    log: list[list[tuple[int, int]]], timed: bool, rated: bool, drawn: st.DataObject
) -> None:
    data = dataset_of(log, timed, rated)
    sorted_once = Dataset(**{**data.__dict__, "by_item": item_order(data.items, data.times)})
    ends = data.starts + np.array([drawn.draw(st.integers(0, int(length))) for length in data.lengths])
    for dataset in (data, sorted_once):
        check(dataset)
        check(dataset.until(ends))
        check(dataset.until(ends).compact())


@settings(deadline=None, max_examples=30)
@given(LOGS, st.booleans())
def test_on_disk_they_are_sorted_in_ranges_of_items(
    tmp_path_factory: pytest.TempPathFactory, log: list[list[tuple[int, int]]], timed: bool
) -> None:
    data = dataset_of(log, timed, rated=True)
    folder = tmp_path_factory.mktemp("ranges") / "data"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(item_histories, "_RANGE", 3)
        patch.setattr(item_histories, "chunks", lambda n, *_: (slice(low, min(low + 4, n)) for low in range(0, n, 4)))
        save_item_order(folder / "by_item.npy", data.items, data.times, data.item_counts())
    found = np.load(folder / "by_item.npy", allow_pickle=False)
    assert found.dtype == np.int32
    assert found.tolist() == [row[2] for row in by_loop(data)]
    assert [file.name for file in folder.parent.iterdir()] == ["data"], "what was needed on the way is gone"


def test_they_are_written_where_there_are_ratings_and_mapped(tmp_path: Path) -> None:
    rated = make_dataset([[1, 2] * 50], ratings=[[3, 4] * 50])
    opened = Dataset.open(rated.save(tmp_path / "rated"))
    assert isinstance(opened.item_histories.order, np.ndarray)
    assert isinstance(opened.item_histories.order.base, np.memmap)
    check(opened)
    check(opened.until(opened.ends - np.array([0, 7])))
    assert not (make_dataset([[1, 2]]).save(tmp_path / "unrated") / "by_item.npy").exists()
    check(Dataset.open(tmp_path / "unrated"))


def test_a_view_is_saved_with_its_own(tmp_path: Path) -> None:
    opened = Dataset.open(small().save(tmp_path / "data"))
    view = opened.until(opened.ends - np.array([0, 0, 1, 1, 0]))
    again = Dataset.open(view.save(tmp_path / "view"))
    assert again.by_item is not None and len(again.by_item) == 3
    check(again)


def test_a_folder_without_them_opens_as_it_always_did(tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    (path / "by_item.npy").unlink()
    manifest = read_json(path / "dataset.json")
    del manifest["files"]["by_item.npy"]
    write_json(path / "dataset.json", manifest)
    opened = Dataset.open(path)
    assert opened.by_item is None
    check(opened)
    assert opened.fingerprint == small().fingerprint


def test_they_are_no_part_of_the_fingerprint(tmp_path: Path) -> None:
    assert Dataset.open(small().save(tmp_path / "data")).fingerprint == small().fingerprint


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, 2**16 + 1, 2**17, 2**30]), st.integers(-1, 2)), max_size=20))
def test_catalogues_of_any_size_are_sorted(rows: list[tuple[int, int]]) -> None:
    items, times = (np.array([row[side] for row in rows], dtype=kind) for side, kind in ((0, np.int32), (1, np.int64)))
    assert item_order(items, times).tolist() == sorted(range(len(rows)), key=lambda place: rows[place])
    assert item_order(items, None).tolist() == sorted(range(len(rows)), key=lambda place: rows[place][0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=12))
def test_taking_positions_out_needs_no_sorting(rows: list[tuple[int, int, bool]]) -> None:
    items = np.array([row[0] for row in rows], dtype=np.int32)
    times = np.array([row[1] for row in rows], dtype=np.int64)
    kept = np.array([row[2] for row in rows], dtype=bool)
    found = item_order_within(item_order(items, times), kept)
    assert found.tolist() == item_order(items[kept], times[kept]).tolist()


def test_positions_of_a_view_point_into_the_whole_arrays() -> None:
    data = small()
    view = data.until(data.ends - np.array([0, 0, 0, 2, 0]))
    assert set(view.item_histories.order.tolist()) == set(positions(view.starts, view.ends).tolist())
