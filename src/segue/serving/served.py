"""A served model: a Recommender with live histories, and its answers to batches of questions."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from segue.data.histories import Histories
from segue.data.ragged import offsets_of, positions, rows_of
from segue.errors import ConfigError, SegueError, UnknownIdError
from segue.inference.asking.in_progress import append_baskets, sessions_in_progress
from segue.inference.asking.own_items import OwnItems
from segue.inference.asking.users import RequestedUsers
from segue.inference.recommender import Recommender
from segue.inference.scoring.lists import FALLBACK, Rules, best_lists
from segue.serving.live import LiveHistories
from segue.serving.ranked import Ranked
from segue.serving.schemas import id_text
from segue.serving.traced import traced

Ids = Sequence[int | str]


@dataclass(slots=True)
class Question:
    """Question for a list, with raw ids.

    Attributes
    ----------
    user
        Raw id, or None.
    items, times, sessions
        A given history, oldest first, with times in microseconds since 1970 or None; `items` is None for the stored
        history.
    basket
        Items of the session in progress, or None.
    k
        Length of the list.
    exclude_seen, allow, deny
        As in `Recommender.recommend`, for this question alone.
    strict
        Refuse users without history, in place of an answer by popularity.
    """

    user: int | str | None
    items: Ids | None
    times: list[int] | None
    sessions: list[str | None] | None
    basket: Ids | None
    k: int
    exclude_seen: bool | None
    allow: Ids | None
    deny: Ids | None
    strict: bool = False


@dataclass(slots=True)
class BestItems:
    """Answer to a question: raw ids and scores, best first, the source, and unknown items of the question."""

    items: list[Any]
    scores: list[float]
    model: str
    unknown: list[int | str] = field(default_factory=list)


class Served:
    """A Recommender with live histories.

    Parameters
    ----------
    recommender
        An opened run.
    run
        Path that the run was opened from, for people.
    made
        Time of the training, in seconds since 1970; None if it is not known.
    """

    def __init__(self, recommender: Recommender, run: str, made: float | None = None) -> None:
        self.live = LiveHistories(recommender.dataset)
        self.recommender = copy.copy(recommender)
        self.recommender.source = self.live
        self.scorer = traced(recommender.scorer, recommender.dataset)
        self._ranked = Ranked.of(self.scorer)
        self.catalogue = recommender.dataset.catalogue
        self.dataset = recommender.dataset
        self.name = self.scorer.config.name
        self.run, self.made, self.loaded = run, made, time.time()
        self._shares = self.recommender._shares
        self.item_counts = self.dataset.item_counts()
        self._all_items = self.scorer.n_items

    def check(self) -> None:
        """Answer for some users, so that a model that cannot is noticed before it is served.

        Raises
        ------
        SegueError
            The model has no finite scores, or cannot answer for another reason.
        """
        users = np.flatnonzero(self.dataset.lengths[1:])[:8] + 1
        histories = self.live.histories(np.append(users, 0))
        requested = RequestedUsers(pl.Series(np.arange(len(histories))), histories, np.ones(len(histories), np.bool_))
        best_lists(self.scorer, requested, Rules(min(10, self._all_items)), self._shares)

    # ---- lists --------------------------------------------------------------------------------------------------

    def answer(self, questions: Sequence[Question]) -> list[BestItems | Exception]:
        """Answer questions together; an error takes the place of the answer that it belongs to.

        The questions are divided by their rules, because rows with a session in progress differ from those without.
        """
        groups: dict[tuple[bool, bool], list[int]] = {}
        answers: list[BestItems | Exception] = [ConfigError("")] * len(questions)
        for row, question in enumerate(questions):
            if question.k > self._all_items:
                answers[row] = ConfigError(
                    f"k is {question.k:,}, but the catalogue has only {self._all_items:,} items: ask for "
                    f"{self._all_items:,} or fewer."
                )
                continue
            in_session = question.basket is not None
            exclude = not in_session if question.exclude_seen is None else question.exclude_seen
            groups.setdefault((in_session, exclude), []).append(row)
        for (in_session, exclude), rows in groups.items():
            part = [questions[row] for row in rows]
            try:
                results: Sequence[BestItems | Exception] = self._answer(part, in_session, exclude)
            except SegueError as error:
                results = [error]
                if len(part) > 1:  # one of them may be at fault
                    results = [self.answer([question])[0] for question in part]
            for row, result in zip(rows, results, strict=True):
                answers[row] = result
        return answers

    def _answer(self, questions: list[Question], in_session: bool, exclude: bool) -> list[BestItems | Exception]:
        unknown: list[list[int | str]] = [[] for _ in questions]
        histories, known = self._histories(questions, unknown)
        if in_session:
            baskets, _ = self._lists([question.basket or () for question in questions], unknown, unique=True)
            histories = append_baskets(histories, baskets)
        requested = RequestedUsers(
            _row_numbers(len(questions)),
            histories,
            known,
            self._own([question.allow for question in questions], unknown),
            self._own([question.deny for question in questions], unknown),
        )
        allowed = requested.allowed
        k = max(question.k for question in questions)
        served_rows = requested.served_by(self.scorer)
        if self._ranked is not None and allowed is None and requested.denied is None and served_rows.all():
            hidden = histories if exclude else sessions_in_progress(histories)
            codes, scores = self._ranked.lists(histories, k, hidden)
        else:
            codes, scores = best_lists(self.scorer, requested, Rules(k, exclude), self._shares)
        served = served_rows.tolist()
        kept = codes > 0
        items = self.catalogue.decode(codes[kept]).to_list()
        values = scores[kept].tolist()
        ends = np.cumsum(kept.sum(1)).tolist()
        answers: list[BestItems | Exception] = []
        first = 0
        for row, question in enumerate(questions):
            last = ends[row]
            end = min(last, first + question.k)
            if question.strict and not served[row]:
                answers.append(self._no_history(question))
            elif question.allow and allowed is not None and allowed.starts[row] == allowed.ends[row]:
                answers.append(UnknownIdError("none of the items of allow is known: give ids as they are in the log."))
            else:
                model = self.name if served[row] else FALLBACK
                answers.append(BestItems(items[first:end], values[first:end], model, unknown[row]))
            first = last
        return answers

    def _no_history(self, question: Question) -> Exception:
        if question.user is None:
            return UnknownIdError("the history and the basket hold no known item: give ids as they are in the log.")
        return UnknownIdError(f"the user {question.user!r} has no history: send events, or a history or a basket.")

    def _histories(
        self, questions: list[Question], unknown: list[list[int | str]]
    ) -> tuple[Histories, npt.NDArray[np.bool_]]:
        """Histories of n questions, and a mask (n,) of the known users."""
        named = [row for row, question in enumerate(questions) if question.user is not None]
        codes = np.zeros(len(questions), dtype=np.int64)
        if named:
            texts = pl.Series([id_text(questions[row].user or "") for row in named], dtype=pl.String)
            codes[named] = self.live.users.encode(texts)
        given = [row for row, question in enumerate(questions) if question.items is not None]
        if not given:
            return self.live.histories(codes), codes > 0
        stored = codes.copy()
        stored[given] = 0
        histories = self.live.histories(stored)
        lists, kept = self._lists([question.items or () for question in questions], unknown)
        times = sessions = None
        rows = rows_of(histories.starts, histories.ends)
        old = positions(histories.starts, histories.ends)
        row = np.concatenate([rows, rows_of(lists.starts, lists.ends)])
        order = np.argsort(row, kind="stable")
        items = np.concatenate([histories.items[old], lists.items])[order]
        offsets = offsets_of(np.bincount(row, minlength=len(questions)))
        if histories.times is not None and all(questions[one].times is not None for one in given):
            flat = np.array([time for one in given for time in questions[one].times or ()], dtype=np.int64)
            times = np.concatenate([histories.times[old], self.live._in_units(flat)[kept]])[order]
        if histories.session_offsets is not None:
            numbers: dict[tuple[int, str | None], int] = {}
            keys = (
                (one, session)
                for one in given
                for session in questions[one].sessions or [None] * len(questions[one].items or ())
            )
            of_given = np.array([-1 - numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)[kept]
            session = np.concatenate([np.searchsorted(histories.session_offsets, old, side="right"), of_given])[order]
            begins = np.flatnonzero(np.diff(session, prepend=session[:1] - 1))
            sessions = np.unique(np.concatenate([offsets, begins]))
        users = histories.users.copy()
        users[given] = np.where(
            np.array([self.live.is_stored(int(code)) for code in codes[given]], dtype=np.bool_), codes[given], 0
        )
        return Histories(users, items, offsets[:-1], offsets[1:], times, session_offsets=sessions), codes > 0

    def _lists(
        self, lists: Sequence[Ids], unknown: list[list[int | str]], unique: bool = False
    ) -> tuple[Histories, npt.NDArray[np.bool_]]:
        """Codes of n lists of raw item ids, without unknown ones, and a mask (m,) of the known ones."""
        flat = [item for items in lists for item in items]
        rows = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
        codes = self.catalogue.encode(pl.Series(list(map(id_text, flat)), dtype=pl.String))
        known = codes > 0
        for position in np.flatnonzero(~known).tolist():
            unknown[rows[position]].append(flat[position])
        kept = known.copy()
        if unique and len(codes):
            _, first = np.unique(rows * (int(codes.max()) + 1) + codes, return_index=True)
            repeated = np.ones(len(codes), dtype=np.bool_)
            repeated[first] = False
            kept &= ~repeated
        offsets = offsets_of(np.bincount(rows[kept], minlength=len(lists)))
        users = np.zeros(len(lists), dtype=np.int64)
        return Histories(users, codes[kept].astype(np.int32), offsets[:-1], offsets[1:]), kept

    def _own(self, lists: Sequence[Ids | None], unknown: list[list[int | str]]) -> OwnItems | None:
        """Rules of single questions; None if none has a list."""
        named = np.fromiter((one is not None for one in lists), dtype=np.bool_, count=len(lists))
        if not named.any():
            return None
        rows, _ = self._lists([one or () for one in lists], unknown)
        return OwnItems(rows.items, rows.starts, rows.ends, named)


def _row_numbers(n: int) -> pl.Series:
    return _NUMBERS[:n] if n <= len(_NUMBERS) else pl.Series(np.arange(n))


_NUMBERS = pl.Series(np.arange(1024))
