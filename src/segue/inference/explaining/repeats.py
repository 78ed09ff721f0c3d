"""Reasons that name repeats: number of occurrences of an item in a history, and the time since the last one."""

from __future__ import annotations

import numpy as np
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import NOW, Histories
from segue.data.occurrences import Occurrences
from segue.data.ragged import Int64
from segue.data.sessions import UNITS_PER_SECOND
from segue.inference.explaining.left_out import REPEATS, Parts

_UNITS = (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))
"""Units of a text and their lengths in seconds."""


def repeat_columns(histories: Histories, parts: Parts) -> dict[str, Int64]:
    """Columns (m,) about the parts of repeats of n histories; 0 for other parts.

    Returns
    -------
    columns
        `times`: number of sessions with the item (without sessions, of interactions). `steps_ago`: number of such
        steps from the last one with the item to the newest one. `time_ago`, if there are times: time since the last
        one, up to `as_of` or, without it, up to the newest interaction before the session in progress.
    """
    index = np.flatnonzero(parts.kinds == REPEATS)
    occurrences, offsets = Occurrences.in_histories(histories)
    rows = parts.rows[index]
    places = offsets[rows] + parts.starts[index] - histories.starts[rows]
    newest = offsets[rows + 1] - 1

    def column(values: Int64) -> Int64:
        """Values of the parts of repeats, in a column of all parts."""
        filled = np.zeros(len(parts), dtype=np.int64)
        filled[index] = values
        return filled

    steps = occurrences.steps
    columns = {
        "times": column(occurrences.counts[places].astype(np.int64)),
        "steps_ago": column(steps[newest] - steps[places]),
    }
    if occurrences.times is not None:
        now = occurrences.times[newest]
        if histories.as_of is not None:
            now = np.where(histories.as_of[rows] < NOW, histories.as_of[rows], now)
        columns["time_ago"] = column(now - occurrences.times[places])
    return columns


def repeat_text(times: int, steps_ago: int, time_ago: int | None, time_unit: str | None, step: str) -> str:
    """A sentence about an item of a history, such as "14 times, last 9 days ago".

    Parameters
    ----------
    times, steps_ago, time_ago
        A row of `repeat_columns`.
    time_unit
        Unit of the times, as of the Dataset; None if they are plain numbers.
    step
        Noun for a step: "session" or "interaction".
    """
    count = "once" if times == 1 else "twice" if times == 2 else f"{times:,} times"
    last = "" if times == 1 else "last "
    if time_ago is not None and time_unit is not None:
        seconds = time_ago / UNITS_PER_SECOND[time_unit]
        for unit, length in _UNITS:
            if seconds >= length:
                return f"{count}, {last}{_number(int(seconds // length), unit)} ago"
        if steps_ago:
            return f"{count}, {last}less than a minute ago"
    if not steps_ago:
        return f"{count}, {last}in the newest {step}"
    return f"{count}, {last}{_number(steps_ago, step)} before the newest"


def with_texts(reasons: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Reasons with columns of repeats, and their text in a column `repeats` before the effect; null for other kinds."""
    step = "interaction" if dataset.session_offsets is None else "session"
    texts = [
        None if row["times"] is None else repeat_text(**row, time_unit=dataset.time_unit, step=step)
        for row in reasons.select(
            "times", "steps_ago", time_ago=pl.col("time_ago") if "time_ago" in reasons.columns else pl.lit(None)
        ).iter_rows(named=True)
    ]
    # A copy, because insert_column works in place.
    return reasons.clone().insert_column(reasons.columns.index("effect"), pl.Series("repeats", texts, dtype=pl.String))


def _number(count: int, unit: str) -> str:
    """A number with its unit."""
    return f"{count:,} {unit}" if count == 1 else f"{count:,} {unit}s"
