"""Variants while they are written: coalesced in memory, stored every two seconds, held by a lease.

``append`` only touches memory, so the writer never waits for the database. What the database knows is at most two
seconds older than what was sent, as long as it can be reached.

=====================================  ================================================================================
it happens                             what follows
=====================================  ================================================================================
the process dies                       the lease runs out 40 s after the last checkpoint; the next sweep, at most 15 s
                                       later, ends the variant as failed, with the code of that checkpoint
the database cannot be reached         the stream goes on in memory within its bounds, and is stored afterwards
a checkpoint's answer is lost          it is repeated; the number of the last piece shows that it is stored already
somebody cancels in another process    the next checkpoint is refused, and so is every append after it
another writer takes over              the same
batches reach several processes        each is stored before it is answered (``GenerationService.write``), and a process
                                       that is behind reads what the others have stored
=====================================  ================================================================================
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from data_layer.concurrency import cancel_and_wait
from data_layer.entities.columns import MAXIMUM_TEXT_SIZE, json_object_of
from data_layer.entities.enums import GenerationStatus
from data_layer.entities.time_ordered_ids import id_at
from data_layer.errors import (
    DataLayerError,
    GenerationEndedError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    ValueTooLongError,
    WriterReplacedError,
)
from data_layer.observability.log import get_log
from data_layer.repositories.generations import Unsaved, VariantState
from data_layer.repositories.unit_of_work import Transactions, UnitOfWork
from data_layer.schemas.generations import CodePiece, Piece, VariantEvent, VariantResult, WholeCode
from data_layer.services.generations.accounting import merged, packed
from data_layer.services.generations.expiry import SWEEP_SECONDS, end_expired
from data_layer.services.generations.following import Followers
from data_layer.services.generations.growth import Growth, checked, end_of
from data_layer.services.generations.live import EVENT_OVERHEAD, Change, Unpublished, common_end, common_start
from data_layer.services.generations.publishing import LiveStreams, Sender
from data_layer.services.generations.text import encoded, is_storable, storable, storable_json

log = get_log(__name__)

LEASE_SECONDS = 40.0
"""How long a writer counts as alive after it has stored something."""
CHECKPOINT_SECONDS = 2.0
MAXIMUM_CODE = MAXIMUM_TEXT_SIZE
"""Largest code of a variant, in bytes."""
MAXIMUM_WAITING_EVENTS = MAXIMUM_TEXT_SIZE
"""Most bytes of a variant's events that wait for the next checkpoint."""

_LARGEST_SEQUENCE = 2**31 - 1
_LONGEST_KIND = 50
_TICK_SECONDS = 0.025
"""How often it is looked which generations are to be published, so that not all are at the same moment."""
_IDLE_SECONDS = 2 * LEASE_SECONDS
_AT_ONCE = 4


class VariantStream:
    """A variant that this process writes. ``lock`` is held while something of it is sent to the database."""

    def __init__(self, state: VariantState) -> None:
        self.id = state.id
        self.index = state.index
        self.lock = asyncio.Lock()
        self.refusal: GenerationEndedError | WriterReplacedError | NotFoundError | None = None
        self.is_dirty = False
        self.is_behind = False
        """Whether another process has stored more of it with the same token, so that this one has to read it again."""
        self._code = bytearray(encoded(state.code))
        self._started_at = state.started_at
        self._growth = Growth.resumed(state.growth, bytes(self._code), state.started_at)
        self._is_code_changed = False
        self._events: list[tuple[int, str, str]] = []
        self._event_ids: list[UUID] = []
        """They say when the events were received."""
        self._events_size = 0
        self._received = self._stored = state.last_sequence
        self._known = [state.last_sequence]
        self.reported: VariantResult | None = None
        """What its writer has said about its cost."""
        self.unpublished = Unpublished(self._code, state.last_sequence)
        if not state.status.is_running:
            self.refusal = ended_error(self.index, state.status)

    @property
    def last_sequence(self) -> int:
        """The number of the last piece that was received."""
        return self._received

    @property
    def has_unstored(self) -> bool:
        """Whether pieces were received that are not stored, as far as this process knows."""
        return self._received != self._stored

    @property
    def has_code(self) -> bool:
        """Whether there is any code."""
        return bool(self._code)

    @property
    def text(self) -> str:
        """The code, as far as it can be shown."""
        return self._code.decode(errors="replace")

    def append(self, sequence: int, pieces: Sequence[Piece]) -> None:
        """Take pieces with consecutive numbers, all or none. Those whose number was received before change nothing."""
        checked = _checked_sequence(sequence)
        new = list(enumerate(pieces, checked))[max(0, self._received + 1 - checked) :]
        if not new:
            return
        if self.refusal is not None:
            raise self.refusal
        code = self._changed_code([piece for _, piece in new])
        events = [_packed(number, piece) for number, piece in new if isinstance(piece, VariantEvent)]
        events_size = self._events_size + sum(len(payload) + EVENT_OVERHEAD for _, _, payload in events)
        if events_size > MAXIMUM_WAITING_EVENTS:
            raise LimitReachedError("too many events of this variant wait to be stored; send this one again later")
        _checked_sequence(new[-1][0])
        noted: datetime | None = None
        for whole, added in code:
            if whole is not None:
                self._replace(added)
                noted = self._take_growth(whole, added)
            elif added:
                self._code += added
                self.unpublished.note_appended()
                self._is_code_changed = True
        self._event_ids += [uuid7() if noted is None else id_at(noted) for _ in events]
        self._growth.note_continued(len(self._code))
        self._events += events
        self.unpublished.note_events(events)
        self._events_size = events_size
        self._received = new[-1][0]
        self.is_dirty = True

    def replace(self, code: str) -> None:
        """Put the final code in place of what was streamed, without a number of its own."""
        [(_, final)] = self._changed_code([WholeCode(code)])
        self._replace(final)

    @property
    def is_published(self) -> bool:
        """Whether followers know everything, or have to look for its end."""
        return self.unpublished.sequence == self._received or self.refusal is not None

    def take_change(self) -> Change:
        """What followers do not know yet."""
        return self.unpublished.take(self.index, self._code, self._received)

    def report(self, result: VariantResult) -> None:
        """Note what it has cost so far."""
        if self.refusal is not None:
            raise self.refusal
        self.reported = merged(self.reported, result)
        self.is_dirty = True

    def unsaved(self) -> Unsaved:
        """What the database does not know yet."""
        code, note, growth = self._unsaved_code() if self._is_code_changed else (None, {}, None)
        if self.reported is not None:
            note |= packed(self.reported)
        # Not this number itself: if it is there already, another process has stored it, or this one without an answer.
        known = tuple(self._known)
        if self._received not in self._known:
            self._known.append(self._received)
        return Unsaved(code, self._received, known, tuple(self._events), note, growth, tuple(self._event_ids))

    def _unsaved_code(self) -> tuple[str, dict[str, Any], bytes]:
        is_plain = is_storable(self._code)
        code, note = (self._code.decode(), {}) if is_plain else storable(self._code)
        return code, note, self._growth.packed(self._code, is_plain=is_plain)

    def mark_saved(self, unsaved: Unsaved) -> None:
        """Note that it knows all this; what was received meanwhile stays."""
        self._stored = unsaved.last_sequence
        self._known = [unsaved.last_sequence]
        del self._events[: len(unsaved.events)]
        del self._event_ids[: len(unsaved.events)]
        self._events_size = sum(len(payload) + EVENT_OVERHEAD for _, _, payload in self._events)
        if self._received == unsaved.last_sequence:
            self._is_code_changed = False

    def _replace(self, code: bytes) -> None:
        if code != self._code:
            start, end = common_start(self._code, code), common_end(self._code, code)
            self.unpublished.note_replaced(start, end)
            if start < len(self._code):
                self._growth.note_replaced(self._code, code, start, end)
            else:
                self._growth.note_continued(len(code))
            self._code[:] = code
            self._is_code_changed = True

    def _take_growth(self, whole: WholeCode, code: bytes) -> datetime | None:
        """Go on from a growth that was noted elsewhere, if there is one; returns when it ends."""
        growth = None if whole.growth is None else checked(whole.growth, storable(code)[0].encode())
        if growth is None:
            return None
        self._growth = Growth.resumed(growth, code, self._started_at)
        self._is_code_changed = True
        return end_of(growth)

    def _changed_code(self, pieces: Sequence[Piece]) -> list[tuple[WholeCode | None, bytes]]:
        """The pieces of code as bytes, each with what it is if it replaces what came before."""
        size = len(self._code)
        changes: list[tuple[WholeCode | None, bytes]] = []
        for piece in pieces:
            match piece:
                case CodePiece(str() as text):
                    changes.append((None, encoded(text)))
                    size += len(changes[-1][1])
                case WholeCode(str() as text):
                    changes.append((piece, encoded(text)))
                    size = len(changes[-1][1])
                case VariantEvent():
                    continue
                case _:
                    raise InvalidValueError(
                        "pieces must be CodePiece, WholeCode or VariantEvent, with text for their code", field="pieces"
                    )
            if size > MAXIMUM_CODE:
                raise ValueTooLongError(
                    f"the code of a variant may have {MAXIMUM_CODE} bytes at most; this piece would make it {size}",
                    field="code",
                )
        return changes


class GenerationStream:
    """A generation that this process writes."""

    def __init__(self, generation_id: UUID, writer: str, states: Sequence[VariantState]) -> None:
        self.id = generation_id
        self.writer = writer
        self.project_id = states[0].project_id
        self.owner_id = states[0].owner_id
        self.used_at = monotonic()
        self._variants = {state.index: VariantStream(state) for state in states}
        self.sender: Sender | None = None

    @property
    def variants(self) -> Sequence[VariantStream]:
        """All of them, by index."""
        return list(self._variants.values())

    @property
    def is_behind(self) -> bool:
        """Whether another process has gone on with it."""
        return any(variant.is_behind for variant in self._variants.values())

    def publish(self, *, at_once: bool = False) -> None:
        """Begin to send followers what is new."""
        if self.sender is not None:
            self.sender.send(at_once=at_once)

    def is_written_by(self, writer: str) -> bool:
        """Whether this is the hash of its writer's token."""
        return hmac.compare_digest(self.writer, writer)

    def variant(self, index: object) -> VariantStream:
        """The variant with this index.

        Raises:
            InvalidValueError: there is none.
        """
        self.used_at = monotonic()
        variant = self._variants.get(index) if isinstance(index, int) and not isinstance(index, bool) else None
        if variant is None:
            known = ", ".join(map(str, self._variants))
            raise InvalidValueError(f"variant is none of this generation; it has: {known}", field="variant")
        return variant


class GenerationStreams:
    """All generations that this process writes, and the tasks that store and publish them."""

    def __init__(self, transactions: Transactions, live: LiveStreams, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._transactions = transactions
        self.live = live
        self.followers = Followers(transactions, live)
        self.lease_seconds = lease_seconds
        self._streams: dict[UUID, GenerationStream] = {}
        self._task: asyncio.Task[None] | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._swept_at = monotonic()

    def find(self, generation_id: UUID) -> GenerationStream | None:
        """The stream of a generation, if this process writes it."""
        return self._streams.get(generation_id)

    def enter(self, stream: GenerationStream) -> GenerationStream:
        """Keep a stream, if it is still running, and store it from time to time."""
        if all(variant.refusal is not None for variant in stream.variants):
            return stream
        self._streams[stream.id] = stream
        stream.sender = self.live.sender(stream.id, stream.writer, stream.variants)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._store_regularly(), name="generation-checkpoints")
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_regularly(), name="generation-publishing")
        return stream

    def leave(self, generation_id: UUID) -> None:
        """Let go of a stream."""
        self._streams.pop(generation_id, None)

    def leave_if_ended(self, stream: GenerationStream) -> None:
        """Let go of a stream all of whose variants have ended."""
        if all(variant.refusal is not None for variant in stream.variants) and self.find(stream.id) is stream:
            self.leave(stream.id)

    async def store(self, stream: GenerationStream, variant: VariantStream) -> None:
        """Store what a variant has received, and renew its lease.

        Raises:
            DatabaseError: it could not be stored; it will be tried again.
        """
        async with variant.lock:
            if variant.refusal is not None:
                return
            stream.publish(at_once=True)  # So that what is stored can be reached by what is published, too.
            variant.is_dirty = False
            unsaved = variant.unsaved()
            try:
                async with self._transactions() as tx:
                    is_saved = await tx.generations.checkpoint(
                        variant.id, stream.project_id, stream.writer, unsaved, self.lease_seconds
                    )
                    if not is_saved:
                        variant.refusal = await refusal_of(tx, variant, stream.writer)
            except BaseException:
                variant.is_dirty = True
                raise
            if is_saved:
                variant.mark_saved(unsaved)
        self.leave_if_ended(stream)

    async def store_all(self) -> None:
        """Store everything that waits; what fails is logged and waits on."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def store(stream: GenerationStream, variant: VariantStream) -> None:
            async with limit:
                try:
                    await self.store(stream, variant)
                except DataLayerError as error:
                    log.warning("generation_not_stored", code=error.code, code_id=str(variant.id))

        waiting = [(s, v) for s in self._streams.values() for v in s.variants if v.is_dirty]
        await asyncio.gather(*(store(stream, variant) for stream, variant in waiting))

    async def close(self) -> None:
        """Store everything once more. Another process can continue with the token while the lease lasts."""
        await self.followers.close()
        await cancel_and_wait(self._task, self._publishing)
        await self.store_all()
        self._streams.clear()
        await self.live.close()

    async def _publish_regularly(self) -> None:
        while self._streams:
            await asyncio.sleep(_TICK_SECONDS)
            for stream in self._streams.values():
                stream.publish()

    async def _store_regularly(self) -> None:
        while self._streams:
            await asyncio.sleep(CHECKPOINT_SECONDS)
            await self.store_all()
            oldest = monotonic() - _IDLE_SECONDS
            for stream in list(self._streams.values()):
                if stream.used_at < oldest and not any(variant.is_dirty for variant in stream.variants):
                    self.leave(stream.id)
            await self._sweep()

    async def _sweep(self) -> None:
        """End what others left behind, so that this does not need a service that runs maintenance."""
        if monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = monotonic()
        try:
            await end_expired(self._transactions, self.live)
        except DataLayerError as error:
            log.warning("generations_not_swept", code=error.code)


async def refusal_of(
    tx: UnitOfWork, variant: VariantStream, writer: str
) -> GenerationEndedError | WriterReplacedError | NotFoundError:
    """Why a writer may not write a variant any more."""
    state = await tx.generations.state(variant.id)
    if state is None:
        return NotFoundError("the variant is gone: its project was removed")
    status, stored_writer, _ = state
    variant.is_behind = status.is_running and stored_writer == writer
    if not status.is_running and stored_writer == writer:
        return ended_error(variant.index, status)
    return WriterReplacedError(f"another writer has variant {variant.index} now; begin with take_over")


def ended_error(index: int, status: GenerationStatus) -> GenerationEndedError:
    """The error for whatever comes after the end of a variant."""
    return GenerationEndedError(f"variant {index} has ended: it is {status}", status=status)


def _checked_sequence(sequence: object) -> int:
    if isinstance(sequence, bool) or not isinstance(sequence, int) or not 1 <= sequence <= _LARGEST_SEQUENCE:
        raise InvalidValueError(f"sequence must be a number from 1 to {_LARGEST_SEQUENCE}", field="sequence")
    return sequence


def _packed(number: int, event: VariantEvent) -> tuple[int, str, str]:
    kind, payload = checked_event(event)
    return number, kind, orjson.dumps(payload).decode()


def checked_event(event: VariantEvent) -> tuple[str, dict[str, Any]]:
    """The kind and the payload of an event as they can be stored.

    Raises:
        InvalidValueError: it has no kind, or its payload is not a JSON object.
    """
    kind: object = event.kind
    if not isinstance(kind, str) or not 0 < len(kind) <= _LONGEST_KIND or not kind.isprintable():
        raise InvalidValueError(f"kind must be 1 to {_LONGEST_KIND} printable characters", field="kind")
    if not isinstance(event.payload, dict):
        raise InvalidValueError("payload must be a JSON object", field="payload")
    return kind, json_object_of("payload", storable_json(event.payload))
