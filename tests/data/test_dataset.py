from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.data.dataset import Dataset
from segue.data.vocabulary import Vocabulary
from segue.errors import DataError, StorageError
from segue.files import read_json, read_manifest, write_json
from tests.helpers import alter, make_dataset, truncate, visible

LOG = {"ann": ["tea", "milk", "tea"], "bob": ["cake"], "cy": [], "dan": ["milk", "tea"]}
TIMES = {"ann": [10, 20, 30], "bob": [25], "cy": [], "dan": [5, 40]}
RATINGS = {"ann": [5.0, 3.0, 4.5], "bob": [1.0], "cy": [], "dan": [2.0, 2.0]}


def small() -> Dataset:
    return make_dataset(LOG, TIMES, RATINGS)


def view() -> Dataset:
    """Ann's and Dan's last interactions hidden."""
    data = small()
    return data.until(data.ends - np.array([0, 1, 0, 0, 1]))


def test_the_dataset_counts_what_is_visible() -> None:
    assert (small().n_users, small().n_items, small().n_interactions) == (4, 3, 6)
    assert small().lengths.tolist() == [0, 3, 1, 0, 2]
    assert view().lengths.tolist() == [0, 2, 1, 0, 1]
    assert repr(view()) == "Dataset(4 users, 3 items, 4 interactions)"


def test_item_counts_are_of_what_is_visible() -> None:
    assert small().item_counts().tolist() == [0, 1, 2, 3]  # cake, milk, tea
    assert view().item_counts().tolist() == [0, 1, 2, 1]
    assert make_dataset([[2]], catalogue=[1, 2, 3]).item_counts().tolist() == [0, 0, 1, 0]


def test_histories_are_of_users_with_something_visible_or_of_those_asked_for() -> None:
    data = view()
    histories = data.histories()
    assert histories.users.tolist() == [1, 2, 4]
    assert histories.padded(3).tolist() == [[3, 2, 0], [1, 0, 0], [2, 0, 0]]
    assert histories.items is data.items, "slices are shared, not copied"
    some = data.histories(np.array([4, 0, 3]))
    assert (some.users.tolist(), some.lengths.tolist()) == ([4, 0, 3], [1, 0, 0])


def test_frames_show_raw_ids_and_only_what_is_visible() -> None:
    frame = view().to_frame()
    assert frame.columns == ["user", "item", "time", "rating"]
    assert frame.rows() == [
        ("ann", "tea", 10, 5.0),
        ("ann", "milk", 20, 3.0),
        ("bob", "cake", 25, 1.0),
        ("dan", "milk", 5, 2.0),
    ]
    assert make_dataset([[7]]).to_frame().columns == ["user", "item"]


def test_before_keeps_what_is_strictly_earlier() -> None:
    assert visible(small().before(25)) == {"ann": ["tea", "milk"], "bob": [], "cy": [], "dan": ["milk"]}
    assert visible(small().before(26))["bob"] == ["cake"]
    assert visible(view().before(1000)) == visible(view())
    assert small().before(0).n_interactions == 0


def test_before_needs_times() -> None:
    with pytest.raises(DataError, match="no times"):
        make_dataset([[1]]).before(3)


TIMED = st.lists(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), max_size=6), min_size=1, max_size=5)


@settings(deadline=None)
@given(TIMED, st.integers(-1, 11), st.integers(0, 3))
def test_before_is_a_filter_of_each_history(rows: list[list[tuple[int, int]]], moment: int, hidden: int) -> None:
    rows = [sorted(row, key=lambda pair: pair[1]) for row in rows]
    dataset = make_dataset(
        [[i for i, _ in row] for row in rows], [[t for _, t in row] for row in rows], catalogue=range(1, 5)
    )
    cut = dataset.until(np.maximum(dataset.starts, dataset.ends - hidden)).before(moment)
    expected = [[i for i, t in row[: max(0, len(row) - hidden)] if t < moment] for row in rows]
    assert list(visible(cut).values()) == expected
    assert list(visible(cut.compact()).values()) == expected
    assert len(cut.compact().items) == cut.n_interactions


@pytest.mark.parametrize(("unit", "expected"), [("s", 1_500), ("ms", 1_500_500), ("ns", 1_500_500_000_000)])
def test_moments_are_given_in_seconds(unit: str, expected: int) -> None:
    data = small()
    object.__setattr__(data, "time_unit", unit)
    assert data.timestamp(1500.5) == expected


def test_the_fingerprint_is_of_content_alone() -> None:
    assert small().fingerprint == small().fingerprint
    other_metadata = Dataset(**{**small().__dict__, "metadata": {"source": "elsewhere"}})
    assert other_metadata.fingerprint == small().fingerprint


def test_the_fingerprint_does_not_depend_on_library_versions() -> None:
    """Runs are resumed by it, so it must be the same after an upgrade."""
    assert small().fingerprint.startswith("cea3b212b6ffd19e")


def renamed(old: str, new: str) -> Dataset:
    return make_dataset({user: [new if i == old else i for i in row] for user, row in LOG.items()}, TIMES, RATINGS)


@pytest.mark.parametrize(
    "other",
    [
        lambda: view(),
        lambda: make_dataset(LOG, TIMES),
        lambda: make_dataset(LOG, None, RATINGS),
        lambda: make_dataset({**LOG, "bob": ["tea"]}, TIMES, RATINGS, catalogue=["cake", "milk", "tea"]),
        lambda: make_dataset(LOG, {**TIMES, "bob": [26]}, RATINGS),
        lambda: make_dataset(LOG, TIMES, {**RATINGS, "bob": [1.5]}),
        lambda: renamed("tea", "team"),
        lambda: make_dataset(LOG, TIMES, RATINGS, catalogue=["cake", "milk", "tea", "water"]),
    ],
    ids=["ends", "no-ratings", "no-times", "item", "time", "rating", "raw-id", "catalogue"],
)
def test_the_fingerprint_changes_with_the_data(other: Any) -> None:
    assert other().fingerprint != small().fingerprint


def test_integers_and_their_digits_as_text_have_other_fingerprints() -> None:
    assert make_dataset([[1, 2]]).fingerprint != make_dataset([["1", "2"]]).fingerprint


# ---- storage ---------------------------------------------------------------------------------------------------------


def same(one: Dataset, other: Dataset) -> bool:
    return (
        one.to_frame().equals(other.to_frame())
        and (one.users, one.catalogue, one.time_unit) == (other.users, other.catalogue, other.time_unit)
        and one.fingerprint == other.fingerprint
    )


@pytest.mark.parametrize(
    "data",
    [small(), make_dataset(LOG), make_dataset([[3, 1], [2]], [[1, 2], [3]]), make_dataset([[], []], catalogue=[1])],
    ids=["all-columns", "no-times", "integers", "empty"],
)
def test_saved_and_opened_it_is_the_same(data: Dataset, tmp_path: Path) -> None:
    opened = Dataset.open(data.save(tmp_path / "data"))
    assert same(opened, data)
    assert list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_metadata_is_kept(tmp_path: Path) -> None:
    data = Dataset(**{**small().__dict__, "metadata": {"source": "a.csv", "steps": [{"k": 5}]}})
    assert Dataset.open(data.save(tmp_path / "data")).metadata == data.metadata


def test_arrays_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    opened = Dataset.open(make_dataset([[1, 2] * 50]).save(tmp_path / "data"))
    assert isinstance(opened.items.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.items[0] = 3


def test_a_view_is_saved_as_what_is_visible(tmp_path: Path) -> None:
    opened = Dataset.open(view().save(tmp_path / "data"))
    assert opened.to_frame().equals(view().to_frame())
    assert (len(opened.items), len(opened.times), len(opened.ratings)) == (4, 4, 4)  # type: ignore[arg-type]
    assert opened.n_users == 4 and opened.n_items == 3
    assert view().compact().fingerprint == opened.fingerprint


def test_a_dataset_can_be_saved_over_the_folder_that_it_is_mapped_from(tmp_path: Path) -> None:
    opened = Dataset.open(small().save(tmp_path / "data"))
    opened.until(view().ends).save(tmp_path / "data")
    assert same(opened, small())
    assert Dataset.open(tmp_path / "data").n_interactions == 4


FILES = ["items.npy", "offsets.npy", "times.npy", "ratings.npy", "by_item.npy", "users.parquet", "items.parquet"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: truncate(file), "truncated or altered"),
        (lambda file: alter(file, -1), "does not match its checksum"),
        (lambda file: alter(file, 3), "does not match its checksum"),
    ],
    ids=["missing", "truncated", "altered", "altered-header"],
)
def test_a_damaged_file_is_named(name: str, damage: Any, message: str, tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    damage(path / name)
    with pytest.raises(StorageError, match=rf"{name} .*{message}"):
        Dataset.open(path)


def test_a_future_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    write_json(path / "dataset.json", {**read_json(path / "dataset.json"), "format_version": 99})
    with pytest.raises(StorageError, match=r"format version 99; this segue reads up to \d+\. Upgrade"):
        Dataset.open(path)


def arrived_later() -> Dataset:
    """The small Dataset with an item and a user appended."""
    data = small()
    offsets = np.append(data.offsets, data.offsets[-1])
    users, catalogue = data.users.extended(["abe"]), data.catalogue.extended(["ale"])
    return replace(data, users=users, catalogue=catalogue, offsets=offsets, ends=offsets[1:])


def test_ids_that_arrived_later_keep_their_codes_on_disk(tmp_path: Path) -> None:
    loaded = Dataset.open(arrived_later().save(tmp_path / "data"))
    assert visible(loaded) == {**LOG, "abe": []}
    assert loaded.users.ids.to_list()[-1] == "abe" and loaded.catalogue.ids.to_list()[-1] == "ale"
    assert loaded.fingerprint == arrived_later().fingerprint != small().fingerprint


def test_only_ids_out_of_order_need_the_newer_format(tmp_path: Path) -> None:
    sorted_users = replace(arrived_later(), users=Vocabulary(["abe", *LOG]))
    versions = [
        read_json(data.save(tmp_path / "data") / "dataset.json")["format_version"]
        for data in (small(), arrived_later(), sorted_users, replace(small(), users=small().users.extended([])))
    ]
    assert versions == [1, 2, 2, 1]
    assert arrived_later().save(tmp_path / "data")
    with pytest.raises(StorageError, match=r"format version 2; this segue reads up to 1\. Upgrade segue"):
        read_manifest(tmp_path / "data", "dataset.json", "dataset", 1)


def test_folders_of_format_1_open_with_the_codes_they_had() -> None:
    folder = Path(__file__).parents[1] / "saved" / "format-1" / "dataset"
    assert read_json(folder / "dataset.json")["format_version"] == 1
    data = Dataset.open(folder)
    assert data.users.ids.to_list() == [f"u{user:02}" for user in range(24)] and data.catalogue.is_sorted


@pytest.mark.parametrize("gone", ["files", "time_unit", "metadata", "kind", "format_version"])
def test_an_edited_manifest_is_an_error(gone: str, tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    manifest = read_json(path / "dataset.json")
    del manifest[gone]
    write_json(path / "dataset.json", manifest)
    with pytest.raises(StorageError, match="data"):
        Dataset.open(path)


@pytest.mark.parametrize("name", ["items.npy", "offsets.npy", "users.parquet", "items.parquet"])
def test_a_manifest_without_an_essential_file_is_an_error(name: str, tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    manifest = read_json(path / "dataset.json")
    del manifest["files"][name]
    write_json(path / "dataset.json", manifest)
    with pytest.raises(StorageError, match=name):
        Dataset.open(path)


def test_not_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a dataset written by segue"):
        Dataset.open(tmp_path)
    with pytest.raises(StorageError, match="is not a folder"):
        Dataset.open(tmp_path / "nowhere")


def test_what_segue_did_not_write_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="was not written by segue"):
        small().save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("fails_at", [0, 2, 3])
def test_a_disk_that_fills_up_while_saving_leaves_the_old_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    path = small().save(tmp_path / "data")
    save, calls = np.save, []

    def full(file: Path, *rest: Any, **options: Any) -> None:
        calls.append(file)
        if len(calls) > fails_at:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(file, *rest, **options)

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left"):
        view().save(path)
    assert same(Dataset.open(path), small())
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_that_is_not_plain_data_leaves_the_old_dataset(tmp_path: Path) -> None:
    path = small().save(tmp_path / "data")
    with pytest.raises(TypeError):
        Dataset(**{**view().__dict__, "metadata": {"source": object()}}).save(path)
    assert same(Dataset.open(path), small())
    assert list(tmp_path.iterdir()) == [path]
