"""The model process of a service: it opens everything, starts the HTTP process, and answers its calls.

SIGTERM and Ctrl-C end both in order.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import uvicorn

from segue.errors import ConfigError, SegueError
from segue.serving.answering import Answering
from segue.serving.config import ServiceConfig
from segue.serving.engine import Engine
from segue.serving.front_process import FrontProcess
from segue.serving.journal import Journal
from segue.serving.link import FrontSettings
from segue.serving.metrics import Metrics
from segue.serving.models import Models, Opener, parse_runs
from segue.serving.service import Service
from segue.serving.store.address import open_store
from segue.serving.times import microseconds
from segue.serving.tokens import read_tokens

log = logging.getLogger("segue.serving")

_LOCAL = ("127.0.0.1", "::1", "localhost")
_SWITCH = 0.0001
"""Seconds after which a thread that waits for the interpreter gets it; the usual 5 ms would delay every batch."""
_RESTARTS, _WITHIN = 5, 60.0
"""An HTTP process that dies is started again, unless it died so many times within so many seconds."""


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
    models = Models(chosen, journal, metrics, config.watch, opener, config.kept)
    engine = Engine(metrics, config.window_ms / 1000, config.batch, config.queue, config.deadline, models.make_ahead)
    settings = FrontSettings(config, tokens, local and not config.insecure)
    journal.start()
    models.start()
    gc.collect()
    gc.freeze()  # what was opened stays: later collections need not look through it
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    service = Service(config, models, engine, journal, metrics)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(service, settings, listener, lambda: started(address)))
    finally:
        listener.close()
        models.stop()
        engine.stop()
        journal.stop()
        store.close()


async def _serve(
    service: Service, settings: FrontSettings, listener: socket.socket, listening: Callable[[], None]
) -> None:
    """Answer the HTTP process until it ends in order; one that died is started again."""
    loop = asyncio.get_running_loop()
    front = FrontProcess(Answering(service), settings, listener)

    def drain() -> None:
        service.draining = True
        front.drain()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, drain)
    service.engine.start()
    died: list[float] = []
    while True:
        code = await front.run(listening)
        if code == 0 or service.draining:
            return
        died = [*died[1 - _RESTARTS :], time.monotonic()]
        if len(died) == _RESTARTS and died[-1] - died[0] < _WITHIN:
            raise SegueError(f"the HTTP process died {_RESTARTS} times within {_WITHIN:g} seconds.")
        log.error("the HTTP process ended with code %d and is started again", code)
        listening = _nothing


def _nothing() -> None:
    """Note of a later start, which is not told."""


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop if it is installed, as in the HTTP process."""
    return uvicorn.Config("").get_loop_factory()


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
