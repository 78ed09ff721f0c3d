"""Workers that are processes of this machine: each has a pipe, so a killed one is noticed and costs its part alone."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from segue.cores import threads_of_each
from segue.engines.base import MOST_TRIES, Task, Tasks, Workers
from segue.engines.work import Worker, result_of
from segue.errors import EngineError

R = TypeVar("R")

_READY = b"ready"
_THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
"""Variables that set the threads of torch and NumPy, and of polars."""


@dataclass(eq=False)
class _Process:
    """One process, its end of the pipe, and the task that it has."""

    process: SpawnProcess
    pipe: Connection
    task: Task | None
    begun: bool = False


class Processes(Workers):
    """Processes of this machine, started afresh ("spawn"), each with its share of the cores.

    Parameters
    ----------
    number
        Largest number of processes; there are never more than parts.
    setup
        As in `workers`.
    """

    def __init__(self, number: int, setup: Callable[[], Any] | None) -> None:
        self._number = number
        self._setup = None if setup is None else pickle.dumps(setup, pickle.HIGHEST_PROTOCOL)
        self._context = multiprocessing.get_context("spawn")
        self._all: list[_Process] = []
        self._failed_starts = 0

    def run(self, function: Callable[..., R], parts: Iterable[Any]) -> Iterator[tuple[int, R]]:
        """Run a function on every part; see `Workers.run`."""
        tasks = Tasks(function, parts, lambda pair: pickle.dumps(pair, pickle.HIGHEST_PROTOCOL))
        try:
            task = tasks.draw()
            while True:
                while task is not None and self._give(task):
                    task = tasks.draw()
                if not any(one.task for one in self._all):
                    return
                for one in self._heard():
                    answer = self._receive(one, tasks)
                    if answer is not None:
                        yield answer[0], result_of(answer[1])
                task = tasks.draw() if task is None else task
        finally:
            for one in [one for one in self._all if one.task is not None]:
                self._end(one)

    def close(self) -> None:
        """End all workers."""
        for one in list(self._all):
            self._end(one)

    def _give(self, task: Task) -> bool:
        """Give a task to an idle process, or to a new one; False if all are busy."""
        for one in [one for one in self._all if one.task is None]:
            try:
                one.pipe.send_bytes(task.content)
            except OSError:  # it died while it was idle
                self._end(one)
                continue
            one.task = task
            return True
        if len(self._all) >= self._number:
            return False
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._setup), daemon=True)
        with _shared_cores(self._number):
            process.start()
        theirs.close()
        self._all.append(_Process(process, ours, task))
        return True

    def _heard(self) -> list[_Process]:
        """Processes that said something, or died."""
        by_pipe = {one.pipe: one for one in self._all}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe)) if isinstance(pipe, Connection)]

    def _receive(self, one: _Process, tasks: Tasks) -> tuple[int, bytes] | None:
        """Number and answer of a part; None if the process has just begun, or died."""
        try:
            if not one.begun:
                one.pipe.recv_bytes()
                one.begun = True
                if one.task is not None:
                    one.pipe.send_bytes(one.task.content)
                return None
            message = one.pipe.recv_bytes()
        except (EOFError, OSError):
            self._bury(one, tasks)
            return None
        task, one.task = one.task, None
        return None if task is None else (task.number, message)

    def _bury(self, one: _Process, tasks: Tasks) -> None:
        """Remove a dead process; another one will have its task."""
        one.process.join(1)
        self._end(one)
        code = one.process.exitcode
        reason = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        if not one.begun:
            self._failed_starts += 1
            if self._failed_starts >= MOST_TRIES:
                raise EngineError(
                    f"{self._failed_starts} workers ended before they began ({reason}). A script that uses several "
                    "processes runs its steps under `if __name__ == '__main__':`, since each worker imports it."
                )
        if one.task is not None:
            tasks.put_back(one.task, reason if one.begun else None)

    def _end(self, one: _Process) -> None:
        """End a process at once."""
        self._all.remove(one)
        one.pipe.close()
        one.process.kill()
        one.process.join()


def _work(pipe: Connection, setup: bytes | None) -> None:
    """Answer tasks until the pipe closes. Ctrl-C is the parent's affair, and the process ends if the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(setup)
    with suppress(EOFError, OSError, KeyboardInterrupt):  # a training takes Ctrl-C itself
        pipe.send_bytes(_READY)
        while True:
            pipe.send_bytes(worker.answer(pipe.recv_bytes()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextmanager
def _shared_cores(number: int) -> Iterator[None]:
    """Give each process that starts in the context its share of the cores, unless the environment says otherwise."""
    own = [name for name in _THREADS if name not in os.environ]
    share = str(threads_of_each(number))
    os.environ.update(dict.fromkeys(own, share))
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
