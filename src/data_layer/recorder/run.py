"""One request of a page, on its way into the tables while its answers pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Protocol
from uuid import UUID, uuid4

from data_layer.concurrency import Backoff, uninterrupted
from data_layer.entities.enums import GenerationStatus
from data_layer.errors import (
    DataLayerError,
    GenerationEndedError,
    InvalidValueError,
    LimitReachedError,
    NotFoundError,
    WriterReplacedError,
)
from data_layer.layer import DataLayer
from data_layer.observability.log import get_log
from data_layer.recorder.assets import MOST_OF_A_RUN, named_in
from data_layer.recorder.delivery import (
    Place,
    VariantRecord,
    find_place,
    generation_request,
    inputs_of,
    is_transient,
    packed_request,
    packed_variant,
    received,
    remember_request,
    store_media,
)
from data_layer.recorder.protocol import Request, parse_request, without_secrets
from data_layer.recorder.spill import HeldMedia, SpillFolder
from data_layer.recorder.tape import End, Tape, event_of
from data_layer.schemas.actors import Actor
from data_layer.schemas.generations import (
    Piece,
    StartedGeneration,
    VariantModel,
    VariantResult,
    WholeCode,
)
from data_layer.services.generations.text import encoded, storable

log = get_log(__name__)

DRAIN_SECONDS = 0.2
"""How often what was said is handed over."""
PATIENCE_SECONDS = 5.0
"""How long an ended request waits for the database before it goes to disk."""
_RENEW_SECONDS = 5.0
_LONGEST_MESSAGE = 10_000


class Keeper(Protocol):
    """What runs share."""

    async def settle(self, run: Run, code: str) -> None:
        """Return when a version that has this code, and is being recorded, can be found."""

    def keep_assets(self, actor: Actor, project_id: UUID, addresses: Iterable[str]) -> None:
        """Keep images in the background."""


class Run:
    """Records what a tape hears, until it ends.

    Args:
        data: records it.
        spill: takes what the database does not.
        actor: whose request it is.
        tape: hears the connection.
        stop: ends the application's task, when somebody cancels elsewhere.
        keeper: what it shares with other runs.
    """

    def __init__(
        self,
        data: DataLayer,
        spill: SpillFolder,
        actor: Actor,
        tape: Tape,
        *,
        stop: Callable[[], object],
        keeper: Keeper,
    ) -> None:
        self.key = uuid4().hex
        self._data = data
        self._spill = spill
        self.actor = actor
        self._tape = tape
        self._stop = stop
        self._keeper = keeper
        self._at = datetime.now(UTC)
        self._begun_at = monotonic()
        self._request: Request | None = None
        self._media: list[HeldMedia] = []
        self._place: Place | None = None
        self._started: StartedGeneration | None = None
        self._attempts = 0
        self._sequences: dict[int, int] = {}
        self._named: set[str] = set()
        """Images that are being kept."""
        self._done: set[int] = set()
        self._detached: set[int] = set()
        """Variants that somebody else has ended or writes: how they really end is delivered afterwards."""
        self._pauses = Backoff(0.2, 2.0)
        self._failing_since: float | None = None
        self._renewed_at = monotonic()

    async def record(self) -> None:
        """Return when everything is recorded, or lies on disk. Cancelled, it leaves what was not recorded on disk."""
        try:
            while not await self._attempt():
                if self._tape.has_ended and self._has_no_patience:
                    await self._keep()
                    return
                if self._failing_since is None:
                    await self._tape.news(_RENEW_SECONDS)
                    if not self._tape.has_ended:
                        await asyncio.sleep(DRAIN_SECONDS)
                else:
                    await asyncio.sleep(self._pauses.next())
        except asyncio.CancelledError:
            self._tape.end("the service was stopped")
            await self._keep()
            raise

    def writes(self, actor: Actor, code: str) -> bool:
        """Whether a variant of this person has this code now, and is not recorded yet."""
        if actor.user_id != self.actor.user_id:
            return False
        waiting = (variant for index, variant in self._tape.variants.items() if index not in self._done)
        return any(variant.read().strip() == code.strip() for variant in waiting)

    @property
    def _has_no_patience(self) -> bool:
        return self._failing_since is not None and monotonic() - self._failing_since > PATIENCE_SECONDS

    async def _attempt(self) -> bool:
        """Record what there is; whether everything is recorded."""
        for index, variant in self._tape.variants.items():
            if index not in self._done:
                variant.note_growth()
        try:
            is_complete = await self._advance()
        except Exception as error:
            if is_transient(error):
                await self._note_failure(error)
                return False
            if isinstance(error, NotFoundError) and self._started is not None:
                return True  # The project was deleted meanwhile.
            if isinstance(error, DataLayerError):
                log.error("generation_not_recorded", code=error.code, reason=str(error))  # noqa: TRY400  (not a stdlib logger)
            else:
                log.error("generation_not_recorded", exc_info=error, code=type(error).__name__)  # noqa: TRY400  (not a stdlib logger)
            await self._keep_whole()
            return True
        if self._failing_since is not None:
            self._failing_since = None
            self._pauses.reset()
        return is_complete

    async def _keep_whole(self) -> None:
        """Keep on disk what cannot be recorded while it lasts, once all of it was said."""
        while not self._tape.has_ended:
            await self._tape.news(_RENEW_SECONDS)
        await self._keep()

    async def _note_failure(self, error: Exception) -> None:
        if self._failing_since is None:
            self._failing_since = monotonic()
            log.warning("recording_waits", code=getattr(error, "code", type(error).__name__))
        if self._started is None and self._media:
            try:
                await asyncio.to_thread(self._spill.hold, self.key, self._media)
            except OSError as full:
                log.warning("media_not_held", reason=type(full).__name__)

    async def _advance(self) -> bool:
        tape = self._tape
        if self._request is None and not await self._read_request():
            return tape.has_ended
        number = tape.number
        if number is None and tape.has_ended:
            number = 1  # It failed before it said how many there would be.
        if number is None:
            return False
        if self._started is None:
            await self._begin(number)
        for index in range(number):
            if index not in self._done:
                await self._write(index)
        if len(self._done) < number:
            await self._renew()
            return False
        if self._detached:
            await self._keep()
        elif not await store_media(self._data, self.actor, self._known_started.project_id, self._media):
            raise TimeoutError("the media could not be stored")
        await asyncio.to_thread(self._spill.drop, self.key)
        return True

    async def _read_request(self) -> bool:
        """Read the request, once it is there; whether there is one."""
        if self._tape.request is None:
            return False
        request = await asyncio.to_thread(parse_request, self._tape.request)
        self._tape.request = b""
        if request is None:
            return False
        self._request = request
        self._media = await asyncio.to_thread(lambda: [HeldMedia(each) for each in request.media])
        object.__setattr__(request, "media", ())  # They are held here, so that they can leave the memory.
        return True

    async def _begin(self, number: int) -> None:
        request = self._known_request
        if self._place is None:
            if request.base_code is not None:
                await self._keeper.settle(self, request.base_code)
            self._place = await find_place(self._data, self.actor, request, key=self.key, media=self._media)
        await store_media(self._data, self.actor, self._place.project_id, self._media)
        self._attempts += 1
        # A start whose answer was lost would count as one that was sent before.
        key = self.key if self._attempts == 1 else f"{self.key}-{self._attempts}"
        try:
            self._started = await self._data.generations.start(
                self.actor,
                self._place.project_id,
                generation_request(request, key, self._place.parent_id, inputs_of(request, self._media)),
                [self._model(index) for index in range(number)],
                conversation=received(request, key, self._at),
            )
        except NotFoundError:
            self._place = None  # It was deleted in this moment.
            raise TimeoutError("the project was deleted") from None
        await remember_request(self._data, self.actor, request, self._media, self._place.project_id)
        log.info("recording_began", generation_id=str(self._started.id), project_id=str(self._place.project_id))

    async def _write(self, index: int) -> None:
        """Hand over what is new of a variant, and its end."""
        if index in self._detached:
            if self._tape.end_of(index) is not None:
                self._done.add(index)
            return
        try:
            await self._append(index)
            end = self._tape.end_of(index)
            if end is not None:
                await self._end(index, end)
                self._done.add(index)
        except GenerationEndedError as error:
            self._note_end_elsewhere(index, GenerationStatus(error.status))
        except WriterReplacedError:
            self._detached.add(index)

    async def _append(self, index: int) -> None:
        variant = self._tape.variants.get(index)
        if variant is None:
            return
        events = variant.take_events()
        pieces: list[Piece] = [event_of(each, self._known_request.secrets) for each in events]
        code, is_changed = variant.read(), variant.is_changed
        if is_changed:
            pieces.append(WholeCode(code))
        if not pieces:
            return
        variant.is_changed = False
        self._keep_named(pieces)
        try:
            await self._append_pieces(index, pieces)
        except (LimitReachedError, InvalidValueError):
            # Events are worth less than the code; a code that is too large is not kept.
            with suppress(InvalidValueError):
                await self._append_pieces(index, pieces[-1:] if is_changed else [])
        except BaseException:
            variant.is_changed = variant.is_changed or is_changed
            variant.return_events(events)
            raise

    def _keep_named(self, pieces: list[Piece]) -> None:
        """Have the images kept that were named, while they are alive."""
        wanted = sorted(named_in(pieces) - self._named)[: MOST_OF_A_RUN - len(self._named)]
        if wanted:
            self._named |= set(wanted)
            self._keeper.keep_assets(self.actor, self._known_started.project_id, wanted)

    async def _append_pieces(self, index: int, pieces: list[Piece]) -> None:
        sequence = self._sequences.get(index, 0) + 1
        self._sequences[index] = await self._data.generations.append(self.actor, self._token, index, sequence, *pieces)

    async def _end(self, index: int, end: End) -> None:
        result = self._result(index).model_copy(
            update={"generation_time_seconds": round(monotonic() - self._begun_at, 3)}
        )
        generations = self._data.generations
        match end.status:
            case GenerationStatus.COMPLETED:
                await generations.complete(self.actor, self._token, index, result)
            case GenerationStatus.CANCELLED:
                await generations.report_usage(self.actor, self._token, index, result)
                await generations.cancel(self.actor, self._known_started.id, index)
            case _:
                said = without_secrets(end.message or "the variant failed", self._known_request.secrets)
                message = storable(encoded(said))[0][:_LONGEST_MESSAGE]
                await generations.fail(self.actor, self._token, index, message, result=result)

    def _note_end_elsewhere(self, index: int, status: GenerationStatus) -> None:
        """Somebody else has ended a variant: a person who cancelled, or its lease has run out in an outage."""
        if status is GenerationStatus.FAILED:
            self._detached.add(index)
            return
        self._done.add(index)
        if status is GenerationStatus.CANCELLED and not self._tape.has_ended:
            number = self._tape.number or 0
            if len(self._done) >= number:
                self._stop()

    async def _renew(self) -> None:
        """Keep the lease while the model thinks."""
        if monotonic() - self._renewed_at >= _RENEW_SECONDS:
            self._renewed_at = monotonic()
            await self._data.generations.renew(self.actor, self._token)

    async def _keep(self) -> None:
        """Write to disk what was not recorded."""
        if self._request is None and not await self._read_request():
            return
        variants = [self._record_of(index) for index in range(self._tape.number or 1) if self._is_kept(index)]
        started, place = self._started, self._place
        record = {
            "key": self.key,
            "owner_id": str(self.actor.user_id),
            "at": self._at.isoformat(),
            "request": packed_request(self._known_request),
            "project_id": None if place is None else str(place.project_id),
            "generation_id": None if started is None else str(started.id),
            "parent_id": None if place is None or place.parent_id is None else str(place.parent_id),
            "media": [
                {"name": f"media-{number}", "content_type": each.content_type}
                for number, each in enumerate(self._media)
                if each.file_id is None and not each.is_refused
            ],
            "variants": [packed_variant(each) for each in variants],
        }
        try:
            is_kept = await uninterrupted(asyncio.to_thread(self._spill.keep, self.key, record, self._media))
        except OSError as error:
            log.error("recording_lost", reason=type(error).__name__)  # noqa: TRY400  (not a stdlib logger)
        else:
            log.warning("recording_kept_on_disk", key=self.key, is_kept=is_kept)

    def _is_kept(self, index: int) -> bool:
        return index in self._detached or index not in self._done

    def _record_of(self, index: int) -> VariantRecord:
        secrets = self._known_request.secrets
        variant = self._tape.variants.get(index)
        code = "" if variant is None else variant.read()
        end = self._tape.end_of(index) or End(GenerationStatus.FAILED, "the service was stopped")
        events = () if variant is None else tuple(event_of(each, secrets) for each in variant.events)
        known = index, end.status, code, without_secrets(end.message, secrets), self._result(index)
        growth = None if variant is None else variant.packed_growth()
        return VariantRecord(*known, events, self._sequences.get(index, 0), growth)

    def _known_model(self, index: int) -> VariantModel | None:
        models = self._tape.models
        return models[index] if index < len(models) else None

    def _result(self, index: int) -> VariantResult:
        """What is known of a variant; the name that was announced says more than the one of the provider."""
        variant = self._tape.variants.get(index)
        used = VariantResult() if variant is None or variant.used is None else variant.used
        return used.model_copy(update={"model": self._known_model(index) or used.model})

    def _model(self, index: int) -> VariantModel:
        return self._known_model(index) or VariantModel()

    @property
    def _known_request(self) -> Request:
        if self._request is None:
            raise AssertionError("there is no request yet")
        return self._request

    @property
    def _known_started(self) -> StartedGeneration:
        if self._started is None:
            raise AssertionError("it has not begun")
        return self._started

    @property
    def _token(self) -> str:
        return self._known_started.writer_token
