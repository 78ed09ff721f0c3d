"""Sessions in progress: whose basket is which, and baskets laid behind the histories of their people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of, positions, rows_of
from segue.data.sources import HistorySource
from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import ConfigError, DataError
from segue.inference.asking.users import (
    Given,
    People,
    Unknown,
    encoded_lists,
    given_people,
    is_scalar,
    listed_people,
    listing,
    named_people,
    require_one,
    settled,
    warn_unknown,
)

Basket = Sequence[Any] | Sequence[Sequence[Any]] | Mapping[Any, Sequence[Any]]
"""Raw item ids in the order they were added: one person's, a list per person, or lists by a person's id."""


def asked_people(
    dataset: Dataset,
    source: HistorySource,
    users: Any,
    histories: Given | None,
    basket: Basket | None,
    unknown: Unknown,
    when: int | None = None,
) -> People:
    """Who is asked about: known users, people whose histories are given, or people of whom there is only a basket.

    Parameters
    ----------
    dataset
        The one that the model was fitted on: its users may have vectors of their own.
    source
        Gives the histories of known users.
    users, histories
        Raw ids or given histories, not both. With neither, everyone; or, where there is a basket, the people whom it
        names, or as many unknown ones as it has lists.
    basket
        What they have put into the session in progress; None where nobody is in the middle of one.
    when
        The moment of the question; now if None.
    unknown
        As for `settled`; users with a basket are kept under "skip".

    Raises
    ------
    ConfigError
        Users and histories at once, or a basket that does not fit the people.
    DataError
        Histories or baskets that are no lists.
    UnknownIdError
        All users are unknown and have no basket, or some are and `unknown` is "error".
    """
    require_one(users, histories)
    if basket is None:
        if histories is None:
            return listed_people(source, users, unknown).asked_at(when)
        return given_people(dataset, source, histories, when)
    if not isinstance(basket, Mapping) and not is_scalar(basket):
        basket = list(basket)
    if users is None and histories is None:
        if isinstance(basket, Mapping):
            users = list(basket)
        else:
            histories = [[]] * (1 if _is_flat(basket) else len(basket))
    if histories is not None:
        return with_baskets(given_people(dataset, source, histories, when), basket, source.catalogue)[0]
    people, has_basket = with_baskets(named_people(source, users).asked_at(when), basket, source.catalogue)
    return settled(source, people, unknown, has_basket)


def with_baskets(people: People, basket: Basket, catalogue: Vocabulary) -> tuple[People, npt.NDArray[np.bool_]]:
    """The same people in the middle of a session.

    Items that the catalogue does not hold are left out, with a warning; a repeated item counts where it came first.

    Parameters
    ----------
    people
        n people.
    basket
        A list for the one person, a list per person in their order, or lists by id.
    catalogue
        The known items.

    Returns
    -------
    people
        n people, their baskets laid behind their histories.
    given
        (n,) who was given a basket, be it an empty one; a mapping may leave people out, whose basket is then empty.

    Raises
    ------
    ConfigError
        One list for several people, another number of lists than of people, or a mapping that names others.
    DataError
        Not lists of items.
    """
    rows, lists = _by_person(basket, people.ids)
    items, offsets, unknown = encoded_lists(catalogue, lists, "baskets")
    if len(unknown):
        before = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        emptied = int(((before > 0) & (np.diff(offsets) == 0)).sum())
        warn_unknown("items", unknown, _left_out(len(lists), emptied))
    items, offsets = _once(items, offsets)
    starts, ends = np.zeros((2, len(people)), dtype=np.int64)
    starts[rows], ends[rows] = offsets[:-1], offsets[1:]
    given = np.zeros(len(people), dtype=np.bool_)
    given[rows] = True
    baskets = Histories(people.histories.users, items, starts, ends)
    return replace(people, histories=joined(people.histories, baskets)), given


def joined(histories: Histories, baskets: Histories) -> Histories:
    """Each of n histories, followed by the user's session in progress, one of n baskets."""
    laid = spread(histories, baskets.lengths)
    ends = laid.ends + baskets.lengths
    laid.items[positions(laid.ends, ends)] = baskets.seen()[1]
    return replace(laid, ends=ends)


def spread(histories: Histories, room: Int64) -> Histories:
    """The same histories one after the other in arrays of their own, with `room` (n,) free places behind each.

    Users who were not in the middle of a session are now at the beginning of one. Free places have the time of the
    question or, if it is asked now, of the newest item of the history. The positions of sessions are those
    in the new array: every history and every session in progress begins one.
    """
    offsets = offsets_of(histories.lengths + room)
    starts = offsets[:-1]
    moved = starts - histories.starts
    new, old = positions(starts, histories.ends + moved), positions(histories.starts, histories.ends)
    items = np.zeros(offsets[-1], dtype=np.int32)
    items[new] = histories.items[old]
    times = None
    if histories.times is not None:
        times = np.zeros(offsets[-1], dtype=np.int64)
        times[new] = histories.times[old]
        times[positions(histories.ends + moved, offsets[1:])] = np.repeat(_asked_at(histories), room)
    baskets = (histories.ends if histories.baskets is None else histories.baskets) + moved
    sessions = histories.session_offsets
    if sessions is not None:
        first, last = np.searchsorted(sessions, histories.starts), np.searchsorted(sessions, histories.ends)
        begins = sessions[positions(first, last)] + moved[rows_of(first, last)]
        sessions = np.unique(np.concatenate([starts, begins, baskets, offsets[-1:]]))
    return Histories(
        histories.users, items, starts, histories.ends + moved, times, baskets, sessions, histories.moments
    )


def _asked_at(histories: Histories) -> Int64:
    """Times (n,) of items that join now: the moment of the question, or the time of the newest item."""
    assert histories.times is not None
    if not len(histories.times):
        return np.zeros(len(histories), dtype=np.int64) if histories.moments is None else histories.moments
    newest = np.where(histories.lengths > 0, histories.times[np.maximum(histories.ends - 1, 0)], 0)
    return newest if histories.moments is None else np.maximum(newest, histories.moments)


def in_progress(histories: Histories) -> Histories | None:
    """Of each history what belongs to the session in progress; None if nobody is in the middle of one."""
    return None if histories.baskets is None else replace(histories, starts=histories.baskets)


def _is_flat(basket: Any) -> bool:
    """Whether the basket is that of one person: no list within it."""
    return is_scalar(basket) or all(map(is_scalar, basket))


def _by_person(basket: Basket, ids: pl.Series) -> tuple[Int64, list[Any]]:
    """Baskets (m) and which of the people `ids` (n) they belong to (m,)."""
    if is_scalar(basket):
        raise DataError(f"basket={basket!r} is one value: a basket is a list of items, such as [{basket!r}].")
    if isinstance(basket, Mapping):
        return _named(as_ids(list(basket)), ids), list(basket.values())
    lists = list(basket)
    if _is_flat(lists) and (lists or len(ids)):
        if len(ids) != 1:
            raise ConfigError(
                f"basket is one list of items, and {len(ids):,} people are asked about: give a list for each of them, "
                "in their order, or a mapping from person to list."
            )
        return np.zeros(1, dtype=np.int64), [lists]
    if any(map(is_scalar, lists)):
        raise DataError("basket mixes items and lists: give a list of items for one person, or a list for each.")
    if len(lists) != len(ids):
        raise ConfigError(
            f"{len(lists):,} baskets and {len(ids):,} people (each counted once): give one for each, in their order, "
            "or a mapping from person to list."
        )
    return np.arange(len(ids), dtype=np.int64), lists


def _named(names: pl.Series, ids: pl.Series) -> Int64:
    """Which of the people `ids` (n) each of the names (m) is, (m,)."""
    codes = Vocabulary.in_order(ids).encode(names)
    others = names.filter(pl.Series(codes == 0)).to_list()
    if others:
        raise ConfigError(f"basket names people who are not asked about: {listing(others)}. Ask about them too.")
    return codes - 1


def _left_out(baskets: int, emptied: int) -> str:
    """What happened to unknown items, for the warning."""
    if baskets == 1:
        return "left out of the basket" + ", which now counts as empty" * emptied
    counts = "counts" if emptied == 1 else "count"
    return "left out of the baskets" + (f", {emptied:,} of which now {counts} as empty" if emptied else "")


def _once(items: npt.NDArray[np.int32], offsets: Int64) -> tuple[npt.NDArray[np.int32], Int64]:
    """Lists laid end to end without their repeats: items (any,) and offsets (n + 1,)."""
    rows = rows_of(offsets[:-1], offsets[1:])
    _, first = np.unique(rows * (int(items.max(initial=0)) + 1) + items, return_index=True)
    kept = np.sort(first)
    return items[kept], offsets_of(np.bincount(rows[kept], minlength=len(offsets) - 1))
