"""One holder at a time among all processes: a lease that is renewed while it is held, with a fencing token."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

from data_layer.cache import markers
from data_layer.cache.commands import CommandRunner
from data_layer.cache.keys import Namespace, TimeToLive, to_milliseconds
from data_layer.cache.tracking import Tracking
from data_layer.concurrency import Backoff
from data_layer.errors import CacheError, LockLostError, LockNotAcquiredError
from data_layer.observability.log import get_log

TOKEN_KEPT_SECONDS = 600
"""How long the last fencing token outlives a lock, in case the server's clock goes back."""
_RENEWALS_PER_LEASE = 4
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.25

log = get_log(__name__)


class Lock:
    """A lock for one ``async with`` block, made by ``Cache.lock``.

    The block is cancelled, and ``LockLostError`` raised in place of the cancellation, as soon as the lock is lost or
    the server has not confirmed it for its whole lease. Work that has no ``await`` cannot be stopped: give ``token`` to
    whatever is being changed, and let it refuse a smaller one than it has seen.
    """

    def __init__(
        self,
        key: str,
        *,
        runner: CommandRunner,
        tracking: Tracking,
        namespace: Namespace,
        lease: TimeToLive,
        wait: float,
    ) -> None:
        self._runner = runner
        self._tracking = tracking
        self._key = namespace.lock(key)
        self._shown = namespace.describe(namespace.key(key))
        self._milliseconds = to_milliseconds(lease)
        self._wait = wait
        self._holder = b""
        self._fencing_token = 0
        self._held_until = 0.0
        self._task: asyncio.Task[object] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._cancellations = 0
        self._is_lost = False

    @property
    def token(self) -> int:
        """The fencing token: larger than that of every earlier holder of this lock."""
        return self._fencing_token

    async def __aenter__(self) -> Self:
        self._holder = markers.new_token()
        self._is_lost = False
        try:
            await self._acquire()
        except LockNotAcquiredError:
            raise
        except BaseException:
            # A cancelled or failed attempt may have succeeded on the server.
            await self._give_up()
            raise
        self._task = asyncio.current_task()
        self._cancellations = self._task.cancelling() if self._task is not None else 0
        self._renewal = asyncio.create_task(self._renew(), name="cache lock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        if self._is_lost:
            cancelled_by_us = self._task is not None and self._task.uncancel() <= self._cancellations
            if kind is None or (cancelled_by_us and kind is asyncio.CancelledError):
                raise self._loss() from None
            return
        was_ours = await self._release()
        if not was_ours and kind is None:
            raise self._loss()

    async def _acquire(self) -> None:
        deadline, pauses = monotonic() + self._wait, Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, factor=1.5)
        while not await self._try():
            rest = min(pauses.next(), deadline - monotonic())
            if rest <= 0:
                raise LockNotAcquiredError(f"the lock for {self._shown} stayed taken for {self._wait:g} s")
            await self._tracking.wait_for_change(self._key, rest)

    async def _try(self) -> bool:
        asked = monotonic()
        answer = await self._runner.eval(markers.LOCK_KEY, self._key, self._holder, self._milliseconds, repeatable=True)
        if not answer:
            return False
        self._fencing_token = int(answer)
        self._held_until = asked + self._milliseconds / 1000
        return True

    async def _renew(self) -> None:
        """Until the lease cannot be renewed, and then cancels the holder."""
        pause = self._milliseconds / 1000 / _RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(min(pause, max(0.0, self._held_until - monotonic())))
            asked = monotonic()
            try:
                async with asyncio.timeout(max(0.0, self._held_until - asked)):
                    is_ours = await self._runner.eval(
                        markers.RENEW_LOCK, self._key, self._holder, self._milliseconds, repeatable=True
                    )
            except (CacheError, TimeoutError):
                if monotonic() < self._held_until:
                    continue
                is_ours = False
            if not is_ours:
                self._is_lost = True
                log.warning("cache_lock_lost", key=self._shown)
                if self._task is not None:
                    self._task.cancel()
                return
            self._held_until = asked + self._milliseconds / 1000

    async def _release(self) -> bool:
        """Whether the lock was held to the end; by the time of the last confirmation if the server cannot be asked."""
        try:
            answer = await self._runner.eval(
                markers.UNLOCK, self._key, self._holder, TOKEN_KEPT_SECONDS * 1000, repeatable=False
            )
        except CacheError as error:
            log.info("cache_lock_left_to_expire", key=self._shown, reason=str(error))
            return monotonic() < self._held_until
        return bool(answer)

    async def _give_up(self) -> None:
        with suppress(CacheError):
            await self._runner.eval(markers.UNLOCK, self._key, self._holder, TOKEN_KEPT_SECONDS * 1000)

    def _loss(self) -> LockLostError:
        return LockLostError(
            f"the lock for {self._shown} was lost before the work was done: the server was not reached for the whole "
            "lease, lost its data, or this process stood still"
        )
