"""The process of the service: everything is opened, then uvicorn listens; SIGTERM and Ctrl-C end it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn

from segue.errors import ConfigError
from segue.serving.app import make_app
from segue.serving.config import ServiceConfig
from segue.serving.engine import Engine
from segue.serving.journal import Journal
from segue.serving.metrics import Metrics
from segue.serving.models import Models, Opener, parse_runs
from segue.serving.protocol import OnePacketProtocol
from segue.serving.service import Service
from segue.serving.store.address import open_store
from segue.serving.times import microseconds
from segue.serving.tokens import read_tokens

log = logging.getLogger("segue.serving")

_LOCAL = ("127.0.0.1", "::1", "localhost")
_SWITCH = 0.0001
"""Seconds after which a thread that waits for the interpreter gets it; the usual 5 ms would delay every batch."""


class _Server(uvicorn.Server):
    """uvicorn, with signals that end it in order, and a note when it listens."""

    def __init__(self, config: uvicorn.Config, service: Service, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._listening = service, listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        self._service.engine.start()
        await super().startup(sockets)
        self._listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain: `ready` says no, no further connection is taken, and requests in progress are answered."""
        self._service.draining = True
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


def serve(runs: Sequence[str], config: ServiceConfig, started: Callable[[str], None]) -> None:
    """Serve runs until SIGTERM or Ctrl-C.

    Parameters
    ----------
    runs
        Folder of a run, or NAME=FOLDER:SHARE for each of several.
    config
        Settings.
    started
        Called with the address when the service listens.

    Raises
    ------
    ConfigError
        Settings do not go together, or the port is taken.
    StorageError
        A run or the store cannot be opened.
    """
    tokens = read_tokens(Path(config.tokens)) if config.tokens is not None else ()
    local = config.host in _LOCAL
    if not local and not tokens and not config.insecure:
        raise ConfigError(
            f"host={config.host!r} can be reached from other machines, and there are no tokens: make some with "
            "`segue token new`, and name their file with --tokens. --insecure serves without."
        )
    chosen = parse_runs(runs)
    since = None if config.events_since is None else microseconds(config.events_since)
    opener = _opener(config)
    sys.setswitchinterval(_SWITCH)
    listener = _listener(config)
    metrics = Metrics()
    store = open_store(config.store)
    journal = Journal(store, metrics, config.poll, since)
    models = Models(chosen, journal, metrics, config.watch, opener)
    engine = Engine(metrics, config.window_ms / 1000, config.batch, config.queue, config.deadline)
    service = Service(config, models, engine, journal, metrics)
    app = make_app(service, tokens, local and not config.insecure)
    journal.start()
    models.start()
    gc.collect()
    gc.freeze()  # what was opened stays: later collections need not look through it
    settings = uvicorn.Config(
        app,
        http=OnePacketProtocol,
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(config.drain),
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=65_536,
    )
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    try:
        with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
            runner.run(_Server(settings, service, lambda: started(address)).serve([listener]))
    finally:
        models.stop()
        engine.stop()
        journal.stop()
        store.close()


def _opener(config: ServiceConfig) -> Opener:
    """Function that opens runs for the engine; torch is imported only if it is used."""
    if config.engine == "torch":
        if config.data is not None:
            raise ConfigError("--data names the Dataset of exports: runs have their own. Leave it out.")
        from segue.serving.torch_served import open_run, prepare

        prepare(config.threads)
        return open_run
    from segue.serving.onnx_served import open_export

    return partial(open_export, data=None if config.data is None else Path(config.data), threads=config.threads)


def _listener(config: ServiceConfig) -> socket.socket:
    """Socket that is bound to the address, so that a taken port is noticed before anything is opened."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # asyncio sends small packets at once (TCP_NODELAY) only if the socket names its protocol.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {config.host}:{config.port}: {error}. Choose another --host or --port."
        ) from None
    listener.set_inheritable(True)
    return listener
