"""Training in several processes that are joined by torch.distributed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segue.cores import threads_of_each

_SECONDS_TO_STOP = 600
"""Longest time that a step or a validation in progress may continue after Ctrl-C or SIGTERM."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `python -m …` in several processes, wait for all of them, and return the exit code of the first that failed.

    Each process reads its rank from the environment (RANK, WORLD_SIZE, …), as under torchrun. If one fails, the others
    are ended.

    Parameters
    ----------
    arguments
        The module and its arguments.
    processes
        Number of processes.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C or SIGTERM came, and the processes have saved and ended. A second Ctrl-C ends them at once.
    """
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
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
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),  # otherwise it leaves an empty folder in /tmp
        shutdown_timeout=_SECONDS_TO_STOP,
    )
    try:
        with _quiet_torch(), _threads(threads_of_each(processes)):
            elastic_launch(config, sys.executable)("-m", *arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 1
    except SignalException as stopped:
        if stopped.sigval in (signal.SIGINT, signal.SIGTERM):
            raise KeyboardInterrupt from None
        return 128 + stopped.sigval
    return 0


@contextmanager
def _quiet_torch() -> Iterator[None]:
    """Silence torch, because the processes report their own errors; restore logging and signal handlers at the end."""
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Set the number of threads of each process started in the context, unless the environment has set it."""
    given = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = given or str(number)
    try:
        yield
    finally:
        if given is None:
            del os.environ["OMP_NUM_THREADS"]
