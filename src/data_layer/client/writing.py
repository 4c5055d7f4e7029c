"""Writing a generation: what a model streams is collected, numbered and sent in batches.

=====================================================  ================================================================
it happens                                             what follows
=====================================================  ================================================================
no answer to a batch                                   it is sent again; the service passes over what it has
nothing to send for ten seconds                        the lease is renewed
the process dies                                       the lease ends; or another process takes over with ``resume``
another process takes over                             ConflictProblemError with ``generation_writer_replaced`` at the
                                                       next call, and nothing more is sent
the block ends with an exception                       what was written is sent, and variants that run end as failed
=====================================================  ================================================================
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from data_layer.client.transport import UNSET, Call, Transport, Unset
from data_layer.client.values import EndedVariant, VariantResult
from data_layer.concurrency import cancel_and_wait, is_set_within
from data_layer.errors import DataLayerError

FLUSH_SECONDS = 0.1
"""How long a piece waits for others: followers see it as fast as they can read."""
RENEW_SECONDS = 10.0
"""The lease lasts at least three times as long."""
_MOST_PIECES = 500
_MOST_CHARACTERS = 1 << 20


@dataclass(slots=True)
class _Variant:
    last_sequence: int
    pieces: list[dict[str, Any]] = field(default_factory=list)
    sending: list[dict[str, Any]] = field(default_factory=list)
    characters: int = 0
    has_ended: bool = False


class Writer:
    """Writes the variants of one generation; ``async with``.

    Args:
        transport: sends the batches.
        generation_id: which generation.
        token: of the writer.
        last_sequences: for each variant the number of the last piece that the service has.
    """

    def __init__(self, transport: Transport, generation_id: UUID, token: str, last_sequences: Sequence[int]) -> None:
        self.generation_id = generation_id
        self.token = token
        self._transport = transport
        self._path = f"/v1/generations/{generation_id}"
        self._variants = [_Variant(last) for last in last_sequences]
        self._sending = asyncio.Lock()
        self._wake = asyncio.Event()
        self._failure: DataLayerError | None = None
        self._sent_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What it was sending stays in `sending`, and is sent again.
        await cancel_and_wait(self._task)
        if failure is None:
            await self.flush()
        elif isinstance(failure, Exception) and self._failure is None:
            with suppress(DataLayerError):
                await self._give_up(failure)

    async def text(self, variant: int, text: str) -> None:
        """Continue the code of a variant."""
        pieces = self._open(variant).pieces
        if pieces and pieces[-1]["type"] == "text":
            pieces[-1]["text"] += text
            await self._added(variant, len(text))
        else:
            await self._add(variant, {"type": "text", "text": text}, len(text))

    async def code(self, variant: int, code: str) -> None:
        """Replace the code of a variant."""
        await self._add(variant, {"type": "code", "code": code}, len(code))

    async def event(self, variant: int, kind: str, payload: Mapping[str, Any] | None = None) -> None:
        """Record something that happened, such as ``thinking``."""
        await self._add(variant, {"type": "event", "kind": kind, "payload": dict(payload or {})}, 100)

    async def complete(
        self, variant: int, code: str | None = None, *, result: VariantResult | None = None
    ) -> EndedVariant:
        """End a variant with success; ``code`` stands in place of what was streamed."""
        return await self._end(variant, {"status": "completed", "code": code, "result": result or UNSET})

    async def fail(
        self,
        variant: int,
        message: str,
        *,
        details: Mapping[str, Any] | Unset = UNSET,
        result: VariantResult | None = None,
    ) -> EndedVariant:
        """End a variant without success. What was streamed of it is kept."""
        ending = {"status": "failed", "error_message": message, "error_details": details, "result": result or UNSET}
        return await self._end(variant, ending)

    async def flush(self) -> None:
        """Send everything now.

        Raises:
            ConflictProblemError: a variant has ended, or another writer has taken over.
        """
        for index in range(len(self._variants)):
            await self._send(index)
        self._raise()

    def _open(self, variant: int) -> _Variant:
        self._raise()
        if not 0 <= variant < len(self._variants):
            raise ValueError(
                f"variant {variant} does not exist: the generation has {len(self._variants)}, counted from 0"
            )
        found = self._variants[variant]
        if found.has_ended:
            raise ValueError(f"variant {variant} has ended and takes nothing more")
        return found

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _add(self, variant: int, piece: dict[str, Any], characters: int) -> None:
        self._open(variant).pieces.append(piece)
        await self._added(variant, characters)

    async def _added(self, variant: int, characters: int) -> None:
        found = self._variants[variant]
        found.characters += characters
        self._wake.set()
        # A model that is faster than the network waits here, so that memory stays bounded.
        if len(found.pieces) >= _MOST_PIECES or found.characters >= _MOST_CHARACTERS:
            await self._send(variant)
            self._raise()

    async def _send(self, index: int) -> None:
        variant = self._variants[index]
        async with self._sending:
            while self._failure is None and (variant.sending or variant.pieces):
                if not variant.sending:
                    variant.sending, variant.pieces = variant.pieces[:_MOST_PIECES], variant.pieces[_MOST_PIECES:]
                    variant.characters = 0
                body = {"variant": index, "sequence": variant.last_sequence + 1, "pieces": variant.sending}
                await self._call(Call("POST", f"{self._path}/events", body=body, is_repeatable=True))
                if self._failure is None:
                    variant.last_sequence += len(variant.sending)
                    variant.sending = []

    async def _call(self, call: Call) -> None:
        """Make a call of the background. Its failure is the one of whatever the caller does next."""
        try:
            await self._transport.respond(_with_token(call, self.token))
            self._sent_at = time.monotonic()
        except DataLayerError as error:
            self._failure = error

    async def _end(self, index: int, ending: Mapping[str, Any]) -> EndedVariant:
        variant = self._open(index)
        await self._send(index)
        self._raise()
        call = Call("PUT", f"{self._path}/variants/{index}", body=ending)
        ended = await self._transport.send(EndedVariant, _with_token(call, self.token))
        variant.has_ended = True
        self._sent_at = time.monotonic()
        return ended

    async def _give_up(self, failure: Exception) -> None:
        await self.flush()
        for index, variant in enumerate(self._variants):
            if not variant.has_ended:
                await self.fail(index, f"the writer failed: {type(failure).__name__}")

    async def _run(self) -> None:
        while self._failure is None and not all(each.has_ended for each in self._variants):
            await is_set_within(self._wake, RENEW_SECONDS / 4)
            self._wake.clear()
            await asyncio.sleep(FLUSH_SECONDS)
            for index in range(len(self._variants)):
                await self._send(index)
            if time.monotonic() - self._sent_at >= RENEW_SECONDS and self._failure is None:
                await self._call(Call("PUT", f"{self._path}/lease"))


def _with_token(call: Call, token: str) -> Call:
    return replace(call, headers={**call.headers, "Writer-Token": token})
