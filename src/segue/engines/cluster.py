"""A Ray cluster, joined or started for one job."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segue.engines.engine import Engine
from segue.errors import ConfigError, EngineError

_SECONDS_TO_ANSWER = 5.0
"""Longest time that an address may take to accept a connection, and to answer the greeting."""
_SETTINGS = b"\x04"
"""Type of the first frame of an HTTP/2 server (RFC 9113, section 3.4), which the head of a cluster is."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + bytes(5)
"""Preface of an HTTP/2 client, with empty settings."""


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
    ray = ray_module()
    owned = connect(ray, engine)
    try:
        yield ray
    finally:
        if owned:
            ray.shutdown()


def ray_module() -> Any:
    """The module `ray`; a ConfigError says how to install it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # news of nodes, which it prints among the results
    try:
        import ray
    except ImportError:
        raise ConfigError("engine='ray' needs Ray: pip install 'segue[ray]'.") from None
    return ray


def connect(ray: Any, engine: Engine) -> bool:
    """Join the cluster, or start one on this machine; True if it is to be ended with the job.

    A program that has joined a cluster itself stays in that one.
    """
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": None}
    if engine.address is None:
        ray.init("local", num_cpus=engine.processes, **{**quiet, "include_dashboard": False})
        return True
    address = engine.address
    if address != "auto":
        _require_answer(address)
    try:
        ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[-1]
        if "InvalidAuthToken" in str(error):
            reason = "it wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to its own"
        raise EngineError(f"address={address!r}: joining the Ray cluster failed: {reason}.") from error
    return True


def _require_answer(address: str) -> None:
    """Raise an EngineError within seconds if no Ray cluster answers at an address; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(
            f"address={address!r}: expected host:port, as `ray start --head` shows it (the port is usually 6379), or "
            "auto."
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS_TO_ANSWER) as connection:
            if _is_encrypted():
                return
            connection.sendall(_GREETING)
            answer = connection.recv(9, socket.MSG_WAITALL)
    except (OSError, OverflowError) as error:
        raise EngineError(
            f"address={address!r} does not answer ({error}): start Ray there with `ray start --head`, or correct the "
            "address."
        ) from None
    if answer[3:4] != _SETTINGS:
        raise EngineError(
            f"address={address!r} is not that of a Ray cluster: something else listens there. `ray start --head` shows "
            "the right one."
        )


def _is_encrypted() -> bool:
    """True if Ray is set to talk by TLS, which the greeting is not made for."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")
