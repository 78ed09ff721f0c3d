from __future__ import annotations

import errno
import json
import os
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
from segue.files import (
    FileKind,
    atomic_file,
    atomic_folder,
    atomic_set,
    check_file,
    check_folder,
    exclusive,
    read_json,
    read_manifest,
    sha256,
    write_json,
    write_manifest,
)
from segue.locks import collect, mark_ready
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
    (path / "a.txt").unlink()
    write_folder(path, "two")
    assert (path / "a.txt").read_text() == "two"
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

    monkeypatch.setattr("segue.locks._swapped", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="Input/output error"):
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


# ---- overwriting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", ["mine.csv", "inner/mine.csv", "runs/first/run.json"])
@pytest.mark.parametrize("overwrite", [None, True, False])
def test_a_folder_with_something_else_in_it_is_never_replaced(
    tmp_path: Path, foreign: str, overwrite: bool | None
) -> None:
    path = write_folder(tmp_path / "out")
    (path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (path / foreign).write_text("years of work")
    refused = pytest.raises(StorageError, match=rf"also {foreign}, which does not belong to it: nothing was deleted")
    with refused, atomic_folder(path, overwrite=overwrite):
        pytest.fail("refused too late")
    assert (path / foreign).read_text() == "years of work" and read(path)


def test_what_arrives_while_a_folder_is_written_is_kept(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "out")
    with pytest.raises(StorageError, match="nothing was deleted"), atomic_folder(path):
        (path / "late.txt").write_text("keep")
    assert (path / "late.txt").read_text() == "keep" and read(path)
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_same_kind_is_replaced(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out", "dataset") as folder:
        write_manifest(folder, "dataset.json", "dataset", 1, {})
    with pytest.raises(StorageError, match="out exists and holds a dataset, and a recommender would take its place"):
        check_folder(tmp_path / "out", "recommender")
    check_folder(tmp_path / "out", "dataset")
    with pytest.raises(StorageError, match="already holds a dataset, and overwrite=False keeps it"):
        check_folder(tmp_path / "out", "dataset", overwrite=False)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "run.json", {"model": {}})
    with pytest.raises(StorageError, match="holds a run, and a dataset would take its place"):
        check_folder(tmp_path / "run", "dataset")


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "note").symlink_to("note.txt")
    write_folder(tmp_path / "link", "two")
    with atomic_file(tmp_path / "note") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "a.txt").read_text() == "two"
    assert (tmp_path / "note").is_symlink() and (tmp_path / "note.txt").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "note", "note.txt", "real"]


def test_devices_and_folders_are_not_replaced_by_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="not an ordinary file"), atomic_file(tmp_path / "pipe"):
        pass
    with pytest.raises(StorageError, match="is a folder, and a file would take its place"), atomic_file(tmp_path):
        pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_the_current_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path(), Path(), tmp_path, tmp_path.parent):
        with pytest.raises(StorageError, match="the current folder or holds it"):
            check_folder(path, "dataset")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    kind = FileKind("a table", (b"user,item",), (b"PAR1", b"user"))
    path = tmp_path / "out.csv"
    for own in (b"", b"user,item\n1,2\n", b"PAR1" + bytes(1 << 18) + b"user PAR1"):
        path.write_bytes(own)
        check_file(path, kind)
    with pytest.raises(StorageError, match="overwrite=False keeps it"):
        check_file(path, kind, overwrite=False)
    for other in (b"user\n", b"x" * 100, b"PAR1" + bytes(1 << 18)):
        path.write_bytes(other)
        with pytest.raises(StorageError, match=r"out\.csv exists and is not a table that segue wrote"):
            check_file(path, kind)
        assert path.read_bytes() == other


# ---- locks and what killed processes left ---------------------------------------------------------------------------


def run_python(folder: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


HOLDING = """
import sys, time
from pathlib import Path
from segue.files import exclusive
sys.argv = ["segue", "recommend", "run", "--out", "lists.csv"]
with exclusive(Path("lists.csv")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_names_its_owner_and_does_not_outlive_it(tmp_path: Path) -> None:
    owner = run_python(tmp_path, HOLDING)
    assert owner.stdout is not None and owner.stdout.readline() == "held\n"
    named = rf"lists\.csv is in use by process {owner.pid} on .* \(segue recommend run --out lists\.csv, since 20"
    with pytest.raises(StorageError, match=named), exclusive(tmp_path / "lists.csv"):
        pass
    with exclusive(tmp_path / "others.csv"):
        pass
    owner.kill()
    owner.communicate()
    assert [path.name for path in tmp_path.iterdir()] == [".lists.csv.segue-lock"]
    with exclusive(tmp_path / "lists.csv"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_is_held_against_threads_too(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a"), pytest.raises(StorageError, match="in use by process"), exclusive(tmp_path / "a"):
        pass


LEFT = """
import os, signal
from pathlib import Path
from segue.files import atomic_file, atomic_folder
from segue.locks import temporary_folder
with atomic_file(Path("a")) as a, atomic_folder(Path("b")) as b, temporary_folder(Path("."), "c") as c:
    a.write_text("half"), (b / "x").write_text("half"), (c / "y").write_text("half")
    print("written", flush=True)
    {end}
"""


def test_the_next_write_collects_what_a_killed_process_left(tmp_path: Path) -> None:
    killed = run_python(tmp_path, LEFT.format(end="os.kill(os.getpid(), signal.SIGKILL)"))
    killed.communicate()
    living = run_python(tmp_path, LEFT.format(end="import time; time.sleep(60)"))
    assert living.stdout is not None and living.stdout.readline() == "written\n"
    (tmp_path / ".mine.segue-tmp.txt").write_text("not segue's")
    before = set(tmp_path.iterdir())
    write_json(tmp_path / "next.json", {})
    after = set(tmp_path.iterdir()) - {tmp_path / "next.json"}
    assert len(before) == 4 and before == after  # the living process had collected the dead one's at its start
    living.kill()
    living.communicate()
    write_json(tmp_path / "next.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {".mine.segue-tmp.txt", "next.json"}


def test_a_folder_that_lost_its_successor_comes_back(tmp_path: Path) -> None:
    """As if the process was killed between the two renames, on a system that cannot exchange folders."""
    path = write_folder(tmp_path / "out")
    retired = tmp_path / ".out.abcdefgh.segue-old"
    retired.mkdir()
    path.rename(retired / "out")
    assert read(path)["colour"] == "red"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exchanges", [True, False])
def test_folders_are_replaced_with_and_without_an_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr("segue.locks._swapped", lambda one, other: False)
    path = write_folder(tmp_path / "out")
    write_folder(path, "two")
    assert (path / "a.txt").read_text() == "two" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_set_of_files_is_put_in_place_by_the_next_command(tmp_path: Path, moved: int) -> None:
    staged = tmp_path / ".log.abcdefgh.segue-set"
    names = ["log.csv", "log.truth"]
    for name in names:
        (tmp_path / name).write_text("old")
    staged.mkdir()
    for name in names:
        (staged / name).write_text("new")
    mark_ready(staged)
    for name in names[:moved]:
        (staged / name).replace(tmp_path / name)
    collect(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(names, "new")


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_that_was_replaced_does_not_come_back_in_part(
    tmp_path: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process is killed while it removes the folder that it has replaced."""
    if not exchanges:
        monkeypatch.setattr("segue.locks._swapped", lambda one, other: False)
    path = write_folder(tmp_path / "out")
    (tmp_path / "out.truth").write_text("old")
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("segue.locks.shutil.rmtree", killed_while_it_removes)
        with atomic_set(path) as staged:
            write_folder(staged / "out", "two")
            (staged / "out.truth").write_text("new")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    collect(tmp_path)
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "out.truth"]
    assert (tmp_path / "out.truth").read_text() == "new"
    assert (path / "a.txt").read_text() == "two" and read(path)["colour"] == "red"


def killed_while_it_removes(folder: Path, ignore_errors: bool = False) -> None:
    next(Path(folder).rglob("a.txt")).unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def test_an_unfinished_set_of_files_is_removed(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_set(tmp_path / "log.csv") as staged:
        (staged / "log.csv").write_text("new")
        raise KeyboardInterrupt
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"log.csv": "old"}


# ---- files that lie -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nests more than 64 levels"),
        ("[" * 70 + "]" * 70, "nests more than 64 levels"),
        ('{"a": ' * 70 + "1" + "}" * 70, "nests more than 64 levels"),
        ('{"users": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"a": "\\ud800"}', "text that is not Unicode"),
    ],
)
def test_json_beyond_all_measure_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StorageError, match=message):
        read_json(tmp_path / "a.json")


def test_json_within_the_limits_is_read(tmp_path: Path) -> None:
    content = {"deep": json.loads("[" * 60 + "]" * 60), "long": 10**99, "text": "Zoë \\u00e9 🙂"}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


def test_names_that_lead_out_of_the_folder_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_folder(tmp_path / "out")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    entry = {"bytes": 6, "sha256": sha256(secret)}
    monkeypatch.setattr("segue.files.sha256", lambda file: pytest.fail(f"{file} was read"))
    for name in ("../secret", str(secret), "inner/../../secret", "a//b", "", ".", "C:secret", "..\\secret", "a\0b"):
        edit(path, files={name: entry})
        with pytest.raises(StorageError, match="which is not in the folder"):
            read(path)


@pytest.mark.parametrize("entry", [{"bytes": -1}, {"bytes": True}, {"bytes": "3"}, {"sha256": 5}, {"sha256": "xyz"}])
def test_impossible_entries_are_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    path = write_folder(tmp_path / "out")
    files = read_json(path / NAME)["files"]
    edit(path, files={**files, "a.txt": {**files["a.txt"], **entry}})
    with pytest.raises(StorageError, match=r"says nothing of a\.txt"):
        read(path)


@pytest.mark.parametrize("version", [0, -1, True, None, 1.0])
def test_impossible_versions_are_refused(tmp_path: Path, version: Any) -> None:
    path = write_folder(tmp_path / "out")
    edit(path, format_version=version)
    with pytest.raises(StorageError, match="format version"):
        read(path)
