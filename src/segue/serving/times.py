"""Times of requests and answers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from segue.errors import ConfigError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = 253_402_300_799 * 1_000_000


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
        parsed = datetime.fromisoformat(value)
        since = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{value!r} is not a time: expected an ISO date or time such as 2024-03-01T12:00, or seconds since 1970."
        ) from None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def iso(value: int) -> str:
    """ISO time in UTC, from microseconds since 1970."""
    whole, rest = divmod(max(-_LARGEST // 1000, min(value, _LARGEST)), 1_000_000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest).isoformat()


def as_json(value: Any) -> Any:
    """A time of a frame in the form of the log: ISO in UTC, or a number."""
    return value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value
