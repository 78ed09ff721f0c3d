"""Answers of the model process to the calls of the HTTP process."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from segue.serving.link import Call, Link, Message, Reply
from segue.serving.operations import OPERATIONS
from segue.serving.problems import Refused, refused
from segue.serving.schemas import Health, json_encode
from segue.serving.service import Service

_NULL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The null character in JSON; behind another backslash it is only text."""


class Answering:
    """Answers to calls: those of the API, and `live`, `ready` and `metrics`.

    Parameters
    ----------
    service
        The service.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._operations = {
            operation.name: (
                operation.call,
                None if (kind := operation.body or operation.query) is None else msgspec.json.Decoder(kind),
            )
            for operation in OPERATIONS
        }
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, link: Link, message: Message) -> None:
        """Answer a message when its result is there."""
        if isinstance(message, Call):
            task = asyncio.get_running_loop().create_task(self._reply(link, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _reply(self, link: Link, call: Call) -> None:
        try:
            link.send(await self._answer(call))
        except Exception as error:
            refusal = refused(error)
            link.send(Reply(call.number, refusal.status, json_encode(refusal.problem), refusal.headers))

    async def _answer(self, call: Call) -> Reply:
        if call.name == "live":
            return Reply(call.number, 200, json_encode(Health("ok")))
        if call.name == "ready":
            status, health = await self._health()
            return Reply(call.number, status, json_encode(health))
        if call.name == "metrics":
            return Reply(call.number, 200, self._service.metrics.text())
        function, decoder = self._operations[call.name]
        body = None if decoder is None else _decoded(decoder, call.body)
        return Reply(call.number, 200, json_encode(await function(self._service, body, call.id, call.variant)))

    async def _health(self) -> tuple[int, Health]:
        if self._service.draining:
            return 503, Health("draining")
        try:
            reachable = await self._service.engine.run(self._service.journal.store.reachable)
        except Refused:
            reachable = True  # busy, and so alive
        return (200, Health("ok")) if reachable else (503, Health("store unavailable"))


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """A body, checked.

    Raises
    ------
    Refused
        It is no JSON, or not what the operation takes.
    """
    if b"\\u0000" in body and _NULL.search(body):
        raise Refused(422, "not-valid", "the body holds a null character: no id and no text does.")
    try:
        try:
            value = decoder.decode(body)
        except msgspec.ValidationError as error:
            if "`float`" not in str(error):
                raise
            value = msgspec.convert(_with_integers(msgspec.json.decode(body)), decoder.type)
    except msgspec.ValidationError as error:
        raise Refused(422, "not-valid", f"{error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "not-json", f"the body is not JSON: {error}.") from None
    return value


def _with_integers(value: Any) -> Any:
    """The same content with 3.0 as the integer 3: JSON knows only numbers, and some clients write integers so."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, list):
        return list(map(_with_integers, value))
    return {name: _with_integers(one) for name, one in value.items()} if isinstance(value, dict) else value
