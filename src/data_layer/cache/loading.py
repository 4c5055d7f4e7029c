"""Reads through the cache: on a miss one caller of all processes loads the value, and only a current one is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from data_layer.cache import markers
from data_layer.cache.codec import UndecodableValueError
from data_layer.cache.entries import Entries
from data_layer.cache.near import MISSING, is_immutable
from data_layer.cache.time_to_live import TimeToLive, to_milliseconds
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


@dataclass(frozen=True, slots=True)
class _Found:
    """A value as it is stored. It was current at ``as_of``, in monotonic time.

    ``shared`` is the value itself where nobody can change it: all callers get the same, and it is decoded once.
    """

    stored: bytes
    as_of: float
    shared: Any = MISSING


class Loading:
    """``get_or_load``: one load of a key at a time, and nothing stored that changed while it was loaded.

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
        while True:
            force = fresh or self._guard.covers(key)
            if not force:
                value = await self._look(key, as_type)
                if value is not MISSING:
                    return value
            spec = _LoadSpec(key, load, milliseconds, as_type, force=force)
            joined = monotonic()
            found = await self._flights.run((key, as_type), partial(self._find, spec), alone=fresh)
            # Whoever came while another caller's load was under way, and it could not be stored because the value
            # was changed meanwhile, must not get what was loaded before.
            if found.as_of >= joined:
                return self._entries.codec.decode(found.stored, as_type) if found.shared is MISSING else found.shared

    async def close(self) -> None:
        """End what is being loaded."""
        await self._flights.close(NotInitializedError("The cache was closed"))

    async def _look(self, key: bytes, as_type: Any) -> Any:
        try:
            return await self._entries.look(key, as_type)
        except InvalidCacheValueError:
            raise
        except CacheError:
            return MISSING

    async def _find(self, spec: _LoadSpec) -> _Found:
        token = markers.new_token()
        try:
            taken = await self._take_lease(spec, token)
        except CacheError:
            taken = markers.CLOSED
        if isinstance(taken, _Found):
            return taken
        if taken != markers.FREE:
            started = monotonic()
            stored, shared = await self._load(spec)
            return _Found(stored, started, shared)
        return await self._load_and_fill(spec, token)

    async def _take_lease(self, spec: _LoadSpec, token: bytes) -> _Found | int:
        """The value that somebody has stored meanwhile; or whether this caller may store what it loads."""
        give_up, force = monotonic() + LONGEST_WAIT, spec.force
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, factor=1.5)
        await self._entries.intents.require_none_pending()
        while True:
            asked = monotonic()
            if force:
                self._entries.near.drop(spec.key)
            answer = await self._runner.eval(
                markers.TAKE_LEASE, spec.key, token, round(LEASE_SECONDS * 1000), int(force)
            )
            if isinstance(answer, bytes):
                if self._is_decodable(answer, spec.as_type):
                    return _Found(answer, asked)
                force = True
            elif answer != markers.WAIT:
                return int(answer)
            elif asked > give_up:
                return markers.CLOSED
            else:
                await self._tracking.wait_for_change(spec.key, pauses.next())

    async def _load_and_fill(self, spec: _LoadSpec, token: bytes) -> _Found:
        filled = False
        renewal = asyncio.create_task(self._renew(spec.key, token))
        try:
            started = monotonic()
            stored, shared = await self._load(spec)
            with suppress(CacheError):
                before = monotonic()
                milliseconds = self._entries.spread(spec.milliseconds)
                filled = bool(await self._runner.eval(markers.FILL, spec.key, token, stored, milliseconds))
                # No change was announced since the lease was taken, so the value is current even now.
                started = before if filled else started
                if filled:
                    self._guard.release(spec.key)
            return _Found(stored, started, shared)
        finally:
            renewal.cancel()
            self._entries.near.drop(spec.key)
            if not filled:
                # Not awaited: a caller that was cancelled, or has its value, need not wait for this.
                self._entries.background.start(self._return_lease(spec.key, token))

    async def _load(self, spec: _LoadSpec) -> tuple[bytes, Any]:
        """What the loader gives, as it is stored, and itself if it may be shared."""
        self.loads += 1
        stored = self._entries.encode(spec.key, await spec.load())
        try:
            value = self._entries.codec.decode(stored, spec.as_type)
        except UndecodableValueError:
            name = self._entries.describe(spec.key)
            raise InvalidCacheValueError(f"What was loaded for {name} does not fit {spec.as_type}") from None
        return stored, value if is_immutable(value) else MISSING

    async def _renew(self, key: bytes, token: bytes) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / _RENEWALS_PER_LEASE)
            with suppress(CacheError):
                await self._runner.eval(markers.RENEW_LEASE, key, token, round(LEASE_SECONDS * 1000), repeatable=True)

    async def _return_lease(self, key: bytes, token: bytes) -> None:
        with suppress(CacheError):
            await self._runner.eval(markers.RETURN_LEASE, key, token, repeatable=True)

    def _is_decodable(self, stored: bytes, as_type: Any) -> bool:
        try:
            self._entries.codec.decode(stored, as_type)
        except UndecodableValueError:
            return False
        return True
