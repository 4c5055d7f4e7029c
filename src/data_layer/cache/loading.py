"""Reads through the cache: on a miss one caller of all processes loads the value, and only a current one is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from data_layer.cache import markers
from data_layer.cache.codec import UndecodableValueError
from data_layer.cache.entries import Entries
from data_layer.cache.keys import TimeToLive, to_milliseconds
from data_layer.cache.near import MISSING, DecodedValue
from data_layer.cache.objects import is_immutable
from data_layer.cache.tracking import FailoverGuard, Tracking
from data_layer.concurrency import Backoff, SingleFlight
from data_layer.errors import CacheError, InvalidCacheValueError, NotInitializedError
from data_layer.observability.log import get_log

Load: TypeAlias = Callable[[], Awaitable[Any]]

LEASE_SECONDS = 2.0
"""After a process died while it was loading, others wait at most this long for it."""
LONGEST_WAIT = 10.0
"""Seconds that a load of another process is waited for; then the caller loads for itself."""
_RENEWALS_PER_LEASE = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.1

log = get_log(__name__)


@dataclass(frozen=True, slots=True)
class _LoadSpec:
    """What is wanted. ``force``: a value that is there, or another's lease, does not count."""

    key: bytes
    load: Load
    milliseconds: int
    as_type: Any
    force: bool


class _Answer(NamedTuple):
    """What Redis said: the value, or else whether the caller holds the lease ``token`` now."""

    state: int
    token: bytes = b""
    stored: bytes = b""


_CLOSED = _Answer(markers.CLOSED)


class _Found:
    """A value that was current at ``as_of``, in monotonic time.

    Args:
        payload: its kind and its payload, see ``Codec``.
        as_of: see above.
        value: the value itself, for one caller; for all of them if nobody can change it.

    Attributes:
        filling: stores the value, and reports whether it was still current then.
    """

    def __init__(self, payload: tuple[int, bytes], as_of: float, value: Any) -> None:
        self.payload = payload
        self.as_of = as_of
        self.filling: asyncio.Task[bool] | None = None
        self._value = value
        self._is_shared = is_immutable(value)

    def take_value(self) -> Any:
        """The value, or MISSING when another caller, who may change it, has got it."""
        value = self._value
        if not self._is_shared:
            self._value = MISSING
        return value

    def stored_as(self, stored: bytes, as_type: Any) -> DecodedValue | None:
        """The value with the bytes that are stored for it; None if callers may change it."""
        return DecodedValue(stored, as_type, self._value, len(self.payload[1])) if self._is_shared else None

    async def is_current_after(self, moment: float) -> bool:
        """Whether the value was current at some time after this moment, at which the caller was waiting for it."""
        if self.as_of >= moment:
            return True
        if self.filling is None:
            return False
        await asyncio.wait([self.filling])  # A caller that is cancelled does not end it.
        return not self.filling.cancelled() and self.filling.result()


class _Renewal:
    """Calls a function again and again, in time to keep a lease, until it is cancelled."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._plan()

    def cancel(self) -> None:
        """Stop."""
        self._timer.cancel()

    def _plan(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LEASE_SECONDS / _RENEWALS_PER_LEASE, self._call)

    def _call(self) -> None:
        self._renew()
        self._plan()


class Loading:
    """``get_or_load``: one load of a key at a time, and nothing stored that changed while it was loaded.

    A miss costs its caller one round trip, which takes the lease, and the load: the value is handed over while it is
    being stored. Only callers that joined during the load wait until it is stored, which proves that the value had not
    changed by then.

    While Redis cannot be asked every process loads for itself, still once for all callers, and stores nothing.
    """

    def __init__(self, entries: Entries, tracking: Tracking, guard: FailoverGuard) -> None:
        self._entries = entries
        self._runner = entries.runner
        self._tracking = tracking
        self._guard = guard
        self._flights: SingleFlight[tuple[bytes, Any], _Found] = SingleFlight("cache load", cancel_abandoned=True)
        self.loads = 0

    async def get_or_load(self, key: bytes, load: Load, ttl: TimeToLive, as_type: Any, *, fresh: bool) -> Any:
        """The value, which is never older than this call unless it was in the cache."""
        milliseconds = to_milliseconds(ttl)
        called = monotonic()
        if not fresh:
            value = await self._entries.find_revived(key, as_type)
            if value is not MISSING:
                return value
        flight = key, as_type
        while True:
            force, answer = fresh or self._guard.covers(key), None
            if not force and not self._flights.is_under_way(flight):
                with suppress(CacheError):
                    answer = await self._ask(key, force=False)
                if answer is not None and answer.state == markers.VALUE:
                    value = self._entries.decode(key, answer.stored, as_type)
                    if value is not MISSING:
                        return value
                else:
                    self._entries.counters.misses += 1
                if answer is not None and answer.state == markers.FREE and self._flights.is_under_way(flight):
                    # Another caller did not get the lease, and began to load without it.
                    self._start_returning(key, answer.token)
            spec = _LoadSpec(key, load, milliseconds, as_type, force=force)
            found = await self._flights.run(flight, partial(self._find, spec, answer), alone=fresh)
            if await found.is_current_after(called):
                value = found.take_value()
                return self._entries.codec.read(*found.payload, as_type) if value is MISSING else value

    async def close(self) -> None:
        """Cancel the loads that are running."""
        await self._flights.close(NotInitializedError("the cache was closed"))

    async def _find(self, spec: _LoadSpec, answer: _Answer | None) -> _Found:
        """What another process stores, or else what the loader gives; ``answer`` is what Redis has said already."""
        asked, deadline, force = monotonic(), monotonic() + LONGEST_WAIT, spec.force
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, factor=1.5)
        while True:
            if answer is None:
                asked = monotonic()
                try:
                    answer = await self._ask(spec.key, force=force)
                except CacheError:
                    answer = _CLOSED
            if answer.state == markers.VALUE:
                with suppress(UndecodableValueError):
                    payload = self._entries.codec.unseal(answer.stored)
                    return _Found(payload, asked, self._entries.codec.read(*payload, spec.as_type))
                force = True
            elif answer.state != markers.WAIT:
                return await self._load(spec, answer)
            elif asked > deadline:
                return await self._load(spec, _CLOSED)
            else:
                await self._tracking.wait_for_change(spec.key, pauses.next())
            answer = None

    async def _ask(self, key: bytes, *, force: bool) -> _Answer:
        """The value, or else a lease unless another caller has one, in one round trip.

        Raises:
            CacheError: Redis could not be asked.
        """
        if self._entries.intents.has_pending:
            await self._entries.intents.require_none_pending()
        if force:
            self._entries.near.drop(key)
        # Of this attempt alone: if its connection breaks and the server carries it out late, it must not renew a lease
        # that was lost since.
        token = markers.new_token()
        try:
            answer = await self._entries.fetch(key, partial(self._take_lease, token, force=force))
        except (CacheError, asyncio.CancelledError):
            self._start_returning(key, token)  # It may have been taken.
            raise
        if isinstance(answer, bytes):
            return _Answer(markers.VALUE, stored=answer)
        if answer == markers.REPLACED:
            self._entries.note_undecodable(key, "it is not a value")
            return _Answer(markers.FREE, token)
        return _Answer(answer, token)

    async def _take_lease(self, token: bytes, key: bytes, *, force: bool) -> tuple[Any, int]:
        answer = await self._runner.eval(markers.TAKE_LEASE, key, token, round(LEASE_SECONDS * 1000), int(force))
        stored, milliseconds = answer if isinstance(answer, list) else (answer, 0)
        return stored, milliseconds

    async def _load(self, spec: _LoadSpec, answer: _Answer) -> _Found:
        """What the loader gives. It is stored if the caller holds the lease, but this does not wait until it is."""
        token = answer.token if answer.state == markers.FREE else None
        renewal = None if token is None else _Renewal(partial(self._renew, spec.key, token))
        found = None
        try:
            found = await self._call_loader(spec)
            if token is not None:
                found.filling = self._entries.background.start(self._fill(spec, token, found))
                if self._guard.is_on:  # Until it is stored, every call would load again.
                    await asyncio.wait([found.filling])
            return found
        finally:
            if renewal is not None:
                renewal.cancel()
            self._entries.near.drop(spec.key)
            if token is not None and (found is None or found.filling is None):
                self._start_returning(spec.key, token)

    async def _call_loader(self, spec: _LoadSpec) -> _Found:
        """What the loader gives, as if it came out of the cache."""
        self.loads += 1
        started = monotonic()
        payload = self._entries.to_payload(spec.key, await spec.load())
        try:
            return _Found(payload, started, self._entries.codec.read(*payload, spec.as_type))
        except UndecodableValueError:
            name = self._entries.describe(spec.key)
            raise InvalidCacheValueError(f"what was loaded for {name} does not fit {spec.as_type}") from None

    async def _fill(self, spec: _LoadSpec, token: bytes, found: _Found) -> bool:
        """Store what was loaded, and report whether that proves that it is current."""
        # The command takes its place in the queue before the callers go on, and is written after that.
        await asyncio.sleep(0)
        stored = self._entries.codec.seal(*found.payload)
        milliseconds = self._entries.spread(spec.milliseconds)
        try:
            is_filled = bool(await self._runner.eval(markers.FILL, spec.key, token, stored, milliseconds))
        except CacheError:
            self._start_returning(spec.key, token)
            return False
        if is_filled and (decoded := found.stored_as(stored, spec.as_type)):
            self._entries.recently_stored.add(spec.key, decoded)
        # A lease that a failover brought back proves nothing about changes before the failover.
        return is_filled and self._guard.release(spec.key, found.as_of)

    def _renew(self, key: bytes, token: bytes) -> None:
        renewing = self._runner.eval(markers.RENEW_LEASE, key, token, round(LEASE_SECONDS * 1000), repeatable=True)
        self._entries.background.start(_suppressed(renewing))

    def _start_returning(self, key: bytes, token: bytes) -> None:
        """Give a lease back; the caller does not wait for it."""
        returning = self._runner.eval(markers.RETURN_LEASE, key, token, repeatable=True)
        self._entries.background.start(_suppressed(returning))


async def _suppressed(command: Coroutine[Any, Any, Any]) -> None:
    with suppress(CacheError):
        await command
