"""Server-sent events of a generation: read from bytes, and followed across broken connections."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import httpx
from pydantic import ValidationError

from data_layer.client.base import Answer
from data_layer.client.transport import Call, Transport, error_of
from data_layer.client.values import GenerationStatus
from data_layer.errors import ProblemError, ServiceUnreachableError, UnexpectedAnswerError

SILENCE_SECONDS = 40.0
"""A connection that is silent for so long is broken: the service sends a comment every fifteen seconds."""
_NO_CONTENT = 204


class CodeState(Answer):
    """The whole code of a variant: at the beginning, and when what came before cannot be continued.

    Attributes:
        sequence: the number of the last piece that is in it.
    """

    event: Literal["code"] = "code"
    variant: int
    sequence: int
    status: GenerationStatus | str
    code: str
    position: str


class CodePatch(Answer):
    """What has become of the code since the last event of this variant.

    Attributes:
        start: so many characters at the beginning stay.
        end: so many characters at the end stay.
        text: stands between them.
    """

    event: Literal["patch"] = "patch"
    variant: int
    sequence: int
    start: int
    end: int
    text: str
    position: str

    def apply(self, code: str) -> str:
        """The code that follows from the one before."""
        return f"{code[: self.start]}{self.text}{code[len(code) - self.end :]}"


class StreamedEvent(Answer):
    """Something that happened while a variant was made."""

    event: Literal["event"] = "event"
    variant: int
    sequence: int
    kind: str
    payload: dict[str, Any]
    position: str


class VariantEnded(Answer):
    """A variant has ended. Its code is the one that the events before it have given."""

    event: Literal["end"] = "end"
    variant: int
    code_id: UUID
    status: GenerationStatus | str
    error_message: str | None
    position: str


FollowedEvent = CodeState | CodePatch | StreamedEvent | VariantEnded

_KINDS: Mapping[str, type[FollowedEvent]] = {
    "code": CodeState,
    "patch": CodePatch,
    "event": StreamedEvent,
    "end": VariantEnded,
}


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event as it came (WHATWG HTML, 9.2)."""

    name: str
    data: str
    id: str | None


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """The events in a stream of bytes. One that is not complete when the stream ends is dropped."""
    fields: dict[str, str] = {}
    data: list[str] = []
    rest = b""
    async for chunk in chunks:
        # Not by str.splitlines, which also divides at characters that JSON may hold.
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            name, _, value = line.decode("utf-8").partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name:
                fields[name] = value
            elif not line:
                if data:
                    yield ServerSentEvent(fields.get("event", "message"), "\n".join(data), fields.get("id"))
                fields, data = {}, []


async def follow(
    transport: Transport, path: str, after: str | None, reason: str | None
) -> AsyncGenerator[FollowedEvent]:
    """Follow a generation to its end.

    A connection that breaks or falls silent is made again, with the position of the last event, so that nothing is
    missed and nothing comes twice. It fails when no connection can be made within the patience of the client, or none
    of those that are made within it brings an event.
    """
    position = after
    patience = transport.patience
    failure: ProblemError | ServiceUnreachableError
    while True:
        call = Call("GET", path, query={"reason": reason}, headers={"Last-Event-ID": position})
        limits = httpx.Timeout(**transport.http.timeout.as_dict() | {"read": SILENCE_SECONDS})
        # Opening has the patience of every call. What it fails with is final.
        async with transport.stream(call, limits=limits) as response:
            if response.status_code == _NO_CONTENT:
                return
            try:
                async for event in read_events(response.aiter_bytes()):
                    followed = _followed(event)
                    patience.renew()
                    if followed is not None:
                        position = followed.position
                        yield followed
            except httpx.TransportError as error:
                failure = ServiceUnreachableError(f"GET {path} broke off: {str(error) or type(error).__name__}")
            except ProblemError as problem:
                if problem.status < 500:
                    raise
                failure = problem
            else:
                # At its end the stream ends, and so does that of a process that stops: the next answer says which.
                failure = ServiceUnreachableError(f"GET {path} ends again and again without an event")
        if not await patience.wait():
            raise failure


def _followed(event: ServerSentEvent) -> FollowedEvent | None:
    """What is reported to the caller. Not ``reconnect``, after which the stream ends, nor what is not known yet."""
    if event.name == "problem":
        problem = _json_object(event.data)
        status = problem.get("status")
        raise error_of(problem, status if isinstance(status, int) else 500)
    kind = _KINDS.get(event.name)
    if kind is None:
        return None
    try:
        return kind.model_validate_json(event.data)
    except ValidationError:
        raise UnexpectedAnswerError(f"an event {event.name} does not fit {kind.__name__}; update the client") from None


def _json_object(data: str) -> dict[str, Any]:
    """What the data says; nothing, if it is anything else than an object."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
