"""The options of a preparation: their checks, and the name of the k-core step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segue.data.preparing.filters import DUPLICATES, FIRST
from segue.data.sessions import UNITS_PER_SECOND, SessionRule
from segue.errors import ConfigError, nearest

_DAY = 86_400
_MOST_DAYS = 1_000_000.0


@dataclass(frozen=True)
class Preparation:
    """Options of `prepare` that decide the content; they are kept in the Dataset's metadata."""

    oldest: float | None
    per_user: int
    per_item: int
    rounds: int | None
    first: str
    min_rating: float | None
    duplicates: str
    sessions: SessionRule | None
    newest_days: float | None = None

    def check(self, columns: Mapping[str, str]) -> None:
        """Raise a ConfigError for an impossible value, or one that needs a column that the log lacks."""
        for name in ("per_user", "per_item"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"k_core, min_per_user and min_per_item count interactions: expected 0 or more, found "
                    f"{getattr(self, name)}."
                )
        if self.rounds is not None and self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds}: expected 1 or more, or None to go on until nothing changes.")
        for name, known in (("first", FIRST), ("duplicates", DUPLICATES)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f'unknown {name}="{value}": {nearest(value, known)}')
        if self.oldest is not None and not 0 < self.oldest <= 1:
            raise ConfigError(f"oldest={self.oldest} is a share of the rows: expected more than 0, at most 1.")
        if self.newest_days is not None and not 0 < self.newest_days < _MOST_DAYS:
            raise ConfigError(f"newest_days={self.newest_days} is a number of days: expected more than 0.")
        for option, needed in (("oldest", "time"), ("newest_days", "time"), ("min_rating", "rating")):
            if getattr(self, option) is not None and needed not in columns:
                raise ConfigError(
                    f"{option}={getattr(self, option)} needs {needed}s; there are only {', '.join(columns.values())}."
                )

    def cut(self, newest: int, time_unit: str | None) -> int:
        """The time up to which interactions are let go, from the newest of all times; `newest_days` is given."""
        assert self.newest_days is not None
        return newest - int(self.newest_days * _DAY * UNITS_PER_SECOND[time_unit or "s"])

    @property
    def newest_name(self) -> str:
        """Name of the step that lets old interactions go."""
        return f"the newest {self.newest_days:g} days"

    @property
    def core_name(self) -> str:
        """Name of the k-core step."""
        if self.per_user == self.per_item:
            name = f"{self.per_user}-core"
        else:
            name = f"at least {self.per_user} per user, {self.per_item} per item"
        name = name if self.rounds is None else f"{name}, rounds: {self.rounds}"
        return name if self.first == "items" else f"{name}, {self.first} first"
