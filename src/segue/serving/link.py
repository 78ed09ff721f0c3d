"""The connection of the two processes of a service: messages with their length in front, over a pair of sockets.

The HTTP process reads requests, checks rights and limits, and sends calls. The model process answers them. Python runs
one thread of a process at a time, so that HTTP and the model in one process would wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import msgspec
from msgspec import Struct

from segue.serving.config import ServiceConfig
from segue.serving.tokens import Token

_LENGTH = 4
"""Bytes of the length of a message."""


class Call(Struct, array_like=True, tag=0, gc=False):
    """Call of an operation.

    Attributes
    ----------
    number
        Number of the call in this connection.
    name
        Name of the operation.
    body
        Body, or parameters of the query, as JSON; empty without any.
    id
        Id in the path, or an empty text.
    variant
        Variant that the query names.
    """

    number: int
    name: str
    body: bytes = b""
    id: str = ""
    variant: str | None = None


class Reply(Struct, array_like=True, tag=1, gc=False):
    """Answer to a call.

    Attributes
    ----------
    number
        Number of the call.
    status
        Status of HTTP.
    content
        Body, as JSON or text.
    headers
        Further headers.
    """

    number: int
    status: int
    content: bytes
    headers: dict[str, str] | None = None


class Listening(Struct, array_like=True, tag=2):
    """Note of the HTTP process: it listens."""


class Drain(Struct, array_like=True, tag=3):
    """Order to the HTTP process: take no further connection, answer what was asked, and end."""


Message = Call | Reply | Listening | Drain


@dataclass(frozen=True)
class FrontSettings:
    """Settings that the model process sends to the HTTP process.

    Attributes
    ----------
    config
        Settings of the service.
    tokens
        Known tokens.
    local
        Answer only requests for this machine's own names: see `make_app`.
    """

    config: ServiceConfig
    tokens: tuple[Token, ...]
    local: bool


class Link(asyncio.Protocol):
    """One end of the connection.

    Parameters
    ----------
    receive
        Called with each message that arrives.
    lost
        Called when the other end is gone.
    """

    def __init__(self, receive: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._receive, self._lost = receive, lost
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(Message)
        self._content = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Say that the other end is gone."""
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Hand on the messages that are complete."""
        content = self._content
        content += data
        first = 0
        while len(content) - first >= _LENGTH:
            end = first + _LENGTH + int.from_bytes(content[first : first + _LENGTH], "big")
            if len(content) < end:
                break
            message = self._decoder.decode(bytes(content[first + _LENGTH : end]))
            first = end
            self._receive(message)
        del content[:first]

    def send(self, message: Message) -> None:
        """Send a message."""
        content = self._encoder.encode(message)
        self._transport.write(len(content).to_bytes(_LENGTH, "big") + content)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()
