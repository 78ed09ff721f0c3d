"""A small S3 server: it lists the objects of one bucket, gives them, takes new ones (also in parts) and deletes."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name><Prefix>{prefix}</Prefix>
<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{content}</ListBucketResult>"""


_STARTED = "<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
_COMPLETED = '<CompleteMultipartUploadResult><ETag>"0"</ETag></CompleteMultipartUploadResult>'
_NOT_THERE = b"<Error><Code>NoSuchKey</Code></Error>"


@contextmanager
def bucket(
    name: str, objects: MutableMapping[str, bytes], before_put: Callable[[str], int | None] = lambda key: None
) -> Iterator[str]:
    """Serve the objects (key → content) of a bucket; yield host and port. The server ends with the context.

    `before_put` is called with the key of each object that is written; a number that it returns is the answer of the
    server, such as 403.
    """
    started: dict[str, dict[int, bytes]] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key, query = self._target()
            if not key:
                self._answer(200, _listing(name, objects, query), "application/xml")
            elif key not in objects:
                self._answer(404, _NOT_THERE, "application/xml")
            else:
                self._object(objects[key])

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            key, query = self._target()
            content = _decoded(self._body(), self.headers)
            refusal = before_put(key) if key and not key.endswith("/") else None
            if refusal is not None:
                self._answer(refusal, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
                return
            if "uploadId" in query:
                started[query["uploadId"][0]][int(query["partNumber"][0])] = content
            elif key and not key.endswith("/"):
                objects[key] = content
            self._answer(200, b"")

        def do_POST(self) -> None:
            key, query = self._target()
            body = self._body()
            if "uploads" in query:
                number = uuid.uuid4().hex
                started[number] = {}
                self._answer(200, _STARTED.format(number=number).encode(), "application/xml")
            elif "uploadId" in query:
                parts = started.pop(query["uploadId"][0])
                objects[key] = b"".join(parts[number] for number in sorted(parts))
                self._answer(200, _COMPLETED.encode(), "application/xml")
            else:  # several keys to delete
                for found in re.findall(rb"<Key>(.*?)</Key>", body):
                    objects.pop(found.decode(), None)
                self._answer(200, b"<DeleteResult></DeleteResult>", "application/xml")

        def do_DELETE(self) -> None:
            objects.pop(self._target()[0], None)
            self._answer(204, b"")

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # headers behind the body
            return body

        def _target(self) -> tuple[str, dict[str, list[str]]]:
            address = urlsplit(self.path)
            return unquote(address.path).removeprefix(f"/{name}").lstrip("/"), parse_qs(
                address.query, keep_blank_values=True
            )

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
            if self.command != "HEAD":
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


def _decoded(body: bytes, headers: Mapping[str, str]) -> bytes:
    """The content of a request, which may come in chunks that each say their size in a line of their own."""
    if "aws-chunked" not in headers.get("Content-Encoding", ""):
        return body
    content = b""
    while body:
        line, _, rest = body.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        content, body = content + rest[:size], rest[size + 2 :]
    return content


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
