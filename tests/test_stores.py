"""Folders that are uploaded to an object store: a small S3 server of our own answers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import segue
from segue.cli.main import main
from segue.errors import ConfigError, StorageError
from tests.data.reading.object_store import bucket

pytest.importorskip("pyarrow.fs")

LOG = pl.DataFrame(
    {"user": [f"u{n % 7}" for n in range(90)], "item": [n * 5 % 11 for n in range(90)], "time": list(range(90))}
)


class Store:
    """A bucket, the keys that were written, and the answer to the next write of each key."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[str] = []
        self.refuses: Callable[[str], bool] = lambda key: False
        self.address = ""

    def put(self, key: str) -> int | None:
        if self.refuses(key):
            return 403
        self.written.append(key)
        return None

    def url(self, path: str) -> str:
        return f"s3://k:s@shop/{path}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def fetched(self, path: str, folder: Path) -> Path:
        """The files below a path, copied to a folder."""
        for key, content in self.objects.items():
            if key.startswith(f"{path}/"):
                file = folder / key.removeprefix(f"{path}/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        return folder


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    made = Store()
    with bucket("shop", made.objects, made.put) as made.address:
        yield made


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return segue.prepare_shards(LOG, tmp_path / "shards", shards=3).folder


def test_a_folder_arrives_whole_and_its_manifest_last(store: Store, shards: Path, tmp_path: Path) -> None:
    shares = []
    name = segue.upload(shards, store.url("data/shards"), progress=lambda step, share: shares.append((step, share)))
    assert name == "s3://shop/data/shards"  # without keys
    assert store.written[0] == "data/shards/uploading.json" and store.written[-1] == "data/shards/shards.json"
    assert "data/shards/uploading.json" not in store.objects
    assert shares[0] == ("uploading", 0.0) and shares[-1] == ("uploading", 1.0)
    copied = segue.Shards.open(store.fetched("data/shards", tmp_path / "copy"))
    assert copied.merged().fingerprint == segue.prepare(LOG).fingerprint


def test_a_second_upload_copies_only_files_that_are_missing(store: Store, shards: Path) -> None:
    segue.upload(shards, store.url("data"))
    whole = dict(store.objects)
    store.written.clear()
    segue.upload(shards, store.url("data"))
    assert not store.written
    del store.objects["data/shard-00001/items.npy"]
    segue.upload(shards, store.url("data"))
    assert store.written == ["data/shard-00001/items.npy"] and store.objects == whole


def test_an_interrupted_upload_goes_on(store: Store, shards: Path) -> None:
    store.refuses = lambda key: "shard-00002" in key
    with pytest.raises(StorageError, match=r"s3://shop/data cannot be written: .*the same command goes on"):
        segue.upload(shards, store.url("data"))
    assert "data/shards.json" not in store.objects and "data/uploading.json" in store.objects
    first = set(store.written)
    store.written.clear()
    store.refuses = lambda key: False
    segue.upload(shards, store.url("data"))
    assert not first & set(store.written)
    assert "data/shards.json" in store.objects and "data/uploading.json" not in store.objects


def test_another_folder_takes_the_place_of_a_former_one(store: Store, shards: Path, tmp_path: Path) -> None:
    segue.upload(shards, store.url("data"))
    fewer = segue.prepare_shards(LOG.head(60), tmp_path / "fewer", shards=2).folder
    store.refuses = lambda key: "shard-00001" in key
    with pytest.raises(StorageError, match="the same command goes on"):
        segue.upload(fewer, store.url("data"))
    assert "data/shards.json" not in store.objects  # nobody takes the mixture for a whole
    store.refuses = lambda key: False
    segue.upload(fewer, store.url("data"))
    assert not any("shard-00002" in key for key in store.objects)
    copied = segue.Shards.open(store.fetched("data", tmp_path / "copy"))
    assert copied.merged().fingerprint == segue.prepare(LOG.head(60)).fingerprint


def test_large_files_travel_in_parts(store: Store, tmp_path: Path) -> None:
    data = segue.simulate(20, 4).dataset().save(tmp_path / "data")
    np.save(data / "large.npy", np.arange(2_500_000))
    manifest = json.loads((data / "dataset.json").read_text())
    manifest["files"]["large.npy"] = {"bytes": (data / "large.npy").stat().st_size, "sha256": "0" * 64}
    (data / "dataset.json").write_text(json.dumps(manifest))
    segue.upload(data, store.url("data"))
    assert store.objects["data/large.npy"] == (data / "large.npy").read_bytes()


def test_what_is_refused(store: Store, shards: Path, tmp_path: Path) -> None:
    store.objects["logs/1.csv"] = b"user,item"
    with pytest.raises(StorageError, match=r"s3://shop/logs holds 1\.csv, and nothing that shows an upload"):
        segue.upload(shards, store.url("logs"))
    assert store.objects == {"logs/1.csv": b"user,item"}
    with pytest.raises(StorageError, match=r"is no folder to upload: expected one of dataset\.json"):
        segue.upload(tmp_path, store.url("data"))
    for wrong in ("data", "s3://shop", store.url("")):
        with pytest.raises(ConfigError, match="is no folder in a store"):
            segue.upload(shards, wrong)
    with pytest.raises(ConfigError, match=r"ftp://… cannot be opened"):
        segue.upload(shards, "ftp://here/data")
    shutil.rmtree(shards / "shard-00001")
    with pytest.raises(StorageError, match=r"shard-00001/dataset\.json is missing or has another size"):
        segue.upload(shards, store.url("data"))


def test_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists, which a job wrote part by part."""
    recommender = segue.fit(segue.Markov(), segue.leave_last_out(segue.prepare(LOG)), quiet=True)
    recommender.export(tmp_path / "lists", segue.EVERYONE, k=3, shards=3)
    assert main(["push", str(tmp_path / "lists"), store.url("lists")]) == 0
    assert capsys.readouterr().out == "s3://shop/lists\n"
    copy = store.fetched("lists", tmp_path / "copy")
    assert pl.read_parquet(copy / "part-*.parquet").equals(pl.read_parquet(tmp_path / "lists" / "part-*.parquet"))
    assert store.written[-1] == "lists/lists.json"
    assert main(["push", str(tmp_path / "lists"), store.url("lists"), "--public"]) == 2
    assert "are for a repository of the hub" in capsys.readouterr().err


def test_a_folder_comes_back_whole(store: Store, shards: Path, tmp_path: Path) -> None:
    segue.upload(shards, store.url("data"))
    shares = []
    place = segue.download(store.url("data"), tmp_path / "copy", progress=lambda *step: shares.append(step))
    assert place == tmp_path / "copy" and shares[-1] == ("downloading", 1.0)
    assert segue.Shards.open(place).merged().fingerprint == segue.prepare(LOG).fingerprint
    assert {path.relative_to(place) for path in place.rglob("*")} == {
        path.relative_to(shards) for path in shards.rglob("*")
    }
    segue.upload(segue.prepare_shards(LOG.head(60), tmp_path / "fewer", shards=2).folder, store.url("data"))
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        segue.download(store.url("data"), place, overwrite=False)
    segue.download(store.url("data"), place)
    assert segue.Shards.open(place).merged().fingerprint == segue.prepare(LOG.head(60)).fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "fewer", "shards"]


def test_an_interrupted_download_goes_on(store: Store, shards: Path, tmp_path: Path) -> None:
    segue.upload(shards, store.url("data"))
    lost = "data/shard-00002/items.npy"
    content = store.objects[lost]

    def interrupts(step: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segue.download(store.url("data"), tmp_path / "copy", progress=interrupts)
    assert not (tmp_path / "copy").exists()
    kept = [path for path in (tmp_path / "copy.download").rglob("*.npy") if path.stat().st_size]
    assert kept
    before = {path.relative_to(tmp_path / "copy.download"): path.stat().st_mtime_ns for path in kept}
    segue.download(store.url("data"), tmp_path / "copy")
    after = {path: (tmp_path / "copy" / path).stat().st_mtime_ns for path in before}
    assert any(after[path] == before[path] for path in before), "files that were there travel once"
    assert segue.Shards.open(tmp_path / "copy").merged().fingerprint == segue.prepare(LOG).fingerprint
    # A file that is missing in the store is named, and the folder that is there stays.
    del store.objects[lost]
    with pytest.raises(StorageError, match=r"shard-00002/items\.npy is missing or has another size"):
        segue.download(store.url("data"), tmp_path / "copy")
    assert (tmp_path / "copy" / "shard-00002" / "items.npy").read_bytes() == content


def test_downloads_that_are_refused(store: Store, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"s3://shop/data is no folder of segue: .* nothing is there"):
        segue.download(store.url("data"), tmp_path / "copy")
    store.refuses = lambda key: "shard-00002" in key
    with pytest.raises(StorageError):
        segue.upload(shards, store.url("data"))
    with pytest.raises(StorageError, match=r"an upload to s3://shop/data has not ended"):
        segue.download(store.url("data"), tmp_path / "copy")
    store.refuses = lambda key: False
    segue.upload(shards, store.url("data"))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="was not written by segue"):
        segue.download(store.url("data"), tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["notes.txt"]
    for wrong in ("data", "s3://shop"):
        with pytest.raises(ConfigError, match="is no folder in a store"):
            segue.download(wrong, tmp_path / "new")
    store.objects["data/a/../../outside.npy"] = b"hostile"
    with pytest.raises(StorageError, match=r"would be written outside of the folder"):
        segue.download(store.url("data"), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_commands_from_log_to_copy(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    LOG.write_csv(tmp_path / "log.csv")
    prepare = ["prepare", str(tmp_path / "log.csv"), "--quiet", "--out"]
    assert main([*prepare, store.url("data")]) == 0
    out, err = capsys.readouterr()
    assert "uploaded to s3://shop/data" in out + err and "k:s" not in out + err
    assert main(["pull", store.url("data"), str(tmp_path / "copy"), "--quiet"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'copy'}\n"
    assert segue.Dataset.open(tmp_path / "copy").fingerprint == segue.prepare(LOG).fingerprint
    # A place that is taken is known before the work, and a Dataset that could not be uploaded is kept.
    store.objects["taken/1.csv"] = b"user,item"
    assert main([*prepare, store.url("taken")]) == 1
    assert "nothing that shows an upload" in capsys.readouterr().err
    store.refuses = lambda key: key.endswith(".npy")
    assert main([*prepare, store.url("refused"), "--json"]) == 1
    assert segue.Dataset.open(kept_dataset(capsys)).fingerprint == segue.prepare(LOG).fingerprint

    def interrupts(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("segue.transfers._copy", interrupts)
    assert main([*prepare, store.url("interrupted")]) == 130
    assert segue.Dataset.open(kept_dataset(capsys)).fingerprint == segue.prepare(LOG).fingerprint


def kept_dataset(capsys: pytest.CaptureFixture[str]) -> Path:
    """The folder that a message names."""
    out, err = capsys.readouterr()
    assert not out  # there is nothing to report
    message = " ".join(err.split())
    return Path(message.partition("The Dataset is in ")[2].partition(":")[0])
