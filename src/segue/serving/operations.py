"""Operations of the API: method, path, bodies and rights. Routes and the OpenAPI document are made from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segue.serving import schemas
from segue.serving.tokens import Right

if TYPE_CHECKING:
    from segue.serving.service import Service  # the HTTP process needs no model


@dataclass(frozen=True)
class Operation:
    """An operation of the API.

    Attributes
    ----------
    method, path
        Where it is.
    summary
        One line for the document.
    right
        Right that a token needs; None for operations that are open to all.
    answer
        Class of the body of the answer; None for text.
    body
        Type of the body of the request; None without a body.
    call
        Function of the service, the body, the id in the path and the parameters of the query.
    variant
        The query may name a variant.
    query
        Class of the parameters of the query, which takes the place of a body; None without any.
    """

    method: str
    path: str
    summary: str
    right: Right | None
    answer: type[Any] | None
    body: Any
    call: Callable[[Service, Any, str, str | None], Awaitable[Any]]
    variant: bool = False
    query: type[Any] | None = None

    @property
    def name(self) -> str:
        """Name of the operation in the document, and of its route in the metrics."""
        words = self.path.strip("/").removeprefix("v1/").replace("/{id}", "").replace("/", "-")
        return f"{'find' if self.query is not None else self.method.lower()}-{words}"


async def _models(service: Service) -> Any:
    return service.served_models()


def _events_of(body: Any) -> list[schemas.Event]:
    return body if isinstance(body, list) else [body]


def _items_of(body: Any) -> list[schemas.NewItem]:
    return body if isinstance(body, list) else [body]


OPERATIONS = (
    Operation(
        "POST",
        "/v1/recommend",
        "Recommend the next items to a user, to a given history, or for a basket.",
        "read",
        schemas.Recommendation,
        schemas.RecommendRequest,
        lambda service, body, *_: service.recommend(body),
    ),
    Operation(
        "POST",
        "/v1/recommend/batch",
        "Answer many such questions; one that cannot be answered has a problem instead.",
        "read",
        schemas.BatchAnswer,
        schemas.RecommendBatch,
        lambda service, body, *_: service.recommend_batch(body),
    ),
    Operation(
        "POST",
        "/v1/score",
        "Score items.",
        "read",
        schemas.Scores,
        schemas.ScoreRequest,
        lambda service, body, *_: service.score(body),
    ),
    Operation(
        "POST",
        "/v1/similar",
        "Find similar items.",
        "read",
        schemas.Neighbours,
        schemas.SimilarRequest,
        lambda service, body, *_: service.similar(body),
    ),
    Operation(
        "POST",
        "/v1/complete",
        "Complete a basket, step by step.",
        "read",
        schemas.Completion,
        schemas.CompleteRequest,
        lambda service, body, *_: service.complete(body),
    ),
    Operation(
        "POST",
        "/v1/explain",
        "Explain scores by the parts of the history.",
        "read",
        schemas.Explanation,
        schemas.ExplainRequest,
        lambda service, body, *_: service.explain(body),
    ),
    Operation(
        "POST",
        "/v1/events",
        "Store one event, or up to 1,000: answered when they are on the disk.",
        "write",
        schemas.Stored,
        schemas.Events,
        lambda service, body, *_: service.events(_events_of(body)),
    ),
    Operation(
        "GET",
        "/v1/users",
        "Find users by the beginning of their ids.",
        "read",
        schemas.UsersAnswer,
        None,
        lambda service, query, *_: service.find_users(query),
        query=schemas.FindUsers,
    ),
    Operation(
        "GET",
        "/v1/users/{id}",
        "Show the history and the events of a user.",
        "read",
        schemas.UserAnswer,
        None,
        lambda service, _, user, variant: service.user(user, variant),
        variant=True,
    ),
    Operation(
        "DELETE",
        "/v1/users/{id}",
        "Forget a user: events are deleted, and earlier interactions are left out of all answers.",
        "admin",
        schemas.Forgotten,
        None,
        lambda service, _, user, __: service.forget(user),
    ),
    Operation(
        "PUT",
        "/v1/items",
        "Put one item, or up to 1,000, into the catalogue. A model recommends them when it was trained with them.",
        "write",
        schemas.PutItems,
        schemas.NewItems,
        lambda service, body, *_: service.put_items(_items_of(body)),
    ),
    Operation(
        "GET",
        "/v1/items",
        "Find items by the beginning of their ids, by their titles, or by whole ids.",
        "read",
        schemas.ItemsAnswer,
        None,
        lambda service, query, *_: service.find_items(query),
        query=schemas.FindItems,
    ),
    Operation(
        "GET",
        "/v1/items/{id}",
        "Show an item with its columns.",
        "read",
        schemas.ItemAnswer,
        None,
        lambda service, _, item, variant: service.item(item, variant),
        variant=True,
    ),
    Operation(
        "GET",
        "/v1/models",
        "Show the served models.",
        "read",
        schemas.Models,
        None,
        lambda service, *_: _models(service),
    ),
    Operation(
        "POST",
        "/v1/models/reload",
        "Open the runs that changed, and serve them if they can be served.",
        "admin",
        schemas.Reloaded,
        None,
        lambda service, *_: service.reload(),
    ),
)
