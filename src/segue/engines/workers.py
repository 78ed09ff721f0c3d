"""Workers that stay for several rounds of parts, and `run_parts` for a single round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from segue.engines.base import Alone, Workers
from segue.engines.engine import Engine

R = TypeVar("R")
S = TypeVar("S")


def workers(engine: Engine, setup: Callable[[], Any] | None = None) -> Workers:
    """Make the workers of an engine.

    Parameters
    ----------
    engine
        The choice of workers. One process of this machine is this process itself.
    setup
        Picklable function that each worker calls once; its result stays there as the state.

    Raises
    ------
    ConfigError
        Ray is not installed.
    EngineError
        The cluster does not answer.
    """
    if engine.alone:
        return Alone(setup)
    if engine.engine == "ray":
        from segue.engines.ray_workers import RayWorkers

        return RayWorkers(engine, setup)
    from segue.engines.processes import Processes

    return Processes(engine.processes, setup)


def run_parts(
    function: Callable[..., R], parts: Iterable[Any], engine: Engine, setup: Callable[[], Any] | None = None
) -> Iterator[tuple[int, R]]:
    """Run a function on every part of a job, by the workers of an engine.

    A worker that dies costs its part alone, which another worker runs again, at most three times. Ctrl-C ends all
    workers.

    Parameters
    ----------
    function, parts
        As in `Workers.run`.
    engine, setup
        As in `workers`.

    Yields
    ------
    (number of the part, result), as the parts end, in any order.

    Raises
    ------
    ConfigError, EngineError, Exception
        As in `workers` and `Workers.run`.
    """
    with workers(engine, setup) as crew:
        yield from crew.run(function, parts)


def holding(state: S) -> Callable[[], S]:
    """A setup for workers whose state is a picklable object that travels to each of them."""
    return partial(_itself, state)


def _itself(state: S) -> S:
    return state
