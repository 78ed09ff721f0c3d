"""Every event that was acknowledged is there after kill -9, and none is there twice."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from segue.serving.store.address import open_store
from segue.serving.store.base import TOOK
from tests.serving.servers import Postgres, Server, serving


class Clients:
    """Clients that send events one after the other, and send one again that was not acknowledged."""

    def __init__(self, number: int = 4) -> None:
        self.acknowledged: list[str] = []
        self.server: Server | None = None
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self._send, args=(one,)) for one in range(number)]
        for thread in self.threads:
            thread.start()

    def _send(self, client: int) -> None:
        number = 0
        while not self.stopped.is_set():
            name, server = f"{client}-{number}", self.server
            # Two events of the same person with the same item in the same second would count once.
            body: Any = {"user": f"user {client}", "item": number % 12 + 1, "time": 1_750_000_000 + number}
            body["event_id"] = name
            try:
                assert server is not None
                if server.ask("POST", "/v1/events", body)[0] == 200:
                    self.acknowledged.append(name)
                    number += 1
            except (OSError, AssertionError):
                time.sleep(0.02)

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def check(address: str, clients: Clients) -> None:
    store = open_store(address)
    rows = [row.event_id for part in store.export(None, (TOOK,)) for row in part]
    store.close()
    assert len(rows) == len(set(rows))
    assert set(clients.acknowledged) <= set(rows)
    assert len(clients.acknowledged) > 20


@pytest.mark.slow
def test_a_killed_server_loses_nothing(run: Path, address: str) -> None:
    rng, clients = random.Random(0), Clients()
    try:
        for _ in range(3):
            clients.server = server = Server(run, address)
            before = len(clients.acknowledged)
            while len(clients.acknowledged) < before + 10:
                time.sleep(0.01)
            time.sleep(rng.random() / 2)
            server.kill()
    finally:
        clients.stop()
    check(address, clients)
    with serving(run, address) as last:
        found = last.ask("GET", "/v1/users/user%200")[1]
    sure = sum(name.startswith("0-") for name in clients.acknowledged)
    assert found["interactions"] in (sure, sure + 1), "the last one may be stored without an answer"


@pytest.mark.slow
def test_a_killed_database_loses_nothing(run: Path, postgres: Postgres) -> None:
    clients = Clients()
    clients.server = server = Server(run, postgres.address)
    try:
        for _ in range(2):
            before = len(clients.acknowledged)
            while len(clients.acknowledged) < before + 10:
                time.sleep(0.01)
            postgres.kill()
            assert server.ask("POST", "/v1/events", {"user": "x", "item": 1})[0] == 503
            assert server.ask("GET", "/health/ready")[0] == 503
            assert server.ask("POST", "/v1/recommend", {"user": 1})[0] == 200
            postgres.start()
    finally:
        clients.stop()
        server.kill()
    check(postgres.address, clients)


@pytest.mark.slow
def test_servers_on_one_database_see_each_others_events(run: Path, address: str) -> None:
    one, two = Server(run, address), Server(run, address)
    try:
        for item in (3, 7, 5):
            one.post("events", {"user": "guest", "item": item})
            begun = time.monotonic()
            while two.items(user="guest", k=1, exclude_seen=False) != [item + 1]:
                assert time.monotonic() < begun + 1
            one, two = two, one
    finally:
        one.kill()
        two.kill()


def test_sigterm_answers_what_is_in_progress(run: Path, tmp_path: Path) -> None:
    server = Server(run, f"sqlite:///{tmp_path / 'events.db'}", "--window-ms", "100")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/recommend", {"user": 1})[0]))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert answers == [200] * 5
