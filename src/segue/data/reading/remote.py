"""Files of a log in an object store (`s3://…`), copied to the disk before they are read."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from segue.data.reading.files import Scratch, check_one_kind
from segue.errors import DataError
from segue.stores import files_below, name_of, open_store

_AT_ONCE = 8
"""Files that are copied at a time."""
_COPY = 1 << 20


def fetch(url: str, scratch: Scratch) -> list[tuple[Path, str]]:
    """Copy the files that a URL means: one file, those below a folder, or those that match a pattern.

    Parameters
    ----------
    url
        URL of a store that Arrow knows: `s3://`, `gs://` or `abfs://`. Keys, region and endpoint are those of the
        environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on), or of the URL.
    scratch
        Place for the copies.

    Returns
    -------
    Copy and name of each file, in the order of the names.

    Raises
    ------
    DataError
        There is no such file, the store does not answer or refuses, or a folder holds several kinds of files.
    ConfigError
        pyarrow is not installed, or does not know such URLs.
    """
    parts = urlsplit(url)
    folders = PurePosixPath(parts.path).parts
    wild = next((number for number, one in enumerate(folders) if set(one) & set("*[")), len(folders))
    base = str(PurePosixPath("/", *folders[:wild]))
    try:
        store, place = open_store(parts, base)
        pattern = "/".join([place.rstrip("/"), *folders[wild:]]) if wild < len(folders) else None
        paths = _listed(store, place, pattern, name_of(url))
        names = [f"{parts.scheme}://{path}" for path in paths]
        copies = [scratch.path(PurePosixPath(path).name) for path in paths]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda pair: _copy(store, *pair), zip(paths, copies, strict=True)))
    except OSError as error:
        raise DataError(f"{name_of(url)} cannot be read: {error}") from None
    return list(zip(copies, names, strict=True))


def _listed(store: Any, place: str, pattern: str | None, name: str) -> list[str]:
    """Paths of the files at `place`, or of those that match a pattern, in the order of their names."""
    from pyarrow.fs import FileType

    info = store.get_file_info(place)
    if info.type == FileType.File and pattern is None:
        return [place]
    files = sorted(files_below(store, place))
    if pattern is None:
        files = [one for one in files if not PurePosixPath(one).name.startswith((".", "_"))]
        check_one_kind(name, [PurePosixPath(one) for one in files])
    else:
        levels = pattern.count("/")
        files = [one for one in files if one.count("/") == levels and fnmatchcase(one, pattern)]
    if not files:
        raise DataError(f"{name}: no such file.")
    return files


def _copy(store: Any, path: str, target: Path) -> None:
    with store.open_input_stream(path) as source, target.open("wb") as out:
        shutil.copyfileobj(source, out, _COPY)
