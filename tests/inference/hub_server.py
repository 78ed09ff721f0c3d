"""Stand-in of the Hugging Face hub: its HTTP API for making a repository, committing to it and fetching from it.

It speaks to the real client (huggingface_hub): regular files come with the commit, large ones by Git LFS, and a
snapshot is fetched file by file. Commits are kept in memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stand_in"


class Hub:
    """Repositories by name; each is a list of commits, from the oldest on."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def commit_of(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name)
        if not commits:
            return None
        if revision == "main":
            return identity(name, len(commits) - 1), commits[-1]
        known = {identity(name, number): commit for number, commit in enumerate(commits)}
        return (revision, known[revision]) if revision in known else None


def identity(name: str, number: int) -> str:
    return hashlib.sha1(f"{name}/{number}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None: ...

    def _answer(self, content: Any = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps({} if content is None else content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _may(self, name: str) -> bool:
        """A private repository is there for those with the token alone."""
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        return name in self.hub.repositories and (known or not self.hub.private[name])

    def do_POST(self) -> None:
        self.hub.requests.append(f"POST {self.path}")
        body, path = self._body(), self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "Invalid username or password."}, 401)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            if name in self.hub.repositories:
                return self._answer({"url": f"{self.hub.address}/{name}", "error": "exists"}, 409)
            self.hub.repositories[name] = [{".gitattributes": b""}]
            self.hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            return self._answer({"url": f"{self.hub.address}/{name}", "id": name, "name": name})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            asked = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            files = [
                {"path": one["path"], "uploadMode": modes[one["path"].endswith(".safetensors")], "shouldIgnore": False}
                for one in asked
            ]
            return self._answer({"files": files})
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.address}/large/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines() if line])
        return self._answer({"error": f"no {path}"}, 404)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = dict(self.hub.repositories[name][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        commits = self.hub.repositories[name]
        commits.append(files)
        commit = identity(name, len(commits) - 1)
        self._answer({"commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "commitOid": commit})

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rpartition("/")[2]
        if hashlib.sha256(content).hexdigest() != oid:
            return self._answer({"error": "checksum"}, 400)
        self.hub.large[oid] = content
        return self._answer()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        missing = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?(?:/.*)?", path):
            name, kind, revision = match[1], match[2], match[3] or "main"
            if not self._may(name):
                return self._answer({"error": "Repository not found"}, 404, **missing)
            found = self.hub.commit_of(name, revision)
            if found is None:
                return self._answer({"error": "no revision"}, 404, **{"X-Error-Code": "RevisionNotFound"})
            commit, files = found
            if kind == "tree":
                entries = [
                    {"type": "file", "path": one, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for one, content in files.items()
                ]
                return self._answer(entries)
            siblings = [{"rfilename": one, "size": len(content)} for one, content in files.items()]
            return self._answer({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": True})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision, file = match.groups()
            found = self.hub.commit_of(name, revision) if self._may(name) else None
            if found is None or file not in found[1]:
                return self._answer({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            content = found[1][file]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self._answer(
                content, ETag=etag, **{"X-Repo-Commit": found[0], "Content-Type": "binary/octet-stream"}
            )
        return self._answer({"error": f"no {path}"}, 404)
