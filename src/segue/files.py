"""Atomic files and folders, and manifests with checksums: a file of segue is whole, or it is not there.

A folder written here holds a manifest: a JSON file with the kind of its content, the version of its format, and the
size and SHA-256 of every other file. Opening the folder checks them all, so that a missing, truncated or altered file
is named before it is used.

Overwriting has one rule, the same for every command and every function that writes:

- A place that is free, an empty folder or an empty file is filled.
- A folder is replaced only by a folder of its own kind, and only if it holds nothing else. A file is replaced only if
  segue wrote it, for the same purpose. So a command or a notebook cell can be run again.
- Everything else is refused, and nothing foreign is ever deleted. A link stays, and its target is written.
- `overwrite=False` also refuses to replace what is of the same kind. A run took its time, so it is replaced only with
  `overwrite=True` (`replace_run` in `training/run_manifest.py`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from segue.errors import SegueError, StorageError
from segue.locks import (
    STAGED,
    collect,
    flush_folder,
    is_temporary,
    lock_beside,
    locked,
    mark_ready,
    put,
    put_all,
    temporary_file,
    temporary_folder,
)

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
"""Number of a system error in messages of libraries written in Rust (polars, safetensors)."""

_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""NumPy's message about a full disk."""

KINDS = ("dataset", "shards", "recommender", "onnx", "index")
"""Kinds of folders with a manifest; its name is that of the kind with .json."""

_NOUNS = {"shards": "dataset in shards"}
"""Kinds in words, if they differ."""

_WAYS_TO_OPEN = {
    "dataset": "a dataset: open it with segue.Dataset.open().",
    "shards": "a dataset in shards: open it with segue.Shards.open(), or as a whole with segue.Dataset.open().",
    "recommender": "a recommender: open it with segue.load().",
    "onnx": "a model in ONNX: open it with segue.OnnxRecommender().",
    "index": "an index of items: open it with segue.ItemIndex.open().",
}

_RUN = "run.json"
_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""Files that file managers put into every folder."""

_DEEPEST = 64
"""Most levels of a JSON file."""
_LONGEST_NUMBER = 100
"""Most digits of a number in a JSON file."""
_LARGEST_JSON = 1 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/+[^/]", re.IGNORECASE)
"""Start of a URL, also after `Path` has taken one of its slashes."""
_ENDS = 1 << 16
"""Bytes from the start and from the end of a file that show which kind it is."""


# ---- atomic writes --------------------------------------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path, kind: FileKind | None = None, overwrite: bool | None = None) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; on success it replaces `path` in one step, on failure it is removed.

    Parameters
    ----------
    path
        The file. If it is a link, its target is written.
    kind
        Kind of the file. An existing file of another kind is refused; None is for files within folders of segue.
    overwrite
        False refuses an existing file of the same kind too.

    Raises
    ------
    StorageError
        `path` holds something that may not be replaced.
    OSError
        The file cannot be written: a full disk, no permission. The error names `path`.
    """
    target = real(path)
    check_file(path, kind, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with failures_name(path, target), temporary_file(target) as temporary:
        yield temporary
        _flush(temporary)
        make_readable(temporary)
        temporary.replace(target)
        flush_folder(target.parent)


@contextmanager
def atomic_folder(path: Path, kind: str | None = None, overwrite: bool | None = None) -> Iterator[Path]:
    """Yield a temporary neighbour folder of `path`; on success it takes the place of `path`, whole.

    Parameters
    ----------
    path
        The folder. If it is a link, its target is written.
    kind
        Kind that the manifest of the new folder has, one of `KINDS`; None for any.
    overwrite
        False refuses to replace a folder of the same kind too.

    Raises
    ------
    StorageError
        `path` holds something that may not be replaced (see `check_folder`).
    OSError
        The folder cannot be written: a full disk, no permission. The error names `path`.
    """
    target = real(path)
    check_folder(path, kind, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with failures_name(path, target), temporary_folder(target.parent, target.name) as temporary:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                make_readable(Path(folder) / name)
                _flush(Path(folder) / name)
            flush_folder(Path(folder))
        make_readable(temporary)
        check_folder(path, kind, overwrite)  # somebody may have put something there in the meantime
        put(temporary, target)


@contextmanager
def atomic_set(target: Path) -> Iterator[Path]:
    """Yield a folder; on success everything in it is put beside `target`, all together.

    A process that is killed while it does so leaves the rest to the next command.

    Parameters
    ----------
    target
        One of the paths to write; the others are its neighbours. What they replace is checked by the caller.
    """
    place = real(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    with failures_name(target, place), temporary_folder(place.parent, place.name, STAGED) as staged:
        yield staged
        for made in staged.rglob("*"):
            make_readable(made)
        mark_ready(staged)
        put_all(staged)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock on a file or folder that takes several steps to write.

    Raises
    ------
    StorageError
        Another process holds it. The message names its number, host, command and start.
    """
    target = real(path)
    with locked(lock_beside(target), path):
        yield


def real(path: Path) -> Path:
    """The absolute path behind all links; it need not exist."""
    return Path(os.path.realpath(path))


# ---- overwriting ----------------------------------------------------------------------------------------------------


class FileKind:
    """Kind of a single file, known by texts that all files of this kind have near their start or their end.

    Parameters
    ----------
    name
        The kind in words, such as "a report".
    signs
        Alternatives, one for each format: texts that must all be there.
    """

    def __init__(self, name: str, *signs: tuple[bytes, ...]) -> None:
        self.name = name
        self._signs = signs

    def is_of(self, file: Path) -> bool:
        """Return whether a file is of this kind; an empty file is of every kind."""
        size = file.stat().st_size
        with file.open("rb") as stream:
            content = stream.read(_ENDS)
            if size > _ENDS:
                stream.seek(max(_ENDS, size - _ENDS))
                content += stream.read()
        return not size or any(all(sign in content for sign in signs) for signs in self._signs)


PICTURE = FileKind("a picture", (b"Made by segue",))
_PNG, _PNG_HEADER = b"\x89PNG\r\n\x1a\n", 33


def marked_picture(content: bytes, suffix: str) -> bytes:
    """A picture that says that segue made it, so that it can be replaced later.

    Parameters
    ----------
    content
        A file in the format of the suffix.
    suffix
        ".png", ".svg", ".pdf" or ".dot"; pictures of other formats stay as they are.
    """
    if suffix == ".png" and content.startswith(_PNG):
        text = b"tEXtSoftware\0Made by segue"
        chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
        return content[:_PNG_HEADER] + chunk + content[_PNG_HEADER:]
    notes = {".svg": b"<!-- Made by segue -->\n", ".pdf": b"% Made by segue\n", ".dot": b"// Made by segue\n"}
    return content.rstrip(b"\n") + b"\n" + notes[suffix] if suffix in notes else content


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture atomically; only a picture that segue made is replaced."""
    with atomic_file(path, PICTURE) as temporary:
        temporary.write_bytes(marked_picture(content, path.suffix.lower()))


def check_file(path: Path, kind: FileKind | None, overwrite: bool | None = None) -> None:
    """Raise a StorageError if writing a file of this kind to `path` would delete something else."""
    _refuse_url(path)
    target = real(path)
    if not target.exists():
        return
    if target.is_dir():
        raise StorageError(f"{path} is a folder, and a file would take its place: choose another name.")
    if not target.is_file():
        raise StorageError(f"{path} is not an ordinary file, so it cannot be replaced: choose another name.")
    if kind is None:
        return
    if not kind.is_of(target):
        raise StorageError(
            f"{path} exists and is not {kind.name} that segue wrote there: choose another name, or remove it first."
        )
    if overwrite is False:
        raise StorageError(f"{path} exists, and overwrite=False keeps it: choose another name, or leave that out.")


def check_folder(path: Path, kind: str | None, overwrite: bool | None = None) -> None:
    """Raise a StorageError if writing a folder of this kind to `path` would delete something else.

    Parameters
    ----------
    path
        The folder to write. A folder that is not there, or is empty, may be written.
    kind
        Kind of the new folder, one of `KINDS`; None for any.
    overwrite
        False refuses a folder of the same kind too.
    """
    _refuse_url(path)
    target = real(path)
    check_not_inside(path)
    collect(target.parent)
    if not target.exists():
        return
    if not target.is_dir():
        raise StorageError(f"{path} exists and was not written by segue: choose another place or remove it first.")
    content = [name for name in contents(target) if not is_temporary(name)]
    if not content:
        return
    present = next((one for one in KINDS if _is_manifest(target / f"{one}.json")), None)
    wanted = kind or present
    if present is None or present != wanted:
        noun = _NOUNS.get(present or "", present)
        what = f"holds a {noun}" if present else "holds a run" if _is_run(target) else "was not written by segue"
        new = _NOUNS.get(kind or "", kind)
        joint = "" if kind is None or what.startswith("was") else f", and a {new} would take its place"
        raise StorageError(f"{path} exists and {what}{joint}: choose another place or remove it first.")
    manifest = read_json(target / f"{present}.json")
    files = set(manifest["files"]) if isinstance(manifest["files"], dict) else set()
    if present == "shards":
        files |= {name for file in list(files) for name in _listed_within(target, file)}
    noun = _NOUNS.get(present, present)
    foreign = sorted(set(content) - files - {f"{present}.json"})
    foreign = [name for name in foreign if PurePosixPath(name).name not in _JUNK]
    if foreign:
        refuse_foreign(path, f"a {noun}", foreign)
    if overwrite is False:
        raise StorageError(
            f"{path} already holds a {noun}, and overwrite=False keeps it: choose another place, or leave that out."
        )


def _refuse_url(path: Path) -> None:
    """Raise a StorageError if a path is a URL: no folder of this machine is meant."""
    if _URL.match(str(path)):
        raise StorageError(
            f"{path} is a URL, and only folders of this machine are written: write there, then copy the folder to the "
            "store with `segue push FOLDER URL`."
        )


def _listed_within(folder: Path, manifest: str) -> list[str]:
    """Files, relative to `folder`, that a manifest within an inner folder lists; none if it cannot be read."""
    try:
        files = read_json(folder / manifest)["files"]
        return [(PurePosixPath(manifest).parent / name).as_posix() for name in files]
    except (StorageError, OSError, TypeError, KeyError):
        return []


def contents(folder: Path) -> list[str]:
    """Paths, relative to `folder`, of all files and links within it."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in [*files, *links]]
    return found


def refuse_foreign(path: Path, kind: str, foreign: list[str]) -> NoReturn:
    """Raise the StorageError about files that do not belong to a folder of segue."""
    more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
    raise StorageError(
        f"{path} holds {kind}, and also {foreign[0]}{more}, which does not belong to it: nothing was deleted. Choose "
        "another place, or move it out first."
    )


def _is_manifest(file: Path) -> bool:
    try:
        content = read_json(file)
    except (StorageError, OSError):
        return False
    return isinstance(content, dict) and {"kind", "format_version", "files"} <= content.keys()


def check_not_inside(path: Path) -> None:
    """Raise a StorageError if the current folder is `path` or lies in it: it cannot be replaced as a whole."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return
    if real(path) in (here, *here.parents):
        raise StorageError(
            f"{path} is the current folder or holds it, so it cannot be replaced as a whole: name a folder in it."
        )


def _is_run(folder: Path) -> bool:
    return (folder / _RUN).is_file()


# ---- JSON -----------------------------------------------------------------------------------------------------------


def write_json(path: Path, content: Any, kind: FileKind | None = None) -> None:
    """Write `content` as readable JSON, atomically."""
    with atomic_file(path, kind) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or damaged one, or one beyond all measure, is a StorageError that names it."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise StorageError(f"{path} has {size:,} bytes: no JSON file of segue is that large.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise StorageError(f"{path} is missing.") from None
    except UnicodeDecodeError as error:
        raise StorageError(f"{path} is not valid JSON ({error}): it was damaged or edited.") from None
    return parse_json(text, str(path))


def parse_json(text: str, name: str) -> Any:
    """Parse JSON of at most 64 levels and with numbers of at most 100 digits.

    Parameters
    ----------
    text
        The JSON.
    name
        Name of its source, for errors.
    """
    try:
        content = json.loads(text, parse_int=_integer)
        _check_depth(content)
        if "\\u" in text:  # half a character, which no file can hold
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise StorageError(f"{name} nests more than {_DEEPEST} levels: it was damaged or edited.") from None
    except UnicodeEncodeError:
        raise StorageError(f"{name} holds text that is not Unicode: it was damaged or edited.") from None
    except ValueError as error:
        raise StorageError(f"{name} is not valid JSON ({error}): it was damaged or edited.") from None
    return content


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _check_depth(content: Any) -> None:
    """Raise a RecursionError if containers nest too deeply. Each level is one list, so nothing recurses."""
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > _DEEPEST + 1:
            raise RecursionError
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent if isinstance(parent, list) else ())
            if isinstance(child, dict | list)
        ]


# ---- manifests ------------------------------------------------------------------------------------------------------


def write_manifest(
    folder: Path, name: str, kind: str, version: int, content: dict[str, Any], only: Collection[str] | None = None
) -> None:
    """Write `folder/name`: kind, format version, `content`, and size and SHA-256 of every other file in `folder`.

    Parameters
    ----------
    folder, name
        Folder and name of the manifest.
    kind, version, content
        Values to write.
    only
        Names of the files to list, such as manifests of inner folders, which list the others; None for all.

    Raises
    ------
    StorageError
        `content` nests too deeply or holds a number that is too long to be read again.
    """
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != name and (only is None or file.name in only)
    }
    whole = {"kind": kind, "format_version": version, **content, "files": files}
    parse_json(json.dumps(content, ensure_ascii=False), f"what is to be written to {name}")
    write_json(folder / name, whole)


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
        No such folder, another kind, a newer version, a file that is missing, truncated or altered, or a name that
        leads out of the folder.
    """
    manifest = manifest_of(folder, name, kind, version)
    for relative, expected in manifest["files"].items():
        _check(folder / relative, expected, verify)
    return manifest


def manifest_of(folder: Path, name: str, kind: str, version: int) -> dict[str, Any]:
    """Read `folder/name` without a look at the files that it lists; arguments and errors as of `read_manifest`."""
    if not folder.exists():
        collect(folder.parent)  # a process that was killed while it replaced the folder may have left it there
    if not folder.is_dir():
        raise StorageError(f"{folder} is not a folder: expected a {kind} written by segue.")
    if not (folder / name).is_file():
        holds = next((one for one in KINDS if (folder / f"{one}.json").is_file()), None)
        hint = f" It holds {_WAYS_TO_OPEN[holds]}" if holds else ""
        raise StorageError(f"{folder} is not a {kind} written by segue: it has no {name}.{hint}")
    manifest = read_json(folder / name)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise StorageError(f"{folder / name} does not describe a {kind}.")
    check_version(folder, manifest.get("format_version"), version)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise StorageError(f"{folder / name} lists no files: it was damaged or edited.")
    for relative, expected in files.items():
        if not is_within(relative):
            raise StorageError(f"{folder / name} lists {relative!r}, which is not in the folder: it was edited.")
        if not _is_entry(expected):
            raise StorageError(f"{folder / name} says nothing of {relative}: it was damaged or edited.")
    return manifest


def check_version(place: Path, written: Any, version: int) -> None:
    """Raise a StorageError unless a format version is one that this segue reads, from 1 to `version`."""
    if not isinstance(written, int) or isinstance(written, bool) or written > version:
        raise StorageError(
            f"{place} has format version {written}; this segue reads up to {version}. Upgrade segue to open it."
        )
    if written < 1:
        raise StorageError(f"{place} has format version {written}, and the first was 1: it was damaged or edited.")


def whole_number(manifest: dict[str, Any], key: str, place: Path) -> int:
    """The value of a key that must be a whole number from 0, or a StorageError."""
    value = manifest.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise StorageError(f"{place} has {key}={value!r}, expected a whole number from 0: it was damaged or edited.")
    return value


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_within(name: str) -> bool:
    """Return whether a name in a manifest stays within its folder, on every system."""
    parts = name.split("/")
    return not ({"", ".", ".."} & set(parts) or set(name) & set("\\:\0"))


def _is_entry(expected: Any) -> bool:
    """Return whether a manifest tells the size and the checksum of a file."""
    if not isinstance(expected, dict):
        return False
    size, checksum = expected.get("bytes"), expected.get("sha256")
    sized = isinstance(size, int) and not isinstance(size, bool) and size >= 0
    return sized and isinstance(checksum, str) and _SHA256.fullmatch(checksum) is not None


def _check(file: Path, expected: dict[str, Any], verify: bool) -> None:
    if not file.is_file():
        raise StorageError(f"{file} is missing.")
    size = file.stat().st_size
    if size != expected["bytes"]:
        raise StorageError(f"{file} has {size} bytes, {expected['bytes']} were written: it is truncated or altered.")
    if verify and sha256(file) != expected["sha256"]:
        raise StorageError(f"{file} does not match its checksum: it was altered after it was written.")


# ---- failures -------------------------------------------------------------------------------------------------------


@contextmanager
def failures_name(path: Path, target: Path | None = None) -> Iterator[None]:
    """Within, a failed write raises an OSError that names `path`, whichever library wrote.

    Parameters
    ----------
    path
        Path as the user gave it.
    target
        The real path, whose temporary neighbours are written, if it is not the same.
    """
    try:
        yield
    except Exception as error:
        named = getattr(error, "filename", None)
        if isinstance(error, SegueError) or (named is not None and not _is_written_for(named, target or real(path))):
            raise
        known = error.errno if isinstance(error, OSError) else None
        numbered = _SYSTEM_ERROR.search(str(error))
        code = known or (int(numbered[1]) if numbered else errno.ENOSPC if _SHORT_WRITE.search(str(error)) else None)
        if code is None:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _is_written_for(name: Any, path: Path) -> bool:
    """Return whether `name` is a temporary neighbour of `path`, or a file in it."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
    return text.startswith(str(path.with_name(f".{path.name[:40]}.")))


def _flush(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def make_readable(path: Path) -> None:
    """Give a file or folder the permissions that the umask of the process leaves to new ones.

    Temporary ones are made for their owner alone, and some libraries write files in the same way.
    """
    path.chmod((0o777 if path.is_dir() else 0o666) & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
