"""The column of times among those of a log: by name, and by the content of the first rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl

from segue.data.reading.values import kind_of_times, moments
from segue.errors import ColumnError

Sample = Callable[[], pl.DataFrame]

_DAY = 86_400_000_000.0  # microseconds
_SAME = 1.6 * _DAY  # a moment and its date differ by less, whatever the zone
_WORDS_OF_TIME = re.compile(r"time|date|day|ts$|dt$|when|moment|epoch|unix|(_at|_on)$|At$|On$|stamp|created|viewed")
_WORDS_OF_IDS = re.compile(r"(id|code|number|num|no|key|hash|isbn|upc|ean|phone|price|amount)$")
_WORDS_OF_OTHER_EVENTS = re.compile(
    r"birth|born|dob|releas|publi|expir|regist|signup|sign_up|join|since|member|valid|due"
)


def find_time(
    named: Sequence[str], others: Iterable[str], roles: Mapping[str, str], sample: Sample, name: str
) -> str | None:
    """The column of the times; None if there is none.

    A name counts first. Without one, a single column of dates is taken. Of several columns that tell the same moments,
    the finest is taken.

    Parameters
    ----------
    named
        Columns whose name says that they are times.
    others
        Columns without a role.
    roles
        Role → column of users and items.
    sample
        Returns the first rows.
    name
        The source in messages.

    Raises
    ------
    ColumnError
        More than one column could be the time, or the content leaves doubts.
    """
    others = [column for column in others if column not in named]
    if not others and len(named) < 2:
        return next(iter(named), None)
    table = sample()
    if not table.height:
        return next(iter(named), None)
    others = [column for column in others if column in table.columns and table[column].drop_nulls().len()]
    if named:
        best = named[0] if len(named) == 1 else _finest(named, table, name)
        return _finer(best, others, table, name)
    kinds = {column: kind_of_times(table[column]) for column in others}
    dates = [column for column, kind in kinds.items() if kind == "dates"]
    numbers = [c for c, kind in kinds.items() if kind == "numbers" and not _WORDS_OF_IDS.search(c.lower())]
    if not dates and not numbers:
        return None
    if not dates:
        dates = numbers
        if len(numbers) == 1 and not _WORDS_OF_TIME.search(numbers[0]):
            raise ColumnError(
                f'{name}: no column is called like a time, but "{numbers[0]}" holds numbers that can be times, such as '
                f"{table[numbers[0]].drop_nulls()[0]!r}. Say which: time={numbers[0]!r}, or time=False for none."
            )
    best = dates[0] if len(dates) == 1 else _finest(dates, table, name)
    _check_event(best, roles, table, name)
    return _finer(best, [column for column in numbers if column != best], table, name)


def _check_event(column: str, roles: Mapping[str, str], table: pl.DataFrame, name: str) -> None:
    """Raise a ColumnError if the dates seem to belong to the users or the items, and not to the interactions."""
    owner = next((role for role in ("user", "item") if _belongs_to(column, roles.get(role), table)), None)
    if owner is None and not _WORDS_OF_OTHER_EVENTS.search(column.lower()):
        return
    reason = "its name says something else" if owner is None else f"each {owner} has one value of it"
    raise ColumnError(
        f'{name}: the only dates are in the column "{column}", and {reason}. Say whether it is the time of the '
        f"interactions: time={column!r}, or time=False for none."
    )


def _belongs_to(column: str, owner: str | None, table: pl.DataFrame) -> bool:
    """Whether several owners have several rows each, and every owner one value alone, but not all the same."""
    if owner is None or owner not in table.columns:
        return False
    pair = table.select(owner=pl.col(owner), value=pl.col(column)).drop_nulls()
    per_owner = pair.group_by("owner").agg(rows=pl.len(), values=pl.col("value").n_unique())
    several = per_owner.filter(pl.col("rows") > 1)
    return len(several) > 1 and bool((several["values"] == 1).all()) and pair["value"].n_unique() > 1


def _finer(column: str, others: Sequence[str], table: pl.DataFrame, name: str) -> str:
    """The column, or the one among the others that tells the same days more finely."""
    values = moments(table[column])
    if values is None or _resolution(values):
        return column
    candidates = [
        other
        for other in others
        if kind_of_times(table[other]) is not None
        and (finer := moments(table[other])) is not None
        and _resolution(finer)
        and _agree(values, finer)
    ]
    return column if not candidates else candidates[0] if len(candidates) == 1 else _finest(candidates, table, name)


def _finest(columns: Sequence[str], table: pl.DataFrame, name: str) -> str:
    """The finest of several columns that tell the same moments."""
    values = {column: moments(table[column]) for column in columns}
    known = {column: series for column, series in values.items() if series is not None}
    if len(known) == len(columns):
        finest = max(known, key=lambda column: _resolution(known[column]))
        rest = [series for column, series in known.items() if column != finest]
        finer = all(_resolution(series) < _resolution(known[finest]) or series.equals(known[finest]) for series in rest)
        if finer and all(_agree(series, known[finest]) for series in rest):
            return finest
    both = " and ".join(f'"{column}"' for column in columns)
    raise ColumnError(f"{name}: {both} could each be the time. Say which: time={columns[0]!r}.")


def _agree(left: pl.Series, right: pl.Series) -> bool:
    difference = (left - right).abs().drop_nulls()
    return len(difference) > 0 and int((difference <= _SAME).sum()) >= 0.95 * len(difference)


def _resolution(microseconds: pl.Series) -> int:
    """0 for whole days, 1 for whole minutes, 2 for whole seconds, 3 for fractions."""
    steps = (_DAY, 60_000_000.0, 1_000_000.0)
    given = microseconds.drop_nulls()
    return next((n for n, step in enumerate(steps) if bool((given % step == 0).all())), 3)
