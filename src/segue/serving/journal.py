"""The way of events: from requests into the store, and from the store into the histories that models read.

One thread stores the events of all requests that wait, in one transaction. It then reads the changes of the store, its
own ones and those of other servers, into the histories of every model. Only then are the requests answered, so the next
answer of this server knows the events.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from segue.errors import StorageError
from segue.serving.live import LiveHistories
from segue.serving.metrics import Metrics
from segue.serving.problems import busy
from segue.serving.store.base import NewEvent, Outcome, Store

log = logging.getLogger("segue.serving")

_TOGETHER = 5_000
"""Events of a transaction."""
_WAITING = 50_000
"""Events that may wait."""


class _Task:
    """Events to store, or a function to call between two transactions."""

    __slots__ = ("error", "events", "function", "future", "loop", "result")

    def __init__(self, events: Sequence[NewEvent], function: Callable[[], Any] | None) -> None:
        self.events, self.function = events, function
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: Exception | None = None


class Journal:
    """The thread that stores events and keeps histories up to date.

    Parameters
    ----------
    store
        The store.
    metrics
        Metrics of the service.
    poll
        Seconds between two looks for events of other servers.
    received_from
        Time, in microseconds since 1970, before which stored events do not count; None for no limit.
    """

    def __init__(self, store: Store, metrics: Metrics, poll: float, received_from: int | None) -> None:
        self.store = store
        self._metrics, self._poll, self._received_from = metrics, poll, received_from
        self._histories: list[LiveHistories] = []
        self._tasks: deque[_Task] = deque()
        self._waiting = 0
        self._wake = threading.Condition()
        self._reading = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="segue-journal", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Store what waits, and end the thread."""
        with self._wake:
            self._stopped = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def follow(self, histories: LiveHistories) -> None:
        """Fill new histories from the store, and keep them up to date from then on."""
        wanted = {"times": histories.reads_times, "sessions": histories.reads_sessions}
        histories.load(self.store.took(self._received_from, **wanted))
        for user, moment in self.store.forgotten():
            histories.leave_out(user, moment)
        with self._reading:
            self._catch_up(histories)
            self._histories = [*self._histories, histories]

    def exchange(self, old: LiveHistories, take: Callable[[], LiveHistories]) -> None:
        """Keep other histories up to date in place of old ones; `take` makes them while no change is added."""
        with self._reading:
            new = take()
            self._histories = [new if one is old else one for one in self._histories]

    def leave(self, histories: LiveHistories) -> None:
        """No longer keep histories up to date."""
        with self._reading:
            self._histories = [one for one in self._histories if one is not histories]

    async def append(self, events: Sequence[NewEvent]) -> Outcome:
        """Store events; they are on the disk, and in the histories, when it returns.

        Raises
        ------
        Refused
            Too many events wait.
        StorageError
            The store did not take them.
        """
        if self._waiting + len(events) > _WAITING:
            raise busy(f"{self._waiting:,} events wait for the store: send these again later.")
        outcome: Outcome = await self._submit(_Task(events, None))
        return outcome

    async def call(self, function: Callable[[], Any]) -> Any:
        """Call a function between two transactions; histories know its changes when it returns."""
        return await self._submit(_Task((), function))

    async def _submit(self, task: _Task) -> Any:
        with self._wake:
            self._tasks.append(task)
            self._waiting += len(task.events)
            self._wake.notify()
        return await task.future

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._tasks and not self._stopped:
                    self._wake.wait(self._poll)
                if self._stopped and not self._tasks:
                    return
                tasks: list[_Task] = []
                events = 0
                while self._tasks and events < _TOGETHER:
                    tasks.append(self._tasks.popleft())
                    events += len(tasks[-1].events)
                self._waiting -= events
            self._store(tasks)
            try:
                with self._reading:
                    for histories in self._histories:
                        self._catch_up(histories)
            except Exception as error:
                if not isinstance(error, StorageError):
                    log.error("an unexpected error", exc_info=error)
                for task in tasks:
                    task.error = task.error or error
                if not tasks:
                    time.sleep(self._poll)
            _deliver(tasks)

    def _store(self, tasks: list[_Task]) -> None:
        """Store the events of all tasks in one transaction; if it fails, one by one, to find the one at fault."""
        storing = [task for task in tasks if task.function is None]
        if storing:
            try:
                outcomes = self.store.append([task.events for task in storing])
                for task, outcome in zip(storing, outcomes, strict=True):
                    task.result = outcome
                self._metrics.commits.observe(sum(len(task.events) for task in storing))
            except Exception as error:
                for task in storing:
                    try:
                        if len(storing) == 1:
                            raise error
                        task.result = self.store.append([task.events])[0]
                    except Exception as own:
                        task.error = own
        for task in tasks:
            if task.function is not None:
                try:
                    task.result = task.function()
                except Exception as error:
                    task.error = error

    def _catch_up(self, histories: LiveHistories) -> None:
        for changes in self.store.changes(histories.last, self._received_from):
            histories.apply(changes)


def _deliver(tasks: list[_Task]) -> None:
    """Answer the waiting requests, on their event loops."""

    def answer() -> None:
        for task in tasks:
            if task.future.done():
                continue
            if task.error is None:
                task.future.set_result(task.result)
            else:
                task.future.set_exception(task.error)

    if tasks:
        tasks[0].loop.call_soon_threadsafe(answer)
