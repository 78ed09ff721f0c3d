"""Atomic files and folders, and manifests with checksums: a file of segue is whole, or it is not there.

A folder written here holds a manifest: a JSON file with the kind of its content, the version of its format, and the
size and SHA-256 of every other file. Opening the folder checks them all, so that a missing, truncated or altered file
is named before it is used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segue.errors import SegueError, StorageError

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
"""Number of a system error in messages of libraries written in Rust (polars, safetensors)."""

_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""NumPy's message about a full disk."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; on success it replaces `path` in one step, on failure it is removed.

    Raises
    ------
    OSError
        The file cannot be written: a full disk, no permission. The error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with failures_name(path):
            yield temporary
            _flush(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour folder of `path`; on success it takes the place of `path`, whole.

    Raises
    ------
    StorageError
        `path` exists and is not a folder that segue wrote. Files of the user are never replaced.
    OSError
        The folder cannot be written: a full disk, no permission. The error names `path`.
    """
    if path.exists() and not _replaceable(path):
        raise StorageError(f"{path} exists and was not written by segue: choose another place or remove it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        with failures_name(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _flush(file)
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            _exchange(temporary, path)
        else:
            temporary.rename(path)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as readable JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or damaged one is a StorageError that names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path} is missing.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise StorageError(f"{path} is not valid JSON ({error}): it was damaged or edited.") from None


def write_manifest(folder: Path, name: str, kind: str, version: int, content: dict[str, Any]) -> None:
    """Write `folder/name`: kind, format version, `content`, and size and SHA-256 of every other file in `folder`."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != name
    }
    write_json(folder / name, {"kind": kind, "format_version": version, **content, "files": files})


def read_manifest(folder: Path, name: str, kind: str, version: int, *, verify: bool = True) -> dict[str, Any]:
    """Read `folder/name` and check every file that it lists.

    Parameters
    ----------
    folder, name
        Folder and name of the manifest.
    kind, version
        Expected kind, and the newest format version that this segue can read.
    verify
        Compare SHA-256 checksums too (about a second per gigabyte). Sizes are always compared.

    Raises
    ------
    StorageError
        No such folder, another kind, a newer version, or a file that is missing, truncated or altered.
    """
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder: expected a {kind} written by segue.")
    if not (folder / name).is_file():
        raise StorageError(f"{folder} is not a {kind} written by segue: it has no {name}.")
    manifest = read_json(folder / name)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise StorageError(f"{folder / name} does not describe a {kind}.")
    written = manifest.get("format_version")
    if not isinstance(written, int) or written > version:
        raise StorageError(
            f"{folder} has format version {written}; this segue reads up to {version}. Upgrade segue to open it."
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise StorageError(f"{folder / name} lists no files: it was damaged or edited.")
    for relative, expected in files.items():
        if not isinstance(expected, dict) or not {"bytes", "sha256"} <= expected.keys():
            raise StorageError(f"{folder / name} says nothing of {relative}: it was damaged or edited.")
        _check(folder / relative, expected, verify)
    return manifest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check(file: Path, expected: dict[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise StorageError(f"{file} is missing.")
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise StorageError(f"{file} has {size} bytes, {expected['bytes']} were written: it is truncated or altered.")
    if verify and sha256(file) != expected["sha256"]:
        raise StorageError(f"{file} does not match its checksum: it was altered after it was written.")


@contextmanager
def failures_name(path: Path) -> Iterator[None]:
    """Within, a failed write raises an OSError that names `path`, whichever library wrote."""
    try:
        yield
    except Exception as error:
        named = getattr(error, "filename", None)
        if isinstance(error, SegueError) or (named is not None and not _is_temporary(named, path)):
            raise
        known = error.errno if isinstance(error, OSError) else None
        numbered = _SYSTEM_ERROR.search(str(error))
        code = known or (int(numbered[1]) if numbered else errno.ENOSPC if _SHORT_WRITE.search(str(error)) else None)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _is_temporary(name: str, path: Path) -> bool:
    """Return whether `name` is the temporary neighbour of `path`, or a file in it."""
    return str(name).startswith(str(path.with_name(f".{path.name}.")))


def _exchange(new: Path, old: Path) -> None:
    """Put the folder `new` in the place of the folder `old`; if that fails, `old` stays."""
    retired = Path(tempfile.mkdtemp(prefix=f".{old.name}.old.", dir=old.parent))
    try:
        old.rename(retired / old.name)
        try:
            new.rename(old)
        except BaseException:
            (retired / old.name).rename(old)
            raise
    except BaseException:
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _replaceable(path: Path) -> bool:
    """Return whether `path` is an empty folder or holds a manifest of segue."""
    if not path.is_dir():
        return False
    return not any(path.iterdir()) or any(_is_manifest(path / name) for name in ("dataset.json", "recommender.json"))


def _is_manifest(file: Path) -> bool:
    try:
        content = read_json(file)
    except StorageError:
        return False
    return isinstance(content, dict) and {"kind", "format_version", "files"} <= content.keys()


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
