"""Logs in an object store: a small S3 server of our own answers."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import segue
from segue.errors import ConfigError, DataError, StorageError
from tests.data.reading.object_store import bucket

LOG = pl.DataFrame(
    {"user": [f"u{n % 7}" for n in range(90)], "item": [n * 5 % 11 for n in range(90)], "time": list(range(90))}
)


def parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("pyarrow.fs")
    parts = [LOG[start : start + 30] for start in (0, 30, 60)]
    objects = {f"logs/{number}.parquet": parquet(part) for number, part in enumerate(parts)}
    objects |= {"logs/notes.txt": b"not a log", "all/log.csv": LOG.write_csv().encode(), "all/_SUCCESS": b""}
    objects |= {"one/log.csv.gz": gzip.compress(LOG.write_csv().encode())}
    with bucket("shop", objects) as address:
        yield address


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)


def url(server: str, path: str) -> str:
    return f"s3://k:s@shop/{path}?endpoint_override={server}&scheme=http&region=us-east-1"


@pytest.mark.parametrize("path", ["logs/*.parquet", "logs/[0-9].parquet", "all", "all/log.csv", "one/log.csv.gz"])
def test_files_folders_and_patterns(server: str, path: str) -> None:
    data = segue.prepare(url(server, path))
    assert data.fingerprint == segue.prepare(LOG).fingerprint
    assert data.metadata["source"] == f"s3://shop/{path}"  # without keys and options


def test_the_environment_names_the_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{server}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert segue.prepare("s3://shop/all/log.csv").n_interactions == 90


def test_shards(server: str, tmp_path: Path) -> None:
    made = segue.prepare_shards(url(server, "logs/*.parquet"), tmp_path / "shards", shards=3)
    assert made.merged().fingerprint == segue.prepare(LOG).fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_errors(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"s3://shop/nothing: no such file"):
        segue.read(url(server, "nothing"))
    with pytest.raises(DataError, match=r"s3://shop/logs/\*\.csv: no such file"):
        segue.read(url(server, "logs/*.csv"))
    with pytest.raises(DataError, match=r"s3://shop/logs holds files of several kinds \(\.parquet, \.txt\)"):
        segue.read(url(server, "logs"))
    with pytest.raises(ConfigError, match=r"ftp://… cannot be opened .*: expected s3://, gs:// or abfs://"):
        segue.read("ftp://shop/log.csv")
    with pytest.raises(StorageError, match="is a URL, and only folders of this machine are written"):
        segue.prepare(LOG, out="s3://shop/data")
    with pytest.raises(StorageError, match="is a URL, and only folders of this machine are written"):
        segue.prepare_shards(LOG, "s3://shop/data", shards=2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        ConfigError, match=r"is reached through pyarrow, which is not installed: pip install 'segue\[s3\]'"
    ):
        segue.read(url(server, "all"))
