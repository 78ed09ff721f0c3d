"""Moments in every form that a caller may write, as numbers in the unit of the data."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import numpy as np

from segue.data.sources import HistorySource
from segue.errors import ConfigError, DataError

Moment = datetime | date | str | int | float
"""A datetime (UTC if it has no zone), a date, either in ISO form, or a number in the Dataset's time unit."""


def to_timestamp(source: HistorySource, moment: Moment, argument: str = "as_of") -> int:
    """A moment as a number in the unit of the source.

    Parameters
    ----------
    source
        A source with times.
    moment
        A datetime (UTC if it has no zone), a date (its first instant), either in ISO form, or a number in the unit of
        the source.
    argument
        Name of the argument, for messages.

    Raises
    ------
    DataError
        The source has no times.
    ConfigError
        `moment` has none of these forms.
    """
    if not source.has_times:
        raise DataError(f"{argument} needs times, and this Dataset has none.")
    if isinstance(moment, str):
        moment = _parsed(moment, argument)
    if isinstance(moment, (int, float, np.integer, np.floating)) and not isinstance(moment, bool):
        if not np.isfinite(float(moment)):
            raise ConfigError(f"{argument}={moment!r} is no time: expected a finite number, a date or a datetime.")
        return int(moment)
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime.combine(moment, time())
    if not isinstance(moment, datetime):
        raise ConfigError(
            f"{argument}={moment!r} is a {type(moment).__name__}: expected a date, a datetime or a number."
        )
    return source.timestamp((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def utc_time(text: str) -> datetime:
    """A date or time in ISO form, as a time in UTC; it is one already if it has no zone.

    Raises
    ------
    ValueError
        The text has another form, or the time lies outside of the years 1 to 9999 in UTC.
    """
    parsed = datetime.fromisoformat(text)
    try:
        return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError(f"{text!r} lies outside of the years 1 to 9999 in UTC") from None


def _parsed(text: str, argument: str) -> datetime | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return utc_time(text)
    except ValueError:
        raise ConfigError(
            f"{argument}={text!r} is not a time: expected an ISO date or time such as 2024-03-01 or 2024-03-01T12:00."
        ) from None
