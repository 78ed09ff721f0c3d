"""A small S3 server: it lists the objects of one bucket, gives them and takes none. Enough to read a log from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name><Prefix>{prefix}</Prefix>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{content}</ListBucketResult>"""


@contextmanager
def bucket(name: str, objects: Mapping[str, bytes]) -> Iterator[str]:
    """Serve the objects (key → content) of a bucket; yield host and port. The server ends with the context."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            key, query = unquote(address.path).removeprefix(f"/{name}").lstrip("/"), parse_qs(address.query)
            if not key:
                self._answer(200, _listing(name, objects, query), "application/xml")
            elif key not in objects:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
            else:
                self._object(objects[key])

        do_HEAD = do_GET

        def _object(self, content: bytes) -> None:
            asked = self.headers.get("Range")
            if asked is None:
                self._answer(200, content)
                return
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1, len(content)) if last else len(content)
            named = {"Content-Range": f"bytes {first}-{stop - 1}/{len(content)}"}
            self._answer(206, content[int(first) : stop], more=named)

        def _answer(
            self, code: int, body: bytes, kind: str = "binary/octet-stream", more: Mapping[str, str] | None = None
        ) -> None:
            self.send_response(code)
            headers = {"Content-Type": kind, "Content-Length": str(len(body)), "ETag": '"0"', **(more or {})}
            headers["Last-Modified"] = "Mon, 01 Jan 2024 00:00:00 GMT"
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listing(name: str, objects: Mapping[str, bytes], query: Mapping[str, list[str]]) -> bytes:
    prefix, delimiter = (query.get(key, [""])[0] for key in ("prefix", "delimiter"))
    entries, folders = [], set()
    for key, content in sorted(objects.items()):
        if not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            continue
        entries.append(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>0</ETag><Size>{len(content)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
    entries += [f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
    return _LISTING.format(bucket=name, prefix=prefix, count=len(entries), content="".join(entries)).encode()
