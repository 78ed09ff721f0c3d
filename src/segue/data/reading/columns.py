"""Roles of columns (user, item, time, rating, session): by name, or by content for files without a header."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from segue.data.reading.time_column import Sample, find_time
from segue.data.reading.values import INTEGER, kind_of_times
from segue.errors import ColumnError, ConfigError, DataError, nearest

Column = str | int | Literal[False] | None
ROLES = ("user", "item", "time", "rating", "session")

# The names in use, in lower case without punctuation. Of two that match, the one in an earlier group wins.
_NAMES: dict[str, tuple[frozenset[str], ...]] = {
    "user": (
        frozenset({"user", "userid", "reviewerid", "uid", "visitorid", "customerid", "memberid", "accountid"}),
        frozenset({"username", "customer", "member", "account", "visitor", "reviewer"}),
    ),
    "item": (
        frozenset({"item", "itemid", "iid", "movieid", "parentasin", "productid", "sku", "articleid", "bookid",
                   "trackid", "songid", "gameid", "businessid", "appid", "videoid", "newsid", "poiid"}),
        frozenset({"asin", "movie", "product", "article", "book", "track", "song", "isbn"}),
    ),
    "time": (
        frozenset({"time", "timestamp", "ts", "date", "datetime", "unixreviewtime", "unixtime", "eventtime",
                   "createdat", "reviewdate", "timestampms"}),
    ),
    "rating": (frozenset({"rating", "ratings", "overall", "score", "stars", "starrating", "rate",
                          "bookrating", "reviewrating"}),),
    "session": (frozenset({"session", "sessionid"}),),
}  # fmt: skip

_LISTS = ("s", "list", "seq", "sequence", "history")
"""Endings that make the name of an item the name of a list of items."""

_AMAZON_USER = r"^A[0-9A-Z]{9,27}$"
_AMAZON_ITEM = r"^(B[0-9A-Z]{9}|[0-9]{9}[0-9X])$"


def known_role(name: str) -> str | None:
    """The role that a column of this name usually has.

    >>> known_role("userId")
    'user'
    """
    plain = _plain(name)
    return next((role for role, groups in _NAMES.items() if any(plain in group for group in groups)), None)


def by_name(
    fields: Sequence[str],
    given: Mapping[str, Column],
    name: str,
    sample: Sample,
    complete: frozenset[str] | None = None,
) -> dict[str, str]:
    """Role → column, for a source whose columns have names. The time is also found by its content.

    Parameters
    ----------
    fields
        The columns of the source.
    given
        The caller's choice for each role: a name, a position, False (no column), or None (to be found).
    name
        The source in messages.
    sample
        Returns the first rows.
    complete
        Columns without missing values in the sample, if known: they are preferred.

    Raises
    ------
    ColumnError
        A column is missing, or more than one could be meant.
    """
    roles: dict[str, str] = {}
    for role in ROLES:
        choice = given[role]
        if choice is False or (role == "time" and choice is None):
            continue
        free = [field for field in fields if field not in roles.values()] if role == "session" else fields
        column = _guess(role, free, name, complete) if choice is None else _pick(role, choice, fields, name)
        if column is not None:
            roles[role] = column
    _refuse_lists(fields, given, roles, name)
    _checked(roles, fields, name)
    if given["time"] is None:
        named = _named("time", fields, complete)
        others = [field for field in fields if field not in roles.values()]
        column = find_time(named, others, roles, sample, name)
        if column is not None:
            roles["time"] = column
    return _checked({role: roles[role] for role in ROLES if role in roles}, fields, name)


def _refuse_lists(fields: Sequence[str], given: Mapping[str, Column], roles: Mapping[str, str], name: str) -> None:
    """Raise a ColumnError if a column is called like a list of items, and nobody chose the column of the items."""
    if given["item"] is not None:
        return
    lists = [field for field in fields if field not in roles.values() and _is_list_of_items(field)]
    if lists:
        item = f" item={roles['item']!r} reads that column alone." if "item" in roles else ""
        raise ColumnError(
            f'{name}: the column "{lists[0]}" seems to hold lists of items. Expected one interaction per row: write '
            f"each item on a row of its own, or one line per user without a header (user item item …).{item}"
        )


def _is_list_of_items(field: str) -> bool:
    plain = _plain(field)
    known = [item for group in _NAMES["item"] for item in group]
    return any(plain == item + ending for item in known for ending in _LISTS)


def _named(role: str, fields: Sequence[str], complete: frozenset[str] | None) -> list[str]:
    """Columns whose name says that they have the role: those of the first group of names that occurs."""
    for group in _NAMES[role]:
        matching = [field for field in fields if _plain(field) in group]
        if complete is not None:
            matching = [field for field in matching if field in complete] or matching
            # A key that some lines lack gives way to one of the next group that all lines have.
            later = [f for f in fields if f in complete and any(_plain(f) in other for other in _NAMES[role])]
            if matching and matching[0] not in complete and later:
                matching = later
        if matching:
            return matching
    return []


def _guess(role: str, fields: Sequence[str], name: str, complete: frozenset[str] | None) -> str | None:
    matching = _named(role, fields, complete)
    if len(matching) > 1:
        both = " and ".join(f'"{field}"' for field in matching)
        raise ColumnError(f"{name}: {both} could each be the {role}. Say which: {role}={matching[0]!r}.")
    return matching[0] if matching else None


def _pick(role: str, choice: str | int, fields: Sequence[str], name: str) -> str:
    if isinstance(choice, bool):
        raise ConfigError(f"{role}=True has no meaning: pass a column name, a position, or False to leave it out.")
    if isinstance(choice, int):
        if not 0 <= choice < len(fields):
            raise ColumnError(f"{name} has {len(fields)} columns; {role}={choice} counts from 0.")
        return fields[choice]
    if choice in fields:
        return choice
    listed = ", ".join(fields)
    raise ColumnError(f'{name} has no column "{choice}" ({role}); {nearest(choice, fields)} It has: {listed}.')


def _checked(roles: dict[str, str], fields: Sequence[str], name: str) -> dict[str, str]:
    listed = ", ".join(fields)
    for role in ("user", "item"):
        if role not in roles:
            raise ColumnError(f"{name}: no column looks like the {role}. It has: {listed}. Say which: {role}=…")
    for column in roles.values():
        twice = [role for role, other in roles.items() if other == column]
        if len(twice) > 1:
            raise ColumnError(f'{name}: the column "{column}" cannot be both {" and ".join(twice)}.')
    return roles


def by_content(sample: pl.DataFrame, given: Mapping[str, Column], name: str, first: str) -> dict[str, str]:
    """Role → column, for text without a header: by given positions, or by the usual layouts.

    The user comes before the item, unless Amazon's ids show the opposite order. Dates are the time; so are numbers of
    which all can be moments of our time. Another number behind user and item is the rating. If the time stands before
    the item, only a third column may stand beside user and item.

    Raises
    ------
    DataError
        The columns can be read in more than one way.
    """
    fields = [field for field in sample.columns if field.isdigit()]
    if any(isinstance(choice, str) and not choice.isdigit() for choice in given.values()):
        names = ", ".join(repr(c) for c in given.values() if isinstance(c, str))
        raise ColumnError(f"{name} has no header (it begins {first}), so {names} cannot be found: pass positions.")
    choices = {role: int(c) if isinstance(c, str) else c for role, c in given.items()}
    if choices["user"] is not None and choices["item"] is not None:
        complete = {role: choice if choice is not None else False for role, choice in choices.items()}
        roles = by_name(fields, complete, name, lambda: sample)
        if choices["time"] is None:
            others = [field for field in fields if field not in roles.values()]
            column = find_time([], others, roles, lambda: sample, name)
            roles |= {} if column is None else {"time": column}
        return _checked({role: roles[role] for role in ROLES if role in roles}, fields, name)
    if choices["user"] is not None or choices["item"] is not None or len(fields) < 2:
        raise DataError(f"{name} has no header and begins {first}: pass both user= and item= as positions from 0.")
    pair = ("1", "0") if _amazon_item_first(sample) else ("0", "1")
    roles = {"user": pair[0], "item": pair[1]}
    rest = fields[2:]
    for role in ("time", "rating", "session"):
        choice = choices[role]
        if choice is not None and choice is not False:
            roles[role] = _pick(role, choice, fields, name)
            rest = [field for field in rest if field != roles[role]]
    open_roles = [role for role in ("time", "rating") if choices[role] is None]  # a session cannot be recognized
    times = _times(sample[fields])
    if any(time in fields[:2] for time in times) and choices["time"] is None:
        return _with_time_before(sample, fields, times, choices, name, first)
    return _checked(roles | _numbers(sample, rest, times, open_roles, name, first), fields, name)


def _with_time_before(
    sample: pl.DataFrame, fields: list[str], times: list[str], choices: Mapping[str, object], name: str, first: str
) -> dict[str, str]:
    """Role → column if a time stands among the first two columns: certain only with two columns of ids beside it."""
    ids = [field for field in fields if field not in times]
    pointed = any(sample[field].str.contains(r"^-?\d+\.\d+$").any() for field in ids)
    chosen = any(choices[role] not in (None, False) for role in ("rating", "session"))
    if len(times) == 1 and len(fields) == 3 and not pointed and not chosen:
        return {"user": ids[0], "item": ids[1], "time": times[0]}
    looks = ", ".join(f"{field}: {_look(sample[field], field in times)}" for field in fields)
    example = f"user={ids[0]}, item={ids[1]}, time={times[0]}" if len(ids) > 1 else "user=0, item=1"
    raise DataError(
        f"{name} has no header and begins {first}: expected user and item in its first two columns, found {looks}. "
        f"Pass positions from 0, for example {example}, and time=False if there is no time."
    )


def _look(values: pl.Series, is_time: bool) -> str:
    example = next(iter(values.drop_nulls()), "")
    return f"{'times' if is_time else 'numbers or ids'} ({example})"


def _times(sample: pl.DataFrame) -> list[str]:
    """Columns of dates; if there are none, columns of numbers that can be moments of our time."""
    kinds = {field: kind_of_times(sample[field]) for field in sample.columns}
    return next((found for kind in ("dates", "numbers") if (found := [f for f in kinds if kinds[f] == kind])), [])


def _numbers(
    sample: pl.DataFrame, rest: list[str], times: list[str], roles: list[str], name: str, first: str
) -> dict[str, str]:
    """Role → column, for the time and the rating among the columns after user and item."""
    if not rest or not roles:
        return {}
    times = [field for field in rest if field in times]
    ratings = [field for field in rest if field not in times and _is_rating(sample[field], alone=len(rest) == 1)]
    columns = {"time": times, "rating": ratings}
    if len(rest) <= 2 and sum(map(len, columns.values())) == len(rest) and all(len(v) <= 1 for v in columns.values()):
        return {role: columns[role][0] for role in roles if columns[role]}
    raise DataError(
        f"{name} has no header and begins {first}: of its {len(rest) + 2} columns, it is not certain what "
        f"{'the last is' if len(rest) == 1 else 'those after the second are'} (rating or time?). "
        f"Pass positions from 0, for example user=0, item=1, time=2 or user=0, item=1, rating=2, and time=False or "
        f"rating=False for what is not there. One line per user is format='user-lines'."
    )


def _is_rating(values: pl.Series, *, alone: bool) -> bool:
    """True for small numbers. Without a column beside them they need a decimal point: 1, 2, 3 may be time steps."""
    numbers = values.cast(pl.Float64, strict=False)
    known = numbers.drop_nulls()
    small = len(known) * 2 > len(values) and bool((known.abs() <= 100).all())
    pointed = bool(values.str.contains(".", literal=True).any())
    return small and (pointed or not alone)


def _amazon_item_first(sample: pl.DataFrame) -> bool:
    def share(field: str, pattern: str) -> float:
        return float(sample[field].str.contains(pattern).mean() or 0)  # type: ignore[arg-type]

    item_first = share("0", _AMAZON_ITEM) > 0.95 and share("1", _AMAZON_USER) > 0.95
    return item_first and share("1", _AMAZON_ITEM) < 0.5 and not bool(sample["1"].str.contains(INTEGER).all())


def refuse_columns(given: Mapping[str, Column], roles: Sequence[str], reason: str) -> None:
    """Raise a ConfigError, which begins with a reason, if the caller names a column for one of the roles."""
    for role in roles:
        if given[role] not in (None, False):
            raise ConfigError(f"{reason} {role}.")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
