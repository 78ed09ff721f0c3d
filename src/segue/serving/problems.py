"""Errors as JSON in the form of RFC 9457, with the message that the library gives."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from segue.errors import ConfigError, DataError, SegueError, StorageError, UnknownIdError
from segue.serving.schemas import Problem, json_encode

log = logging.getLogger("segue.serving")

PROBLEM_JSON = "application/problem+json"


class Refused(Exception):
    """Request that is answered with an error.

    Parameters
    ----------
    status
        Status of the answer.
    kind
        Name of the kind of error, such as "too-many-requests".
    detail
        Message: the fault, the expected value and the way out.
    headers
        Further headers of the answer.
    """

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.headers = dict(headers or {})

    @property
    def problem(self) -> Problem:
        """Body of the answer."""
        return Problem(
            type=f"urn:segue:problem:{self.kind}",
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
        )

    def response(self) -> Response:
        """The answer."""
        return Response(json_encode(self.problem), self.status, self.headers, PROBLEM_JSON)


def busy(detail: str) -> Refused:
    """Answer while the service is at its limit: the same request may be sent again a second later."""
    return Refused(503, "busy", detail, {"Retry-After": "1"})


def refused(error: Exception) -> Refused:
    """The answer to any error. Only errors for users keep their message; others are logged and become a plain 500."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, UnknownIdError):
        return Refused(404, "unknown-id", str(error))
    if isinstance(error, ConfigError | DataError):
        return Refused(422, "not-possible", str(error))
    if isinstance(error, StorageError):
        log.error("%s", error)
        return Refused(
            503, "store-unavailable", "the store of events does not answer; try again later.", {"Retry-After": "1"}
        )
    if isinstance(error, SegueError):
        log.error("%s", error)
        return Refused(500, "failed", str(error))
    log.error("an unexpected error", exc_info=error)
    return Refused(500, "internal", "an internal error; the log of the service says more.")
