"""Object stores (`s3://…`, `gs://…`, `abfs://…`): their addresses, and the files in them.

pyarrow does the transfers (`pip install 'segue[s3]'`). Keys, region and endpoint are those of the environment
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on), or of the URL.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, urlsplit

from segue.errors import ConfigError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


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


def open_store(parts: SplitResult, path: str) -> tuple[Any, str]:
    """The file system of a store, and the place of a path in it.

    Parameters
    ----------
    parts
        URL of the store, in parts.
    path
        Path to use instead of that of the URL.

    Raises
    ------
    ConfigError
        pyarrow is not installed, or does not know such URLs.
    """
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.fs import FileSystem
    except ImportError:
        raise ConfigError(
            f"{parts.scheme}://… is reached through pyarrow, which is not installed: pip install 'segue[s3]'."
        ) from None
    options = f"?{parts.query}" if parts.query else ""
    try:
        store, place = FileSystem.from_uri(f"{parts.scheme}://{parts.netloc}{path}{options}")
    except ArrowInvalid as error:
        raise ConfigError(
            f"{parts.scheme}://… cannot be opened ({error}): expected s3://, gs:// or abfs://. Copy files from or to "
            "other places yourself."
        ) from None
    return store, place


def files_below(store: Any, place: str) -> dict[str, int]:
    """Sizes in bytes of the files below a place of a store, by path; empty without any."""
    from pyarrow.fs import FileSelector, FileType

    below = store.get_file_info(FileSelector(place, allow_not_found=True, recursive=True))
    return {one.path: one.size for one in below if one.type == FileType.File}
