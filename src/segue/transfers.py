"""Folders of segue that are copied to an object store and back, file by file; the manifest is the last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from segue.arguments import checked
from segue.errors import ConfigError, StorageError
from segue.files import (
    KINDS,
    check_folder,
    contents,
    exclusive,
    is_within,
    make_readable,
    read_json,
    real,
    sha256,
    write_json,
)
from segue.locks import flush_folder, is_temporary, put
from segue.stores import files_below, is_url, name_of, open_store

Progress = Callable[[str, float], None]

_MANIFESTS = (*(f"{kind}.json" for kind in KINDS), "lists.json")
_INNER_MANIFESTS = (*_MANIFESTS, "items.json")
"""Manifests of the folders that can be uploaded, which name all of their files."""
_NOTE = "uploading.json"
"""Object that stands for an upload that has not ended: it has the checksum of the manifest."""
_DOWNLOAD = ".download"
"""Ending of the folder of a download that has not ended."""
_DOWNLOAD_NOTE = "downloading.json"
"""File in that folder, with the URL and the checksum of the manifest."""
_AT_ONCE = 8
"""Files that travel at a time."""
_COPY = 1 << 20


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
    try:
        store, place = _folder_of(url)
        _upload(local, manifest, sizes, store, place, name_of(url), progress or (lambda step, share: None))
    except OSError as error:
        raise StorageError(
            f"{name_of(url)} cannot be written: {error}. Finished files stay there, and the same command goes on."
        ) from None
    return name_of(url)


def check_place(url: str, manifest: str) -> None:
    """Raise the error of `upload` if a folder with this manifest cannot be written to a place, before it is made."""
    try:
        store, place = _folder_of(url)
        _present(store, place, manifest, name_of(url))
    except OSError as error:
        raise StorageError(f"{name_of(url)} cannot be read: {error}.") from None


@checked
def download(url: str, folder: str | Path, *, overwrite: bool | None = None, progress: Progress | None = None) -> Path:
    """Copy a folder of segue from an object store: a Dataset, a Dataset in shards, a folder of lists, a Recommender.

    The files are collected in `<folder>.download`, which takes the place of the folder in one step when all are there.
    The same call goes on after an interruption. Whoever opens the folder compares the files with their checksums.

    Parameters
    ----------
    url
        Place in the store, as in `upload`.
    folder
        Folder to write. A folder of the same kind is replaced, but for lists; anything else is refused.
    overwrite
        False refuses to replace a folder of the same kind too.
    progress
        Called with "downloading" and the share of the bytes that is there, from 0 to 1.

    Returns
    -------
    folder
        The folder.

    Raises
    ------
    StorageError
        The place holds no folder of segue, or one whose upload has not ended; files are missing there; the store does
        not answer or refuses; or the folder may not be replaced.
    ConfigError
        The URL is none, or names no folder; or pyarrow is not installed.

    Examples
    --------
    A folder that is mounted is a store, too:

    >>> from pathlib import Path
    >>> folder = segue.simulate(20, 4).dataset().save("data")
    >>> place = segue.upload(folder, f"file://{Path.cwd()}/mounted/data")
    >>> segue.Dataset.open(segue.download(place, "copy")).n_users
    20
    """
    local = Path(folder)
    work = real(local).with_name(real(local).name + _DOWNLOAD)
    try:
        store, place = _folder_of(url)
        manifest, sizes = _found(store, place, name_of(url))
        _check_free(local, manifest, overwrite)
        real(local).parent.mkdir(parents=True, exist_ok=True)
        with exclusive(local):
            content = _content(store, f"{place}/{manifest}")
            _begin(work, {"url": name_of(url), "sha256": hashlib.sha256(content).hexdigest()}, sizes.keys())
            _fetch(store, place, sizes, work, progress or (lambda step, share: None))
            (work / _DOWNLOAD_NOTE).unlink()
            (work / manifest).write_bytes(content)
            _sizes(work, manifest)
            for path in (*work.rglob("*"), work):
                make_readable(path)
            flush_folder(work)
            _check_free(local, manifest, overwrite)
            put(work, real(local))
    except OSError as error:
        raise StorageError(
            f"{name_of(url)} cannot be copied to {local}: {error}. Finished files stay in {work}, and the same command "
            "goes on."
        ) from None
    return local


def _folder_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the folder that it names there."""
    parts = urlsplit(url)
    if not is_url(url) or not parts.path.strip("/"):
        raise ConfigError(f"{name_of(url)!r} is no folder in a store: expected s3://bucket/folder, gs:// or abfs://.")
    store, place = open_store(parts, parts.path)
    return store, place.rstrip("/")


def _found(store: Any, place: str, name: str) -> tuple[str, dict[str, int]]:
    """Manifest of the folder at a place, and the sizes of its other files by path."""
    sizes = {path.removeprefix(f"{place}/"): size for path, size in files_below(store, place).items()}
    manifest = next((one for one in _MANIFESTS if one in sizes), None)
    if _NOTE in sizes:
        raise StorageError(f"an upload to {name} has not ended: call it again there, then copy the folder.")
    if manifest is None:
        there = f"it holds {min(sizes)}" if sizes else "nothing is there"
        raise StorageError(f"{name} is no folder of segue: expected one of {', '.join(_MANIFESTS)}, and {there}.")
    outside = next((one for one in sizes if not is_within(one)), None)
    if outside is not None:
        raise StorageError(f"{name} holds {outside!r}, which would be written outside of the folder.")
    del sizes[manifest]
    return manifest, sizes


def _check_free(folder: Path, manifest: str, overwrite: bool | None) -> None:
    """Raise a StorageError if a folder with this manifest may not take the place of `folder`."""
    kind = manifest.removesuffix(".json")
    check_folder(folder, kind if kind in KINDS else None, overwrite)
    if kind not in KINDS and folder.is_dir() and contents(folder):
        raise StorageError(f"{folder} is not empty: choose another place or remove it first.")


def _begin(work: Path, note: Mapping[str, str], files: Collection[str]) -> None:
    """Make the folder of a download; what another download left there is removed, and files that are unknown too."""
    found = work / _DOWNLOAD_NOTE
    if work.is_dir() and contents(work) and not found.is_file():
        raise StorageError(f"{work} is in the way: move it, or remove it.")
    if found.is_file() and read_json(found) != note:
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    write_json(found, note)
    for name in set(contents(work)) - {_DOWNLOAD_NOTE, *files}:
        (work / name).unlink()


def _fetch(store: Any, place: str, sizes: Mapping[str, int], work: Path, report: Progress) -> None:
    """Copy files that are not there yet, several at a time."""

    def fetch(name: str) -> str:
        file = work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with store.open_input_stream(f"{place}/{name}") as source, file.open("wb") as out:
            shutil.copyfileobj(source, out, _COPY)
            out.flush()
            os.fsync(out.fileno())
        return name

    def is_there(name: str) -> bool:
        file = work / name
        return file.is_file() and file.stat().st_size == sizes[name]

    _at_once(fetch, [name for name in sizes if not is_there(name)], sizes, partial(report, "downloading"))


def _sizes(folder: Path, manifest: str) -> dict[str, int]:
    """Sizes in bytes of the files of a folder by path, the manifest left out, compared with what manifests say."""
    sizes = {name: (folder / name).stat().st_size for name in contents(folder) if not is_temporary(name)}
    inner = [name for name in sizes if PurePosixPath(name).name in _INNER_MANIFESTS]
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
    present = _present(store, place, manifest, name)
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


def _present(store: Any, place: str, manifest: str, name: str) -> dict[str, int]:
    """Sizes of the files at a place by path; a StorageError if they are not those of a folder with this manifest."""
    present = {path.removeprefix(f"{place}/"): size for path, size in files_below(store, place).items()}
    if present and not {manifest, _NOTE} & present.keys():
        raise StorageError(
            f"{name} holds {min(present)}, and nothing that shows an upload of such a folder: choose another place, or "
            "remove that first."
        )
    return present


def _copy(
    folder: Path, files: Iterable[str], sizes: Mapping[str, int], store: Any, place: str, report: Progress
) -> None:
    """Copy files, several at a time; the first error ends the rest."""
    chosen = list(files)
    if store.type_name not in ("s3", "gcs"):
        for parent in {PurePosixPath(file).parent for file in chosen} - {PurePosixPath(".")}:
            store.create_dir(f"{place}/{parent}", recursive=True)
    _at_once(partial(_copy_one, folder, store, place), chosen, sizes, partial(report, "uploading"))


def _at_once(
    transfer: Callable[[str], str], files: Collection[str], sizes: Mapping[str, int], report: Callable[[float], None]
) -> None:
    """Transfer files, several at a time, and report the share of all bytes; the first error ends the rest.

    Parameters
    ----------
    transfer
        Called with a name; returns it.
    files
        Names of the files that are missing.
    sizes
        Sizes of all files, by name.
    report
        Called with the share.
    """
    done, total = sum(sizes.values()) - sum(sizes[file] for file in files), max(sum(sizes.values()), 1)
    report(done / total)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            for file in pool.map(transfer, files):
                done += sizes[file]
                report(done / total)
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
