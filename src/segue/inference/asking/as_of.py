"""`as_of`: the time at which a question is asked, in every form that a caller may write."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import numpy as np

from segue.data.sources import HistorySource
from segue.errors import ConfigError, DataError

AsOf = datetime | date | str | int | float
"""A datetime (UTC if it has no zone), a date, either in ISO form, or a number in the Dataset's time unit."""


def to_timestamp(source: HistorySource, as_of: AsOf) -> int:
    """Time `as_of` as a number in the unit of the source.

    Parameters
    ----------
    source
        A source with times.
    as_of
        A datetime (UTC if it has no zone), a date (its first instant), either in ISO form, or a number in the unit of
        the source.

    Raises
    ------
    DataError
        The source has no times.
    ConfigError
        `as_of` has none of these forms.
    """
    if not source.has_times:
        raise DataError("as_of needs times, and this Dataset has none.")
    if isinstance(as_of, str):
        as_of = _parsed(as_of)
    if isinstance(as_of, (int, float, np.integer, np.floating)) and not isinstance(as_of, bool):
        if not np.isfinite(float(as_of)):
            raise ConfigError(f"as_of={as_of!r} is no time: expected a finite number, a date or a datetime.")
        return int(as_of)
    if isinstance(as_of, date) and not isinstance(as_of, datetime):
        as_of = datetime.combine(as_of, time())
    if not isinstance(as_of, datetime):
        raise ConfigError(f"as_of={as_of!r} is a {type(as_of).__name__}: expected a date, a datetime or a number.")
    return source.timestamp((as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)).timestamp())


def _parsed(text: str) -> datetime | int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"as_of={text!r} is not a time: expected an ISO date or time such as 2024-03-01 or 2024-03-01T12:00."
        ) from None
