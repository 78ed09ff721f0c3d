"""HTTP: routes, rights, limits and headers. Starlette routes requests; the model process checks bodies and answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from segue.serving.config import ServiceConfig
from segue.serving.limits import Rates
from segue.serving.link import Reply
from segue.serving.metrics import HttpMetrics
from segue.serving.openapi import document, page
from segue.serving.operations import OPERATIONS, Operation
from segue.serving.page import POLICY, page_files
from segue.serving.problems import PROBLEM_JSON, Refused, refused
from segue.serving.schemas import json_encode
from segue.serving.tokens import Token, find

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
_NOTHING = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_PAGE = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_READ_ANYWAY = 8
"""Bodies up to this multiple of the limit are read and thrown away before they are refused."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class _AnyId(Convertor[str]):
    """An id in a path: any characters, slashes and ends of lines among them."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("any_id", _AnyId())


class ModelProcess(Protocol):
    """The process that answers."""

    async def call(self, name: str, body: bytes = b"", id: str = "", variant: str | None = None) -> Reply:
        """Call an operation, or `live`, `ready` or `metrics`; an error is a reply as well."""


def make_app(
    model: ModelProcess, config: ServiceConfig, tokens: tuple[Token, ...], local: bool, metrics: HttpMetrics
) -> ASGIApp:
    """The application.

    Parameters
    ----------
    model
        Answers.
    config
        Settings.
    tokens
        Known tokens. Without any, everyone who reaches the service has all rights.
    local
        Without tokens, answer only requests for this machine's own names and `config.hosts`, so that no page of the
        web can reach the service through a name that it points here.
    metrics
        Metrics of the requests.
    """
    guard = _Guard(model, config, tokens, local)
    routes = [
        Route(operation.path.replace("{id}", "{id:any_id}"), guard.endpoint(operation), methods=[operation.method])
        for operation in OPERATIONS
    ]
    described = json_encode(document())
    html = page().encode()

    async def openapi(request: Request) -> Response:
        return Response(described, media_type="application/json")

    async def docs(request: Request) -> Response:
        return Response(html, media_type="text/html; charset=utf-8")

    def health(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            reply = await model.call(name)
            return Response(reply.content, reply.status, media_type="application/json")

        answer.__name__ = name
        return answer

    async def all_metrics(request: Request) -> Response:
        guard.authorize(request, "read")
        reply = await model.call("metrics")
        content = metrics.text() + reply.content
        return Response(content, reply.status, media_type="text/plain; version=0.0.4; charset=utf-8")

    files = page_files()

    async def page_file(request: Request) -> Response:
        file = files.get(request.path_params.get("name", "index.html"))
        if file is None:
            raise HTTPException(404)
        return Response(file.content, media_type=file.media_type)

    routes += [
        Route("/", page_file),
        Route("/page/{name}", page_file),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/health/live", health("live")),
        Route("/health/ready", health("ready")),
        Route("/metrics", all_metrics),
    ]

    async def failed(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            words = {404: "there is no such path; /docs lists those of the API.", 405: "the path has other methods."}
            detail = words.get(error.status_code, str(error.detail))
            headers = error.headers
            if error.status_code == 405:
                headers = {"Allow": ", ".join(sorted(_methods(routes, request.url.path)))}
            return Refused(error.status_code, "not-found", detail, headers).response()
        return refused(error).response()

    app = Starlette(routes=routes, exception_handlers={HTTPException: failed, Refused: failed})
    app.router.redirect_slashes = False
    exact = {
        (operation.method, operation.path): guard.endpoint(operation)
        for operation in OPERATIONS
        if "{" not in operation.path
    }
    return _Outside(app, metrics, exact)


class _Guard:
    """Rights and limits of requests, and their bodies."""

    def __init__(self, model: ModelProcess, config: ServiceConfig, tokens: tuple[Token, ...], local: bool) -> None:
        self._model, self._tokens, self._local = model, tokens, local
        self._max_body, self._rate = config.max_body, config.rate
        self._hosts = _LOOPBACK | set(config.hosts)
        self._rates = Rates()

    def authorize(self, request: Request, right: str) -> None:
        """Raise `Refused` unless the request may do this."""
        headers = request.headers
        origin = headers.get("origin")
        host = headers.get("host", "")
        if origin is not None and origin.partition("://")[2] != host:
            raise Refused(403, "other-origin", "pages of other origins may not use this service.")
        if not self._tokens:
            if self._local and host.rpartition(":")[0 if host.rpartition(":")[2].isdigit() else 2] not in self._hosts:
                raise Refused(
                    421, "other-host", f"this service is not {host!r}: use 127.0.0.1, or name the host in --hosts."
                )
            client, rate = request.client.host if request.client else "", self._rate
        else:
            scheme, _, secret = headers.get("authorization", "").partition(" ")
            token = find(self._tokens, secret.strip()) if scheme.lower() == "bearer" else None
            if token is None:
                raise Refused(
                    401,
                    "no-token",
                    "the request has no known token: send the header Authorization: Bearer segue_….",
                    {"WWW-Authenticate": "Bearer"},
                )
            if right not in token.rights:
                raise Refused(403, "no-right", f"the token {token.name!r} has no right to {right}.")
            client, rate = token.name, token.rate or self._rate
        if rate is not None:
            wait = self._rates.wait(client, rate)
            if wait:
                raise Refused(
                    429,
                    "too-many-requests",
                    f"more than {rate:g} requests a second: wait before the next one.",
                    {"Retry-After": str(max(1, round(wait + 0.5)))},
                )

    async def body(self, request: Request) -> bytes:
        """Body of a request, as JSON and within the limit."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise Refused(415, "not-json", "the body is not JSON: send Content-Type: application/json.")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _READ_ANYWAY * self._max_body:
            raise self._too_large()
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size <= self._max_body:
                    parts.append(part)
                elif size > _READ_ANYWAY * self._max_body:
                    raise self._too_large()
        except ClientDisconnect:
            raise Refused(400, "not-complete", "the client left before the end of the body.") from None
        if size > self._max_body:  # it was read to its end, since many clients only then read the answer
            raise self._too_large()
        return b"".join(parts)

    def _too_large(self) -> Refused:
        return Refused(413, "too-large", f"the body is larger than {self._max_body:,} bytes: send it in parts.")

    def endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """The function that answers requests of an operation."""
        name, right, query, has_body = operation.name, operation.right, operation.query, operation.body is not None
        call = self._model.call
        assert right is not None

        async def answer(request: Request) -> Response:
            try:
                self.authorize(request, right)
                body = b""
                if has_body:
                    body = await self.body(request)
                elif query is not None:
                    body = json_encode(_queried(query, request.query_params))
                raw_id = request.path_params.get("id", "")
                if "id" in request.path_params and not (0 < len(raw_id) <= 500 and "\0" not in raw_id):
                    raise Refused(422, "not-possible", "an id has 1 to 500 characters.")
                variant = request.query_params.get("variant") if operation.variant else None
                return _response(await call(name, body, raw_id, variant))
            except Exception as error:
                return refused(error).response()

        answer.__name__ = name
        return answer


def _response(reply: Reply) -> Response:
    """An answer of the model process: what was asked for, or a problem."""
    media_type = "application/json" if reply.status == 200 else PROBLEM_JSON
    return Response(reply.content, reply.status, reply.headers, media_type)


def _methods(routes: Sequence[Route], path: str) -> set[str]:
    """Methods of a path, of all its routes."""
    return set().union(*(route.methods or () for route in routes if route.path_regex.match(path)))


def _queried(query: type[Any], given: QueryParams) -> Any:
    """Parameters of the query; only `id` may occur several times."""
    if "\0" in "".join(given.values()):
        raise Refused(422, "not-valid", "the query holds a null character: no id and no text does.")
    values = {name: given.getlist(name) if name == "id" else value for name, value in given.items()}
    try:
        return msgspec.convert(values, query, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(422, "not-valid", f"{error}.") from None


class _Outside:
    """The outermost layer: headers of every answer, times and counts.

    Operations without an id in their path are found here, without a search through all routes.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: HttpMetrics,
        exact: Mapping[tuple[str, str], Callable[[Request], Awaitable[Response]]],
    ) -> None:
        self._app, self._metrics, self._exact = app, metrics, exact

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500
        path = scope["path"]
        policy = _PAGE if path == "/docs" else POLICY if path == "/" or path.startswith("/page/") else _NOTHING

        async def outward(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS, policy]
            await send(message)

        endpoint = self._exact.get((scope["method"], scope["path"]))
        try:
            if endpoint is not None:
                response = await endpoint(Request(scope, receive))
                await response(scope, receive, outward)
            else:
                await self._app(scope, receive, outward)
        finally:
            endpoint = endpoint or scope.get("endpoint")
            route = "none" if endpoint is None else endpoint.__name__
            self._metrics.observe(route, status, time.perf_counter() - begun)
