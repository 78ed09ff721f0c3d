"""Base of the workers of all engines, and the tasks that they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import Any, Self, TypeVar

from segue.errors import EngineError

R = TypeVar("R")

MOST_TRIES = 3
"""Number of workers that may die of one part."""


class Workers(ABC):
    """Workers of one job, each with a state of its own. Use it as a context: all workers end with it."""

    @abstractmethod
    def run(self, function: Callable[..., R], parts: Iterable[Any]) -> Iterator[tuple[int, R]]:
        """Run a function on every part.

        Parameters
        ----------
        function
            A function at the top of a module, or a `partial` of one. It is called with the state of the worker, if
            there is a setup, and the part.
        parts
            The parts. They are drawn one by one as workers become free, so they may be made as they are needed.

        Yields
        ------
        (number of the part, result), as the parts end, in any order. Results are small; files carry the rest.

        Raises
        ------
        EngineError
            A part cost three workers, or no worker can begin.
        Exception
            The function raised it; it comes as it was, and all workers end.
        """

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Task:
    """One part on its way.

    Attributes
    ----------
    number
        Number of the part, from 0.
    content
        The pickled function and part.
    name
        The part in words.
    tries
        Number of workers that died of it.
    """

    number: int
    content: bytes
    name: str
    tries: int = 0


class Tasks:
    """Tasks that no worker has: those that lost their worker first, then new ones, pickled when they are drawn.

    Parameters
    ----------
    function, parts
        As in `Workers.run`.
    dumps
        Function that pickles a pair of function and part.
    """

    def __init__(
        self, function: Callable[..., Any], parts: Iterable[Any], dumps: Callable[[tuple[Any, Any]], bytes]
    ) -> None:
        self._function, self._parts, self._dumps = function, enumerate(parts), dumps
        self._waiting: deque[Task] = deque()

    def draw(self) -> Task | None:
        """The next task; None if none is left."""
        if self._waiting:
            return self._waiting.popleft()
        for number, part in self._parts:
            shown = f" ({part})" if isinstance(part, str | int | PurePath) else ""
            return Task(number, self._dumps((self._function, part)), f"part {number + 1}{shown}")
        return None

    def put_back(self, task: Task, reason: str | None) -> None:
        """Take back a task whose worker died.

        Parameters
        ----------
        task
            The task.
        reason
            Reason of the death, in words; None if the worker had not begun the task.

        Raises
        ------
        EngineError
            It was the third one.
        """
        task.tries += reason is not None
        if task.tries >= MOST_TRIES:
            raise EngineError(
                f"{task.name} cost {task.tries} workers their lives; the last one: {reason}. If the system ended them "
                "for want of memory, use fewer workers (processes=) or smaller parts."
            )
        self._waiting.append(task)


class Alone(Workers):
    """This process as the only worker.

    Parameters
    ----------
    setup
        As in `workers`.
    """

    def __init__(self, setup: Callable[[], Any] | None) -> None:
        self._setup = setup
        self._state: tuple[Any, ...] | None = () if setup is None else None

    def run(self, function: Callable[..., R], parts: Iterable[Any]) -> Iterator[tuple[int, R]]:
        """Run a function on every part; see `Workers.run`."""
        for number, part in enumerate(parts):
            if self._state is None:
                assert self._setup is not None
                self._state = (self._setup(),)
            yield number, function(*self._state, part)

    def close(self) -> None:
        """Forget the state."""
        self._state = None
