"""The HTTP process, as the model process sees it: it is started, answered, told to drain, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable

from segue.serving.answering import Answering
from segue.serving.link import Drain, FrontSettings, Link, Listening, Message

_TO_END = 5.0
"""Seconds beyond `drain` after which an HTTP process that does not end is killed."""


class FrontProcess:
    """An HTTP process.

    Parameters
    ----------
    answering
        Answers to its calls.
    settings
        Settings that it gets.
    listener
        Socket that it listens on.
    """

    def __init__(self, answering: Answering, settings: FrontSettings, listener: socket.socket) -> None:
        self._answering, self._settings, self._listener = answering, settings, listener
        self._link: Link | None = None
        self._draining = asyncio.Event()

    async def run(self, listening: Callable[[], None]) -> int:
        """Start the process, answer its calls until it ends, and return its exit code.

        Parameters
        ----------
        listening
            Called when it takes requests.
        """
        own, other = socket.socketpair()
        with other:
            words = [sys.executable, "-m", "segue.serving.front", str(other.fileno()), str(self._listener.fileno())]
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.PIPE,
                pass_fds=(other.fileno(), self._listener.fileno()),
                start_new_session=True,  # Ctrl-C in a terminal reaches this process, which passes it on
            )
        try:
            self._link = await self._connect(own, listening)
            assert process.stdin is not None
            with contextlib.suppress(ConnectionError):  # it died: its exit code says so
                process.stdin.write(pickle.dumps(self._settings))
                await process.stdin.drain()
                process.stdin.close()
            await self._ended(process)
        finally:
            if process.returncode is None:
                process.kill()
            code = await process.wait()
            if self._link is not None:
                self._link.close()
                self._link = None
        return code

    def drain(self) -> None:
        """Tell the process to take no further connection, answer what was asked, and end."""
        self._draining.set()
        if self._link is not None:
            self._link.send(Drain())

    async def _connect(self, own: socket.socket, listening: Callable[[], None]) -> Link:
        def receive(message: Message) -> None:
            if isinstance(message, Listening):
                listening()
                if self._draining.is_set():  # the order came before the process could take it
                    link.send(Drain())
            else:
                self._answering.receive(link, message)

        link = Link(receive, _nothing)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=own)
        return link

    async def _ended(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        draining = asyncio.create_task(self._draining.wait())
        await asyncio.wait((ended, draining), return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended, self._settings.config.drain + _TO_END)


def _nothing() -> None:
    """The end of the connection says nothing that the exit code does not."""
