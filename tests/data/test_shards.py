"""Folders of shards: opening, merging, and every way in which they can be wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import segue
from segue.data.recoding import recode
from segue.data.shards import Shards, is_shards
from segue.errors import ConfigError, DataError, StorageError
from segue.files import sha256
from segue.training.forgetting import forget

LOG = pl.DataFrame(
    {"user": [f"u{n % 11}" for n in range(60)], "item": [n * 7 % 13 for n in range(60)], "time": list(range(60))}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    segue.prepare_shards(LOG, tmp_path / "shards", shards=3)
    return tmp_path / "shards"


def test_open(folder: Path) -> None:
    shards = Shards.open(folder)
    assert (shards.n_shards, shards.n_users, shards.n_items, shards.n_interactions) == (3, 11, 13, 60)
    assert shards.n_sessions is None and shards.user_ids == "String" and is_shards(folder)
    with pytest.raises(ConfigError, match="number=3: expected 0 to 2, since there are 3"):
        shards.shard(3)
    with pytest.raises(StorageError, match=r"is not a dataset written by segue: it has no dataset\.json"):
        segue.Dataset.open(folder.parent)
    one = segue.Dataset.open(folder / "shard-00001")
    assert one.fingerprint == shards.shard(1).fingerprint


def test_shard_of_needs_ids_of_the_right_type(tmp_path: Path) -> None:
    numbers = LOG.with_columns(user=pl.int_range(pl.len()) % 9)
    shards = segue.prepare_shards(numbers, tmp_path / "shards", shards=4)
    assert shards.shard_of(["7"]).tolist() == shards.shard_of(7).tolist()
    for wrong in ("ann", [None]):
        with pytest.raises(ConfigError, match="is no id of the type Int64"):
            shards.shard_of(wrong)


def missing(folder: Path) -> None:
    shutil.rmtree(folder / "shard-00001")


def other_preparation(folder: Path) -> None:
    segue.prepare_shards(LOG, folder.parent / "other", shards=3, k_core=2)
    missing(folder)
    (folder.parent / "other" / "shard-00001").rename(folder / "shard-00001")


def exchanged(folder: Path) -> None:
    (folder / "shard-00000").rename(folder / "moved")
    (folder / "shard-00001").rename(folder / "shard-00000")
    (folder / "moved").rename(folder / "shard-00001")


def ordinary(folder: Path) -> None:
    missing(folder)
    segue.prepare(LOG, out=folder / "shard-00001")


def edited(folder: Path) -> None:
    file = folder / "shard-00001" / "dataset.json"
    content = json.loads(file.read_text())
    content["metadata"]["format"] = "csv"
    file.write_text(json.dumps(content))


def newer(folder: Path) -> None:
    change(folder, format_version=2)


def unlisted(folder: Path) -> None:
    files = json.loads((folder / "shards.json").read_text())["files"]
    change(folder, files={name: entry for name, entry in files.items() if "00001" not in name})


def change(folder: Path, **values: object) -> None:
    content = json.loads((folder / "shards.json").read_text())
    (folder / "shards.json").write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing, r"shard 1 \(of 3, counted from 0\) is missing: there is no .*shard-00001"),
        (other_preparation, "shard 1 .* is of another preparation, whose item codes may be others"),
        (ordinary, "shard 1 .* is of another preparation"),
        (exchanged, "shard 0 .* is shard 1: folders were exchanged"),
        (edited, r"shard 1 .* was altered after it was written: .*dataset\.json does not match its checksum"),
        (newer, "format version 2; this segue reads up to 1"),
        (unlisted, "does not list shard 1"),
        (lambda folder: change(folder, shards=0), "shards=0, expected 1 or more"),
        (lambda folder: change(folder, shards=4), "does not list shard 3"),
        (lambda folder: change(folder, users=-1), "users=-1, expected a whole number"),
        (lambda folder: change(folder, hash="md5"), "divides users of type String by md5; this segue knows splitmix64"),
        (lambda folder: change(folder, preparation=None), "lacks the preparation, the hash or the metadata"),
    ],
)
def test_wrong_folders(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    for call in (Shards.open, segue.Dataset.open):
        with pytest.raises(StorageError, match=message):
            call(folder)


def test_an_altered_array_is_found_when_its_shard_is_opened(folder: Path) -> None:
    file = folder / "shard-00001" / "items.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    shards = Shards.open(folder)
    shards.shard(0)
    for call in (lambda: shards.shard(1), shards.merged, lambda: segue.Dataset.open(folder)):
        with pytest.raises(StorageError, match=r"items\.npy does not match its checksum"):
            call()


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    segue.prepare_shards(LOG.with_columns(rating=pl.col("time") % 5), tmp_path / "rated", shards=3)
    return tmp_path / "rated"


def test_shards_of_items(rated: Path, folder: Path) -> None:
    shards = Shards.open(rated)
    assert shards.n_item_shards == 3
    sizes = [len(shards.item_shard(number)) for number in range(3)]
    assert sum(sizes) == 60 and max(sizes) < 30
    assert repr(shards.item_shard(0)) == f"ItemShard({len(shards.item_shard(0).items)} items, {sizes[0]} interactions)"
    first = shards.item_shard(0)
    own = LOG.filter(pl.col("item") == 0).sort("time")
    assert first.items[0] == 1  # item 0 of the log
    assert shards.users.decode(first.users[: first.lengths[0]]).to_list() == own["user"].to_list()
    with pytest.raises(ConfigError, match="number=3: expected 0 to 2, since there are 3"):
        shards.item_shard(3)
    with pytest.raises(ConfigError, match=r"no shards of items, as in a log without ratings: take merged\(\)"):
        Shards.open(folder).item_shard(0)


def of_another_preparation(folder: Path) -> None:
    other = segue.prepare_shards(LOG.with_columns(rating=1.0), folder.parent / "other", shards=3).folder
    shutil.rmtree(folder / "items-00001")
    (other / "items-00001").rename(folder / "items-00001")


def exchanged_items(folder: Path) -> None:
    (folder / "items-00000").rename(folder / "moved")
    (folder / "items-00001").rename(folder / "items-00000")
    (folder / "moved").rename(folder / "items-00001")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "items-00002"), "item shard 2 .* is missing: there is no .*items-00002"),
        (of_another_preparation, "item shard 1 .* is of another preparation"),
        (exchanged_items, "item shard 0 .* is item shard 1: folders were exchanged"),
        (lambda folder: change(folder, item_shards=4), "does not list item shard 3"),
        (lambda folder: change(folder, item_shards=-1), "item_shards=-1, expected a whole number"),
    ],
)
def test_wrong_folders_of_items(rated: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(rated)
    with pytest.raises(StorageError, match=message):
        Shards.open(rated)


def sum_again(folder: Path, name: str) -> None:
    """Correct the checksums of a file of an item shard, and of its manifest, after it was edited."""
    for inner, outer in ((folder / "items-00001" / name, "items-00001/items.json"), (None, "shards.json")):
        file = inner or folder / "items-00001" / "items.json"
        content = json.loads((folder / outer).read_text())
        key = file.name if inner else "items-00001/items.json"
        content["files"][key] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
        (folder / outer).write_text(json.dumps(content))


def test_edited_histories_of_items_are_found(rated: Path, tmp_path: Path) -> None:
    users = np.load(rated / "items-00001" / "users.npy")
    file = rated / "items-00001" / "users.npy"
    np.save(file, np.where(users == 3, 12, users))  # there are 11 users
    shards = Shards.open(rated)
    for call in (lambda: shards.item_shard(1), lambda: shards.merged(tmp_path / "merged")):
        with pytest.raises(StorageError, match=r"users\.npy does not match its checksum"):
            call()
    sum_again(rated, "users.npy")
    with pytest.raises(StorageError, match=r"users\.npy holds values beyond 1 to 11"):
        Shards.open(rated).item_shard(1)
    np.save(file, users[:-1])
    sum_again(rated, "users.npy")
    with pytest.raises(StorageError, match=r"its arrays do not have the sizes that items\.json says"):
        Shards.open(rated).item_shard(1)


def test_users_of_other_shards_are_found(folder: Path) -> None:
    """The folder of a shard that was written again, with new checksums throughout."""
    own = folder / "shard-00001"
    former = segue.Dataset.open(own)
    other = segue.Dataset.open(folder / "shard-00000")
    shutil.rmtree(own)
    dataclasses.replace(other, metadata=former.metadata).save(own)
    files = json.loads((folder / "shards.json").read_text())["files"]
    file = own / "dataset.json"
    files["shard-00001/dataset.json"] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    change(folder, files=files)
    with pytest.raises(StorageError, match="holds users of other shards"):
        Shards.open(folder).shard(1)


def test_what_shards_do_not_support_is_refused(folder: Path) -> None:
    more = pl.DataFrame({"user": ["u1"], "item": [3], "time": [99]})
    with pytest.raises(DataError, match=r"was prepared in shards, .* nothing can be appended"):
        segue.Dataset.open(folder).append(more)
    with pytest.raises(StorageError, match="is a Dataset in shards, whose users cannot be forgotten in place"):
        forget(folder, ["u1"])


def test_merged_out_is_an_ordinary_dataset(folder: Path, tmp_path: Path) -> None:
    shards = Shards.open(folder)
    made = shards.merged(tmp_path / "merged")
    assert made.fingerprint == segue.prepare(LOG).fingerprint == segue.Dataset.open(tmp_path / "merged").fingerprint
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        shards.merged(tmp_path / "merged", overwrite=False)
    with pytest.raises(StorageError, match="holds a dataset in shards, and a dataset would take its place"):
        shards.merged(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "shards"]


def test_a_model_is_measured_on_shards(folder: Path) -> None:
    whole = segue.prepare(LOG)
    assert recode(whole, folder).dataset.fingerprint == recode(whole, whole).dataset.fingerprint
