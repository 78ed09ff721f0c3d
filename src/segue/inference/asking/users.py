"""Who is asked about: raw ids or given histories become rows of `Histories`; unknown ids are reported, not lost."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.dataset import Dataset
from segue.data.histories import Histories
from segue.data.ragged import Int64, offsets_of
from segue.data.sources import HistorySource, given_histories, is_frame
from segue.data.vocabulary import Vocabulary, as_ids
from segue.errors import ConfigError, DataError, nearest
from segue.inference.scorer import Scorer
from segue.models.ratings import RatingModel

Unknown = Literal["skip", "popular", "error"]
"""What to do about users whom the Recommender does not know and whose history is not given."""

Given = Mapping[Any, Sequence[Any]] | Sequence[Sequence[Any]] | Any
"""Histories: lists of raw item ids, oldest first, by user id or in order (users are then numbered from 0); or a frame
with `user, item[, time][, session]`."""

_SHOWN = 5


class UnknownIdWarning(UserWarning):
    """Some of the ids asked for are unknown; the others were answered.

    Attributes
    ----------
    what
        "users" or "items".
    ids
        The unknown raw ids.
    """

    def __init__(self, what: str, ids: list[Any], consequence: str) -> None:
        noun = what.removesuffix("s") if len(ids) == 1 else what
        super().__init__(f"{len(ids):,} unknown {noun} {consequence}: {listing(ids)}.")
        self.what = what
        self.ids = ids


class UnratedItemWarning(UserWarning):
    """Some of the items that a model of ratings was asked about have no rating in training.

    Attributes
    ----------
    ids
        Their raw ids.
    """

    def __init__(self, ids: list[Any]) -> None:
        what = "item has" if len(ids) == 1 else "items have"
        super().__init__(
            f"{len(ids):,} {what} no ratings in training: what is expected of them rests on the user and on what is "
            f"usual, not on anything known of the item: {listing(ids)}."
        )
        self.ids = ids


@dataclass(frozen=True, eq=False)
class People:
    """n people to answer for.

    Attributes
    ----------
    ids
        (n,) raw ids.
    histories
        (n) their histories, some of them perhaps empty, with the baskets of those in the middle of a session; user code
        0 for people the model does not know.
    known
        (n,) bool: False for ids of which nothing is known.
    """

    ids: pl.Series
    histories: Histories
    known: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)

    def met_by(self, scorer: Scorer) -> npt.NDArray[np.bool_]:
        """(n,) whom the model answers: all, or those with a history or a basket; popularity answers the others."""
        return (self.histories.lengths > 0) | (not scorer.needs_history)

    def asked_at(self, when: int | None) -> People:
        """The same people, asked at one moment; now, for None."""
        if when is None:
            return self
        moments = np.full(len(self), when, dtype=np.int64)
        return replace(self, histories=replace(self.histories, moments=moments))

    def before(self, when: int) -> People:
        """The same users, with only the part of their given histories before a moment.

        Raises
        ------
        ConfigError
            The histories have no times.
        """
        histories = self.histories
        if histories.times is None:
            raise ConfigError("as_of cuts histories by their times, and the given ones have none: cut them yourself.")
        late = np.concatenate([[0], np.cumsum(histories.times >= when)])
        dropped = late[histories.ends] - late[histories.starts]
        return replace(self, histories=replace(histories, ends=histories.ends - dropped))

    def select(self, index: npt.NDArray[np.int64] | slice) -> People:
        """The people at `index`, in its order."""
        return People(self.ids[index], self.histories.select(index), self.known[index])


def listed_people(source: HistorySource, users: Any, unknown: Unknown) -> People:
    """People by raw id, each once, in the order given.

    Parameters
    ----------
    source
        Gives their histories.
    users
        A raw id, several of them, or None for everyone in the vocabulary.
    unknown
        As for `settled`.

    Raises
    ------
    UnknownIdError
        All ids are unknown, or some are and `unknown` is "error".
    """
    return settled(source, named_people(source, users), unknown)


def named_people(source: HistorySource, users: Any) -> People:
    """Users by raw id, each once, in the order given, unknown ones included; everyone for None."""
    if users is None:
        codes = np.arange(1, len(source.users) + 1, dtype=np.int64)
        return People(source.users.ids, source.histories(codes), codes > 0)
    ids = each_once(as_ids(as_list(users)))
    codes = source.users.encode(ids)
    return People(ids, source.histories(codes), codes > 0)


def settled(
    source: HistorySource, people: People, unknown: Unknown, has_basket: npt.NDArray[np.bool_] | None = None
) -> People:
    """Those of the people who are answered.

    Parameters
    ----------
    source
        Knows users.
    people
        n people by raw id.
    unknown
        What is done about unknown ones: "skip" leaves them out, except for those with a basket, and warns of both;
        "popular" keeps them; "error" refuses them.
    has_basket
        (n,) who has been given one; nobody when None.

    Raises
    ------
    UnknownIdError
        Nobody is left, or some are unknown and `unknown` is "error".
    """
    if unknown not in ("skip", "popular", "error"):
        raise ConfigError(f"unknown={unknown!r}: {nearest(str(unknown), ['skip', 'popular', 'error'])}.")
    strange = ~people.known
    if unknown == "error":
        source.users.require(people.ids, "user")
    elif unknown == "skip" and strange.any():
        kept = ~strange if has_basket is None else ~strange | has_basket
        if len(people) and not kept.any():
            source.users.require(people.ids, "user")
        warn_unknown("users", people.ids.filter(pl.Series(~kept)), "left out")
        warn_unknown("users", people.ids.filter(pl.Series(strange & kept)), "answered without a history")
        people = people.select(np.flatnonzero(kept))
    if people.ids.dtype == source.users.ids.dtype:
        return people
    same_type = people.ids.cast(source.users.ids.dtype, strict=False)
    return replace(people, ids=people.ids if same_type.null_count() else same_type)


def given_people(dataset: Dataset, source: HistorySource, histories: Given, when: int | None = None) -> People:
    """Users by the histories that are given for them.

    Items that the catalogue does not hold are left out, with a warning. A user whose id is known keeps it, so that a
    model with user vectors can use it; the given history takes the place of the stored one. Histories given as a frame
    have its times and sessions; `when`, the moment of the question, cuts them.

    Raises
    ------
    ConfigError
        `when` is given, and the histories have no times.
    DataError
        `histories` is not a mapping, a sequence of sequences or a frame.
    """
    if is_frame(histories):
        ids, rows, unknown = given_histories(dataset, source, histories)
    else:
        if isinstance(histories, Mapping):
            ids = as_ids(list(histories))
            codes, lists = source.users.encode(ids), list(histories.values())
        else:
            lists = list(histories)
            ids, codes = pl.Series(np.arange(len(lists), dtype=np.int64)), np.zeros(len(lists), dtype=np.int64)
        items, offsets, unknown = encoded_lists(source.catalogue, lists, "histories")
        users = np.where(codes <= dataset.n_users, codes, 0)
        rows = Histories(users, items, offsets[:-1], offsets[1:])
    warn_unknown("items", unknown, "left out of the histories")
    people = People(ids, rows, np.ones(len(ids), dtype=np.bool_))
    return people if when is None else people.before(when).asked_at(when)


def encoded_lists(catalogue: Vocabulary, lists: list[Any], what: str) -> tuple[npt.NDArray[np.int32], Int64, pl.Series]:
    """Lists of raw item ids as codes, laid end to end, without the unknown ones.

    Parameters
    ----------
    catalogue
        The known items.
    lists
        n lists.
    what
        What they are, for the message.

    Returns
    -------
    items
        (any,) int32 codes.
    offsets
        (n + 1,) where each list begins, and the end.
    unknown
        The raw ids that were left out.

    Raises
    ------
    DataError
        Something among `lists` is no list.
    """
    if any(map(is_scalar, lists)):
        raise DataError(
            f"{what} are lists of items, one per person: write {{'ann': ['tea', 'milk']}} or [['tea', 'milk']]."
        )
    offsets = offsets_of(np.fromiter(map(len, lists), dtype=np.int64, count=len(lists)))
    raw = as_ids(list(chain.from_iterable(lists)))
    codes = catalogue.encode(raw)
    known = np.concatenate([[0], np.cumsum(codes > 0)])[offsets]
    return codes[codes > 0].astype(np.int32), known, raw.filter(pl.Series(codes == 0))


def known_codes(vocabulary: Vocabulary, ids: Iterable[Any], what: str, consequence: str) -> Int64:
    """Codes of the known ones among raw ids; the others are warned of.

    Raises
    ------
    UnknownIdError
        There are ids, and none of them is known.
    """
    asked = as_ids(ids)
    codes = vocabulary.encode(asked)
    if len(asked) and not codes.any():
        vocabulary.require(asked, what.removesuffix("s"))
    if codes.all():
        return codes
    warn_unknown(what, asked.filter(pl.Series(codes == 0)), consequence)
    return codes[codes > 0]


def warn_unknown(what: str, ids: pl.Series, consequence: str) -> None:
    """Warn of unknown ids, if there are any."""
    if len(ids):
        warning = UnknownIdWarning(what, ids.unique(maintain_order=True).to_list(), consequence)
        warnings.warn(warning, stacklevel=_levels_to_caller())


def warn_unrated(scorer: Scorer, catalogue: Vocabulary, items: Int64) -> None:
    """Warn of those among item codes, 0 being none, of which a model of ratings knows no rating, if there are any."""
    model = scorer.model
    if not isinstance(model, RatingModel):
        return
    asked = np.unique(items)
    unrated = asked[model.unrated().cpu().numpy()[asked] & (asked > 0)]
    if len(unrated):
        warning = UnratedItemWarning(catalogue.decode(unrated).to_list())
        warnings.warn(warning, stacklevel=_levels_to_caller())


def each_once(ids: pl.Series) -> pl.Series:
    """The ids without repeats, in their order."""
    return ids if len(ids) < 2 else ids.unique(maintain_order=True)


def as_list(ids: Any) -> Iterable[Any]:
    """One raw id as a list of one; several as they are."""
    return [ids] if is_scalar(ids) else ids


def require_one(users: Any, histories: Any) -> None:
    """Refuse both users and histories at once."""
    if users is not None and histories is not None:
        raise ConfigError("give users or histories, not both: a history stands for its own person.")


def asked_items(catalogue: Vocabulary, items: Any) -> Int64:
    """Codes of the known ones among raw item ids, each once; of the whole catalogue for None."""
    if items is None:
        return np.arange(1, len(catalogue) + 1, dtype=np.int64)
    return known_codes(catalogue, each_once(as_ids(as_list(items))), "items", "left out")


def allowed_items(
    catalogue: Vocabulary, allow: Iterable[Any] | None, deny: Iterable[Any] | None
) -> npt.NDArray[np.bool_] | None:
    """(n_items + 1,) which item codes may be recommended, or None for all."""
    if allow is None and deny is None:
        return None
    allowed = np.full(len(catalogue) + 1, allow is None)
    if allow is not None:
        allowed[asked_items(catalogue, allow)] = True
    if deny is not None:
        denied = as_ids(as_list(deny))
        codes = catalogue.encode(denied)
        warn_unknown("items", denied.filter(pl.Series(codes == 0)), "ignored in deny")
        allowed[codes] = False
    allowed[0] = False
    return allowed


def listing(ids: list[Any]) -> str:
    """The first few raw ids, and how many there are besides."""
    more = f" and {len(ids) - _SHOWN:,} more" if len(ids) > _SHOWN else ""
    return ", ".join(map(repr, ids[:_SHOWN])) + more


def _levels_to_caller() -> int:
    """The `stacklevel` that makes a warning point at the line outside segue that asked."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("segue."):
        level, frame = level + 1, frame.f_back
    return level


def is_scalar(value: Any) -> bool:
    """Whether it is one raw id rather than several: text counts as one."""
    return isinstance(value, (str, bytes)) or not isinstance(value, Iterable)
