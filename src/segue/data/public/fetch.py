"""Public datasets by name: downloaded once, verified, cached, and read with the right options."""

from __future__ import annotations

import gzip
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from segue.data.public.catalogue import DATASETS, PublicDataset
from segue.data.public.download import Progress, retrieve
from segue.data.reading.formats.records import RecordLines
from segue.data.reading.formats.registry import FORMATS
from segue.data.reading.read import Log, read
from segue.errors import ConfigError, DataError, DownloadError, nearest
from segue.files import atomic_file

_LONGEST_RECORD = 1 << 24  # characters

__all__ = ["DATASETS", "PublicDataset", "available", "fetch", "lookup", "open_public"]


def available() -> list[PublicDataset]:
    """The public datasets, in the order of the catalogue.

    Examples
    --------
    >>> [dataset.name for dataset in available()][:2]
    ['ml-100k', 'ml-1m']
    """
    return list(DATASETS.values())


def lookup(name: str) -> PublicDataset:
    """The public dataset of that name.

    Raises
    ------
    ConfigError
        There is no such dataset; the message names the nearest.
    """
    if name not in DATASETS:
        raise ConfigError(f'there is no public dataset "{name}": {nearest(name, DATASETS)}')
    return DATASETS[name]


def fetch(
    name: str,
    *,
    archive: str | Path | None = None,
    cache: str | Path | None = None,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the file with the interactions of a public dataset; download it if it is not in the cache.

    An archive in the cache is verified each time against its published checksum (MovieLens). If none is published
    (Amazon, Steam), the first download is accepted if it is a whole gzip file with records of the right columns. Its
    SHA-256 is recorded beside it, to be compared from then on. A broken download continues where it ended.

    Parameters
    ----------
    name
        One of `available()`.
    archive
        A local copy of the archive, of the folder it unpacks to, or of the file with the interactions. Nothing is then
        downloaded. A zip is verified like a downloaded one.
    cache
        Folder of the archives. Default: the environment variable SEGUE_CACHE, else the user's cache folder for segue.
    base_url
        Address of a mirror that has the archive under its own name. Default: the environment variable
        SEGUE_DATASETS_URL, else the address of its authors.
    progress
        Called with the bytes received so far and the total; `segue.data.public.download.download_bar` makes one.

    Returns
    -------
    Path
        The file, ready for `segue.read`.

    Raises
    ------
    ConfigError
        The name is unknown.
    DownloadError
        The archive cannot be downloaded, or is damaged.
    DataError
        The local copy is missing, or is not the dataset.

    Examples
    --------
    >>> path = fetch("ml-1m")  # doctest: +SKIP
    """
    dataset = lookup(name)
    folder = _cache_folder(cache) / name
    if archive is not None:
        return _from_copy(dataset, Path(archive), folder)
    base = base_url or os.environ.get("SEGUE_DATASETS_URL")
    url = f"{base.rstrip('/')}/{dataset.archive}" if base else dataset.url
    try:
        fetched = retrieve(url, folder / dataset.archive, dataset.checksum, progress, _check_of(dataset, url))
    except DownloadError as error:
        raise DownloadError(
            f"{dataset.title} could not be fetched from {url}: {error}. If you can get {dataset.archive} in another "
            f"way, pass the path of your copy with archive=."
        ) from error
    try:
        check_start(dataset, fetched)
    except DownloadError as error:
        raise DownloadError(f"{fetched} is not {dataset.title}: {error}. Delete it and fetch it again.") from error
    return _interactions(dataset, fetched, folder)


def open_public(
    name: str,
    *,
    archive: str | Path | None = None,
    cache: str | Path | None = None,
    base_url: str | None = None,
    progress: Progress | None = None,
) -> Log:
    """Fetch a public dataset and read it. Parameters and errors are those of `fetch` and of `segue.read`.

    Examples
    --------
    >>> log = open_public("ml-100k")  # doctest: +SKIP
    """
    dataset = lookup(name)
    return read(
        fetch(name, archive=archive, cache=cache, base_url=base_url, progress=progress),
        format=dataset.format,
        separator=dataset.separator,
        header=dataset.header,
        user=dataset.user,
        item=dataset.item,
        time=dataset.time,
        rating=False if dataset.rating is None else dataset.rating,
        time_unit=dataset.time_unit,
    )


def _check_of(dataset: PublicDataset, url: str) -> Callable[[Path], None] | None:
    """Check of a download without a published checksum; None if there is one."""
    if dataset.checksum is not None:
        return None

    def check(file: Path) -> None:
        size = file.stat().st_size
        check_start(dataset, file)
        if url == dataset.url and dataset.size not in (None, size):
            raise DownloadError(f"what arrived has {size:,} bytes, and the archive has {dataset.size:,}")
        try:
            with gzip.open(file) as stream:
                while stream.read(1 << 20):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise DownloadError(f"what arrived is damaged or was cut off after {size:,} bytes") from None

    return check


def check_start(dataset: PublicDataset, file: Path) -> None:
    """Raise a DownloadError unless a gzipped file begins with a record of the dataset. Other files are not checked."""
    if dataset.archive.endswith(".zip"):
        return
    with file.open("rb") as stream:
        begin = stream.read(1024)
    if not begin.startswith(b"\x1f\x8b"):
        word = begin.lstrip().lower()
        kind = (
            "empty" if not begin else "a web page" if word.startswith((b"<!doctype", b"<html", b"<?xml")) else "no gzip"
        )
        raise DownloadError(f"what arrived is {kind}, and not {dataset.archive}")
    try:
        with gzip.open(file, "rt", encoding="utf-8", errors="replace") as text:
            line = text.readline(_LONGEST_RECORD)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DownloadError("what arrived is damaged or was cut off") from None
    layout = FORMATS[dataset.format]
    record = layout.parse(line) if issubclass(layout, RecordLines) else None
    lacking = [column for column in (dataset.user, dataset.item) if record is None or column not in record]
    if lacking:
        raise DownloadError(f"what arrived holds no record with {', '.join(map(str, lacking))} in its first line")


def _cache_folder(cache: str | Path | None) -> Path:
    given = cache or os.environ.get("SEGUE_CACHE")
    if given:
        return Path(given).expanduser()
    import pooch  # type: ignore[import-untyped]

    return Path(pooch.os_cache("segue"))


def _from_copy(dataset: PublicDataset, copy: Path, folder: Path) -> Path:
    """File with the interactions from a local copy: an unpacked folder or file, or the archive."""
    file = PurePosixPath(dataset.member).name
    if copy.is_dir():
        inside = [copy / dataset.archive, copy / dataset.member, copy / file]
        inner = next((path for path in inside if path.is_file()), None)
        if inner is None:
            raise DataError(f"{copy} holds neither {dataset.archive} nor {file}, as {dataset.name} should.")
        copy = inner
    if not copy.is_file():
        raise DataError(f"{copy}: no such file; expected a copy of {dataset.archive}.")
    if copy.name == file:
        return copy
    try:
        check_start(dataset, copy)
    except DownloadError as error:
        raise DataError(f"{copy} is not {dataset.archive}: {str(error).replace('what arrived', 'it')}.") from None
    if dataset.checksum is not None:
        import pooch

        algorithm, expected = dataset.checksum.split(":")
        if pooch.file_hash(str(copy), alg=algorithm) != expected:
            raise DataError(
                f"{copy} is not {dataset.archive} as published, or is damaged: its checksum is not {dataset.checksum}."
            )
    return _interactions(dataset, copy, folder)


def _interactions(dataset: PublicDataset, archive: Path, folder: Path) -> Path:
    """Unpack the file with the interactions, unless that is done; a gzipped file stays as it is."""
    if not dataset.archive.endswith(".zip"):
        return archive
    target = folder / PurePosixPath(dataset.member).name
    try:
        with zipfile.ZipFile(archive) as packed:
            size = packed.getinfo(dataset.member).file_size
            if not (target.is_file() and target.stat().st_size == size):
                with (
                    atomic_file(target) as temporary,
                    packed.open(dataset.member) as source,
                    temporary.open("wb") as out,
                ):
                    shutil.copyfileobj(source, out, 1 << 20)
    except KeyError:
        raise DownloadError(f"{archive} does not hold {dataset.member}: it is not {dataset.title}.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{archive} is damaged ({error}): delete it and fetch it again.") from None
    return target
