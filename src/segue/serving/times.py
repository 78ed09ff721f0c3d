"""Times of requests and answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from segue.data.times import utc_time
from segue.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST, _LATEST = -62_135_596_800 * 1_000_000, 253_402_300_799 * 1_000_000


def now() -> int:
    """The present, in microseconds since 1970."""
    return time.time_ns() // 1_000


def microseconds(value: float | str) -> int:
    """Microseconds since 1970 of an ISO time (UTC if it has no zone) or of seconds since 1970.

    Raises
    ------
    ConfigError
        The text is no ISO time.
    """
    if not isinstance(value, str):
        return round(value * 1_000_000)
    try:
        return (utc_time(value) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        raise ConfigError(
            f"{value!r} is not a time: expected an ISO date or time such as 2024-03-01T12:00, or seconds since 1970."
        ) from None


def iso(value: int) -> str:
    """ISO time in UTC, from microseconds since 1970."""
    return (_EPOCH + timedelta(microseconds=max(_EARLIEST, min(value, _LATEST)))).isoformat()


def as_json(value: Any) -> Any:
    """A time of a frame in the form of the log: ISO in UTC, or a number."""
    return value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value
