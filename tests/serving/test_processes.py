"""The HTTP process and the model process of a service end together, and the first is started again when it dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.serving.servers import SECONDS, Server, serving


def front_of(server: Server) -> int:
    """Process id of the HTTP process."""
    own = str(server.process.pid)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == own:
            return int(stat.parent.name)
    raise AssertionError("there is no HTTP process")


def wait_for_end(process: int) -> None:
    for _ in range(20 * SECONDS):
        if not Path(f"/proc/{process}").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the process did not end")


def test_an_http_process_that_dies_is_started_again(run: Path, tmp_path: Path) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'a.db'}") as server:
        before = server.items(user=1, k=3)
        server.post("events", {"user": 1, "item": before[0]})
        first = front_of(server)
        os.kill(first, signal.SIGKILL)
        wait_for_end(first)
        assert server.items(user=1, k=3) != before, "the event counts, since the model process knows it"
        assert front_of(server) != first
        assert any("ended with code -9 and is started again" in line for line in server.lines)
        assert server.stop() == 0


def test_the_http_process_imports_no_model() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'polars', 'scipy') if name in sys.modules]"
    words = [sys.executable, "-c", f"import sys, segue.serving.front; print({heavy})"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_http_process_ends_with_a_killed_model_process(run: Path, tmp_path: Path) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'a.db'}") as server:
        front = front_of(server)
        server.kill()
        wait_for_end(front)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", server.port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_processes_drain(run: Path, tmp_path: Path, number: int) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'a.db'}") as server:
        front, statuses = front_of(server), list[int]()

        def ask() -> None:
            body = {"requests": [{"user": 1, "k": 5}] * 500}
            statuses.append(server.ask("POST", "/v1/recommend/batch", body)[0])

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.05)
        server.process.send_signal(number)
        thread.join()
        assert server.process.wait(SECONDS) == 0
        assert statuses == [200]
        wait_for_end(front)


def test_metrics_come_from_both_processes(run: Path, tmp_path: Path) -> None:
    with serving(run, f"sqlite:///{tmp_path / 'a.db'}", "--kept", "0") as server:
        server.items(user=1, k=3)
        text = server.ask("GET", "/metrics")[1]
        assert 'segue_requests_total{route="post-recommend",status="200"} 1.0' in text
        assert "segue_batch_requests_count 1.0" in text
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names)), "a metric that stands there twice cannot be read by Prometheus"
