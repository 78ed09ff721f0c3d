"""The users of a question, by raw id or by given histories, as rows of `Histories`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.sources import HistorySource, given_histories, is_frame
from segue.errors import ConfigError, DataError, UnknownIdError, nearest
from segue.inference.asking.everyone import EVERYONE
from segue.inference.asking.ids import encode_lists, is_scalar, requested_ids, unique_ids, warn_unknown
from segue.inference.asking.own_items import OwnItems

Unknown = Literal["skip", "popular", "error"]
"""Treatment of users whom the Recommender does not know, without a given history."""

GivenHistories = Mapping[Any, Sequence[Any]] | Sequence[Sequence[Any]] | Any
"""Histories: lists of raw item ids, oldest first, by user id or in order (users are then numbered from 0); or a frame
with `user, item[, time][, session]`."""


class ReadsHistories(Protocol):
    """Scorer, or exported model."""

    @property
    def needs_history(self) -> bool:
        """False if the model answers even unknown users without a history."""
        ...


@dataclass(frozen=True, eq=False)
class RequestedUsers:
    """The n users of a question.

    Attributes
    ----------
    ids
        (n,) raw ids.
    histories
        Histories of n users, with the baskets of sessions in progress. A history may be empty. The user code is 0 for
        users unknown to the model.
    known
        (n,) bool: False for ids that are unknown and have no given history.
    allowed, denied
        Items of single users: the only ones, and those that may not be recommended; None without such lists.
    """

    ids: pl.Series
    histories: Histories
    known: npt.NDArray[np.bool_]
    allowed: OwnItems | None = None
    denied: OwnItems | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def own_items(self) -> dict[str, OwnItems]:
        """`allowed` and `denied` by name, if they are given."""
        lists = {"own_allowed": self.allowed, "own_denied": self.denied}
        return {name: one for name, one in lists.items() if one is not None}

    def served_by(self, scorer: ReadsHistories) -> npt.NDArray[np.bool_]:
        """Mask (n,) of the users that the model answers; popularity answers users without history and basket."""
        return (self.histories.lengths > 0) | (not scorer.needs_history)

    def at(self, as_of: int | None) -> RequestedUsers:
        """The same users with the time of the question; None means now."""
        if as_of is None:
            return self
        times = np.full(len(self), as_of, dtype=np.int64)
        return replace(self, histories=replace(self.histories, as_of=times))

    def before(self, as_of: int) -> RequestedUsers:
        """The same users, with only the part of their given histories before a time.

        Raises
        ------
        ConfigError
            The histories have no times.
        """
        histories = self.histories
        if histories.times is None:
            raise ConfigError("as_of cuts histories by their times, and the given ones have none: cut them yourself.")
        late = np.concatenate([[0], np.cumsum(histories.times >= as_of)])
        dropped = late[histories.ends] - late[histories.starts]
        return replace(self, histories=replace(histories, ends=histories.ends - dropped))

    def select(self, index: npt.NDArray[np.int64] | slice) -> RequestedUsers:
        """The users at `index`, in its order."""
        return RequestedUsers(
            self.ids[index],
            self.histories.select(index),
            self.known[index],
            None if self.allowed is None else self.allowed.select(index),
            None if self.denied is None else self.denied.select(index),
        )

    def compact(self) -> RequestedUsers:
        """The same users with histories of their own (`Histories.compact`)."""
        return replace(self, histories=self.histories.compact())


def one_known_user(source: HistorySource, raw_id: Any) -> RequestedUsers | None:
    """Look up one raw id that is an integer or a text; None for any other value, and for an unknown id.

    `users_by_id` gives the same, in several times the microseconds: a service asks for one user at a time.
    """
    code = source.users.code_of(raw_id) if type(raw_id) is int or type(raw_id) is str else 0
    if not code:
        return None
    ids = source.users.ids.slice(code - 1, 1)
    return RequestedUsers(ids, source.histories(np.array([code])), np.ones(1, dtype=np.bool_))


def users_by_id(source: HistorySource, ids: Any) -> RequestedUsers:
    """Look up raw user ids, known or not, each once and in their order; all users of the source for `EVERYONE`.

    Missing ids (null) are left out, with a warning.

    Raises
    ------
    DataError
        They are no ids.
    UnknownIdError
        All of them are missing.
    """
    if ids is EVERYONE:
        codes = source.users.codes
        ids = source.users.ids if len(codes) == len(source.users) else source.users.ids[codes - 1]
        return RequestedUsers(ids, source.histories(codes), codes > 0)
    unique = unique_ids(requested_ids(ids, "users"))
    if unique.null_count():
        if len(unique) == 1:
            raise UnknownIdError("users holds only missing ids (null): give raw ids, or users=segue.EVERYONE.")
        warn_unknown("users", unique.filter(unique.is_null()), "left out")
        unique = unique.drop_nulls()
    codes = source.users.encode(unique)
    return RequestedUsers(unique, source.histories(codes), codes > 0)


def users_by_history(
    dataset: Dataset, source: HistorySource, histories: GivenHistories, as_of: int | None = None
) -> RequestedUsers:
    """Encode given histories.

    Items that are not in the catalogue are left out, with a warning. A known user id keeps its code, so that a model
    with user vectors can use it; the given history replaces the stored one. A frame of histories keeps its times and
    sessions, and `as_of`, the time of the question, cuts it.

    Raises
    ------
    ConfigError
        `as_of` is given, and the histories have no times.
    DataError
        `histories` is not a mapping, a sequence of sequences or a frame.
    """
    if is_frame(histories):
        ids, rows, unknown = given_histories(dataset, source, histories)
    else:
        if is_scalar(histories):
            raise DataError(
                f"histories={histories!r} is one value: expected lists of items, such as {{'ann': ['tea', 'milk']}}."
            )
        if isinstance(histories, Mapping):
            ids = requested_ids(list(histories), "the users of histories")
            if ids.null_count():
                raise DataError(
                    "a user of histories is missing (null): give an id for each history, or a list of them."
                )
            codes, lists = source.users.encode(ids), list(histories.values())
        else:
            lists = list(histories)
            ids, codes = pl.Series(np.arange(len(lists), dtype=np.int64)), np.zeros(len(lists), dtype=np.int64)
        items, offsets, unknown = encode_lists(source.catalogue, lists, "histories")
        users = np.where(codes <= dataset.n_users, codes, 0)
        rows = Histories(users, items, offsets[:-1], offsets[1:])
    warn_unknown("items", unknown, "left out of the histories")
    requested = RequestedUsers(ids, rows, np.ones(len(ids), dtype=np.bool_))
    return requested if as_of is None else requested.before(as_of).at(as_of)


def handle_unknown(
    source: HistorySource, users: RequestedUsers, unknown: Unknown, has_basket: npt.NDArray[np.bool_] | None = None
) -> RequestedUsers:
    """Skip, keep or refuse unknown users.

    Parameters
    ----------
    source
        The known users.
    users
        n users by raw id.
    unknown
        "skip" leaves unknown users out, except users with a basket, and warns about both. "popular" keeps all of
        them; "error" refuses them.
    has_basket
        Mask (n,) of the users with a given basket; none if it is None.

    Raises
    ------
    UnknownIdError
        No user is left, or some are unknown and `unknown` is "error".
    """
    if unknown not in ("skip", "popular", "error"):
        raise ConfigError(f"unknown={unknown!r}: {nearest(str(unknown), ['skip', 'popular', 'error'])}.")
    is_unknown = ~users.known
    if unknown == "error":
        source.users.require(users.ids, "user")
    elif unknown == "skip" and is_unknown.any():
        kept = ~is_unknown if has_basket is None else ~is_unknown | has_basket
        if len(users) and not kept.any():
            source.users.require(users.ids, "user")
        warn_unknown("users", users.ids.filter(pl.Series(~kept)), "left out")
        warn_unknown("users", users.ids.filter(pl.Series(is_unknown & kept)), "answered without a history")
        users = users.select(np.flatnonzero(kept))
    if users.ids.dtype == source.users.ids.dtype:
        return users
    same_type = source.users.convert(users.ids)
    return replace(users, ids=users.ids if same_type.null_count() else same_type)
