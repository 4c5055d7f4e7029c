"""What the description of the API cannot say of its resources: streams, and files that are sent directly."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

import httpx

from data_layer.client.downloads import path_value
from data_layer.client.events import FollowedEvent, follow
from data_layer.client.transport import Call, File, Transport, measure, name_of, new_key, pieces
from data_layer.client.values import AssetView, DirectUpload, StartedGeneration, WriterState
from data_layer.client.writing import Writer
from data_layer.errors import ServiceUnreachableError, UnexpectedAnswerError

_FIRST_REDIRECT = 300


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the API."""

    transport: Transport


class GenerationStreams(Resource):
    """Generations while they run."""

    __slots__ = ()

    def follow(
        self, generation_id: UUID | str, *, after: str | None = None, reason: str | None = None
    ) -> AsyncGenerator[FollowedEvent]:
        """Follow a generation to its end, from its beginning or from the position of an event.

        It resumes by itself when a connection breaks, at whichever process answers. Close it (``contextlib.aclosing``)
        if you stop earlier: it holds a connection.
        """
        return follow(self.transport, f"/v1/generations/{path_value(generation_id)}/events", after, reason)

    def write(self, started: StartedGeneration) -> Writer:
        """Write a generation that has just been started: ``async with client.generations.write(started) as writer``."""
        return Writer(self.transport, started.id, started.writer_token, [0] * len(started.variant_ids))

    def resume(self, state: WriterState) -> Writer:
        """Write on with what ``take_over`` answers: another process began, and its token is of no use any more."""
        return Writer(self.transport, state.generation_id, state.writer_token, state.last_sequences)


class DirectUploads(Resource):
    """Files that go straight to the storage."""

    __slots__ = ()

    async def upload(self, file: File, *, content_type: str | None = None, file_name: str | None = None) -> AssetView:
        """Send a file of any size to the storage, and have it verified there.

        It is read twice: for its size and hash, and while it is sent. ``content_type`` is guessed from the name.
        """
        name = file_name or name_of(file)
        kind = content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        measured = await measure(file)
        body = {"content_type": kind, "size": measured.size, "sha256": measured.sha256, "file_name": name}
        call = Call("POST", "/v1/assets/uploads", body=body, headers={"Idempotency-Key": new_key()})
        target = await self.transport.send(DirectUpload, call)
        await self._send(target, file, measured.size)
        complete = Call("POST", f"/v1/assets/uploads/{target.id}/complete", is_repeatable=True)
        return await self.transport.send(AssetView, complete)

    async def _send(self, target: DirectUpload, file: File, size: int) -> None:
        """Send the bytes. The address is a secret, and no other secret goes there."""
        patience = self.transport.patience
        headers = {**target.headers, "Content-Length": str(size)}
        while True:
            try:
                async with aclosing(pieces(file)) as content:
                    response = await self.transport.http.request(
                        target.method, target.url, content=content, headers=headers
                    )
                status = response.status_code
                if status < _FIRST_REDIRECT:
                    return
                failure: Exception = UnexpectedAnswerError(f"the storage refused the file with status {status}")
                if status < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise failure
            except httpx.TransportError as error:
                failure = ServiceUnreachableError(f"the file did not reach the storage: {type(error).__name__}")
            if not await patience.wait():
                raise failure
