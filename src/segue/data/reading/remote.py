"""Files of a log in an object store (`s3://…`), copied to the disk before they are read."""

from __future__ import annotations

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from segue.data.reading.files import Scratch, check_one_kind
from segue.errors import ConfigError, DataError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_AT_ONCE = 8
"""Files that are copied at a time."""
_COPY = 1 << 20


def is_url(source: object) -> bool:
    """True for text such as `s3://bucket/logs`.

    >>> is_url("s3://bucket/logs"), is_url("logs/s3")
    (True, False)
    """
    return isinstance(source, str) and _URL.match(source) is not None


def name_of(url: str) -> str:
    """The URL without the keys and the options that it may hold.

    >>> name_of("s3://key:secret@bucket/logs/*.csv?region=eu-west-1")
    's3://bucket/logs/*.csv'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


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
        store, place = _opened(parts, base)
        pattern = "/".join([place.rstrip("/"), *folders[wild:]]) if wild < len(folders) else None
        paths = _listed(store, place, pattern, name_of(url))
        names = [f"{parts.scheme}://{path}" for path in paths]
        copies = [scratch.path(PurePosixPath(path).name) for path in paths]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda pair: _copy(store, *pair), zip(paths, copies, strict=True)))
    except OSError as error:
        raise DataError(f"{name_of(url)} cannot be read: {error}") from None
    return list(zip(copies, names, strict=True))


def _opened(parts: SplitResult, base: str) -> tuple[Any, str]:
    """The store, and the path of the part of the URL before the first wildcard."""
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.fs import FileSystem
    except ImportError:
        raise ConfigError(
            f"{parts.scheme}://… is read through pyarrow, which is not installed: pip install 'segue[s3]'."
        ) from None
    options = f"?{parts.query}" if parts.query else ""
    try:
        store, place = FileSystem.from_uri(f"{parts.scheme}://{parts.netloc}{base}{options}")
    except ArrowInvalid as error:
        raise ConfigError(
            f"{parts.scheme}://… cannot be opened ({error}): expected s3://, gs:// or abfs://. Fetch files of other "
            "places first."
        ) from None
    return store, place


def _listed(store: Any, place: str, pattern: str | None, name: str) -> list[str]:
    """Paths of the files at `place`, or of those that match a pattern, in the order of their names."""
    from pyarrow.fs import FileSelector, FileType

    info = store.get_file_info(place)
    if info.type == FileType.File and pattern is None:
        return [place]
    below = store.get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
    files = sorted(one.path for one in below if one.type == FileType.File)
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
