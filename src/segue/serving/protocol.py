"""HTTP of uvicorn with one packet for each answer: head and body are sent together."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD, _CONTINUE = b"HTTP/1.1 ", b"HTTP/1.1 100"


class _Joined:
    """Transport that keeps the head of an answer until the first part of the body follows.

    Parameters
    ----------
    transport
        Transport that sends.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send bytes, with a head that was kept; a head of its own is kept."""
        if not self._head and data.startswith(_HEAD) and data.endswith(b"\r\n\r\n") and not data.startswith(_CONTINUE):
            self._head = data
            return
        self._transport.write(self._head + data if self._head else data)
        self._head = b""

    def flush(self) -> None:
        """Send what was kept."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Send what was kept, and close."""
        self.flush()
        self._transport.close()


class OnePacketProtocol(HttpToolsProtocol):
    """Protocol of uvicorn that sends each answer by one call of the system, which is a third of the time of HTTP."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        self._joined = _Joined(transport)
        super().connection_made(cast(asyncio.Transport, self._joined))

    def on_response_complete(self) -> None:
        """End an answer; one without a body has only a head."""
        self._joined.flush()
        super().on_response_complete()
