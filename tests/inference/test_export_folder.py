"""Lists in a folder of parts: by this process and by others, again after a kill, and again with other options."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import segue
from segue.data.histories import Histories
from segue.engines.engine import Engine
from segue.errors import StorageError
from segue.files import read_manifest
from segue.inference.asking.everyone import EVERYONE
from segue.inference.recommender import Recommender
from segue.locks import lock_beside, locked
from tests.helpers import alter
from tests.inference.fakes import random_dataset

TWO = Engine(processes=2)


@pytest.fixture(scope="module")
def recommender() -> Recommender:
    """A model of attention, whose histories have sessions and times."""
    data = segue.simulate(40, 6, seed=3).dataset()
    return segue.fit(segue.SASRec(width=8, blocks=1), data, training=segue.Training(epochs=1, cpu=True), quiet=True)


def lists_in(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "part-*.parquet")


def test_parts_of_a_folder_are_those_of_one_file(recommender: Recommender, tmp_path: Path) -> None:
    one = recommender.export(tmp_path / "one.parquet", EVERYONE, k=4, shards=5)
    alone = recommender.export(tmp_path / "alone", EVERYONE, k=4, shards=5)
    shared = recommender.export(tmp_path / "shared", EVERYONE, k=4, shards=5, engine=TWO)
    assert_frame_equal(lists_in(alone), pl.read_parquet(one), check_exact=True)
    assert_frame_equal(lists_in(shared), pl.read_parquet(one), check_exact=True)
    file = recommender.export(tmp_path / "shared.parquet", EVERYONE, k=4, shards=5, engine=TWO)
    assert file.read_bytes() == one.read_bytes()
    manifest = read_manifest(shared, "lists.json", "lists", 1)
    assert manifest["rows"] == len(pl.read_parquet(one)) and manifest["n"] == 40
    assert sorted(manifest["files"]) == [f"part-{number:06d}.parquet" for number in range(5)]
    assert sorted(path.name for path in shared.iterdir()) == ["export.json", "lists.json", *sorted(manifest["files"])]


def test_rules_travel_to_the_workers(recommender: Recommender, tmp_path: Path) -> None:
    ids = recommender.dataset.catalogue.ids.to_list()
    rules: dict[str, Any] = {"k": 3, "deny": {1: ids[:3], 9: ids[4:6]}, "diversity": 0.3, "exclude_seen": False}
    folder = recommender.export(tmp_path / "lists", EVERYONE, shards=4, engine=TWO, **rules)
    assert_frame_equal(lists_in(folder), recommender.recommend(EVERYONE, **rules), rel_tol=1e-5)


def test_a_second_run_writes_what_is_missing(recommender: Recommender, tmp_path: Path) -> None:
    folder = recommender.export(tmp_path / "lists", EVERYONE, k=4, chunk=10)
    manifest = (folder / "lists.json").read_bytes()
    written = {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}
    (folder / "part-000002.parquet").unlink()
    truncated = folder / "part-000003.parquet"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    calls: list[tuple[int, int]] = []
    recommender.export(folder, EVERYONE, k=4, chunk=10, engine=TWO, progress=lambda *done: calls.append(done))
    assert calls == [(20, 40), (30, 40), (40, 40)]
    again = {file.name: file.stat().st_mtime_ns for file in folder.glob("part-*")}
    assert [name for name in sorted(again) if again[name] != written[name]] == [
        "part-000002.parquet",
        "part-000003.parquet",
    ]
    assert (folder / "lists.json").read_bytes() == manifest


@pytest.mark.parametrize(
    ("other", "words"),
    [({"k": 3}, "another k"), ({"users": [1, 2]}, "other users"), ({"chunk": 7}, "another chunk")],
)
def test_other_lists_start_anew_and_say_so(
    recommender: Recommender, tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    folder = recommender.export(tmp_path / "lists", EVERYONE, k=4, chunk=10)
    options: dict[str, Any] = {"users": EVERYONE, "k": 4, "chunk": 10, **other}
    with pytest.warns(UserWarning, match=rf"held other lists \(of .*{words}.*they were deleted"):
        recommender.export(folder, **options)
    options.pop("chunk")
    assert_frame_equal(lists_in(folder), recommender.recommend(**options), rel_tol=1e-5)
    with pytest.raises(StorageError, match="overwrite=False keeps them"):
        recommender.export(folder, **options, overwrite=False)


def test_an_altered_part_is_noticed_by_its_checksum(recommender: Recommender, tmp_path: Path) -> None:
    folder = recommender.export(tmp_path / "lists", EVERYONE, k=4, chunk=10)
    alter(folder / "part-000001.parquet", 60)
    with pytest.raises(StorageError, match=r"part-000001\.parquet does not match its checksum"):
        read_manifest(folder, "lists.json", "lists", 1)


def test_two_jobs_in_one_folder(recommender: Recommender, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    with locked(lock_beside(folder), folder), pytest.raises(StorageError, match=r"lists is in use by process \d+"):
        recommender.export(folder, EVERYONE, k=4)
    assert not folder.exists()


def test_foreign_files_stay(recommender: Recommender, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds mine\.txt, which was not written by segue"):
        recommender.export(tmp_path / "lists", EVERYONE, k=4)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="was not written by segue"):
        recommender.export(tmp_path / "file", EVERYONE, k=4)


def test_more_shards_than_users(recommender: Recommender, tmp_path: Path) -> None:
    folder = recommender.export(tmp_path / "lists", [1, 2], k=4, shards=3)
    assert len(list(folder.glob("part-*"))) == 2
    assert_frame_equal(lists_in(folder), recommender.recommend([1, 2], k=4), rel_tol=1e-5)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small file system: needs root")
def test_a_full_disk_is_named_and_the_job_goes_on_later(recommender: Recommender, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(OSError, match="part-") as caught:
            recommender.export(small / "lists", EVERYONE, k=20, shards=10, engine=TWO)
        assert caught.value.errno == errno.ENOSPC
        finished = {file.name for file in (small / "lists").glob("part-*")}
        assert finished and not (small / "lists" / "lists.json").exists()
        subprocess.run(["mount", "-o", "remount,size=1m", str(small)], check=True)
        times = {name: (small / "lists" / name).stat().st_mtime_ns for name in finished}
        folder = recommender.export(small / "lists", EVERYONE, k=20, shards=10)
        assert times == {name: (folder / name).stat().st_mtime_ns for name in finished}
        assert json.loads((folder / "lists.json").read_text())["n"] == 40
    finally:
        subprocess.run(["umount", str(small)], check=True)


def boundaries(histories: Histories) -> list[list[int]]:
    """Where the sessions of each history begin, from its first item."""
    offsets = histories.session_offsets
    assert offsets is not None
    low, high = np.searchsorted(offsets, np.stack([histories.starts, histories.ends]))
    return [(offsets[low[row] : high[row]] - histories.starts[row]).tolist() for row in range(len(histories))]


def test_compact_histories_are_the_same() -> None:
    data = segue.simulate(30, 5, seed=1).dataset()
    rows = np.array([7, 2, 2, 29, 11])
    chosen = data.histories(rows)
    chosen = Histories(**{**vars(chosen), "baskets": chosen.ends - 1})
    own = chosen.compact()
    assert own.seen()[1].tolist() == chosen.seen()[1].tolist() and len(own.items) == chosen.lengths.sum()
    assert own.times is not None and chosen.times is not None
    assert np.array_equal(own.padded(4), chosen.padded(4)) and np.array_equal(own.ages(4), chosen.ages(4))  # type: ignore[arg-type]
    assert np.array_equal(own.ends - own.baskets, chosen.ends - chosen.baskets)  # type: ignore[operator]
    assert boundaries(own) == boundaries(chosen)
    assert len(Histories.from_lists([]).compact()) == 0
    empty = random_dataset(3, 4, 4).histories(np.array([1])).last(0).compact()
    assert empty.lengths.tolist() == [0]
