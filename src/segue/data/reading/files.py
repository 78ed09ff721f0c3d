"""Files of a log: finding them, unpacking them, and room for temporary ones."""

from __future__ import annotations

import codecs
import gzip
import itertools
import shutil
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from segue.errors import DataError
from segue.locks import temporary_folder

_COPY = 1 << 20
_LONGEST = 200  # characters of a path in a message


class Scratch:
    """A temporary folder, made on first use and removed together with this object.

    Parameters
    ----------
    parent
        Folder to make it in; the system's folder for temporary files if None.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._count = itertools.count(1)

    def path(self, name: str) -> Path:
        """Path in the folder for a new file; it ends in `name`."""
        if self._folder is None:
            folder = temporary_folder(self._parent, "reading")
            self._folder = folder.__enter__()
            weakref.finalize(self, folder.__exit__, None, None, None)
        return self._folder / f"{next(self._count):06d}-{name}"


def find_files(source: Path) -> list[Path]:
    """Files that a path means, in the order of their names: itself, those of a folder, or those that match a pattern.

    Raises
    ------
    DataError
        There is no file, it cannot be opened, or a folder holds several kinds of files.
    """
    try:
        return _found(source)
    except OSError as error:
        raise DataError(f"{_shortened(source)} cannot be opened: {error.strerror or error}.") from None
    except ValueError as error:
        raise DataError(f"{_shortened(source)!r} is not the name of a file: {error}.") from None


def _shortened(source: Path) -> str:
    name = str(source)
    return name if len(name) <= _LONGEST else name[:_LONGEST] + "…"


def _found(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if source.is_dir():
        files = sorted(f for f in source.rglob("*") if f.is_file() and not f.name.startswith((".", "_")))
        check_one_kind(str(source), files)
        if not files:
            raise DataError(f"{source} is a folder without files in it.")
    else:
        files = _matching(source)
    if not files:
        near = ", ".join(sorted(f.name for f in source.parent.iterdir())[:10]) if source.parent.is_dir() else ""
        raise DataError(f"{source}: no such file{f'; {source.parent} holds: {near}' if near else ''}.")
    return files


def check_one_kind(source: str, files: Sequence[PurePath]) -> None:
    """Raise a DataError if the files of a folder have several suffixes."""
    suffixes = sorted({"".join(f.suffixes[-2:] if f.suffix == ".gz" else f.suffixes[-1:]) for f in files})
    if len(suffixes) > 1:
        listed = ", ".join(suffixes)
        raise DataError(f"{source} holds files of several kinds ({listed}): pass a pattern like *.csv.")


def _matching(pattern: Path) -> list[Path]:
    """Files that match a path with wildcards in any of its parts."""
    wild = next((n for n, part in enumerate(pattern.parts) if any(mark in part for mark in "*?[")), None)
    if wild is None:
        return []
    return sorted(f for f in Path(*pattern.parts[:wild]).glob("/".join(pattern.parts[wild:])) if f.is_file())


def with_line_ends(path: Path, scratch: Scratch) -> Path:
    """The file itself, or a copy in which a lone carriage return, an old end of line, is a line feed."""
    target: Path | None = None
    with path.open("rb") as stream:
        while piece := stream.read(_COPY):
            if piece.endswith(b"\r"):
                piece += stream.read(1)
            if target is None and piece.count(b"\r") == piece.count(b"\r\n"):
                continue
            if target is None:
                target = scratch.path(path.name)
                begin = stream.tell() - len(piece)
                with path.open("rb") as before, target.open("wb") as out:
                    _copy(before, out, begin)
            with target.open("ab") as out:
                out.write(piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    return path if target is None else target


def _copy(source: BinaryIO, out: BinaryIO, size: int) -> None:
    """Copy the first bytes of a stream, piece by piece."""
    while size > 0:
        piece = source.read(min(size, _COPY))
        out.write(piece)
        size -= len(piece)


def without_mark(path: Path, scratch: Scratch) -> Path:
    """The file itself, or a copy without the byte-order mark at its beginning."""
    with path.open("rb") as stream:
        if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            return path
        target = scratch.path("unmarked")
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out, _COPY)
    return target


def plainly_named(path: Path, scratch: Scratch) -> Path:
    """The file itself, or a link to it if its name is not UTF-8, which polars cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return linked(path, scratch)
    return path


def linked(path: Path, scratch: Scratch) -> Path:
    """A link to the file, or a copy of it, under a plain name."""
    target = scratch.path("file")
    try:
        target.symlink_to(path.absolute())
    except OSError:
        shutil.copyfile(path, target)
    return target


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
    target = scratch.path(path.stem.encode("utf-8", errors="replace").decode()[:100])
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain, _COPY)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged or truncated gzip: {error}. Fetch or copy it again.") from None
    return target
