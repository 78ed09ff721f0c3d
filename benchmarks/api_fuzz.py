"""The whole API under schemathesis, and hostile tokens, ids, conditions and paths.

    pip install schemathesis==4.32.5
    python benchmarks/api_fuzz.py [--minutes 5] [--seed 0]

A real server with tokens serves two small models with an item table. schemathesis makes requests from /openapi.json,
possible and impossible ones, and compares every answer with the document. Then requests that no document has follow:
tokens, ids, SQL and paths of an attacker. A finding is an answer from 500, an answer that is not as documented, an
impossible request that is accepted, or a hostile request that gets in. The result goes to results/api_fuzz.json.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import common
import numpy as np
import polars as pl

import segue
from segue.serving.tokens import new_token

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""Checks of schemathesis. Those left out are about deleted resources and owners of objects, which the API has not."""
OWN_CHECK = "accepts_every_documented_form"
"""Check of api_checks.py."""

SQL = (
    "1 = 1; DROP TABLE items",
    "category = 'tea' UNION SELECT * FROM read_csv('/etc/passwd')",
    "read_text('/etc/passwd') IS NOT NULL",
    "price IN (SELECT 1 FROM read_parquet('*.parquet'))",
    "EXISTS (SELECT 1 FROM sqlite_master)",
    "price < 1 -- ",
    "1/0 = 1",
    "category LIKE " + "'%" * 500,
    "((((" * 500,
    "NOT " * 1000 + "price < 1",
    "price < 1e999",
    "price = NULL",
    "'",
    "title ~ '(a+)+$'",
)
"""Conditions of an attacker."""

IDS = (
    "' OR 1=1 --",
    "'; DROP TABLE events; --",
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "..\\..\\windows",
    "%00",
    "a\tb\r\nX-Injected: 1",
    "\u202egnirts",
    "\u0000",
    "𝔘𝔫𝔦",
    "a" * 500,
    "-0",
    "1e9",
    "null",
    "{{7*7}}",
    "${jndi:ldap://x}",
)
"""Ids of an attacker."""

PATHS = (
    "/page/../../../etc/passwd",
    "/page/..%2f..%2f..%2fetc%2fpasswd",
    "/page/%2e%2e/%2e%2e/etc/passwd",
    "/page/....//....//etc/passwd",
    "/page//etc/passwd",
    "/page/index.html%00.js",
    "/page/__init__.py",
    "/../etc/passwd",
    "//etc/passwd",
    "/v1/items/../../etc/passwd",
    "/v1/models/",
    "/V1/MODELS",
    "/%76%31/models",
    "/v1//models",
    "/openapi.json/../v1/models",
    "/health/../v1/models",
    "/v1/models;x",
    "/metrics/",
    "/%",
    "/\xff",
)
"""Paths of an attacker, without a token: none may answer 200 with anything but the public page."""


BODIES = (
    b"",
    b"{",
    b"[" * 100_000,
    b'{"user": ' + b"9" * 5_000 + b"}",
    b"\xff\xfe",
    b"nul",
    b'{"user": 1, "user": 2}',
    b'{"user": "\\ud800"}',
    b'{"user": 1e400}',
    b'{"user": 1, "k": -1}',
    b'{"k": 1}',
    b"NaN",
    b'"x"',
    b'{"history": [{"item": 1, "time": -253402300798}]}',
)
"""Bodies of an attacker."""


def make_runs(folder: Path) -> list[str]:
    """Two small models with an item table: one counts, and one has an encoder and reasons."""
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(60), 8), rng.integers(0, 30, 480)
    log = pl.DataFrame({"user": [f"u{user}" for user in users], "item": [f"i{item}" for item in items]})
    log = log.with_columns(time=pl.Series(1_700_000_000 + 1_000 * np.arange(480)))
    table = pl.DataFrame(
        {
            "item": [f"i{item}" for item in range(30)],
            "title": [f"Tea <b>{item}</b>" if item % 7 else None for item in range(30)],
            "category": [f"c{item % 4}" for item in range(30)],
            "price": [float(item) for item in range(30)],
            "tags": [[f"t{item % 3}", "all"] for item in range(30)],
        }
    )
    data = segue.prepare(log, items=table)
    segue.fit(segue.Markov(), data, quiet=True).save(folder / "markov")
    model = segue.SASRec(width=16, blocks=1, heads=1, max_length=10)
    segue.fit(model, data, training=segue.Training(epochs=1), quiet=True).save(folder / "sasrec")
    return [f"a={folder / 'sasrec'}:50", f"b={folder / 'markov'}:50"]


class Server:
    """A `segue serve` in its own process, with tokens."""

    def __init__(self, runs: list[str], folder: Path) -> None:
        tokens = folder / "tokens.toml"
        self.tokens = {
            name: new_token(tokens, name, rights)
            for name, rights in (("all", ["read", "write", "admin"]), ("reader", ["read"]), ("writer", ["write"]))
        }
        words = ["--store", f"sqlite:///{folder / 'events.db'}", "--port", "0", "--tokens", str(tokens)]
        words += ["--deadline", "30", "--queue", "1000"]
        environment = {**os.environ, "PYTHONPATH": str(Path(segue.__file__).parent.parent)}
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "segue", "serve", *runs, *words], stderr=self.log, env=environment
        )
        while not (found := re.search(r"on http://\S+:(\d+)", (folder / "log").read_text())):
            if self.process.poll() is not None:
                raise SystemExit((folder / "log").read_text())
        self.port = int(found[1])

    def state(self) -> tuple[int, bool]:
        """Number of tracebacks in the log, and true if there are any, or an id or a token is in the log."""
        log = Path(self.log.name).read_text()
        tracebacks = log.count("Traceback")
        return tracebacks, bool(tracebacks) or any(text in log for text in ("script>", *self.tokens.values()))

    def send(self, raw: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer to the bytes of a request; status 0 if the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(raw)
            content = b""
            while part := connection.recv(65_536):
                content += part
        head, _, body = content.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0, head, body

    def ask(
        self, method: str, path: str, body: Any = None, token: str | None = None, headers: bytes = b""
    ) -> tuple[int, bytes, bytes]:
        """Answer to a request."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{method} ".encode() + path.encode("latin-1") + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        if body is not None:
            head += b"Content-Type: application/json\r\n"
        if token is not None:
            head += b"Authorization: Bearer " + token.encode("utf-8") + b"\r\n"
        return self.send(head + headers + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)


def hostile(server: Server) -> Iterator[tuple[str, str, int, bool]]:
    """Kind, request, status, and true if it got in, for every hostile request."""
    known = server.tokens["all"]
    for token in (
        "", "segue_", known[:-1], known + "x", known.upper(), known[::-1], "null", "*", "' OR 1=1 --", "é" * 40,
        "a" * 60_000, "\t" + known[:-1], known + "," + known[:-1], "Bearer",
    ):  # fmt: skip
        status, _, _ = server.ask("GET", "/v1/models", token=token)
        yield "token", token[:40], status, status not in (400, 401, 431, 0)
    for name, value in (
        ("Cookie", known),
        ("X-Api-Key", known),
        ("Authorization", f"Basic {known}"),
        ("X-Token", known),
    ):
        status, _, _ = server.ask("GET", "/v1/models", headers=f"{name}: {value}\r\n".encode())
        yield "token", name, status, status != 401
    status, _, _ = server.ask("GET", f"/v1/models?token={known}&access_token={known}")
    yield "token", "in the query", status, status != 401
    for right, method, path, body in (
        ("reader", "POST", "/v1/events", {"user": 1, "item": 1}),
        ("reader", "PUT", "/v1/items", {"item": "x"}),
        ("reader", "DELETE", "/v1/users/u1", None),
        ("writer", "DELETE", "/v1/users/u1", None),
        ("writer", "POST", "/v1/models/reload", None),
        ("writer", "GET", "/v1/users/u1", None),
        ("writer", "GET", "/metrics", None),
        ("writer", "POST", "/v1/recommend", {"user": "u1"}),
    ):
        status, _, _ = server.ask(method, path, body, server.tokens[right])
        yield "right", f"{right}: {method} {path}", status, status != 403
    status, _, body = server.ask("GET", "/v1/models", token=known, headers=b"Origin: http://evil.example\r\n")
    yield "origin", "another origin", status, status != 403
    for path in PATHS:
        status, _, body = server.ask("GET", path)
        yield "path", path, status, status == 200 or status >= 500 or b"root:" in body
    for sql in SQL:
        status, _, body = server.ask("POST", "/v1/recommend", {"user": "u1", "where": sql}, known)
        yield "sql", sql[:60], status, status >= 500 or b"root:" in body
        body = {"user": "u1", "boost": {sql[:200]: {"a": 1}}}
        status, _, answer = server.ask("POST", "/v1/recommend", body, known)
        yield "sql", f"boost {sql[:50]}", status, status != 422 or b"root:" in answer
    for raw_id in IDS:
        stored, _, _ = server.ask("POST", "/v1/events", {"user": raw_id, "item": raw_id, "session": raw_id}, known)
        yield "id", f"event {raw_id[:40]}", stored, stored not in ((422,) if "\0" in raw_id else (200,))
        for path in (f"/v1/users/{quote(raw_id, safe='')}", f"/v1/items/{quote(raw_id, safe='')}"):
            status, head, body = server.ask("GET", path, token=known)
            wrong = status >= 500 or b"\nX-Injected" in head or b"text/html" in head
            if stored == 200 and path.startswith("/v1/users") and raw_id not in ("..", "."):
                wrong |= status != 200 or str(json.loads(body).get("user")) != raw_id
            yield "id", path[:60], status, wrong
        status, _, _ = server.ask("DELETE", f"/v1/users/{quote(raw_id, safe='')}", token=known)
        yield "id", f"forget {raw_id[:40]}", status, status not in (200, 422)
    for body in BODIES:
        for path in ("/v1/recommend", "/v1/events", "/v1/score"):
            status, _, _ = server.ask("POST", path, body, known)
            yield "body", f"{path} {body[:30]!r}", status, status >= 500 or status == 0
    for raw in (
        b"GET /v1/models HTTP/1.1\r\n\r\n",
        b"GET http://evil.example/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ):
        try:
            status, _, _ = server.send(raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        except TimeoutError:
            status = -1
        yield "http", f"{raw[:40]!r}", status, status == 200 or status >= 500
    status, _, body = server.ask("GET", "/v1/models", token=known)
    yield "end", "the server answers afterwards", status, status != 200
    status, _, body = server.ask("POST", "/v1/recommend", {"user": "u1", "show": ["title"]}, known)
    yield "end", "the tables are there", status, status != 200


def by_schemathesis(server: Server, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Report of schemathesis."""
    settings, report = folder / "schemathesis.toml", folder / "report.json"
    statuses = ["2xx", "401", "403", "404", "409", "422", "5xx"]  # 422: api_checks.py looks at the reason
    settings.write_text(f"[checks.positive_data_acceptance]\nexpected-statuses = {json.dumps(statuses)}\n")
    words = [str(Path(sys.executable).parent / "st"), "--config-file", str(settings), "run"]
    words += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", ",".join((*CHECKS, OWN_CHECK))]
    words += ["--header", f"Authorization: Bearer {server.tokens['all']}", "--seed", str(arguments.seed)]
    words += ["--max-time", str(int(arguments.minutes * 60)), "--continue-on-failure", "--no-color"]
    words += ["--report", "json", "--report-json-path", str(report), "--generation-database", "none"]
    words += [
        "--generation-allow-x00",
        "false",
    ]  # words of the document forbid them, and those of an attacker are above
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "api_checks", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder, env=environment)
    (folder / "schemathesis.txt").write_text(done.stdout + done.stderr)
    if not report.exists():
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def main() -> None:
    """Fuzz and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the reports of schemathesis and the log of the server")
    parser.add_argument("--out", type=Path, default=common.RESULTS, help="folder of the result")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="segue-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    provenance = common.provenance() | {"versions": common.versions("schemathesis", "msgspec", "starlette", "uvicorn")}
    server = Server(make_runs(folder), folder)
    try:
        attempts = list(hostile(server))
        report = by_schemathesis(server, folder, arguments)
        attempts.append(("end", "memory and log after all", *server.state()))
    finally:
        server.process.terminate()
        code = server.process.wait()
    inside = [f"{kind}: {request!r} was answered {status}" for kind, request, status, wrong in attempts if wrong]
    result = {
        "what": "the API under schemathesis, and hostile tokens, ids, SQL and paths",
        **provenance,
        "options": {"minutes": arguments.minutes, "seed": arguments.seed, "checks": [*CHECKS, OWN_CHECK]},
        "operations": report["operations"]["tested"],
        "cases": report["test_cases"]["generated"],
        "findings": [f"{one['title']}: {', '.join(one['operations'])}" for one in report["failures"]],
        "errors": len(report["errors"]),
        "hostile_requests": dict(collections.Counter(kind for kind, *_ in attempts)),
        "hostile_findings": inside,
        "exit_code_of_the_server": code,
    }
    print(common.write("api_fuzz", result, arguments.out).read_text())
    sys.exit(1 if result["findings"] or result["errors"] or inside or code else 0)


if __name__ == "__main__":
    main()
