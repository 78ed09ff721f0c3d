"""Moments that histories are cut at, in the ways people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import numpy as np

from segue.data.sources import HistorySource
from segue.errors import ConfigError, DataError

Moment = datetime | date | str | int | float
"""A datetime (UTC if it has no zone), a date, either in ISO form, or a number in the Dataset's time unit."""


def moment(source: HistorySource, as_of: Moment) -> int:
    """`as_of` as a count of the Dataset's time units.

    Parameters
    ----------
    source
        Must have times.
    as_of
        A datetime (UTC if it has no zone), a date (its first moment), either of them in ISO form, or a number in
        the Dataset's own unit.

    Raises
    ------
    DataError
        The Dataset has no times.
    ConfigError
        `as_of` is none of these.
    """
    if not source.has_times:
        raise DataError("as_of needs times, and this Dataset has none.")
    if isinstance(as_of, str):
        as_of = _parsed(as_of)
    if isinstance(as_of, (int, float, np.integer, np.floating)) and not isinstance(as_of, bool):
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
            f"as_of={text!r} is not a moment: expected an ISO date or time such as 2024-03-01 or 2024-03-01T12:00."
        ) from None
