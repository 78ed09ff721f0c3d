"""Files of a log: finding them, unpacking them, and room for temporary ones."""

from __future__ import annotations

import gzip
import itertools
import shutil
import weakref
import zlib
from pathlib import Path

from segue.errors import DataError
from segue.locks import temporary_folder

_COPY = 1 << 20


class Scratch:
    """A temporary folder, made on first use and removed together with this object."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._count = itertools.count(1)

    def path(self, name: str) -> Path:
        """Path in the folder for a new file; it ends in `name`."""
        if self._folder is None:
            folder = temporary_folder(None, "reading")
            self._folder = folder.__enter__()
            weakref.finalize(self, folder.__exit__, None, None, None)
        return self._folder / f"{next(self._count):06d}-{name}"


def find_files(source: Path) -> list[Path]:
    """Files that a path means, in the order of their names: itself, those of a folder, or those that match a pattern.

    Raises
    ------
    DataError
        There is no file, or a folder holds several kinds of files.
    """
    if source.is_file():
        return [source]
    if source.is_dir():
        files = sorted(f for f in source.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))
        suffixes = sorted({"".join(f.suffixes[-2:] if f.suffix == ".gz" else f.suffixes[-1:]) for f in files})
        if len(suffixes) > 1:
            listed = ", ".join(suffixes)
            raise DataError(f"{source} holds files of several kinds ({listed}): pass a pattern like *.csv.")
        if not files:
            raise DataError(f"{source} is a folder without files in it.")
    else:
        files = _matching(source)
    if not files:
        near = ", ".join(sorted(f.name for f in source.parent.iterdir())[:10]) if source.parent.is_dir() else ""
        raise DataError(f"{source}: no such file{f'; {source.parent} holds: {near}' if near else ''}.")
    return files


def _matching(pattern: Path) -> list[Path]:
    """Files that match a path with wildcards in any of its parts."""
    wild = next((n for n, part in enumerate(pattern.parts) if any(mark in part for mark in "*?[")), None)
    if wild is None:
        return []
    return sorted(f for f in Path(*pattern.parts[:wild]).glob("/".join(pattern.parts[wild:])) if f.is_file())


def decompressed(path: Path, scratch: Scratch) -> Path:
    """The file itself, or the content of a gzip file, copied piece by piece to a temporary file.

    Raises
    ------
    DataError
        The gzip data is damaged or truncated.
    """
    with path.open("rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            return path
    target = scratch.path(path.stem)
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _COPY)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or truncated gzip: {error}. Fetch or copy it again.") from None
    return target
