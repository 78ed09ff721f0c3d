"""Answers off the event loop: lists in batches, and everything else one by one, in threads with bounded queues.

The event loop only reads requests and writes answers. Questions for lists that arrive within a short window are
answered together, because a product of a few queries with the item table costs little more than that of one query.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from segue.serving.metrics import Metrics
from segue.serving.problems import Refused, busy
from segue.serving.served import BestItems, Question, Served

log = logging.getLogger("segue.serving")

T = TypeVar("T")

_AHEAD_SECONDS = 0.005
"""Seconds, at most, about, that lists are made ahead without a look at the questions."""
_LOOK = 1.0
"""Seconds between two looks for lists to make ahead."""


class _Waiting:
    """Question that waits for its batch."""

    __slots__ = ("deadline", "future", "question", "served")

    def __init__(self, served: Served, question: Question, deadline: float, future: asyncio.Future[BestItems]) -> None:
        self.served, self.question, self.deadline, self.future = served, question, deadline, future


class Engine:
    """Threads that compute.

    Parameters
    ----------
    metrics
        Metrics of the service.
    window
        Seconds to wait for further questions.
    batch
        Largest number of questions that are answered together.
    queue
        Number of questions, and of other requests, that may wait.
    deadline
        Seconds after which a request that still waits is refused.
    make_ahead
        Makes the lists of so many users while no question waits; returns False if none is left.
    """

    def __init__(
        self,
        metrics: Metrics,
        window: float,
        batch: int,
        queue: int,
        deadline: float,
        make_ahead: Callable[[int], bool],
    ) -> None:
        self._metrics, self._window, self._batch, self._queue = metrics, window, batch, queue
        self._deadline, self._make_ahead, self._ahead = deadline, make_ahead, 1
        self._waiting: deque[_Waiting] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="segue-lists", daemon=True)
        self._others = ThreadPoolExecutor(1, thread_name_prefix="segue-other")
        self._in_progress = 0

    def start(self) -> None:
        """Start the threads; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, and end the threads."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._others.shutdown(wait=True)

    def ask(self, served: Served, question: Question) -> asyncio.Future[BestItems]:
        """Put a question into the next batch.

        Raises
        ------
        Refused
            The queue is full.
        """
        if len(self._waiting) >= self._queue:
            raise self._full(len(self._waiting))
        assert self._loop is not None
        future: asyncio.Future[BestItems] = self._loop.create_future()
        self._waiting.append(_Waiting(served, question, time.monotonic() + self._deadline, future))
        self._wake.set()
        return future

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in the thread of all other requests.

        Raises
        ------
        Refused
            The queue is full, or the deadline passed before the function began.
        """
        if self._in_progress >= self._queue:
            raise self._full(self._in_progress)
        assert self._loop is not None
        deadline = time.monotonic() + self._deadline

        def begin() -> T:
            if time.monotonic() > deadline:
                raise self._late()
            return function()

        self._in_progress += 1
        try:
            return await self._loop.run_in_executor(self._others, begin)
        finally:
            self._in_progress -= 1

    def _full(self, number: int) -> Refused:
        return busy(f"{number:,} requests wait already: send this one again later.")

    def _late(self) -> Refused:
        return busy(f"the request waited for more than {self._deadline:g} seconds: send it again later.")

    def _run(self) -> None:
        waiting, ended = self._waiting, 0.0
        while True:
            if not waiting:
                if self._stopped:
                    return
                if not self._work_ahead():
                    self._wake.wait(_LOOK)
                    self._wake.clear()
                continue
            # Under load, a wait makes batches larger and each answer cheaper; a lone question need not wait.
            often = time.monotonic() < ended + self._window
            if often and len(waiting) < self._batch and not self._stopped:
                time.sleep(self._window)
            batch = [waiting.popleft() for _ in range(min(len(waiting), self._batch))]
            try:
                answers = self._answer(batch)
            except Exception as error:
                answers = [error] * len(batch)
            ended = time.monotonic()
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(_deliver, batch, answers)
            except RuntimeError:  # the event loop has ended
                return

    def _work_ahead(self) -> bool:
        """Make some lists that may be asked for; so few that a question does not wait long. False if none is left."""
        began = time.monotonic()
        try:
            made = self._make_ahead(self._ahead)
        except Exception as error:
            log.error("lists could not be made ahead", exc_info=error)
            return True
        seconds = time.monotonic() - began
        if seconds < _AHEAD_SECONDS / 2:
            self._ahead = min(2 * self._ahead, self._batch)
        elif seconds > _AHEAD_SECONDS:
            self._ahead = max(1, self._ahead // 2)
        return made

    def _answer(self, batch: list[_Waiting]) -> list[BestItems | Exception]:
        now = time.monotonic()
        self._metrics.batches.observe(len(batch))
        self._metrics.queue.set(len(self._waiting))
        answers: list[BestItems | Exception] = [self._late()] * len(batch)
        groups: dict[int, list[int]] = {}
        for row, one in enumerate(batch):
            if now <= one.deadline and not one.future.cancelled():
                groups.setdefault(id(one.served), []).append(row)
        for rows in groups.values():
            served = batch[rows[0]].served
            for row, answer in zip(rows, served.answer([batch[row].question for row in rows]), strict=True):
                answers[row] = answer
        return answers


def _deliver(batch: list[_Waiting], answers: list[Any]) -> None:
    for one, answer in zip(batch, answers, strict=True):
        if one.future.done():
            continue
        if isinstance(answer, Exception):
            one.future.set_exception(answer)
        else:
            one.future.set_result(answer)
