"""Ray clusters for tests, which leave nothing behind: one of this process, and later real ones of several nodes."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
TOKEN = secrets.token_hex(32)
"""Password of the clusters of several nodes."""


@contextmanager
def local_cluster(cores: int = 2) -> Iterator[None]:
    """A Ray cluster of this machine alone, which this process has joined."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_AUTH_MODE="disabled")
    import ray

    folder = tempfile.mkdtemp(prefix="ray")  # short: it holds sockets
    try:
        ray.init(
            "local",
            num_cpus=cores,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
            _temp_dir=folder,
        )
        yield
    finally:
        ray.shutdown()
        del os.environ["RAY_AUTH_MODE"]
        shutil.rmtree(folder, ignore_errors=True)


class Nodes:
    """A real Ray cluster: each node has its own network, address, processes and shared memory on this machine.

    A node is one process in namespaces of its own, and all of its processes end with that one: killing it is pulling
    the plug. Without the right to make namespaces the nodes share the network and the address of this machine.

    Parameters
    ----------
    logs
        A folder for their output.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.folder = Path(tempfile.mkdtemp(prefix="ray"))  # short: it holds sockets
        # PyTorch asks for the name of each address; a name server that is out of reach takes ten seconds not to answer.
        self._no_server = logs / "resolv.conf"
        self._number = os.getpid() % 60_000
        self.networks: list[str] = []
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}
        self.are_separate = can_separate()
        self._port = 6379 if self.are_separate else _free_port()
        if self.are_separate:
            self._connect()
            self._no_server.touch()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Address of the head."""
        return f"{self.host(0)}:{self._port}"

    def processes(self) -> list[int]:
        """All processes of the nodes."""
        return [process for node in self._nodes.values() for process in _tree(node.pid)]

    def host(self, number: int) -> str:
        """Address of a node."""
        return f"10.{self._number // 250 % 250}.{self._number % 250}.{number + 1}" if self.are_separate else "127.0.0.1"

    def start(self, number: int, cores: int = 1, environment: Mapping[str, str] | None = None) -> None:
        """Start a node, the head if it is number 0, and wait until it has joined."""
        assert number not in self._nodes, f"node {number} is there already"
        words = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        words += ["--num-cpus", str(cores), "--node-ip-address", self.host(number), "--include-log-monitor", "false"]
        words += ["--object-store-memory", str(100 << 20)]
        if number == 0:
            words += ["--head", "--port", str(self._port), "--include-dashboard", "false"]
            words += ["--temp-dir", str(self.folder), "--no-monitor"]
            words += ["--ray-client-server-port", str(_free_port())]
        else:
            words += ["--address", self.address]
        log = self._logs / f"node-{number}-{time.monotonic_ns()}.log"
        with log.open("wb") as stream:
            self._nodes[number] = subprocess.Popen(
                self._wrapped(number, words),
                stdout=stream,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**_environment(), **(environment or {})},
                start_new_session=True,
            )
        deadline = time.monotonic() + 240
        while b"Ray runtime started" not in log.read_bytes():
            assert self._nodes[number].poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)

    def kill(self, number: int) -> None:
        """End all processes of a node with SIGKILL."""
        node = self._nodes.pop(number)
        if node.poll() is not None:
            return
        if self.are_separate:
            os.kill(_only_child(node.pid), signal.SIGKILL)  # the first process of its namespace: all others follow
        else:
            _kill_tree(node.pid)
        node.wait(20)

    def popen(self, words: Sequence[str], number: int = 0, **options: Any) -> subprocess.Popen[str]:
        """Start a program on a node."""
        if self.are_separate:
            inside = str(_only_child(self._nodes[number].pid))
            words = ["nsenter", "--target", inside, "--net", "--mount", "--pid", "--", *words]
        return subprocess.Popen(
            words,
            env=_environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def kill_program(self, program: subprocess.Popen[str]) -> None:
        """End a program of `popen` with SIGKILL."""
        os.kill(_only_child(program.pid) if self.are_separate else program.pid, signal.SIGKILL)
        program.wait(20)

    def workers(self, number: int, title: str = "SegueWorker") -> list[int]:
        """Processes that are workers with this title on a node; on any node if they are not separate."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                words = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
                if words.startswith(b"ray::") and title.encode() in words:
                    found.append(int(folder.name))
            except OSError:
                continue
        if not self.are_separate:
            return found
        own = _network_of(_only_child(self._nodes[number].pid))
        return [process for process in found if _network_of(process) == own]

    def close(self) -> None:
        """End all nodes, and remove what they had."""
        for number in sorted(self._nodes, reverse=True):
            self.kill(number)
        for name in self.networks:
            _ip("netns", "delete", name)
        self.networks = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def _connect(self) -> None:
        """Join the networks of two nodes by a cable."""
        names = [f"segue-{self._number}-{number}" for number in range(2)]
        ends = [f"sg{self._number}x{number}" for number in range(2)]
        for name in names:
            _ip("netns", "add", name)
            self.networks.append(name)
        _ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True)):
            _ip("-n", name, "address", "add", f"{self.host(number)}/24", "dev", end)
            _ip("-n", name, "link", "set", end, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "route", "add", "default", "via", self.host(1 - number))

    def _wrapped(self, number: int, words: list[str]) -> list[str]:
        """A command in the namespaces of a node: network, processes, and its own /dev/shm and folder of sockets."""
        if not self.are_separate:
            return words
        mounts = f"mount -t tmpfs tmpfs {self.folder} && mount -t tmpfs -o size=200m tmpfs /dev/shm"
        mounts += f" && mount --bind {self._no_server} /etc/resolv.conf"
        inner = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        script = f'{mounts} && exec "$@"'
        return ["ip", "netns", "exec", self.networks[number], *inner, "sh", "-c", script, "node", *words]


def can_separate() -> bool:
    """True if this user may make network namespaces, and the programs for it are there."""
    if sys.platform != "linux" or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    name = f"segue-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if not made:
        return False
    words = ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"]
    works = subprocess.run(words, capture_output=True, check=False).returncode == 0
    _ip("netns", "delete", name)
    return works


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _environment() -> dict[str, str]:
    """Variables of nodes and programs: this segue and these tests, one thread, and a cluster that notices deaths."""
    paths = [str(ROOT / "src"), str(ROOT)]
    quick = {"RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "1000"}
    quick |= {"RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "3"}
    quick |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **quick, **quiet, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def _only_child(process: int) -> int:
    """The process that `unshare` started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    assert len(children) == 1, children
    return int(children[0])


def _network_of(process: int) -> str | None:
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return None


def _kill_tree(process: int) -> None:
    """Kill a process and all that it started."""
    for one in _tree(process):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _tree(process: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in children for one in _tree(int(child)))]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
