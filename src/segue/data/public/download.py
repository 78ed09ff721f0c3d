"""Download of one file over HTTP: resumed after a break, verified, put in place whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from segue.errors import DownloadError

if TYPE_CHECKING:
    import requests

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes received so far and the total (None if the server does not state it)."""

Check: TypeAlias = Callable[[Path], None]
"""Raises a DownloadError unless a file is the one that was meant."""

CHUNK = 1 << 18
TIMEOUT = (10.0, 60.0)  # seconds to connect, seconds without a byte
PAUSE = 1.0  # seconds before the next try after a break
BREAKS = 5  # tries in one call


class ResumingDownloader:
    """A downloader for `pooch.retrieve` that keeps received bytes in `NAME.part`, beside the target.

    A broken download continues from there, in the same call or a later one, if the server supports ranges and its file
    has not changed. `NAME.part.json` keeps the ETag or the date of change. Otherwise the download starts anew.

    Parameters
    ----------
    part
        File for the bytes until all have arrived.
    progress
        Called after every piece.
    check
        Called with `part` when all bytes have arrived. It raises a DownloadError if they are not the file that was
        meant; they are then removed.
    """

    def __init__(self, part: Path, progress: Progress | None = None, check: Check | None = None) -> None:
        self.part = part
        self.state = part.with_name(part.name + ".json")
        self.progress = progress
        self.check = check

    def __call__(self, url: str, output_file: str | os.PathLike[str], pooch: object, check_only: bool = False) -> None:
        """Download `url` and put it at `output_file`, as pooch calls it."""
        from requests import ConnectionError, RequestException, Timeout
        from requests.exceptions import ChunkedEncodingError
        from urllib3.exceptions import HTTPError

        broken = (ConnectionError, Timeout, ChunkedEncodingError, HTTPError, _Broken)
        for attempt in range(BREAKS):
            before = self._received()
            try:
                self._fetch(url)
                break
            except broken as error:
                stuck = self._received() <= before
                if stuck or attempt == BREAKS - 1:
                    raise DownloadError(self._kept(url, reason(error))) from error
                time.sleep(PAUSE)
            except RequestException as error:
                raise DownloadError(reason(error)) from error
        if self.check is not None:
            try:
                self.check(self.part)
            except DownloadError:
                self.part.unlink()
                self.state.unlink(missing_ok=True)
                raise
        self.part.replace(output_file)
        self.state.unlink(missing_ok=True)

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _kept(self, url: str, why: str) -> str:
        received = self._received() if self._validator(url) else 0
        return f"{why}; {received:,} bytes are kept and the next try goes on from there" if received else why

    def _fetch(self, url: str) -> None:
        """Request the missing bytes once."""
        import requests

        headers = {"Accept-Encoding": "identity"}  # as stored: a .gz file must not be unpacked on the way
        validator = self._validator(url)
        received = self._received() if validator else 0
        if received:
            headers |= {"Range": f"bytes={received}-", "If-Range": str(validator)}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable and received:
                if response.headers.get("Content-Range") == f"bytes */{received}":
                    return  # all of it had arrived before
                return self._start_anew(url)
            response.raise_for_status()
            continues = response.status_code == requests.codes.partial_content
            if continues and not response.headers.get("Content-Range", "").startswith(f"bytes {received}-"):
                return self._start_anew(url)
            if not continues:
                received = 0
                self._remember(url, response)
            with self.part.open("ab" if continues else "wb") as stream:
                self._receive(response, stream, received)

    def _start_anew(self, url: str) -> None:
        """Delete the received bytes, which do not belong to the server's present file, and start again."""
        self.part.unlink()
        self.state.unlink()
        self._fetch(url)

    def _receive(self, response: requests.Response, stream: BinaryIO, received: int) -> None:
        length = response.headers.get("Content-Length")
        total = received + int(length) if length else None
        for piece in response.raw.stream(CHUNK, decode_content=False):
            stream.write(piece)
            received += len(piece)
            if self.progress:
                self.progress(received, total)
        if total is not None and received != total:
            raise _Broken(f"the connection closed after {received:,} of {total:,} bytes")

    def _validator(self, url: str) -> str | None:
        """The server's identification of the file that `part` begins; None if unknown."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        known = isinstance(state, dict) and state.get("url") == url
        return str(state["validator"]) if known and state.get("validator") else None

    def _remember(self, url: str, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        self.state.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


class _Broken(Exception):
    """The connection ended before the file did."""


def retrieve(
    url: str, target: Path, checksum: str | None, progress: Progress | None = None, check: Check | None = None
) -> Path:
    """Download `url` to `target`, unless it is there already with the right checksum.

    Parameters
    ----------
    url, target
        Address and file.
    checksum
        "md5:…" or "sha256:…". None accepts the first download and records its SHA-256 in `target`.sha256, to be
        compared from then on.
    progress
        Called with the bytes received so far and the total.
    check
        Called with a download before it is put in place; it raises a DownloadError if that is another file.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        No connection, an error of the server, a wrong checksum, another file than was meant, or no space; the message
        gives only the reason.
    """
    import pooch  # type: ignore[import-untyped]

    record = target.with_name(target.name + ".sha256")
    known = checksum
    if known is None and record.is_file():
        known = f"sha256:{record.read_text(encoding='utf-8').strip()}"
    # Later downloads are compared with the recorded checksum, which says more.
    first_check = check if known is None else None
    downloader = ResumingDownloader(target.with_name(target.name + ".part"), progress, first_check)
    try:
        with _quiet(pooch.get_logger()):
            pooch.retrieve(url, known, fname=target.name, path=target.parent, downloader=downloader)
        if known is None:
            record.write_text(pooch.file_hash(str(target), alg="sha256") + "\n", encoding="utf-8")
    except ValueError as error:
        since = "" if checksum else f" (recorded at the first download; delete {record} if the new file is meant)"
        raise DownloadError(f"what arrived does not have the checksum {known}{since}") from error
    except OSError as error:
        raise DownloadError(f"{target} cannot be written ({error.strerror or error})") from error
    return target


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Silence pooch, which logs to the terminal; failures are raised as errors."""
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)


def reason(error: Exception) -> str:
    """Reason for a failed download, in words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not valid, or something on the way replaces it"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.ConnectionError):
        text = str(error)
        if "Name or service not known" in text or "NameResolution" in text or "getaddrinfo" in text:
            return "the server's name could not be resolved (is there a network connection?)"
        return "no connection to the server" if "Broken" not in text else "the connection broke"
    return str(error) if isinstance(error, _Broken) else "the connection broke"


@contextmanager
def download_bar(title: str) -> Iterator[Progress]:
    """Progress bar on standard error with amount, rate and time left, as the `progress` of a download.

    Examples
    --------
    >>> with download_bar("MovieLens 1M") as bar:
    ...     bar(500, 1000)
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda received, total: bar.update(task, completed=received, total=total)
