"""Several processes for one training, which find each other through torch.distributed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_SECONDS_TO_STOP = 600
"""How long a step, or a validation that has begun, may go on after Ctrl-C."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def launch(words: Sequence[str], processes: int) -> int:
    """Run `python -m …` in several processes, wait for all of them, and return the exit code of the first that failed.

    Each process finds its place in the environment (RANK, WORLD_SIZE, …), as torchrun gives it. If one fails, the
    others are ended.

    Parameters
    ----------
    words
        The module and its arguments.
    processes
        How many.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C: the processes were told, and have ended. A second one while they still save ends them at once.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=_SECONDS_TO_STOP,
    )
    try:
        with _undisturbed(), _threads(max(1, (os.cpu_count() or 1) // processes)):
            elastic_launch(config, sys.executable)("-m", *words)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        return 128 + stopped.sigval
    return 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Within, torch says nothing of its own: the processes have said what went wrong. Afterwards all is as before."""
    handlers = {one: signal.getsignal(one) for one in _SIGNALS}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Within, processes that are started use so many threads each, unless the environment says otherwise."""
    given = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = given or str(number)
    try:
        yield
    finally:
        if given is None:
            del os.environ["OMP_NUM_THREADS"]
