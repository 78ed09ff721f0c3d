"""`segue.EVERYONE`, the explicit way to ask for all users, and the default of arguments that nobody gave."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from segue.errors import ConfigError


class Everyone(Enum):
    """Type of `segue.EVERYONE`.

    Examples
    --------
    >>> recommender = segue.fit(segue.Markov(), segue.simulate(40, 6).dataset())
    >>> recommender.recommend(segue.EVERYONE, k=3)["user"].n_unique()
    40
    """

    EVERYONE = "segue.EVERYONE"

    def __repr__(self) -> str:
        return self.value


class Unset(Enum):
    """Type of `UNSET`."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return self.value


EVERYONE: Final = Everyone.EVERYONE
"""All users of the Recommender: `recommender.recommend(segue.EVERYONE)`."""

UNSET: Final = Unset.UNSET
"""Default of `users` and `histories`. It differs from None, which a caller may pass by mistake."""

_WAY_OUT = "give raw ids of users, or users=segue.EVERYONE for all of them."
_OTHERS = "histories=… and basket=… answer other users."


def given(users: Any, histories: Any, basket: Any) -> tuple[Any, Any]:
    """The arguments `users` and `histories`, with None for one that was not given.

    An explicit None counts as not given if another argument says who is meant. A request without users is then no
    request for everyone by accident.

    Raises
    ------
    ConfigError
        Users and histories are given at once; `users` is a mapping; `histories` is an empty mapping; or nobody is
        named: nothing was given, or None.
    """
    if isinstance(users, Mapping):
        if not users:
            raise ConfigError(f"users={{}} names no user: {_WAY_OUT}")
        raise ConfigError(
            "users is a mapping: expected raw ids. Its keys are not read as users: give users=list(…) for them, or "
            "histories=… for lists of items by user."
        )
    if isinstance(histories, Mapping) and not histories:
        raise ConfigError(f"histories={{}} holds no history: give histories by user, or leave it out and {_WAY_OUT}")
    has_users, has_histories = (value is not UNSET and value is not None for value in (users, histories))
    if has_users and has_histories:
        raise ConfigError("give users or histories, not both: a given history replaces the stored one of its user.")
    if not has_users and not has_histories and basket is None:
        for name, value in (("users", users), ("histories", histories)):
            if value is None:
                raise ConfigError(f"{name}=None names no user: {_WAY_OUT}")
        raise ConfigError(f"no users are named: {_WAY_OUT[:-1]}; {_OTHERS}")
    return users if has_users else None, histories if has_histories else None
