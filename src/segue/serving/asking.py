"""Requests as calls of the Recommender, and its frames as answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from segue.data.ragged import Int64
from segue.errors import ConfigError, UnknownIdError
from segue.inference.explaining.repeats import with_texts
from segue.serving.schemas import (
    CompleteRequest,
    Completion,
    Explained,
    ExplainRequest,
    Explanation,
    HistoryItem,
    ItemAnswer,
    Neighbour,
    Neighbours,
    Past,
    Reason,
    RecommendRequest,
    Scored,
    ScoreRequest,
    Scores,
    SimilarRequest,
    Step,
    StoredEvent,
    Subject,
    UserAnswer,
    id_text,
)
from segue.serving.served import BestItems, ListRules, Question, Served, dated_frame
from segue.serving.store.base import NAMES, Row
from segue.serving.times import as_json, iso, microseconds

_NEWEST = 1_000
"""Length of the history, and number of events, in an answer about a user."""


def question_of(request: RecommendRequest) -> Question:
    """Question for the model that a request asks.

    Raises
    ------
    ConfigError
        The request names nobody, or only some items of the history have times.
    """
    _check(request)
    items, times, sessions = _history(request)
    return Question(
        request.user,
        items,
        times,
        sessions,
        request.basket,
        request.k,
        request.exclude_seen,
        request.allow,
        request.deny,
        request.unknown == "error",
        rules_of(request),
        request.show or None,
    )


def rules_of(request: RecommendRequest) -> ListRules | None:
    """Rules over the item table that a request names; None without any."""
    rules = ListRules(request.where, request.boost, request.at_most, request.diversity, request.diversity_by)
    return None if rules == _NO_RULES else rules


def takes_long(request: RecommendRequest) -> bool:
    """True if other requests should not wait for the answer."""
    return request.as_of is not None or bool(request.explain) or rules_of(request) is not None


_NO_RULES = ListRules()


def recommend(served: Served, request: RecommendRequest) -> tuple[BestItems, list[list[Reason]] | None]:
    """Answer to a question about an earlier time, with reasons, or with rules; all may take long."""
    question = question_of(request)
    if request.as_of is None:
        (answer,) = served.answer([question])
        if isinstance(answer, Exception):
            raise answer
    else:
        lists = served.recommender.recommend(
            **_subject(served, request),
            k=request.k,
            exclude_seen=request.exclude_seen,
            allow=None if request.allow is None else _texts(request.allow),
            deny=None if request.deny is None else _texts(request.deny),
            unknown="error" if request.unknown == "error" else "popular",
            where=request.where,
            boost=request.boost,
            at_most=request.at_most,
            diversity=request.diversity,
            diversity_by=request.diversity_by,
        )
        model = lists["model"][0] if len(lists) else served.name
        answer = BestItems(lists["item"].to_list(), lists["score"].to_list(), str(model), _unknown(served, request))
        answer.titles = None if served.titles is None else served.titles_of(answer.items)
        if request.show:
            answer.columns = served.columns_of(answer.items, request.show)
    if not request.explain:
        return answer, None
    if answer.model != served.name or not answer.items:
        return answer, [[] for _ in answer.items]
    reasons = _reasons(served, request, answer.items, top=request.explain)
    return answer, [[reason for reason, _ in reasons.get(item, [])] for item in answer.items]


def score(served: Served, variant: str, request: ScoreRequest) -> Scores:
    """Scores of items."""
    _check(request)
    frame = served.recommender.score(
        **_subject(served, request), items=_texts(request.items), unknown="popular", long=True
    )
    return Scores(
        variant,
        str(frame["model"][0]),
        [
            Scored(item, value, title)
            for item, value, title in zip(
                frame["item"], frame["score"], served.titles_of(frame["item"].to_list()), strict=True
            )
        ],
        _unknown(served, request, request.items) or None,
    )


def complete(served: Served, variant: str, request: CompleteRequest) -> Completion:
    """Steps of the completion of a basket."""
    if request.basket is None:
        request.basket = []
    frame = served.recommender.complete(
        **_subject(served, request),
        n=request.n,
        exclude_seen=request.exclude_seen,
        allow=None if request.allow is None else _texts(request.allow),
        deny=None if request.deny is None else _texts(request.deny),
        where=request.where,
        unknown="popular",
    )
    steps = frame.select("item", "score", "step", "model").rows()
    listed = [*(request.allow or ()), *(request.deny or ())]
    return Completion(
        variant,
        [
            Step(item, value, step, str(model), title)
            for (item, value, step, model), title in zip(
                steps, served.titles_of([step[0] for step in steps]), strict=True
            )
        ],
        _unknown(served, request, listed) or None,
    )


def explain(served: Served, variant: str, request: ExplainRequest) -> Explanation:
    """Reasons of scores."""
    _check(request)
    reasons = _reasons(served, request, request.items, request.by, request.measure, request.top)
    return Explanation(
        variant,
        served.name,
        [
            Explained(item, pairs[0][1], [reason for reason, _ in pairs], title)
            for (item, pairs), title in zip(reasons.items(), served.titles_of(list(reasons)), strict=True)
        ],
        _unknown(served, request, request.items) or None,
    )


def similar(served: Served, variant: str, request: SimilarRequest) -> Neighbours:
    """Similar items."""
    frame = served.recommender.similar(_texts(request.items), request.k)
    rows = frame.select("item", "similar", "score", "rank").rows()
    unknown = _unknown_among(served, request.items)
    titles = [served.titles_of([row[column] for row in rows]) for column in (0, 1)]
    neighbours = [Neighbour(*row, *both) for row, *both in zip(rows, *titles, strict=True)]
    return Neighbours(variant, served.name, neighbours, unknown or None)


def user_answer(served: Served, user: str, events: list[Row]) -> UserAnswer:
    """Newest parts of a user's history, and the user's newest events.

    Raises
    ------
    UnknownIdError
        Neither the Dataset nor the store has the user.
    """
    code = int(served.live.users.encode(pl.Series([user]))[0])
    histories = served.live.histories(np.array([code]))
    known = served.live.is_stored(code)
    if not known and not events and not histories.lengths[0]:
        raise UnknownIdError(f"the user {user!r} is unknown: neither the Dataset nor the store of events has it.")
    cut = histories.last(_NEWEST)
    part = slice(int(cut.starts[0]), int(cut.ends[0]))
    items = served.catalogue.decode(cut.items[part])
    times: list[Any] = [None] * len(items)
    if cut.times is not None:
        times = [as_json(time) for time in served.dataset.times_as_given(pl.Series(cut.times[part]))]
    return UserAnswer(
        _as_known(served.dataset.users.ids, user),
        known,
        int(histories.lengths[0]),
        [
            HistoryItem(item, time, title)
            for item, time, title in zip(items, times, served.titles_of(items.to_list()), strict=True)
        ],
        [
            StoredEvent(
                row.event_id,
                NAMES[row.kind],  # type: ignore[arg-type]
                row.item,
                iso(row.time),
                row.session,
                row.rating,
                row.recommendation_id,
            )
            for row in events[:_NEWEST]
        ],
    )


def item_answer(served: Served, item: str) -> ItemAnswer:
    """An item of the catalogue.

    Raises
    ------
    UnknownIdError
        The catalogue does not have it.
    """
    code = served.catalogue.require([item], "item")
    known = served.catalogue.decode(code)[0]
    (title,), (columns,) = served.titles_of([known]), served.columns_of([known])
    counts = served.item_counts
    return ItemAnswer(known, int(counts[code[0]]), served.recommends(int(code[0])), title, columns or None)


def _check(request: Subject) -> None:
    if request.user is None and request.history is None and request.basket is None:
        raise ConfigError("the request names nobody: give user, history or basket.")


def _history(request: Subject) -> tuple[list[int | str] | None, list[int] | None, list[str | None] | None]:
    """Items, times and sessions of a given history, oldest first; None if it is not given, or has none of them."""
    history = request.history
    if history is None:
        return None, None, None
    items: list[Any] = [one.item if isinstance(one, Past) else one for one in history]
    given = [one.time if isinstance(one, Past) else None for one in history]
    sessions = [None if not isinstance(one, Past) or one.session is None else id_text(one.session) for one in history]
    named = None if all(one is None for one in sessions) else sessions
    if all(one is None for one in given):
        return items, None, named
    times = [microseconds(one) for one in given if one is not None]
    if len(times) < len(given):
        raise ConfigError("only some items of the history have a time: give it for all of them, or for none.")
    order = sorted(range(len(times)), key=times.__getitem__)
    named = None if named is None else [named[row] for row in order]
    return [items[row] for row in order], [times[row] for row in order], named


def _subject(served: Served, request: Subject) -> dict[str, Any]:
    """Arguments of the Recommender's methods: users or histories, basket and as_of."""
    arguments: dict[str, Any] = {}
    items, times, sessions = _history(request)
    user = None if request.user is None else id_text(request.user)
    if items is not None:
        name = user or served.unknown_user()
        texts = _texts(items)
        arguments["histories"] = dated_frame(texts, times, sessions, name) if times else {name: texts}
    elif user is not None:
        arguments["users"] = [user]
    if request.basket is not None:
        arguments["basket"] = _texts(request.basket)
    if request.as_of is not None:
        arguments["as_of"] = served.live.timestamp(microseconds(request.as_of) / 1e6)
        if not served.live.has_times:
            arguments["as_of"] = request.as_of  # the Recommender says what is missing
    return arguments


def _texts(ids: list[int | str]) -> list[str]:
    return list(map(id_text, ids))


def _reasons(
    served: Served,
    request: Subject,
    items: list[Any],
    by: Any = None,
    measure: Any = "score",
    top: int | None = None,
) -> dict[Any, list[tuple[Reason, float]]]:
    """Reasons, and the score that they explain, by item."""
    frame = served.recommender.explain(
        **_subject(served, request), items=_texts(items), by=by, measure=measure, top=top
    )
    if "times" in frame.columns:
        frame = with_texts(frame, served.dataset)
    reasons: dict[Any, list[tuple[Reason, float]]] = {}
    titles = _because_titles(served, frame)
    for row, title in zip(frame.iter_rows(named=True), titles, strict=True):
        reason = Reason(
            row["kind"],
            row["effect"],
            row["because"],
            title,
            row["position"],
            as_json(row.get("time")),
            row.get("attention"),
            row.get("repeats"),
        )
        reasons.setdefault(row["item"], []).append((reason, row["score"]))
    return reasons


def _because_titles(served: Served, frame: pl.DataFrame) -> list[str | None]:
    """Titles of the items that were left out, row by row; None for sessions and users."""
    is_item = frame["kind"].is_in(["item", "basket", "repeats"]).to_list()
    rows = [row for row, one in enumerate(is_item) if one]
    because = frame["because"].to_list()
    titles: list[str | None] = [None] * len(frame)
    for row, title in zip(rows, served.titles_of([because[row] for row in rows]), strict=True):
        titles[row] = title
    return titles


def _unknown(served: Served, request: Subject, further: list[int | str] | None = None) -> list[int | str]:
    """Unknown items of a request."""
    items, _, _ = _history(request)
    listed = [*(items or ()), *(request.basket or ()), *(further or ())]
    if isinstance(request, RecommendRequest):
        listed += [*(request.allow or ()), *(request.deny or ())]
    return _unknown_among(served, listed)


def _unknown_among(served: Served, ids: list[int | str]) -> list[int | str]:
    if not ids:
        return []
    codes: Int64 = served.catalogue.encode(pl.Series(_texts(ids), dtype=pl.String))
    return [ids[row] for row in np.flatnonzero(codes == 0).tolist()]


def _as_known(ids: pl.Series, user: str) -> int | str:
    """A raw id in the type of the Dataset's ids, if it can be written so."""
    if ids.dtype == pl.Int64 and user.removeprefix("-").isdigit() and user.isascii() and str(int(user)) == user:
        return int(user)
    return user
