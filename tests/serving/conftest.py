from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="segue[serve] is not installed")
pytest.importorskip("msgspec", reason="segue[serve] is not installed")

from tests.serving.servers import Postgres, Server, make_run, serving


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "markov")


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(run, f"sqlite:///{tmp_path_factory.mktemp('store') / 'events.db'}") as started:
        yield started


@pytest.fixture(scope="package")
def postgres() -> Iterator[Postgres]:
    database = Postgres()
    yield database
    database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Address of an empty store, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.db'}"
        return
    psycopg = pytest.importorskip("psycopg")
    given = os.environ.get("SEGUE_TEST_POSTGRES")
    place = given or request.getfixturevalue("postgres").address
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS events, items, segue_version")
    yield place
