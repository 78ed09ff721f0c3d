"""Programs of Python in processes of their own, forked from a process that has imported torch and segue already.

A new interpreter imports torch for several seconds, and the suite starts a hundred programs. `Program` takes the words
after `python`. It has the names of `subprocess.Popen`. A test of imports or of the start itself needs `subprocess`.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PRELOADED = [
    "segue.cli.train", "segue.inference.loading", "segue.models.parsrec.parsrec", "segue.models.sasrec",
    "segue.serving.server", "segue.training.experiment", "segue.training.fit", "segue.training.tuning", "torch._dynamo",
]  # fmt: skip
CAN_FORK = sys.platform == "linux"


class Program:
    """A running program: `Program("-m", "segue", "train", …)`, `Program("-c", "code")` or `Program("script.py")`.

    Parameters
    ----------
    words
        The words after `python`; other objects than texts are made texts.
    env
        The whole environment; None is that of this process.
    cwd
        The current folder; None is that of this process.
    group
        Begin a process group, as a terminal does.
    quiet
        Throw the output away, instead of keeping it for `communicate` and `stderr`.
    """

    def __new__(cls, *words: object, **options: Any) -> Any:
        """Return an instance, or an ordinary process on systems that cannot fork safely."""
        return super().__new__(cls) if CAN_FORK else new_interpreter(*words, **options)

    def __init__(
        self,
        *words: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        group: bool = False,
        quiet: bool = False,
    ) -> None:
        request = {
            "words": [*map(str, words)],
            "env": dict(os.environ if env is None else env),
            "cwd": str(Path.cwd() if cwd is None else cwd),
            "group": group,
        }
        self.args = request["words"]
        self.returncode: int | None = None
        status, out, err = os.pipe(), os.pipe(), os.pipe()
        nothing = os.open(os.devnull, os.O_RDWR)
        handles = [nothing, nothing, nothing] if quiet else [nothing, out[1], err[1]]
        self.pid = _server().fork(request, [*handles, status[1]])
        for handle in (nothing, out[1], err[1], status[1]):
            os.close(handle)
        self._status = status[0]
        self.stdout, self.stderr = (os.fdopen(pipe[0], encoding="utf-8") for pipe in (out, err))

    def poll(self) -> int | None:
        """Return the exit code, or None while the program runs."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code; `subprocess.TimeoutExpired` comes after `timeout` seconds."""
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read all output, wait for the end, and return standard output and standard error."""
        texts = ["", ""]

        def read(number: int, stream: Any) -> None:
            texts[number] = stream.read()

        pipes = enumerate((self.stdout, self.stderr))
        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in pipes]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(timeout)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(os.read(self._status, 20) or -signal.SIGKILL)
            os.close(self._status)
        return self.returncode


def run(
    *words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, and return its exit code and its output; arguments are those of `Program`."""
    program = Program(*words, env=env, cwd=cwd)
    try:
        out, err = program.communicate(timeout)
    finally:
        program.kill()
    return subprocess.CompletedProcess(program.args, program.returncode or 0, out, err)


def run_joined(processes: int, *words: object, **variables: str) -> list[str]:
    """Run a program in several processes that torch.distributed joins, as torchrun does; all must end with 0.

    Parameters
    ----------
    processes
        Their number.
    words
        As for `Program`.
    variables
        Further variables of the environment.

    Returns
    -------
    list of str
        Standard output of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), **variables}
    started = [
        Program(*words, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=ROOT)
        for rank in range(processes)
    ]

    def end(program: Program) -> tuple[str, str]:
        texts = program.communicate(timeout=600)
        for other in started if program.returncode else []:
            other.kill()  # it would wait for this one
        return texts

    with ThreadPoolExecutor(processes) as pool:
        ends = list(pool.map(end, started))
    codes = [program.returncode for program in started]
    assert not any(codes), "\n".join([f"exit codes {codes}", *(messages[-6000:] for _, messages in ends)])
    return [out for out, _ in ends]


def new_interpreter(*words: object, group: bool = False, quiet: bool = False, **options: Any) -> Any:
    """Start a program in a new interpreter; arguments are those of `Program`."""
    stream = subprocess.DEVNULL if quiet else subprocess.PIPE
    command = [sys.executable, *map(str, words)]
    options |= {"process_group": 0} if group else {}
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, text=True, **options)


# ---- the process that forks -----------------------------------------------------------------------------------------

_lock = threading.Lock()
_running: list[_Server] = []


def _server() -> _Server:
    """Return the server of this process; the first call starts it."""
    with _lock:
        if not _running:
            _running.append(_Server())
        return _running[0]


class _Server:
    """A process that has imported what programs need, and forks one for each request."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_own_paths())}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(other.fileno())],
            env=environment, pass_fds=[other.fileno()], start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        other.close()
        atexit.register(self.close)

    def fork(self, request: dict[str, Any], handles: list[int]) -> int:
        """Return the process id of a new program; the handles are its streams, and the pipe of its exit code."""
        with _lock:
            read, write = os.pipe()
            with os.fdopen(write, "wb") as stream:
                socket.send_fds(self._socket, [b"fork"], [read, *handles])
                os.close(read)
                stream.write(json.dumps(request).encode())
            return int(self._socket.recv(20))

    def close(self) -> None:
        """End the server; programs that still run are not ended."""
        self._socket.close()
        self._process.wait()


def _own_paths() -> list[str]:
    import segue

    return [str(Path(segue.__file__).parent.parent), str(ROOT)]


def _main(handle: int) -> None:
    """Import, answer requests until the tests end, and run a program in each fork."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # a part of segue may need an extra
            importlib.import_module(name)
    assert threading.active_count() == 1, "a fork has only one of several threads"
    installed = [path for path in sys.path[1:] if path not in os.environ["PYTHONPATH"].split(os.pathsep)]
    connection = socket.socket(fileno=handle)
    while True:
        _, handles, _, _ = socket.recv_fds(connection, 10, 5)
        if not handles:
            return
        with os.fdopen(handles[0], "rb") as stream:
            request = json.load(stream)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not os.fork():
            _watch(connection, handles[1:])
            break
        for one in handles[1:]:
            os.close(one)
    _run(request, installed)


def _watch(connection: socket.socket, handles: list[int]) -> None:
    """Fork the program, write its exit code into the pipe when it ends, and leave; return in the program."""
    *streams, status = handles
    process = os.fork()
    if process:
        connection.send(str(process).encode())
        connection.close()
        for one in {*streams, 0, 1, 2}:
            os.close(one)
        _, ended = os.waitpid(process, 0)
        os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
        os._exit(0)
    os.close(status)
    connection.close()
    for number, one in enumerate(streams):
        os.dup2(one, number)
    for one in set(streams):
        os.close(one)


def _run(request: dict[str, Any], installed: list[str]) -> None:
    """Run the program as an interpreter would, in this process."""
    if request["group"]:
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    first, *rest = request["words"]
    here = {"-c": "", "-m": request["cwd"]}.get(first, str(Path(first).parent.absolute()))
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [here, *given, *installed]
    sys.path_importer_cache.clear()
    sys.argv[:] = [first, *rest] if here and first != "-m" else [first, *rest[1:]]
    if first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        code = compile(rest[0], "<string>", "exec")
        space = types.ModuleType("__main__")
        request["main"], sys.modules["__main__"] = sys.modules["__main__"], space
        exec(code, vars(space))
    else:
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _main(int(sys.argv[1]))
