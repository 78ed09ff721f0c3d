"""Cores of containers, and threads that wait for a core."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from segue import cores
from segue.training.progress import Progress


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    cached = cores.usable_cores
    cached.cache_clear()
    yield
    cached.cache_clear()


@pytest.mark.parametrize(
    ("content", "expected"),
    [("max 100000", None), ("150000 100000", 1.5), ("400000 100000", 4.0), ("nonsense", None), ("", None)],
)
def test_quota_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, expected: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(content)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(cores, "_QUOTA_1", tmp_path / "nothing")
    assert cores._quota() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("50000", 0.5)])
def test_quota_of_an_older_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: float | None
) -> None:
    for name, file, content in (("_QUOTA_1", "quota", quota), ("_PERIOD_1", "period", "100000")):
        (tmp_path / file).write_text(content)
        monkeypatch.setattr(cores, name, tmp_path / file)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "nothing")
    assert cores._quota() == expected


def test_cores_are_those_of_the_quota_and_at_least_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)}, raising=False)
    for quota, expected in ((20, 1), (150, 2), (300, 3), (10_000, 8)):
        (tmp_path / "cpu.max").write_text(f"{quota}000 100000")
        cores.usable_cores.cache_clear()
        assert cores.usable_cores() == expected


@pytest.mark.parametrize(("given", "expected"), [(None, 2), ("5", 5)])
def test_torch_has_no_more_threads_than_the_quota(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: int
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    try:
        torch.set_num_threads(5)
        cores.limit_threads()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


BUSY = """
import os, time
from segue.cores import Waiting

os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
end = time.perf_counter() + 1
child = os.fork()
waiting = Waiting()
while time.perf_counter() < end:
    pass
if child:
    print(waiting.share(1))
"""


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not tell")
def test_the_share_of_waiting_is_that_of_the_other_program() -> None:
    """Two processes on one core have half of it each."""
    done = subprocess.run([sys.executable, "-c", BUSY], capture_output=True, text=True, check=True, timeout=60)
    assert 0.3 < float(done.stdout) < 0.95


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "_PROCESS", tmp_path)
    assert cores.Waiting().share(2) == 0.0


@pytest.mark.parametrize(("threads", "share", "told"), [(4, 0.5, True), (4, 0.1, False), (1, 0.5, False)])
def test_a_busy_machine_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threads: int, share: float, told: bool
) -> None:
    monkeypatch.setattr(cores.Waiting, "share", lambda self, threads: share)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    progress = Progress()
    for epoch in (1, 2):
        progress.start_epoch(epoch, 2, 1, 0)
        progress.end_epoch({"epoch": epoch, "loss": 1.0, "seconds": 1.0}, best=False)
    assert capsys.readouterr().err.count("OMP_NUM_THREADS=1") == told
