"""Tokens, ids, SQL, bodies and paths of an attacker, as in benchmarks/api_fuzz.py: nothing gets in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))

import api_fuzz


@pytest.mark.slow
def test_nothing_gets_in(tmp_path: Path) -> None:
    server = api_fuzz.Server(api_fuzz.make_runs(tmp_path), tmp_path)
    try:
        attempts = list(api_fuzz.hostile(server))
        assert [attempt for attempt in attempts if attempt[3]] == []
        assert {kind for kind, *_ in attempts} >= {"token", "right", "origin", "path", "sql", "id", "body", "http"}
        assert server.state() == (0, False)
    finally:
        server.process.terminate()
        assert server.process.wait() == 0
        server.log.close()
