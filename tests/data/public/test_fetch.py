"""Public datasets, fetched from a server on the loopback address that serves small archives of the same layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import polars as pl
import pytest

from segue.data.public import download
from segue.data.public import fetch as public
from segue.errors import ConfigError, DataError, DownloadError


@dataclass
class Shelf:
    """What the server has, how it behaves, and what was asked of it."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    ranges: bool = True
    encoding: str | None = None
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)  # file, Range, status
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        content = self.shelf.files.get(name)
        if content is None:
            self._note(name, 404)
            return self.send_error(404)
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = 0
        if wanted and self.shelf.ranges and self.headers.get("If-Range") == etag:
            start = int(wanted[1])
        if start and start >= len(content):
            self._note(name, 416)
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self._note(name, 206 if start else 200)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.shelf.ranges:
            self.send_header("ETag", etag)
        if self.shelf.encoding:
            self.send_header("Content-Encoding", self.shelf.encoding)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.shelf.breaks_after.pop(0) if self.shelf.breaks_after else len(content)
        self.wfile.write(content[start:end])
        self.close_connection = True

    def _note(self, name: str, status: int) -> None:
        self.shelf.asked.append((name, self.headers.get("Range"), status))

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEGUE_CACHE", "SEGUE_DATASETS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,nowhere.invalid")


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setattr(download, "CHUNK", 1000)
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("ShelfHandler", (Handler,), {"shelf": shelf}))
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}/mirror/"
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield shelf
    server.shutdown()
    server.server_close()


ROWS = [
    (str(user), str(item), 1 + (user + item) % 5, 880_000_000 + 60 * user + item)
    for user in range(1, 41)
    for item in range(1, 31)
]


def _zip(member: str, text: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped.txt", "this must never be unpacked")
        archive.writestr(member.split("/")[0] + "/README", "terms")
        archive.writestr(member, text)
    return buffer.getvalue()


def _content(name: str) -> bytes:
    """An archive with the layout of the real one."""
    dataset = public.lookup(name)
    if name == "ml-100k":
        return _zip(dataset.member, "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in ROWS))
    if name == "ml-1m":
        return _zip(dataset.member, "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in ROWS))
    if name.startswith("ml-"):
        rows = "".join(f"{u},{i},{r}.5,{t}\n" for u, i, r, t in ROWS)
        return _zip(dataset.member, f"userId,movieId,rating,timestamp\n{rows}")
    if name == "steam":
        lines = [
            f"{{u'username': u'p{u}', u'hours': 13.2, u'product_id': u'{i}', u'early_access': False, "
            f"u'date': u'2017-12-{1 + int(i) % 28:02d}', u'text': u'it\\'s \"fine\"'}}\n"
            for u, i, _, _ in ROWS
        ]
    else:
        lines = [
            json.dumps({"reviewerID": f"A{u}", "asin": f"B{i}", "helpful": [0, 0], "reviewText": "so, so",
                        "overall": float(r), "unixReviewTime": t, "reviewTime": "02 4, 2013"}) + "\n"
            for u, i, r, t in ROWS
        ]  # fmt: skip
    return gzip.compress("".join(lines).encode(), mtime=0)


def _serve(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, name: str) -> bytes:
    """Put an archive on the shelf, and its checksum, where one is published, in place of the real one."""
    dataset, content = public.lookup(name), _content(name)
    shelf.files[dataset.archive] = content
    if dataset.checksum:
        md5 = hashlib.md5(content).hexdigest()
        monkeypatch.setitem(public.DATASETS, name, replace(dataset, checksum=f"md5:{md5}"))
    return content


def test_every_dataset_says_where_it_is_and_what_it_allows() -> None:
    names = [dataset.name for dataset in public.available()]
    assert names == [
        "ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-32m",
        "amazon-electronics", "amazon-beauty", "amazon-sports", "amazon-toys", "amazon-games", "steam",
    ]  # fmt: skip
    for dataset in public.available():
        assert dataset.url.startswith("https://")
        assert dataset.homepage.startswith("https://")
        assert dataset.terms
        assert dataset.checksum is None or re.fullmatch(r"md5:[0-9a-f]{32}", dataset.checksum)


@pytest.mark.parametrize("name", list(public.DATASETS))
def test_fetched_and_read(name: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _serve(shelf, monkeypatch, name)
    log = public.open_public(name, cache=tmp_path, base_url=shelf.url)
    frame = log.collect()
    assert frame.height == len(ROWS)
    assert frame["user"].n_unique() == 40
    assert frame["item"].n_unique() == 30
    assert log.time_unit is not None
    assert ("rating" in frame.columns) == (name != "steam")
    if name.startswith("ml-"):
        assert frame["user"].dtype == pl.Int64
        assert frame["time"].to_list() == [t for *_, t in ROWS]


def test_only_the_needed_member_is_unpacked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _serve(shelf, monkeypatch, "ml-1m")
    cache = tmp_path / "a" / "cache"
    path = public.fetch("ml-1m", cache=cache, base_url=shelf.url)
    assert path == cache / "ml-1m" / "ratings.dat"
    everything = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert everything == ["a/cache/ml-1m/ml-1m.zip", "a/cache/ml-1m/ratings.dat"]


def test_second_time_nothing_is_fetched(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _serve(shelf, monkeypatch, "ml-100k")
    monkeypatch.setenv("SEGUE_CACHE", str(tmp_path))
    monkeypatch.setenv("SEGUE_DATASETS_URL", shelf.url)
    first = public.fetch("ml-100k")
    assert public.fetch("ml-100k") == first
    assert len(shelf.asked) == 1


def test_progress_is_told(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _serve(shelf, monkeypatch, "amazon-toys")
    told: list[tuple[int, int | None]] = []
    public.fetch("amazon-toys", cache=tmp_path, base_url=shelf.url, progress=lambda got, all_: told.append((got, all_)))
    assert told[-1] == (len(content), len(content))
    assert told == sorted(told)


def test_goes_on_after_a_break(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _serve(shelf, monkeypatch, "amazon-beauty")
    shelf.breaks_after = [2000, 1000]
    path = public.fetch("amazon-beauty", cache=tmp_path, base_url=shelf.url)
    assert path.read_bytes() == content
    assert [(asked, status) for _, asked, status in shelf.asked] == [
        (None, 200), ("bytes=2000-", 206), ("bytes=3000-", 206)
    ]  # fmt: skip


def test_goes_on_in_a_later_call(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _serve(shelf, monkeypatch, "ml-20m")
    shelf.breaks_after = [2000, 0]
    with pytest.raises(DownloadError, match="2,000 bytes are kept and the next try goes on from there"):
        public.fetch("ml-20m", cache=tmp_path, base_url=shelf.url)
    assert (tmp_path / "ml-20m" / "ml-20m.zip.part").stat().st_size == 2000
    shelf.asked.clear()
    assert public.fetch("ml-20m", cache=tmp_path, base_url=shelf.url).is_file()
    assert shelf.asked == [("ml-20m.zip", "bytes=2000-", 206)]
    assert (tmp_path / "ml-20m" / "ml-20m.zip").read_bytes() == content
    assert not list(tmp_path.rglob("*.part*"))


def test_killed_after_the_last_byte(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _serve(shelf, monkeypatch, "ml-1m")
    shelf.breaks_after = [2000, 0]
    with pytest.raises(DownloadError):
        public.fetch("ml-1m", cache=tmp_path, base_url=shelf.url)
    (tmp_path / "ml-1m" / "ml-1m.zip.part").write_bytes(content)
    assert public.fetch("ml-1m", cache=tmp_path, base_url=shelf.url).is_file()
    assert shelf.asked[-1][2] == 416


def test_starts_anew_when_the_file_has_changed(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _serve(shelf, monkeypatch, "amazon-games")
    shelf.breaks_after = [2000, 0]
    with pytest.raises(DownloadError):
        public.fetch("amazon-games", cache=tmp_path, base_url=shelf.url)
    changed = gzip.compress(b'{"reviewerID": "A1", "asin": "B1"}\n' * 5000, mtime=1)
    shelf.files["reviews_Video_Games_5.json.gz"] = changed
    path = public.fetch("amazon-games", cache=tmp_path, base_url=shelf.url)
    assert path.read_bytes() == changed
    assert shelf.asked[-1][2] == 200


def test_server_without_ranges(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = _serve(shelf, monkeypatch, "ml-25m")
    shelf.ranges, shelf.breaks_after = False, [2000, 0]
    with pytest.raises(DownloadError) as caught:
        public.fetch("ml-25m", cache=tmp_path, base_url=shelf.url)
    assert "are kept" not in str(caught.value)
    public.fetch("ml-25m", cache=tmp_path, base_url=shelf.url)
    assert {asked for _, asked, _ in shelf.asked} == {None}
    assert (tmp_path / "ml-25m" / "ml-25m.zip").read_bytes() == content


def test_stored_bytes_arrive_whatever_encoding_the_server_claims(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = _serve(shelf, monkeypatch, "steam")
    shelf.encoding = "x-gzip"
    assert public.fetch("steam", cache=tmp_path, base_url=shelf.url).read_bytes() == content


def test_wrong_checksum(shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["ml-1m.zip"] = _content("ml-1m")
    with pytest.raises(DownloadError, match="does not have the checksum md5:c4d9eecfca2ab87c1945afe126590906"):
        public.fetch("ml-1m", cache=tmp_path, base_url=shelf.url)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_altered_archive_in_the_cache_is_fetched_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = _serve(shelf, monkeypatch, "ml-32m")
    archive = public.fetch("ml-32m", cache=tmp_path, base_url=shelf.url).with_name("ml-32m.zip")
    archive.write_bytes(content[:-100])
    public.fetch("ml-32m", cache=tmp_path, base_url=shelf.url)
    assert archive.read_bytes() == content


def test_without_a_published_checksum_the_first_download_counts(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = _serve(shelf, monkeypatch, "amazon-sports")
    path = public.fetch("amazon-sports", cache=tmp_path, base_url=shelf.url)
    record = path.with_name(path.name + ".sha256")
    assert record.read_text().strip() == hashlib.sha256(content).hexdigest()
    path.write_bytes(b"damaged")
    assert public.fetch("amazon-sports", cache=tmp_path, base_url=shelf.url).read_bytes() == content
    path.unlink()
    shelf.files[path.name] = gzip.compress(b"other")
    with pytest.raises(
        DownloadError, match=r"recorded at the first download; delete .*\.sha256 if the new file is meant"
    ):
        public.fetch("amazon-sports", cache=tmp_path, base_url=shelf.url)


PAGE = b"<!DOCTYPE html><html><body>The file has moved.</body></html>"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "what arrived is empty, and not .*json.gz"),
        (lambda whole: PAGE, "what arrived is a web page"),
        (lambda whole: b"not found", "what arrived is no gzip"),
        (lambda whole: whole[: len(whole) // 2], "damaged or was cut off"),
        (lambda whole: whole[:-1], "damaged or was cut off"),
        (lambda whole: gzip.compress(PAGE), "holds no record with .* in its first line"),
        (lambda whole: gzip.compress(b'{"unixReviewTime": 5}\n'), "holds no record with .* in its first line"),
        (lambda whole: gzip.compress(b""), "holds no record with"),
    ],
)
@pytest.mark.parametrize("name", ["amazon-sports", "steam"])
def test_a_download_that_is_something_else_is_not_kept(
    shelf: Shelf,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    message: str,
) -> None:
    right = _serve(shelf, monkeypatch, name)
    archive = public.lookup(name).archive
    shelf.files[archive] = damage(right)
    with pytest.raises(DownloadError, match=message):
        public.fetch(name, cache=tmp_path, base_url=shelf.url)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    shelf.files[archive] = right
    assert public.fetch(name, cache=tmp_path, base_url=shelf.url).read_bytes() == right


def test_a_wrong_file_in_the_cache_and_a_wrong_copy_are_named(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _serve(shelf, monkeypatch, "amazon-sports")
    folder = tmp_path / "amazon-sports"
    folder.mkdir()
    file = folder / public.lookup("amazon-sports").archive
    file.write_bytes(PAGE)
    file.with_name(file.name + ".sha256").write_text(hashlib.sha256(PAGE).hexdigest() + "\n")
    with pytest.raises(DownloadError, match=r"is not Amazon reviews 2014.*a web page.*Delete it"):
        public.fetch("amazon-sports", cache=tmp_path, base_url=shelf.url)
    with pytest.raises(DataError, match=r"is not reviews_Sports.*: it is a web page"):
        public.fetch("amazon-sports", archive=file)


def test_not_on_the_server(shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="the server answered 404 Not Found"):
        public.fetch("steam", cache=tmp_path, base_url=shelf.url)
    assert len(shelf.asked) == 1


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        public.fetch("ml-1m", cache=tmp_path, base_url="http://127.0.0.1:9")
    assert str(caught.value) == (
        "MovieLens 1M could not be fetched from http://127.0.0.1:9/ml-1m.zip: no connection to the server. If you can "
        "get ml-1m.zip in another way, pass the path of your copy with archive=."
    )


def test_no_such_host(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"could not be resolved|no connection"):
        public.fetch("ml-1m", cache=tmp_path, base_url="http://nowhere.invalid")


def test_cache_that_cannot_be_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _serve(shelf, monkeypatch, "ml-1m")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written"):
        public.fetch("ml-1m", cache=tmp_path / "file", base_url=shelf.url)


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match='no public dataset "ml-1mm": did you mean "ml-1m"'):
        public.fetch("ml-1mm")


def test_local_copy(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "my copy.zip"
    copy.write_bytes(_serve(shelf, monkeypatch, "ml-1m"))
    log = public.open_public("ml-1m", archive=copy, cache=tmp_path / "cache")
    assert log.rows == len(ROWS)
    unpacked = tmp_path / "cache" / "ml-1m" / "ratings.dat"
    assert public.fetch("ml-1m", archive=unpacked) == unpacked
    assert public.fetch("ml-1m", archive=unpacked.parent) == unpacked
    assert not shelf.asked


def test_local_copies_that_will_not_do(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; expected a copy of ml-1m\.zip"):
        public.fetch("ml-1m", archive=tmp_path / "ml-1m.zip")
    with pytest.raises(DataError, match=r"holds neither ml-1m\.zip nor ratings\.dat"):
        public.fetch("ml-1m", archive=tmp_path)
    other = tmp_path / "other.zip"
    other.write_bytes(_content("ml-1m"))
    with pytest.raises(DataError, match=r"is not ml-1m\.zip as published, or is damaged"):
        public.fetch("ml-1m", archive=other)


def test_archive_without_the_interactions(shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = _serve(shelf, monkeypatch, "ml-20m")
    dataset = replace(public.lookup("ml-25m"), checksum=f"md5:{hashlib.md5(other).hexdigest()}")
    monkeypatch.setitem(public.DATASETS, "ml-25m", dataset)
    shelf.files["ml-25m.zip"] = other
    with pytest.raises(DownloadError, match=r"does not hold ml-25m/ratings\.csv: it is not MovieLens 25M"):
        public.fetch("ml-25m", cache=tmp_path, base_url=shelf.url)


def test_bar_takes_what_a_download_tells(capsys: pytest.CaptureFixture[str]) -> None:
    with download.download_bar("MovieLens 1M") as bar:
        bar(10, None)
        bar(100, 100)
    assert capsys.readouterr().out == ""


@pytest.mark.realdata
def test_real_movielens(real_data: Path) -> None:
    log = public.open_public("ml-100k", archive=real_data / "ml-100k")
    assert log.rows == public.lookup("ml-100k").interactions
    frame = log.collect()
    assert (frame["user"].n_unique(), frame["item"].n_unique()) == (943, 1682)
