"""A Ray cluster, joined or started for one job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segue.engines.engine import Engine
from segue.engines.ray_workers import _connect, _ray


@contextmanager
def joined(engine: Engine) -> Iterator[Any]:
    """Yield the module `ray`, connected to the cluster of an engine; a cluster that was started here ends with it.

    Raises
    ------
    ConfigError
        Ray is not installed, or the address is none.
    EngineError
        The cluster does not answer, or runs another version of Ray or Python.
    """
    ray = _ray()
    owned = _connect(ray, engine)
    try:
        yield ray
    finally:
        if owned:
            ray.shutdown()
