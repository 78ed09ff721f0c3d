from __future__ import annotations

import errno
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors import SafetensorError

from segue.errors import StorageError
from segue.files import atomic_file, atomic_folder, read_json, read_manifest, sha256, write_json, write_manifest
from tests.helpers import alter, truncate

NAME = "dataset.json"


def write_folder(path: Path, text: str = "one") -> Path:
    with atomic_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "a.txt").write_text(text)
        (folder / "inner" / "b.txt").write_text(text * 2)
        write_manifest(folder, NAME, "thing", 3, {"colour": "red"})
    return path


def read(path: Path, **options: Any) -> dict[str, Any]:
    return read_manifest(path, NAME, "thing", 3, **options)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_appears_whole_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "note.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("x")
        assert not path.exists() and temporary.parent == path.parent
    (tmp_path / "plain").touch()
    assert path.read_text() == "x"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_at_the_flush_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("300000 requested and 38384 written"),
        OSError("No space left on device (os error 28)"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)"),
    ],
    ids=["python", "numpy", "polars-text", "safetensors", "polars-parquet"],
)
@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_full_disk_is_said_alike_by_all_libraries(tmp_path: Path, error: Exception, atomic: Any) -> None:
    with pytest.raises(OSError) as raised, atomic(tmp_path / "data"):
        raise error
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "data"))
    assert not list(tmp_path.iterdir())


def test_a_file_within_a_folder_that_cannot_be_written_is_said_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OSError) as raised, atomic_folder(tmp_path / "data") as folder:
        write_json(folder / "inner" / "a.json", {})
        raise OSError(errno.ENOSPC, "full", str(folder / "a.npy"))
    assert raised.value.filename == str(tmp_path / "data")


def test_a_file_elsewhere_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as raised, atomic_file(tmp_path / "data"):
        (tmp_path / "source").read_text()
    assert raised.value.filename == str(tmp_path / "source")


@pytest.mark.parametrize("error", [StorageError("odd (os error 28)"), ValueError("odd"), KeyboardInterrupt()])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, atomic_file(tmp_path / "data"):
        raise error
    assert raised.value is error


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "out")
    (path / "a.txt").rename(path / "renamed.txt")
    write_folder(path, "two")
    assert (path / "a.txt").read_text() == "two" and not (path / "renamed.txt").exists()
    assert read(path)["colour"] == "red"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_a_failed_folder_leaves_the_old_one_and_no_rubbish(tmp_path: Path, error: BaseException) -> None:
    path = write_folder(tmp_path / "out")
    with pytest.raises(type(error)), atomic_folder(path) as folder:
        (folder / "a.txt").write_text("half")
        raise error
    assert read(path) and (path / "a.txt").read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["first", "second"])
def test_a_failed_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = write_folder(tmp_path / "out")
    rename, calls = Path.rename, []

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == (1 if failing == "first" else 2):
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="broken"):
        write_folder(path, "two")
    assert (path / "a.txt").read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["letter.txt", "dataset.json", "recommender.json"])
@pytest.mark.parametrize("content", ["[]", '{"kind": "holiday"}', "not JSON"])
def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    (path / name).write_text(content)
    with pytest.raises(StorageError, match="was not written by segue"):
        write_folder(path)
    assert (path / name).read_text() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_never_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("dear")
    with pytest.raises(StorageError, match="was not written by segue"):
        write_folder(path)
    assert path.read_text() == "dear"


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert read(write_folder(tmp_path / "out"))


def test_the_manifest_lists_every_other_file(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "out")
    manifest = read(path)
    assert (manifest["kind"], manifest["format_version"], manifest["colour"]) == ("thing", 3, "red")
    assert manifest["files"] == {
        "a.txt": {"bytes": 3, "sha256": sha256(path / "a.txt")},
        "inner/b.txt": {"bytes": 6, "sha256": sha256(path / "inner" / "b.txt")},
    }


def edit(path: Path, **changes: Any) -> None:
    write_json(path / NAME, {**read_json(path / NAME), **changes})


DAMAGES: list[tuple[Any, str]] = [
    (lambda path: (path / "inner" / "b.txt").unlink(), r"b\.txt is missing"),
    (lambda path: truncate(path / "a.txt"), r"a\.txt has 2 bytes, 3 were written"),
    (lambda path: alter(path / "a.txt", 1), r"a\.txt does not match its checksum"),
    (lambda path: (path / NAME).unlink(), "it has no dataset.json"),
    (lambda path: truncate(path / NAME, 40), r"dataset\.json is not valid JSON"),
    (lambda path: alter(path / NAME, 5), r"dataset\.json is not valid JSON"),
    (lambda path: (path / NAME).write_text("[1]"), "does not describe a thing"),
    (lambda path: edit(path, kind="other"), "does not describe a thing"),
    (lambda path: edit(path, format_version=4), r"format version 4; this segue reads up to 3\. Upgrade"),
    (lambda path: edit(path, format_version="new"), "format version new"),
    (lambda path: edit(path, files=None), "lists no files"),
    (lambda path: edit(path, files={"a.txt": {}}), "damaged or edited"),
    (lambda path: edit(path, files={"a.txt": 3}), "damaged or edited"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_every_damage_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_folder(tmp_path / "out")
    damage(path)
    with pytest.raises(StorageError, match=message):
        read(path)


def test_without_verifying_sizes_are_still_compared(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "out")
    alter(path / "a.txt", 0)
    assert read(path, verify=False)
    truncate(path / "a.txt")
    with pytest.raises(StorageError, match="truncated"):
        read(path, verify=False)


def test_no_folder_and_no_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere is not a folder: expected a thing"):
        read(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"nothing\.json is missing"):
        read_json(tmp_path / "nothing.json")
    (tmp_path / "latin.json").write_bytes(b'"\xe4"')
    with pytest.raises(StorageError, match="not valid JSON"):
        read_json(tmp_path / "latin.json")


KILLED = """
import os, signal
from pathlib import Path
from segue.files import atomic_file, atomic_folder, write_manifest

with {atomic}(Path("data")) as temporary:
    place = temporary / "a.txt" if temporary.is_dir() else temporary
    place.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("atomic", ["atomic_file", "atomic_folder"])
def test_a_killed_process_leaves_what_was_there(tmp_path: Path, atomic: str) -> None:
    if atomic == "atomic_file":
        (tmp_path / "data").write_text("old")
    else:
        write_folder(tmp_path / "data")
    done = subprocess.run([sys.executable, "-c", KILLED.format(atomic=atomic)], cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    if atomic == "atomic_file":
        assert (tmp_path / "data").read_text() == "old"
    else:
        read(tmp_path / "data")
        write_folder(tmp_path / "data", "two")
        assert (tmp_path / "data" / "a.txt").read_text() == "two"
