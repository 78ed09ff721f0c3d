"""Object stores (`s3://…`, `gs://…`, `abfs://…`): their addresses, and folders of segue that are copied there.

pyarrow does the transfers (`pip install 'segue[s3]'`). Keys, region and endpoint are those of the environment
(`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and so on), or of the URL.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from segue.arguments import checked
from segue.errors import ConfigError, StorageError
from segue.files import KINDS, contents, read_json, sha256
from segue.locks import is_temporary

Progress = Callable[[str, float], None]

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MANIFESTS = (*(f"{kind}.json" for kind in KINDS), "lists.json")
"""Manifests of the folders that can be uploaded, which name all of their files."""
_NOTE = "uploading.json"
"""Object that stands for an upload that has not ended: it has the checksum of the manifest."""
_AT_ONCE = 8
"""Files that travel at a time."""
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


@checked
def upload(folder: str | Path, url: str, *, progress: Progress | None = None) -> str:
    """Copy a folder of segue to an object store: a Dataset, a Dataset in shards, a folder of lists, a Recommender.

    Files travel one by one, eight at a time, and the manifest is the last: if it is there, the copy is complete. The
    same call goes on after an interruption, and copies only files that are missing. A former folder of the same kind is
    removed first, beginning with its manifest. Two uploads to one place at the same time are not noticed.

    Parameters
    ----------
    folder
        Folder with a manifest. Of a run, upload its `recommender` folder.
    url
        Place in the store: s3://bucket/folder, gs:// or abfs://. Keys, region and endpoint are those of the environment
        (`AWS_ACCESS_KEY_ID`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL`), or of the URL.
    progress
        Called with "uploading" and the share of the bytes that is there, from 0 to 1.

    Returns
    -------
    url
        The place, without keys and options.

    Raises
    ------
    StorageError
        The folder has no manifest, or files of it are missing or have another size; the place holds something else;
        or the store does not answer or refuses.
    ConfigError
        The URL is none, or names no folder; or pyarrow is not installed.

    Examples
    --------
    A folder that is mounted is a store, too:

    >>> from pathlib import Path
    >>> folder = segue.simulate(20, 4).dataset().save("data")
    >>> place = segue.upload(folder, f"file://{Path.cwd()}/mounted/data")
    >>> segue.Dataset.open("mounted/data").n_users
    20
    """
    local = Path(folder)
    manifest = next((name for name in _MANIFESTS if (local / name).is_file()), None)
    if manifest is None:
        raise StorageError(
            f"{local} is no folder to upload: expected one of {', '.join(_MANIFESTS)} in it, which names all files. Of "
            "a run, upload its folder recommender."
        )
    sizes = _sizes(local, manifest)
    parts = urlsplit(url)
    if not is_url(url) or not parts.path.strip("/"):
        raise ConfigError(f"{name_of(url)!r} is no folder in a store: expected s3://bucket/folder, gs:// or abfs://.")
    try:
        store, place = open_store(parts, parts.path)
        _upload(local, manifest, sizes, store, place.rstrip("/"), name_of(url), progress or (lambda step, share: None))
    except OSError as error:
        raise StorageError(
            f"{name_of(url)} cannot be written: {error}. Finished files stay there, and the same command goes on."
        ) from None
    return name_of(url)


def _sizes(folder: Path, manifest: str) -> dict[str, int]:
    """Sizes in bytes of the files of a folder by path, the manifest left out, compared with what manifests say."""
    sizes = {name: (folder / name).stat().st_size for name in contents(folder) if not is_temporary(name)}
    inner = [name for name in sizes if PurePosixPath(name).name in _MANIFESTS]
    for name in inner:
        listed = read_json(folder / name).get("files")
        for relative, facts in listed.items() if isinstance(listed, dict) else ():
            file = (PurePosixPath(name).parent / relative).as_posix()
            if sizes.get(file) != facts.get("bytes"):
                raise StorageError(
                    f"{folder / file} is missing or has another size than {folder / name} says: it was damaged or "
                    "edited. Make the folder again."
                )
    return {name: size for name, size in sizes.items() if name != manifest}


def _upload(
    folder: Path, manifest: str, sizes: Mapping[str, int], store: Any, place: str, name: str, report: Progress
) -> None:
    """Copy files to a place, then the manifest; what a former upload left there is replaced."""
    if store.type_name not in ("s3", "gcs"):
        store.create_dir(place, recursive=True)  # elsewhere a folder must be there before its files
    present = {path.removeprefix(f"{place}/"): size for path, size in files_below(store, place).items()}
    if present and not {manifest, _NOTE} & present.keys():
        raise StorageError(
            f"{name} holds {min(present)}, and nothing that shows an upload of such a folder: choose another place, or "
            "remove that first."
        )
    note = json.dumps({"kind": "upload", "manifest": manifest, "sha256": sha256(folder / manifest)}).encode()
    is_same = manifest in present and _content(store, f"{place}/{manifest}") == (folder / manifest).read_bytes()
    goes_on = _NOTE in present and _content(store, f"{place}/{_NOTE}") == note
    if not (is_same or goes_on):
        if present:  # nobody takes a mixture for a whole, and no former file for one of this upload
            _put(store, f"{place}/{_NOTE}", b"{}")
            _delete(store, place, [manifest] if manifest in present else [])
            _delete(store, place, present.keys() - {manifest, _NOTE})
        _put(store, f"{place}/{_NOTE}", note)
        present = {}
    missing = [path for path, size in sizes.items() if present.get(path) != size]
    _copy(folder, missing, sizes, store, place, report)
    _delete(store, place, present.keys() - sizes.keys() - {manifest, _NOTE})
    if not is_same:
        _put(store, f"{place}/{manifest}", (folder / manifest).read_bytes())
    if _NOTE in present or not is_same:
        _delete(store, place, [_NOTE])
    report("uploading", 1.0)


def _copy(
    folder: Path, files: Iterable[str], sizes: Mapping[str, int], store: Any, place: str, report: Progress
) -> None:
    """Copy files, several at a time; the first error ends the rest."""
    chosen = list(files)
    done, total = sum(sizes.values()) - sum(sizes[file] for file in chosen), max(sum(sizes.values()), 1)
    report("uploading", done / total)
    if store.type_name not in ("s3", "gcs"):
        for parent in {PurePosixPath(file).parent for file in chosen} - {PurePosixPath(".")}:
            store.create_dir(f"{place}/{parent}", recursive=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for file in pool.map(partial(_copy_one, folder, store, place), chosen):
                done += sizes[file]
                report("uploading", done / total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy_one(folder: Path, store: Any, place: str, file: str) -> str:
    with (folder / file).open("rb") as source, store.open_output_stream(f"{place}/{file}") as out:
        shutil.copyfileobj(source, out, _COPY)
    return file


def _put(store: Any, path: str, content: bytes) -> None:
    with store.open_output_stream(path) as out:
        out.write(content)


def _content(store: Any, path: str) -> bytes:
    with store.open_input_stream(path) as source:
        content: bytes = source.read()
    return content


def _delete(store: Any, place: str, files: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(store.delete_file, [f"{place}/{file}" for file in files]))
