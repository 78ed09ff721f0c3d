"""Workers of a Ray cluster: one actor each. Another one, on another node if need be, follows an actor that died."""

from __future__ import annotations

import importlib.metadata
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from segue.engines.base import MOST_TRIES, Task, Tasks, Workers
from segue.engines.cluster import connect, ray_module
from segue.engines.engine import Engine
from segue.engines.work import result_of
from segue.errors import EngineError

R = TypeVar("R")

_SECONDS_TO_BEGIN = 120.0
"""Longest time without any worker, after which the cluster counts as full or gone."""


class RayWorkers(Workers):
    """Actors of a Ray cluster, spread over its nodes, with one part in flight each.

    Parameters
    ----------
    engine
        The number of workers, and the address of the cluster.
    setup
        As in `workers`.

    Raises
    ------
    ConfigError
        Ray is not installed.
    EngineError
        The cluster does not answer, or runs another version of Ray or Python.
    """

    def __init__(self, engine: Engine, setup: Callable[[], Any] | None) -> None:
        self._ray = ray_module()
        self._owned = connect(self._ray, engine)
        self._number = engine.processes
        self._actors: list[Any] = []
        self._idle: list[Any] = []
        self._joining: dict[Any, Any] = {}
        self._lost = _lost_errors(self._ray)
        self._failed_starts = 0
        try:
            self._class = _actor_class(self._ray)
            self._dumps = self._ray.cloudpickle.dumps
            self._setup = None if setup is None else self._ray.put(self._dumps(setup))
        except BaseException:
            self.close()
            raise

    def run(self, function: Callable[..., R], parts: Iterable[Any]) -> Iterator[tuple[int, R]]:
        """Run a function on every part; see `Workers.run`."""
        tasks = Tasks(function, parts, self._dumps)
        busy: dict[Any, tuple[Any, Task]] = {}
        seen = time.monotonic()
        try:
            task = tasks.draw()
            while task is not None or busy:
                while task is not None and self._idle:
                    actor = self._idle.pop()
                    busy[actor.answer.remote(task.content)] = actor, task
                    task = tasks.draw()
                if task is not None and len(self._actors) < self._number:
                    self._start()
                    continue
                ended, _ = self._ray.wait([*busy, *self._joining], num_returns=1, timeout=1.0)
                if busy or ended:
                    seen = time.monotonic()
                elif time.monotonic() - seen > _SECONDS_TO_BEGIN:
                    raise self._nobody()
                for reference in ended:
                    if reference in self._joining:
                        self._join(reference)
                        continue
                    actor, done = busy.pop(reference)
                    try:
                        answer = self._ray.get(reference)
                    except self._lost as error:
                        self._end(actor)
                        tasks.put_back(done, _first_line(error))
                        continue
                    self._idle.append(actor)
                    yield done.number, result_of(answer)
                task = tasks.draw() if task is None else task
        finally:
            for actor, _ in busy.values():
                self._end(actor)

    def close(self) -> None:
        """End all workers."""
        if not self._ray.is_initialized():
            return
        for actor in list(self._actors):
            self._end(actor)
        if self._owned:
            self._ray.shutdown()

    def _start(self) -> None:
        """Start an actor; it joins the others when it has said its version."""
        actor = self._class.remote(self._setup)
        self._actors.append(actor)
        self._joining[actor.version.remote()] = actor

    def _join(self, reference: Any) -> None:
        """Take an actor among the idle ones, if it has the same segue.

        Raises
        ------
        EngineError
            It has another segue, or the third actor in a row cannot start.
        """
        actor = self._joining.pop(reference)
        try:
            version, node = self._ray.get(reference)
        except self._lost as error:  # its node may have died
            self._end(actor)
            self._failed_starts += 1
            if self._failed_starts >= MOST_TRIES:
                raise EngineError(f"workers of the Ray cluster cannot start: {_first_line(error)}") from None
            return
        self._failed_starts = 0
        own = importlib.metadata.version("segue")
        if version != own:
            found = "no segue" if version is None else f"segue {version}"
            raise EngineError(
                f"the node {node} of the Ray cluster has {found}, and this process has segue {own}: "
                "install the same version on all nodes, and start their `ray start` again."
            )
        self._idle.append(actor)

    def _end(self, actor: Any) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
            self._idle = [one for one in self._idle if one is not actor]
            self._joining = {reference: one for reference, one in self._joining.items() if one is not actor}
            self._ray.kill(actor, no_restart=True)

    def _nobody(self) -> EngineError:
        cores = self._ray.cluster_resources().get("CPU", 0)
        free = self._ray.available_resources().get("CPU", 0)
        return EngineError(
            f"no worker of the Ray cluster began within {_SECONDS_TO_BEGIN:.0f} seconds: it has {cores:g} CPUs, of "
            f"which {free:g} are free, and each worker takes one. Wait until other jobs have ended, or add nodes."
        )


def _lost_errors(ray: Any) -> tuple[type[Exception], ...]:
    """Errors of Ray that say that a worker, its node or its answer is lost."""
    names = (
        "RayActorError",
        "WorkerCrashedError",
        "OutOfMemoryError",
        "NodeDiedError",
        "ObjectLostError",
        "LocalRayletDiedError",
        "RuntimeEnvSetupError",
        "ActorUnschedulableError",
    )
    return tuple(getattr(ray.exceptions, name) for name in names)


def _actor_class(ray: Any) -> Any:
    """Class of the actors. A class within a function travels as a whole, so any version of segue can answer it."""

    class SegueWorker:
        """A worker of segue."""

        def __init__(self, setup: bytes | None) -> None:
            self._setup = setup
            self._worker: Any = None

        def version(self) -> tuple[str | None, str]:
            """Version of segue here, None without it, and the name of the node."""
            import importlib

            try:
                return importlib.import_module("segue").__version__, socket.gethostname()
            except ImportError:
                return None, socket.gethostname()

        def answer(self, task: bytes) -> bytes:
            """Answer of `work.Worker`."""
            if self._worker is None:
                from segue.engines.work import Worker

                self._worker = Worker(self._setup)
            answer: bytes = self._worker.answer(task)
            return answer

    return ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(SegueWorker)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
