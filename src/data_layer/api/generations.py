"""Generations over HTTP: starting one, writing it from any process, and following it while it runs and afterwards.

A writer shows its token in ``Writer-Token``; a token that was replaced by ``POST …/writer`` writes no more.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Path, Response
from pydantic import Field, StringConstraints

from data_layer.api.event_stream import HEARTBEAT_SECONDS, event_stream
from data_layer.api.request_models import Body, Reason
from data_layer.api.routes import Call, KeyScopes, Routes
from data_layer.entities.enums import ApiScope, GenerationStatus
from data_layer.errors import InvalidValueError
from data_layer.schemas.base import Value
from data_layer.schemas.generations import (
    CodePiece,
    GenerationFull,
    GenerationRequest,
    GenerationView,
    Piece,
    StartedGeneration,
    VariantEvent,
    VariantModel,
    VariantResult,
    WholeCode,
    WriterState,
)
from data_layer.services.generations.service import generation_of

_WRITTEN_BODY = 8 * 2**20
_PIECES = 1000
_Index = Annotated[int, Path(ge=0, lt=2**15)]
_WriterToken = Annotated[str, Header(alias="Writer-Token", max_length=255)]


class NewGeneration(Body):
    """A generation to start, with one variant for each of ``models``.

    ``reserve`` is set aside in the budget for each variant.
    """

    project_id: UUID
    request: GenerationRequest = GenerationRequest()
    models: Annotated[list[VariantModel], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: [VariantModel()]
    )
    reserve: Annotated[Decimal, Field(ge=0)] | None = None
    currency: str = "USD"


class WrittenText(Body):
    """Text that continues the code."""

    type: Literal["text"]
    text: str

    def piece(self) -> Piece:
        """As the service takes it."""
        return CodePiece(self.text)


class WrittenCode(Body):
    """The whole code so far."""

    type: Literal["code"]
    code: str

    def piece(self) -> Piece:
        """As the service takes it."""
        return WholeCode(self.code)


class WrittenEvent(Body):
    """Something that happened, such as ``thinking``."""

    type: Literal["event"]
    kind: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    payload: dict[str, Any] = Field(default_factory=dict)

    def piece(self) -> Piece:
        """As the service takes it."""
        return VariantEvent(self.kind, self.payload)


class Batch(Body):
    """What was streamed to a variant; ``sequence`` is the number of the first piece, and each has the next one."""

    variant: Annotated[int, Field(ge=0, lt=2**15)]
    sequence: Annotated[int, Field(ge=1, lt=2**31)]
    pieces: Annotated[
        list[Annotated[WrittenText | WrittenCode | WrittenEvent, Field(discriminator="type")]],
        Field(min_length=1, max_length=_PIECES),
    ]


class Appended(Value):
    """The number of the last piece that the generation has."""

    sequence: int


class VariantEnding(Body):
    """How a variant ends. ``code`` stands in place of what was streamed; ``error_message`` belongs to ``failed``."""

    status: Literal[GenerationStatus.COMPLETED, GenerationStatus.FAILED]
    code: str | None = None
    result: VariantResult = VariantResult()
    error_message: str | None = None
    error_details: dict[str, Any] = Field(default_factory=dict)


class EndedVariant(Value):
    """A variant that has ended."""

    id: UUID
    variant_index: int
    status: GenerationStatus


class Selection(Body):
    """The variant that goes on."""

    variant: Annotated[int, Field(ge=0, lt=2**15)]


class Cancellation(Body):
    """Which variant to cancel; by default all that still run."""

    variant: Annotated[int, Field(ge=0, lt=2**15)] | None = None


routes = Routes("/v1/generations", "generations", keys=KeyScopes(ApiScope.READ, ApiScope.GENERATE))


@routes.post(
    "",
    summary="Start a generation",
    status_code=201,
    max_body=_WRITTEN_BODY,
    errors=[404, 409],
    location="/v1/generations/{0.id}",
)
async def start(call: Call, body: NewGeneration) -> StartedGeneration:
    """The answer holds the ids, and the token that lets its holder write the variants. It cannot be had again."""
    return await call.data.generations.start(
        call.actor, body.project_id, body.request, body.models, reserve=body.reserve, currency=body.currency
    )


@routes.get("/{generation_id}", summary="Read a generation", errors=[404, 422])
async def show(call: Call, generation_id: UUID, reason: Reason | None = None) -> GenerationFull:
    """What was asked for, and its variants without their code."""
    return await call.data.generations.open(call.actor, generation_id, reason=reason)


@routes.post("/{generation_id}/cancel", summary="Cancel a generation", errors=[404])
async def cancel(call: Call, generation_id: UUID, body: Cancellation) -> GenerationView:
    """What was streamed so far is kept. Harmless where nothing runs any more."""
    return await call.data.generations.cancel(call.actor, generation_id, body.variant)


@routes.put("/{generation_id}/selection", summary="Choose the variant that goes on", errors=[404])
async def select(call: Call, generation_id: UUID, body: Selection) -> GenerationView:
    """The new selection shows in the history of the project."""
    return await call.data.generations.select(call.actor, generation_id, body.variant)


@routes.post("/{generation_id}/writer", summary="Take over as the writer", is_shed_last=True, errors=[404, 409])
async def take_over(call: Call, generation_id: UUID) -> WriterState:
    """For a process that continues what another one began, whose token is of no use from now on."""
    return await call.data.generations.take_over(call.actor, generation_id)


@routes.put(
    "/{generation_id}/lease",
    summary="Renew the lease of the writer",
    status_code=204,
    is_shed_last=True,
    errors=[404, 409],
)
async def renew_lease(call: Call, generation_id: UUID, writer: _WriterToken) -> None:
    """For a writer that has nothing to send, such as while a model thinks. Every twenty seconds is often enough."""
    _require_token_of(generation_id, writer)
    await call.data.generations.renew(call.actor, writer)


@routes.post(
    "/{generation_id}/events",
    summary="Write what was streamed",
    max_body=_WRITTEN_BODY,
    is_shed_last=True,
    errors=[404, 409],
)
async def append(call: Call, generation_id: UUID, body: Batch, writer: _WriterToken) -> Appended:
    """It is answered when it is stored. Pieces that came before are passed over, so a batch may be sent again."""
    _require_token_of(generation_id, writer)
    pieces = [each.piece() for each in body.pieces]
    return Appended(
        sequence=await call.data.generations.write(call.actor, writer, body.variant, body.sequence, *pieces)
    )


@routes.put(
    "/{generation_id}/variants/{index}",
    summary="End a variant",
    max_body=_WRITTEN_BODY,
    is_shed_last=True,
    errors=[404, 409],
)
async def end(
    call: Call, generation_id: UUID, index: _Index, body: VariantEnding, writer: _WriterToken
) -> EndedVariant:
    """With success or without. Harmless to repeat; a variant that has ended in another way answers 409."""
    _require_token_of(generation_id, writer)
    generations = call.data.generations
    if body.status is GenerationStatus.COMPLETED:
        code = await generations.complete(call.actor, writer, index, body.result, code=body.code)
    else:
        message = body.error_message or "the variant failed"
        code = await generations.fail(
            call.actor, writer, index, message, details=body.error_details, result=body.result
        )
    return EndedVariant(id=code.id, variant_index=code.variant_index, status=code.status)


@routes.get(
    "/{generation_id}/events",
    summary="Follow a generation",
    errors=[404, 422],
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: `code` (the whole code), `patch`, `event` and `end`, each with its "
            "position as `id`; `problem` where something fails later.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        204: {"description": "The generation has ended and the client has all of it: do not connect again."},
    },
)
async def follow(
    call: Call,
    generation_id: UUID,
    last_event_id: Annotated[str | None, Header(max_length=4096)] = None,
    reason: Reason | None = None,
) -> Response:
    """First comes the code of each variant, then what changes it. ``Last-Event-ID`` goes on after an event.

    It works while the generation runs and afterwards, in any process. A comment every fifteen seconds keeps the
    connection open.
    """
    events = call.data.generations.follow(
        call.actor, generation_id, after=last_event_id or None, reason=reason, idle_seconds=HEARTBEAT_SECONDS
    )
    return await event_stream(call, events)


def _require_token_of(generation_id: UUID, writer_token: str) -> None:
    """Refuse the token of another generation, which would write that one."""
    if generation_of(writer_token) != generation_id:
        raise InvalidValueError("the writer token is not one of this generation", field="Writer-Token")
