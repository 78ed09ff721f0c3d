"""Locks that end with their process, and temporary files that the next command collects.

The operating system releases a lock (`flock`) when its process ends, however it ends. So a lock never outlives its
owner, and a temporary file whose lock is free belongs to nobody: it was left by a process that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from pathlib import Path, PurePath

from segue.errors import StorageError

if sys.platform == "win32":  # no flock there: nothing is locked, and nothing is collected
    fcntl = None
else:
    import fcntl

TEMPORARY, RETIRED, STAGED, LOCK = ".segue-tmp", ".segue-old", ".segue-set", ".segue-lock"
"""Endings of the hidden names that segue makes: unfinished, replaced, ready to be put in place, and locked."""

READY = "ready"
"""File within a `STAGED` folder whose content is complete: names of the content, and their numbers on the disk."""

_LONGEST_COMMAND = 200
_WAIT = 0.05
"""Seconds between looks at a lock that another process holds."""


# ---- locks ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(file: Path, place: Path) -> Iterator[None]:
    """Hold the lock `file` for as long as the context lasts; other processes are refused.

    Parameters
    ----------
    file
        File of the lock. It holds the process, host, command and time of its owner, and is removed at the end.
    place
        Path that the lock is for, named in the error.

    Raises
    ------
    StorageError
        Another process holds the lock. The message names it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = _hold(file, place)
    try:
        yield
    finally:
        if handle is not None:
            file.unlink(missing_ok=True)  # while it is locked: whoever opened it before will notice
            os.close(handle)


@contextmanager
def waiting(lock: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Hold a lock as soon as no other process holds it.

    Parameters
    ----------
    lock
        Function that makes the context of the lock, such as `lambda: locked(file, place)`.
    """
    while True:
        held = lock()
        try:
            held.__enter__()
        except StorageError:
            time.sleep(_WAIT)
            continue
        break
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def lock_beside(path: Path) -> Path:
    """File of the lock for a file that is written: its hidden neighbour.

    >>> lock_beside(Path("lists.csv")).name
    '.lists.csv.segue-lock'
    """
    return path.with_name(f".{path.name[:100]}{LOCK}")


def _hold(file: Path, place: Path) -> int | None:
    """Open and lock the file, and write down the owner. None if the file system knows no locks."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        taken = _take(handle)
        if taken and not _is_same(handle, file):  # its former owner removed it in between
            os.close(handle)
            continue
        if taken is False:
            with os.fdopen(handle, "rb") as stream:
                raise StorageError(
                    f"{place} is in use by {_described(stream.read(4096))}: wait until that has ended, or choose "
                    "another place."
                )
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": shlex.join(sys.argv)[:_LONGEST_COMMAND],
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(owner).encode())
        return handle


def _described(note: bytes) -> str:
    """The owner that a lock names, in words."""
    try:
        owner = json.loads(note)
        return f"process {owner['pid']} on {owner['host']} ({owner['command']}, since {owner['since']})"
    except (ValueError, TypeError, KeyError):
        return "another process"


def _take(handle: int) -> bool | None:
    """Lock an open file without waiting: True if it is ours now, False if it is another's, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_same(handle: int, path: Path) -> bool:
    """Return whether `path` still names the open file."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


# ---- temporary files ------------------------------------------------------------------------------------------------


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """Yield an empty hidden neighbour of `path`, which is removed at the end if it is still there."""
    collect(path.parent)
    handle, temporary = _claim(path.name, path.parent, TEMPORARY, is_folder=False)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def temporary_folder(parent: Path | None, name: str, ending: str = TEMPORARY) -> Iterator[Path]:
    """Yield an empty hidden folder, which is removed at the end if it is still there.

    Parameters
    ----------
    parent
        Folder to make it in; None for the system's folder of temporary files.
    name
        Name of its purpose, which becomes a part of its name.
    ending
        Ending of its name; it says how to treat the folder if this process is killed.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    collect(parent)
    handle, temporary = _claim(name, parent, ending, is_folder=True)
    try:
        yield temporary
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def is_temporary(path: str) -> bool:
    """Return whether a file is one that segue made for a while, or is inside of such a folder.

    >>> is_temporary(".ratings.csv.a1b2c3d4.segue-tmp"), is_temporary("ratings.csv")
    (True, False)
    >>> is_temporary(".data.a1b2c3d4.segue-tmp/items.npy")
    True
    """
    return any(
        part.startswith(".") and part.endswith((TEMPORARY, RETIRED, STAGED, LOCK)) for part in PurePath(path).parts
    )


def collect(folder: Path) -> None:
    """Remove or finish the temporary files in `folder` that killed processes left.

    Only files that segue made for this user are touched, and only if no living process holds their lock. A folder that
    was replaced comes back if its successor never arrived, and files that were ready are put in their places.
    """
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        left = [entry for entry in entries if is_temporary(entry.name) and not entry.is_symlink()]
        for entry in left:
            with contextlib.suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                    _settle(Path(entry.path))


def put(source: Path, target: Path) -> None:
    """Move a file or a folder to `target`, in the place of what is there, in one step if the system can."""
    try:
        source.replace(target)
    except OSError:
        if not (source.is_dir() and target.is_dir()):
            raise
        exchange(source, target)
    flush_folder(target.parent)


def exchange(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of the folder `old`, which is removed; if that fails, `old` stays."""
    if _swapped(new, old):
        flush_folder(old.parent)
        shutil.rmtree(new, ignore_errors=True)
        return
    with temporary_folder(old.parent, old.name, RETIRED) as retired:
        old.rename(retired / old.name)
        try:
            new.rename(old)
        except BaseException:
            (retired / old.name).rename(old)
            raise
        flush_folder(old.parent)


def flush_folder(folder: Path) -> None:
    """Make the system write the names in a folder to the disk, if it can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _claim(name: str, parent: Path, ending: str, *, is_folder: bool) -> tuple[int, Path]:
    """Make a hidden file or folder and lock it; return the open lock and the path."""
    prefix = f".{name[:40]}."
    while True:
        if is_folder:
            path = Path(tempfile.mkdtemp(prefix=prefix, suffix=ending, dir=parent))
            try:
                handle = os.open(path, os.O_RDONLY)
            except (FileNotFoundError, PermissionError):
                if path.exists():  # a system that opens no folders
                    handle = os.open(os.devnull, os.O_RDONLY)
                    return handle, path
                continue
        else:
            handle, made = tempfile.mkstemp(prefix=prefix, suffix=ending, dir=parent)
            path = Path(made)
        # Another process may have collected it before it was locked.
        if _take(handle) is not False and _is_same(handle, path):
            return handle, path
        os.close(handle)


def _settle(path: Path) -> None:
    """Remove or finish what a killed process left, unless a living one holds it."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    try:
        if not _take(handle) or not _is_same(handle, path):
            return
        if path.name.endswith(RETIRED):
            for retired in path.iterdir():
                if not (path.parent / retired.name).exists():
                    retired.rename(path.parent / retired.name)
        elif path.name.endswith(STAGED) and (path / READY).is_file():
            put_all(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)


def mark_ready(staged: Path) -> None:
    """Say that the content of a `STAGED` folder is complete, and what belongs to it."""
    numbers = {item.name: item.stat().st_ino for item in staged.iterdir()}
    note = staged / f"{READY}.new"
    note.write_text(json.dumps(numbers))
    note.replace(staged / READY)
    flush_folder(staged)


def put_all(staged: Path) -> None:
    """Put every file and folder of a complete `STAGED` folder beside it.

    A folder changes places with the one that it replaces. So an item with another number on the disk than the one that
    was noted is what was there before; a killed process left it, perhaps in part.
    """
    for name, number in sorted(json.loads((staged / READY).read_text()).items()):
        item = staged / name
        if item.exists() and item.stat().st_ino == number:
            put(item, staged.parent / name)


def _swapped(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; False if this system cannot."""
    import ctypes

    if sys.platform not in ("linux", "darwin"):
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux":
        function, arguments = "renameat2", (-100, names[0], -100, names[1], 2)  # AT_FDCWD, RENAME_EXCHANGE
    else:
        function, arguments = "renamex_np", (*names, 2)  # RENAME_SWAP
    try:
        return int(getattr(library, function)(*arguments)) == 0
    except AttributeError:
        return False
