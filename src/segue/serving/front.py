"""The HTTP process of a service: `python -m segue.serving.front LINK LISTENER`, with two inherited file descriptors.

It imports no model, no Dataset and no NumPy. The model process starts it, sends the settings on its standard input, and
ends it. If the model process dies, this one ends too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn

from segue.serving.app import make_app
from segue.serving.link import Call, Drain, FrontSettings, Link, Listening, Message, Reply
from segue.serving.metrics import HttpMetrics
from segue.serving.protocol import OnePacketProtocol


class _Model:
    """The model process, as the application calls it."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self.server: _Server | None = None
        self.ended = False

    def connect(self, link: Link) -> None:
        """Use a connection."""
        self._link = link

    async def call(self, name: str, body: bytes = b"", id: str = "", variant: str | None = None) -> Reply:
        """Call an operation, or `live`, `ready` or `metrics`."""
        number = next(self._numbers)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._link.send(Call(number, name, body, id, variant))
            return await future
        finally:
            del self._waiting[number]

    def receive(self, message: Message) -> None:
        """Give a reply to the call that waits for it, or begin to drain."""
        if isinstance(message, Reply):
            future = self._waiting.get(message.number)
            if future is not None and not future.done():
                future.set_result(message)
        elif isinstance(message, Drain) and self.server is not None:
            self.server.should_exit = True

    def lost(self) -> None:
        """End at once, since nothing can be answered: the model process died."""
        if not self.ended:
            os._exit(1)

    def listening(self) -> None:
        """Say that requests are taken."""
        self._link.send(Listening())


class _Server(uvicorn.Server):
    """uvicorn, with signals that end it in order, and a note when it listens."""

    def __init__(self, config: uvicorn.Config, model: _Model) -> None:
        super().__init__(config)
        self._model = model

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._model.listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain: no further connection is taken, and requests in progress are answered."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within, SIGTERM and Ctrl-C drain. They are not raised again afterwards: an ordered end is no failure."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _serve(model: _Model, link: socket.socket, server: _Server, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    _, own = await loop.create_connection(lambda: Link(model.receive, model.lost), sock=link)
    model.connect(own)
    await server.serve([listener])
    model.ended = True


def main() -> None:
    """Serve until the model process says that it ends."""
    link, listener = (socket.socket(fileno=int(word)) for word in sys.argv[1:])
    settings: FrontSettings = pickle.load(sys.stdin.buffer)
    logging.basicConfig(format="segue: %(message)s", level=logging.WARNING)
    logging.getLogger("segue.serving").setLevel(logging.INFO)
    model = _Model()
    app = make_app(model, settings.config, settings.tokens, settings.local, HttpMetrics())
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        http=OnePacketProtocol,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.config.drain),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=65_536,
    )
    model.server = server = _Server(config, model)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(model, link, server, listener))


if __name__ == "__main__":
    main()
