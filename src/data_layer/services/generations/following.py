"""Follow running generations: each is read once in a process, and any number of readers are served from there.

=====================================  ================================================================================
it happens                             what follows
=====================================  ================================================================================
a reader is slow                       nothing waits for it: it gets one patch for all that it missed
a reader was away                      patches if the steps since then are known (1000 of them), else the whole code
an entry is missing, or does not fit   the next checkpoint is read, and the entries after it continue that
Redis cannot be reached                checkpoints are read once a second, until it is back
the writer dies                        the lease runs out; the next reader, such as a follower, ends the variant
the database cannot be reached         the live part goes on; the end is seen when the database is back
=====================================  ================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from math import inf
from time import monotonic
from typing import Any
from uuid import UUID

import orjson

from data_layer.cache.streams import StreamWatch
from data_layer.concurrency import cancel_and_wait, is_set_within, jittered
from data_layer.errors import CacheError, DataLayerError, NotFoundError, NotInitializedError
from data_layer.observability.log import get_log
from data_layer.repositories.generations import VariantProgress
from data_layer.repositories.unit_of_work import Transactions
from data_layer.schemas.generation_stream import FollowedEvent, StreamedEvent, VariantEnded
from data_layer.services.generations.expiry import end_expired
from data_layer.services.generations.followed import FollowedVariant, Position, VariantPosition
from data_layer.services.generations.live import LiveEntry
from data_layer.services.generations.publishing import LiveStreams, read_all

log = get_log(__name__)

_POLL_SECONDS = 1.0
"""How often checkpoints are read where there are no changes to go on from."""
_IDLE_SECONDS = 3.0
"""How often the database is asked while nothing arrives."""
_EVENTS_AT_ONCE = 200
_QUERIES_AT_ONCE = 4
"""However many follow: the pool of connections is for everybody."""
_FIRST_SECONDS = 2.0
CHECK_SECONDS = 10.0
"""How often it is checked that a reader may still read."""


class Changes:
    """How often something has changed, for readers that wait for the next time."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def note(self) -> None:
        """Count a change, and let everybody go on."""
        self.count += 1
        for waiting in self._waiting:
            _go_on(waiting)

    async def wait(self, seen: int, seconds: float) -> None:
        """Return when there were more changes than so many, or after the time."""
        if self.count != seen:
            return
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        timer = loop.call_later(seconds, _go_on, waiting)
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)
            timer.cancel()


def _go_on(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class FollowedGeneration:
    """A generation that this process follows, for all of its readers."""

    def __init__(
        self, generation_id: UUID, transactions: Transactions, live: LiveStreams, turns: asyncio.Semaphore
    ) -> None:
        self.id = generation_id
        self.turns = turns
        """Entered for each transaction."""
        self.variants: dict[int, FollowedVariant] = {}
        self.tag = ""
        self.changes = Changes()
        self.checked_at: dict[Hashable, float] = {}
        """When each of those who read was seen to be allowed to."""
        self.is_ready = False
        self.failure: DataLayerError | None = None
        self.readers = 0
        self._transactions = transactions
        self._live = live
        self._stream = live.stream(generation_id)
        self._last_id: str | None = None
        self._looked_at = self._heard_at = self._sweep_after = 0.0
        self._is_live = True
        self._may_have_ended = self._must_read_again = False
        self._is_due = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="generation-following")

    @property
    def has_ended(self) -> bool:
        """Whether nothing can change any more."""
        return self.is_ready and all(variant.has_ended for variant in self.variants.values())

    async def _run(self) -> None:
        reading: asyncio.Task[None] | None = None
        try:
            with self._stream.watch() as changes:
                await self._load(changes)
                with suppress(CacheError):  # Readers that come from elsewhere are served by what led here.
                    self._take(await self._read())
                self.is_ready = True
                self._note_change()
                # What is live does not wait for the database.
                reading = asyncio.create_task(self._keep_reading(changes), name="generation-reading")
                while not self.has_ended:
                    await self._look_when_due(changes)
        except DataLayerError as error:
            self.failure = error
        finally:
            await cancel_and_wait(reading)
            self._note_change()

    async def _keep_reading(self, changes: StreamWatch) -> None:
        while True:
            try:
                self._take(await self._read())
                self._is_live = True
                await changes.wait(_IDLE_SECONDS)
            except CacheError:
                self._is_live = False
                self._is_due.set()
                await asyncio.sleep(_POLL_SECONDS)

    async def _look_when_due(self, changes: StreamWatch) -> None:
        pause = self._next_look() - monotonic()
        if pause > 0:
            await is_set_within(self._is_due, pause)
            self._is_due.clear()
            return
        self._may_have_ended = False
        try:
            await self._load(changes)
        except NotFoundError:
            raise
        except DataLayerError as error:  # It is asked again.
            log.info("generation_not_read", code=error.code, generation_id=str(self.id))
            self._looked_at = monotonic()

    def _next_look(self) -> float:
        """When the database is to be asked."""
        if self._may_have_ended:
            return 0.0
        is_broken = any(variant.wanted is not None or variant.is_doubtful for variant in self.variants.values())
        if is_broken or not self._is_live:
            return self._looked_at + _POLL_SECONDS
        return max(self._looked_at, self._heard_at) + _IDLE_SECONDS

    async def _load(self, changes: StreamWatch) -> None:
        async with self.turns, self._transactions() as tx:
            progress = await tx.generations.progress(self.id)
            behind = [each.id for each in progress if self._is_behind(each)]
            stored = await tx.generations.stored_variants(behind) if behind else ()
        if not progress:
            raise NotFoundError(f"no generation has the id {self.id}")
        is_new = False
        for each in stored:
            known = self.variants.get(each.index)
            if known is None:
                self.variants[each.index] = FollowedVariant(each)
                is_new = True
            else:
                is_new = known.replace(each) or is_new
        self._looked_at = monotonic()
        if is_new:
            self._must_read_again = True  # The changes that continue this may have come before.
            changes.wake()
            self._note_change()
        if any(each.is_abandoned for each in progress) and monotonic() > self._sweep_after:
            self._sweep_after = monotonic() + _IDLE_SECONDS
            await end_expired(self._transactions, self._live)
            self._may_have_ended = True

    def _is_behind(self, stored: VariantProgress) -> bool:
        known = self.variants.get(stored.index)
        return known is None or known.is_behind(stored)

    async def _read(self) -> Sequence[LiveEntry]:
        after, self._must_read_again = None if self._must_read_again else self._last_id, False
        try:
            entries, self._last_id = await read_all(self._stream, after)
        except CacheError:
            self._must_read_again = True
            raise
        if entries:
            self._heard_at = monotonic()
        if after is None:
            # What a former writer sent is over.
            last = next((entry.tag for entry in reversed(entries) if entry.tag), "")
            entries = [entry for entry in entries if entry.tag in {"", last}]
            self.tag = last
        return entries

    def _take(self, entries: Sequence[LiveEntry]) -> None:
        is_new = False
        for entry in entries:
            is_other = bool(entry.tag and self.tag and entry.tag != self.tag)
            self.tag = entry.tag or self.tag
            for change in entry.changes:
                variant = self.variants.get(change.variant)
                if variant is None:
                    continue
                if is_other and change.base < variant.sequence:
                    variant.is_doubtful = True  # Another writer goes on from an earlier state.
                else:
                    is_new = variant.apply(entry.tag, change) or is_new
            ended = (self.variants.get(index) for index in entry.ended)
            self._may_have_ended |= any(variant is not None and not variant.has_ended for variant in ended)
        if is_new:
            self._note_change()
        if self._next_look() <= self._looked_at + _POLL_SECONDS:
            self._is_due.set()

    def raise_if_failed(self) -> None:
        """Raise what has ended this before the generation ended."""
        if self.failure is not None:
            raise self.failure
        if self.task.done() and not self.has_ended:
            self.task.result()

    def _note_change(self) -> None:
        self.changes.note()


class Reader:
    """One reader of a followed generation: where it is, and what comes next for it."""

    def __init__(self, followed: FollowedGeneration, transactions: Transactions, position: Position) -> None:
        self._followed = followed
        self._transactions = transactions
        self._position = position
        self._is_waiting_for_events = False

    @property
    def is_at_the_end(self) -> bool:
        """Whether it has received everything that there will ever be."""
        places = (self._position.get(index) for index in self._followed.variants)
        return self._followed.has_ended and all(place is not None and place.has_end for place in places)

    async def news(self) -> AsyncGenerator[FollowedEvent]:
        """What there is now, one after the other; each counts as received when it is handed over."""
        self._is_waiting_for_events = False
        variants = list(self._followed.variants.values()) if self._followed.is_ready else []
        for variant in variants:
            if (code := self._code(variant)) is not None:
                yield code
            async for event in self._events(variant):
                yield event
            if (code := self._code(variant)) is not None:
                yield code
            place = self._position[variant.index]
            if variant.has_ended and not place.has_end and place.event >= variant.sequence:
                end = VariantEnded(variant.index, variant.id, variant.status, variant.error_message, "")
                yield self._moved(variant.index, place._replace(has_end=True), end)

    @property
    def patience(self) -> float:
        """For how many seconds nothing may come without a change."""
        return _POLL_SECONDS if self._is_waiting_for_events else inf

    def _code(self, variant: FollowedVariant) -> FollowedEvent | None:
        place = self._position.get(variant.index)
        if place is not None and (place.has_end or (place.sequence > variant.sequence and not variant.has_ended)):
            return None  # What it has seen is not taken back while it may still come.
        news = variant.news(place)
        if news is None:
            return None
        event = min(place.event, variant.sequence) if place is not None else 0
        now = VariantPosition(variant.sequence, variant.checksum, event, variant.tag, has_end=False)
        return self._moved(variant.index, now, news)

    async def _events(self, variant: FollowedVariant) -> AsyncIterator[FollowedEvent]:
        while (place := self._position[variant.index]).event < variant.sequence and not place.has_end:
            if place.event < variant.first_event:
                upto, found = await self._stored_events(variant, place.event)
            else:
                upto, found = (
                    variant.sequence,
                    [
                        (number, kind, orjson.loads(payload))
                        for number, kind, payload in variant.events
                        if number > place.event
                    ],
                )
            for number, kind, payload in found:
                event = StreamedEvent(variant.index, number, kind, payload, "")
                yield self._moved(variant.index, self._position[variant.index]._replace(event=number), event)
            place = self._position[variant.index]
            if upto <= place.event and not found:
                self._is_waiting_for_events = True
                return
            self._position[variant.index] = place._replace(event=max(place.event, upto))

    async def _stored_events(
        self, variant: FollowedVariant, after: int
    ) -> tuple[int, Sequence[tuple[int, str, dict[str, Any]]]]:
        """A page of the database, and up to which number nothing is missing then."""
        async with self._followed.turns, self._transactions() as tx:
            stored, found = await tx.generation_events.page(variant.id, after=after, limit=_EVENTS_AT_ONCE)
        is_last = len(found) < _EVENTS_AT_ONCE
        return (min(stored, variant.sequence) if is_last else found[-1][0]), found

    def _moved(self, index: int, place: VariantPosition, event: FollowedEvent) -> FollowedEvent:
        self._position[index] = place
        return replace(event, position=str(self._position))


class Followers:
    """All generations that this process follows."""

    def __init__(self, transactions: Transactions, live: LiveStreams) -> None:
        self._transactions = transactions
        self._live = live
        self._followed: dict[UUID, FollowedGeneration] = {}
        self._turns = asyncio.Semaphore(_QUERIES_AT_ONCE)

    async def follow(
        self,
        generation_id: UUID,
        position: Position,
        check: Callable[[], Awaitable[object]],
        *,
        who: Hashable,
        idle_seconds: float = inf,
    ) -> AsyncGenerator[FollowedEvent | None]:
        """Everything after a position, to the end of the generation.

        Nothing but a future and a timer is made for a reader that waits, of which there are thousands.

        Args:
            generation_id: which one.
            position: where the reader is.
            check: raises an error if the reader may not read (any more); called at first, and again and again.
            who: reads; readers that are the same person are checked at once.
            idle_seconds: after so many seconds without an event None is yielded; the first time after two at most.
        """
        await self._check(check)
        followed = self._enter(generation_id)
        try:
            reader = Reader(followed, self._transactions, position)
            next_check, next_pulse = _next_check(), inf
            if idle_seconds < inf:
                next_pulse = monotonic() + min(idle_seconds, _FIRST_SECONDS)
            while True:
                seen = followed.changes.count
                async with aclosing(reader.news()) as news:
                    # No variable holds an event, with the whole code maybe, while the next change is awaited.
                    while (event := await anext(news, None)) is not None:
                        yield event
                        next_pulse = monotonic() + idle_seconds
                        if monotonic() > next_check:
                            await self._check_again(followed, who, check)
                            next_check = _next_check()
                del news
                if reader.is_at_the_end:
                    return
                followed.raise_if_failed()
                pause = min(next_check, next_pulse) - monotonic()
                await followed.changes.wait(seen, max(0.0, min(pause, reader.patience)))
                if monotonic() > next_check:
                    await self._check_again(followed, who, check)
                    next_check = _next_check()
                if monotonic() >= next_pulse:
                    yield None
                    next_pulse = monotonic() + idle_seconds
        finally:
            await self._leave(followed)

    async def _check(self, check: Callable[[], Awaitable[object]]) -> None:
        async with self._turns:
            await check()

    async def _check_again(
        self, followed: FollowedGeneration, who: Hashable, check: Callable[[], Awaitable[object]]
    ) -> None:
        """Check, unless another reader that is the same person just did: each check costs a turn."""
        async with self._turns:
            if monotonic() - followed.checked_at.get(who, -inf) > CHECK_SECONDS / 4:
                await check()
                followed.checked_at[who] = monotonic()

    def _enter(self, generation_id: UUID) -> FollowedGeneration:
        """Begin to follow a generation, or join those who do."""
        followed = self._followed.get(generation_id)
        if followed is None or followed.task.done():
            followed = FollowedGeneration(generation_id, self._transactions, self._live, self._turns)
            self._followed[generation_id] = followed
        followed.readers += 1
        return followed

    async def _leave(self, followed: FollowedGeneration) -> None:
        """Stop following; the last reader ends it."""
        followed.readers -= 1
        if followed.readers == 0:
            if self._followed.get(followed.id) is followed:
                del self._followed[followed.id]
            await cancel_and_wait(followed.task)

    async def close(self) -> None:
        """End everything; readers that are left are refused."""
        followed = list(self._followed.values())
        self._followed.clear()
        for each in followed:
            each.failure = NotInitializedError("the data layer was closed; follow again with the last position")
        await cancel_and_wait(*(each.task for each in followed))


def _next_check() -> float:
    """Not all readers at the same moment."""
    return monotonic() + jittered(CHECK_SECONDS, high=0.75)  # A check may be a quarter of that old.
