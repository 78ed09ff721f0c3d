"""The contract of `run_parts`: the same with this process, with processes, and with Ray."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from segue.cores import usable_cores
from segue.engines.engine import Engine
from segue.engines.workers import run_parts, workers
from segue.errors import ConfigError, DataError, EngineError
from tests.engines import jobs
from tests.engines.processes import is_alive

ONE, TWO = Engine(), Engine(processes=2)


@pytest.fixture(params=[ONE, TWO], ids=["alone", "processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    made: Engine = request.param
    return made


@pytest.fixture
def several() -> Engine:
    return TWO


@pytest.mark.slow
def test_ray_keeps_the_contract(tmp_path: Path) -> None:
    """The tests of `engine` and `several` below, in one cluster of this machine."""
    pytest.importorskip("ray")
    from tests.scaling.clusters import local_cluster

    ray = Engine("ray", processes=2)
    with local_cluster():
        test_every_part_has_its_result(ray)
        test_an_exception_comes_as_it_was(ray)
        test_a_part_that_kills_every_worker_is_named(ray)
        for test in (test_a_worker_sets_up_once, test_a_killed_worker_costs_its_part_alone):
            folder = tmp_path / test.__name__
            folder.mkdir()
            test(ray, folder)


def test_every_part_has_its_result(engine: Engine) -> None:
    assert dict(run_parts(jobs.squared, range(20), engine)) == {part: part * part for part in range(20)}
    assert dict(run_parts(jobs.squared, [], engine)) == {}


def test_an_exception_comes_as_it_was(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"^part 2 holds nothing: expected rows\.$"):
        list(run_parts(jobs.failing, range(4), engine))


@pytest.mark.parametrize("engine", [ONE, TWO])
def test_an_exception_of_the_setup_comes_as_it_was(engine: Engine) -> None:
    with pytest.raises(DataError, match="the state cannot be made"):
        list(run_parts(jobs.of_state, range(4), engine, setup=jobs.broken_set_up))


def test_an_exception_that_cannot_travel_keeps_its_text() -> None:
    with pytest.raises(EngineError, match=r"AwkwardError: 0 and 0\nTraceback"):
        list(run_parts(jobs.awkward, range(1), TWO))


def test_several_workers_share_the_parts() -> None:
    results = dict(run_parts(jobs.with_process, range(12), TWO))
    processes = {process for _, process in results.values()}
    assert [part for part, _ in (results[number] for number in range(12))] == list(range(12))
    assert len(processes) == 2 and os.getpid() not in processes


def test_a_worker_sets_up_once(several: Engine, tmp_path: Path) -> None:
    with workers(several, partial(jobs.set_up, tmp_path)) as crew:
        for _ in range(2):  # the state stays for further rounds
            results = dict(crew.run(jobs.of_state, range(8)))
            assert all(same for _, same in results.values())
    assert 1 <= len(list(tmp_path.glob("setup-*"))) <= 2


def test_a_killed_worker_costs_its_part_alone(several: Engine, tmp_path: Path) -> None:
    results = dict(run_parts(partial(jobs.killed_once, tmp_path), range(8), several))
    assert results == {part: part for part in range(8)}
    assert (tmp_path / "killed-3").exists()
    assert len(list(tmp_path.glob("done-*"))) == 8  # the other parts ran once


def test_a_part_that_kills_every_worker_is_named(several: Engine) -> None:
    with pytest.raises(EngineError, match=r"^part 2 \(1\) cost 3 workers their lives; .*memory"):
        list(run_parts(jobs.deadly, range(3), several))


def test_no_more_parts_are_drawn_than_there_are_workers() -> None:
    drawn: list[int] = []

    def parts() -> Iterator[int]:
        for part in range(50):
            drawn.append(part)
            yield part

    rounds = run_parts(jobs.with_process, parts(), TWO)
    next(rounds)
    assert len(drawn) <= 6
    rounds.close()  # type: ignore[attr-defined]


def test_cores_are_shared() -> None:
    assert {int(one or 0) for _, one in run_parts(jobs.threads, range(2), TWO)} == {max(1, usable_cores() // 2)}
    assert "POLARS_MAX_THREADS" not in os.environ


SCRIPT = """
from functools import partial
from pathlib import Path
from segue.engines.engine import Engine
from segue.engines.workers import run_parts
from tests.engines import jobs
from tests.engines.processes import is_alive

if __name__ == "__main__":
    list(run_parts(partial(jobs.slow, Path({folder!r})), range(4), Engine(processes=2)))
"""


OWN = """
from segue.engines.engine import Engine
from segue.engines.workers import run_parts
from tests.engines import jobs

print(sorted(run_parts(jobs.squared, range(3), Engine("ray", processes=2))))
"""


@pytest.mark.slow
def test_a_cluster_of_this_machine_is_started_and_ended() -> None:
    """Without an address, and without one that the program has joined."""
    pytest.importorskip("ray")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        settings = {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": paths()}
        environment = {**os.environ, **settings}
        words = [sys.executable, "-c", OWN]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == "[(0, 0), (1, 1), (2, 4)]\n", done.stderr
        left = [file for file in Path("/proc").glob("[0-9]*/cmdline") if folder.encode() in contents(file)]
        assert not left


def contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # the process has ended
        return b""


def paths() -> str:
    """Folders of this segue and of the tests, for programs of their own."""
    root = Path(__file__).parent.parent.parent
    return os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")])


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_program(number: signal.Signals, tmp_path: Path) -> None:
    """After Ctrl-C, and after a kill that the program cannot notice."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": paths()}
    program = subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)
    processes = eventually(lambda: [int(file.name) for file in tmp_path.iterdir() if file.name.isdecimal()], 2)
    program.send_signal(number)
    program.wait(10)
    deadline = time.monotonic() + 10
    while any(is_alive(process) for process in processes):
        assert time.monotonic() < deadline, "workers are still there"
        time.sleep(0.05)


def test_a_script_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from segue.engines.engine import Engine\n"
        "from segue.engines.workers import run_parts\n"
        "from math import sqrt\n"
        "list(run_parts(sqrt, range(4), Engine(processes=2)))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode and "if __name__ == '__main__':" in done.stderr


def test_an_address_is_that_of_ray() -> None:
    with pytest.raises(ConfigError, match=r"address='here:1' is the address of a Ray cluster"):
        Engine(address="here:1")
    with pytest.raises(ConfigError, match="processes=0: expected 1 or more"):
        Engine(processes=0)
    with pytest.raises(ConfigError, match='did you mean "ray"'):
        Engine("rey")  # type: ignore[arg-type]


def test_an_engine_travels() -> None:
    assert pickle.loads(pickle.dumps(TWO)) == TWO


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'segue\[ray\]'"):
        list(run_parts(jobs.squared, range(2), Engine("ray")))


def eventually(look: object, count: int) -> list[int]:
    deadline = time.monotonic() + 30
    while len(found := look()) < count:  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return list(found)
