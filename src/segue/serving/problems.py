"""Errors as JSON in the form of RFC 9457, with the message that the library gives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus

from starlette.responses import Response

from segue.errors import ConfigError, DataError, SegueError, StorageError, UnknownIdError
from segue.serving.schemas import Problem, json_encode

log = logging.getLogger("segue.serving")

PROBLEM_JSON = "application/problem+json"


class Seldom:
    """Log that has an error at most once in some seconds, because thousands of requests may fail alike.

    Parameters
    ----------
    seconds
        Time between two lines. The later one counts those that were left out.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._next = 0.0
        self._left_out = 0

    def error(self, text: str) -> None:
        """Log an error, or count it."""
        with self._lock:
            now = time.monotonic()
            if now < self._next:
                self._left_out += 1
                return
            more = f" ({self._left_out} more errors since the last line)" if self._left_out else ""
            self._next, self._left_out = now + self._seconds, 0
        log.error("%s%s", text, more)


_outages = Seldom()


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
        _outages.error(str(error))
        return Refused(
            503, "store-unavailable", "the store of events does not answer; try again later.", {"Retry-After": "1"}
        )
    if isinstance(error, SegueError):
        log.error("%s", error)
        return Refused(500, "failed", str(error))
    log.error("an unexpected error", exc_info=error)
    return Refused(500, "internal", "an internal error; the log of the service says more.")
