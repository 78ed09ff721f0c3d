"""Servers in processes of their own, and databases, for the tests of the service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import segue
from tests.helpers import make_dataset
from tests.programs import Program, new_interpreter

SECONDS = 120


class Server:
    """A `segue serve` in its own process, on a free port; modules in the folder `before` hide others of their names."""

    def __init__(
        self, run: str | Path, store: str, *options: str, token: str | None = None, before: Path | None = None
    ) -> None:
        source = [str(place) for place in (before, Path(segue.__file__).parent.parent) if place is not None]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(source), "OMP_NUM_THREADS": "1"}
        words = ["-m", "segue", "serve", *str(run).split(), "--store", store, "--port", "0", *options]
        self.token = token
        start = Program if before is None else new_interpreter
        self.process = start(*words, env=environment)
        self.lines: list[str] = []
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"on (http://\S+:(\d+))", line)
            if found:
                self.url, self.port = found[1], int(found[2])
                # A full pipe would make the server wait.
                threading.Thread(target=self.lines.extend, args=(self.process.stderr,), daemon=True).start()
                return
        self.process.wait(SECONDS)
        raise AssertionError("".join(self.lines))

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers of an answer."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        own = {"Content-Type": "application/json"} if data is not None else {}
        if self.token is not None:
            own["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data, own | (headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                status, content, found = answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            status, content, found = error.code, error.read(), dict(error.headers)
        is_json = "json" in found.get("content-type", "")
        return status, json.loads(content) if is_json else content.decode(), found

    def post(self, path: str, body: Any) -> Any:
        """JSON of an answer that must be 200."""
        status, answer, _ = self.ask("POST", f"/v1/{path}", body)
        assert status == 200, answer
        return answer

    def items(self, **question: Any) -> list[Any]:
        """Items of a list."""
        return [item["item"] for item in self.post("recommend", question)["items"]]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)

    def stop(self) -> int:
        """Exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(SECONDS)


@contextlib.contextmanager
def serving(*arguments: Any, **named: Any) -> Iterator[Server]:
    server = Server(*arguments, **named)
    try:
        yield server
    finally:
        server.kill()


def make_run(folder: Path, shift: int = 1, times: bool = True) -> Path:
    """A Markov model by which item i is followed by i + shift."""
    walks = [[(start + shift * step) % 12 + 1 for step in range(6)] for start in range(24)]
    stamps = [[1_700_000_000 + 1000 * user + step for step in range(6)] for user in range(24)]
    data = make_dataset(walks, times=stamps if times else None, catalogue=range(1, 13))
    segue.fit(segue.Markov(), data, quiet=True).save(folder)
    return folder


class Postgres:
    """A PostgreSQL server of its own, in a temporary folder."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = shutil.which("initdb") or (str(binaries[-1]) if binaries else None)
        if found is None:
            pytest.skip("no PostgreSQL: neither SEGUE_TEST_POSTGRES nor initdb is there")
        self.bin = Path(found).resolve().parent
        self.folder = Path(tempfile.mkdtemp(prefix="segue-pg-"))
        self.user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self.user:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", "segue", "--no-sync")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"postgresql://segue@/postgres?host={self.folder}"

    def start(self) -> None:
        words = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "", "-c", "shared_buffers=16MB"]
        words += ["-c", "dynamic_shared_memory_type=mmap"]  # in the folder, so that a killed server leaves none
        command = [*self.user, str(self.bin / "postgres"), *words]
        self.process = None
        for _ in range(300):
            # One that starts ends at once while a process of a killed one still holds the shared memory.
            if self.process is None or self.process.poll() is not None:
                self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
            if subprocess.run([str(self.bin / "pg_isready"), "-h", str(self.folder), "-q"]).returncode == 0:
                return
            subprocess.run(["sleep", "0.1"])
        raise AssertionError("PostgreSQL did not start")

    def kill(self) -> None:
        """Kill the server and all its processes, as a loss of power would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(SECONDS)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run([*self.user, str(self.bin / program), *words], check=True, stdout=subprocess.DEVNULL, cwd="/")
