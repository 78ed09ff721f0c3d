"""Bodies of requests and answers. The OpenAPI document is made from these classes, and requests are checked by them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

MAX_EVENTS = 1_000
"""Events in a request."""
MAX_USERS = 1_000
"""Questions in a request."""
MAX_K = 1_000
"""Length of a list."""
MAX_HISTORY = 10_000
"""Items in a given history."""
MAX_ITEMS = 10_000
"""Items that a request names otherwise."""
MAX_STEPS = 100
"""Steps of the completion of a basket."""
MAX_FOUND = 200
"""Users or items that a search finds."""
MAX_REASONS = 100
"""Reasons for an item."""
MAX_RULES = 100
"""Columns that a request names, and boosted values of a column."""
MAX_CONDITION = 4_000
"""Characters of a condition."""

_YEAR_1, _YEAR_9999 = -62_135_596_800, 253_402_300_799
"""First and last second of the times that ISO 8601 writes with four digits of the year."""

Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Text = Annotated[str, Meta(min_length=1, max_length=500)]
Id = Integer | Text
"""Raw id of a user or an item, as in the log: 42 and "42" are the same id."""

Instant = (
    Annotated[float, Meta(ge=_YEAR_1, le=_YEAR_9999, description="Seconds since 1970.")]
    | Annotated[
        str,
        Meta(min_length=4, max_length=40, description="ISO 8601; UTC if it has no zone."),
    ]
)
"""A time."""

Type = Literal["took", "shown", "clicked", "retracted"]
Short = Annotated[str, Meta(min_length=1, max_length=200)]
Ids = Annotated[list[Id], Meta(max_length=MAX_ITEMS)]
Weight = Annotated[float, Meta(ge=-1e6, le=1e6)]
Value = str | int | float | bool | list[str | float] | None
"""Value of a column of the item table."""
Columns = dict[str, Value]


class Request(Struct, forbid_unknown_fields=True):
    """Base of the bodies of requests: unknown fields are errors."""


class Past(Request):
    """An item of a given history."""

    item: Id
    time: Instant | None = None
    session: Id | None = None


History = Annotated[list[Past | Integer | Text], Meta(max_length=MAX_HISTORY)]
"""A history, oldest item first: ids, or items with times (all or none of them)."""


class Subject(Request, kw_only=True):
    """A user, a given history, or a basket; a basket may stand beside either of the others."""

    user: Id | None = None
    history: History | None = None
    basket: Ids | None = None
    as_of: Instant | None = None
    variant: Short | None = None


Condition = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_CONDITION,
        description="Condition on the item table, in SQL: price < 20 AND category = 'tea'.",
    ),
]


class RecommendRequest(Subject, kw_only=True):
    """Question for a list of next items."""

    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    exclude_seen: bool | None = None
    allow: Ids | None = None
    deny: Ids | None = None
    explain: Annotated[int, Meta(ge=0, le=MAX_REASONS, description="Reasons for each item.")] = 0
    where: Condition | None = None
    boost: Annotated[
        Annotated[dict[Short, Annotated[dict[str, Weight], Meta(max_length=MAX_RULES)]], Meta(max_length=MAX_RULES)]
        | None,
        Meta(description="Numbers to add to the scores, by column and category."),
    ] = None
    at_most: Annotated[
        Annotated[dict[Short, Annotated[int, Meta(ge=1, le=MAX_K)]], Meta(max_length=MAX_RULES)] | None,
        Meta(description="Largest number of items of the same category in a list, by column."),
    ] = None
    diversity: Annotated[float, Meta(ge=0, le=1, description="Weight of diversity; 0 = none.")] = 0.0
    diversity_by: Annotated[
        Short | None, Meta(description="Column of the similarity; the vectors of the model when not given.")
    ] = None
    show: Annotated[
        Annotated[list[Short], Meta(max_length=MAX_RULES)] | None,
        Meta(description="Columns of the item table to add to the answer."),
    ] = None
    unknown: Annotated[
        Literal["popular", "error"],
        Meta(description="Users without history: answered by popularity, or refused."),
    ] = "popular"


class RecommendBatch(Request):
    """Several questions."""

    requests: Annotated[list[RecommendRequest], Meta(min_length=1, max_length=MAX_USERS)]


class ScoreRequest(Subject, kw_only=True):
    """Question for the scores of items."""

    items: Annotated[list[Id], Meta(min_length=1, max_length=MAX_ITEMS)]


class CompleteRequest(Subject, kw_only=True):
    """Question for the completion of a basket, step by step."""

    n: Annotated[int, Meta(ge=1, le=MAX_STEPS)] = 5
    exclude_seen: bool | None = None
    allow: Ids | None = None
    deny: Ids | None = None
    where: Condition | None = None


class ExplainRequest(Subject, kw_only=True):
    """Question for the reasons of scores."""

    items: Annotated[list[Id], Meta(min_length=1, max_length=MAX_STEPS)]
    by: list[Literal["item", "basket", "session", "user", "repeats"]] | None = None
    measure: Literal["score", "log-probability"] = "score"
    top: Annotated[int, Meta(ge=1, le=MAX_HISTORY)] | None = None


class SimilarRequest(Request, kw_only=True):
    """Question for similar items."""

    items: Annotated[list[Id], Meta(min_length=1, max_length=MAX_STEPS)]
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 10
    variant: Short | None = None


class FindUsers(Request, kw_only=True):
    """Search for users."""

    query: Annotated[str, Meta(max_length=500, description="Beginning of the id; empty for any user.")] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_FOUND)] = 20
    variant: Short | None = None


class FindItems(Request, kw_only=True):
    """Search for items."""

    query: Annotated[str, Meta(max_length=500, description="Beginning of the id, or a part of the title.")] = ""
    limit: Annotated[int, Meta(ge=1, le=MAX_FOUND)] = 20
    id: Annotated[
        list[Text],
        Meta(max_length=MAX_FOUND, description="These items, in place of a search; unknown ones are left out."),
    ] = []
    variant: Short | None = None


class Event(Request, kw_only=True):
    """Something that happened between a user and an item."""

    user: Id
    item: Id
    time: Annotated[Instant | None, Meta(description="Now when not given.")] = None
    session: Id | None = None
    rating: float | None = None
    type: Annotated[
        Type,
        Meta(
            description="Only `took` joins the history. `retracted` takes back the event with this event_id; without "
            "one, the newest of the user with the item."
        ),
    ] = "took"
    event_id: Annotated[Short | None, Meta(description="The same event_id again changes nothing.")] = None
    recommendation_id: Short | None = None


Events = Event | Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class NewItem(Request, kw_only=True):
    """An item for the catalogue, with the columns of the item table. Columns that are not named keep their values."""

    item: Id
    title: Text | None = None
    columns: Annotated[dict[Short, Value], Meta(max_length=MAX_RULES)] = {}


NewItems = NewItem | Annotated[list[NewItem], Meta(min_length=1, max_length=MAX_EVENTS)]


class Answer(Struct, omit_defaults=True):
    """Base of the bodies of answers."""


class Reason(Answer):
    """A part of the history, and its effect on the score."""

    kind: str
    effect: float
    because: int | str | None = None
    because_title: str | None = None
    position: int | None = None
    time: str | int | None = None
    attention: float | None = None
    repeats: Annotated[
        str | None, Meta(description='Of the kind "repeats": how often the item was taken, and when for the last time.')
    ] = None


class Recommended(Answer):
    """An item of a list."""

    item: int | str
    score: float
    rank: int
    title: str | None = None
    reasons: list[Reason] | None = None
    columns: Annotated[Columns | None, Meta(description="Those of `show`.")] = None


class Recommendation(Answer):
    """A list. `model` is "popularity" for users without history and basket."""

    recommendation_id: str
    variant: str
    model: str
    items: list[Recommended]
    user: int | str | None = None
    unknown_items: list[int | str] | None = None


class Problem(Answer, kw_only=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Answered(Answer):
    """Answer to one of several questions: a list, or the problem of a question that cannot be answered."""

    recommendation: Recommendation | None = None
    problem: Problem | None = None


class BatchAnswer(Answer):
    """Answers in the order of the questions."""

    answers: list[Answered]


class Scored(Answer):
    """An item with its score."""

    item: int | str
    score: Annotated[float | None, Meta(description="null if there is none for the item.")]
    title: str | None = None


class Scores(Answer):
    """Scores in the order of the items; unknown ones are left out."""

    variant: str
    model: str
    items: list[Scored]
    unknown_items: list[int | str] | None = None


class Step(Answer):
    """A step of the completion of a basket."""

    item: int | str
    score: float
    step: int
    model: str
    title: str | None = None


class Completion(Answer):
    """Steps of the completion of a basket."""

    variant: str
    items: list[Step]
    unknown_items: list[int | str] | None = None


class Explained(Answer):
    """Reasons of the score of an item."""

    item: int | str
    score: float
    reasons: list[Reason]
    title: str | None = None


class Explanation(Answer):
    """Reasons, strongest first; items without reasons are left out."""

    variant: str
    model: str
    items: list[Explained]
    unknown_items: list[int | str] | None = None


class Neighbour(Answer):
    """A similar item, by the cosine of the item vectors."""

    item: int | str
    similar: int | str
    score: float
    rank: int
    title: str | None = None
    similar_title: str | None = None


class Neighbours(Answer):
    """Similar items."""

    variant: str
    model: str
    items: list[Neighbour]
    unknown_items: list[int | str] | None = None


class Stored(Answer):
    """Outcome of storing events: they are on the disk."""

    stored: Annotated[int, Meta(description="New events.")]
    repeated: Annotated[int, Meta(description="Events whose event_id was there already.")]
    retracted: Annotated[int, Meta(description="Events that were taken back.")]
    unknown_items: Annotated[int, Meta(description="Events with items that the model does not know; they are kept.")]
    event_ids: list[str]


class StoredEvent(Answer):
    """An event in the store."""

    event_id: str
    type: Type
    item: str
    time: Annotated[str, Meta(description="ISO 8601, UTC.")]
    session: str | None = None
    rating: float | None = None
    recommendation_id: str | None = None


class HistoryItem(Answer):
    """An item of a history, with the time in the form of the log."""

    item: int | str
    time: str | int | None = None
    title: str | None = None


class UserAnswer(Answer):
    """Newest parts of a user's history as models read it, and the user's newest stored events."""

    user: int | str
    known: Annotated[bool, Meta(description="The Dataset of the model has the user.")]
    interactions: Annotated[int, Meta(description="Length of the whole history.")]
    history: list[HistoryItem]
    events: list[StoredEvent]


class Forgotten(Answer):
    """Outcome of forgetting a user."""

    user: int | str
    deleted_events: int


class ItemAnswer(Answer):
    """An item of the catalogue."""

    item: int | str
    interactions: Annotated[int, Meta(description="Interactions in the Dataset of the model.")]
    recommended: Annotated[bool, Meta(description="False if the model cannot score the item yet.")]
    title: str | None = None
    columns: Annotated[Columns | None, Meta(description="Columns of the item table.")] = None


class VariantItems(Answer):
    """Items that were put, for one variant."""

    variant: str
    recommended: Annotated[int, Meta(description="Items that its lists may hold at once.")]
    waiting: Annotated[
        int, Meta(description="Items that it recommends after the next training: nobody took them before the last one.")
    ]


class PutItems(Answer):
    """Outcome of putting items: they are on the disk and in the catalogue of every model."""

    stored: int
    variants: list[VariantItems]


class ItemsAnswer(Answer):
    """Items that a search found."""

    items: list[ItemAnswer]


class UserEntry(Answer):
    """A user with a history."""

    user: int | str
    interactions: Annotated[int, Meta(description="Length of the history, with the stored events.")]


class UsersAnswer(Answer):
    """Users that a search found."""

    users: list[UserEntry]


class ModelAnswer(Answer):
    """A served model."""

    variant: str
    share: Annotated[float, Meta(description="Share of the users, from 0 to 1.")]
    model: str
    run: str
    loaded: Annotated[str, Meta(description="ISO 8601, UTC.")]
    users: int
    items: int
    interactions: int
    has_times: bool
    has_sessions: bool
    live_events: Annotated[int, Meta(description="Stored events on top of the Dataset.")]
    settings: dict[str, str | int | float | bool | list[str] | None]
    time_unit: Annotated[str | None, Meta(description="Unit of times that are numbers; null without times.")] = None
    repeat_share: Annotated[
        float, Meta(description="Share of the interactions whose user took the item before, in a sample of the users.")
    ] = 0.0


class Models(Answer):
    """All served models."""

    models: list[ModelAnswer]


class Reloaded(Answer):
    """Outcome of a reload: variants with a new model, and those that stay as they were."""

    reloaded: list[str]
    unchanged: list[str]


class Health(Answer):
    """State of the service."""

    status: Literal["ok", "starting", "draining", "store unavailable"]


def id_text(value: int | str) -> str:
    """Raw id as text."""
    return value if isinstance(value, str) else str(value)


json_encode = msgspec.json.Encoder().encode
