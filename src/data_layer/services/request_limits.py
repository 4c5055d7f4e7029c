"""How many requests that need no login one network may send: counted in Redis for all processes, here without it.

They are what guesses, or costs much, so each is counted at once. All other requests: ``services/rate_limits.py``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from enum import StrEnum

from data_layer.cache import Cache
from data_layer.errors import CacheError, TooManyRequestsError
from data_layer.observability.log import get_log
from data_layer.services.accounts.addresses import network_of

log = get_log(__name__)

_PREFIX = "requests:"
_PATIENCE_SECONDS = 0.25
_MOST_NETWORKS = 10_000


class RequestKind(StrEnum):
    """What a request wants. Each has a counter of its own: too many of one kind keep nobody from another."""

    LOG_IN = "log_in"
    LOG_IN_ELSEWHERE = "log_in_elsewhere"
    REGISTER = "register"
    ASK_FOR_MAIL = "ask_for_mail"
    SHOW_MAILED_TOKEN = "show_mailed_token"  # noqa: S105  (the name of a kind)
    OPEN_SHARE = "open_share"


class RequestLimiter:
    """Lets a network send so many requests of a kind in a window, which begins with its first one.

    It keeps floods from work that costs much, such as hashing passwords; guessing is stopped by ``accounts.throttle``,
    which forgets nothing when Redis does.

    Args:
        cache: where the counters are shared. While it cannot be used each process counts for itself.
        most: requests in a window (RATE_LIMIT_MAX); 0: any number.
        window: its length in seconds (RATE_LIMIT_WINDOW).
        clock: seconds that never go back.
    """

    def __init__(self, cache: Cache, *, most: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._cache = cache
        self._most = most
        self._window = window
        self._clock = clock
        self._own: dict[str, tuple[int, float]] = {}

    async def admit(self, ip_address: str | None, kind: RequestKind) -> None:
        """Count a request. Callers whose address is not known are not counted: they would share one limit.

        Raises:
            TooManyRequestsError: when there were too many; ``retry_after`` says when the window ends.
        """
        if self._most == 0 or ip_address is None:
            return
        count, left = await self._count(f"{kind}:{network_of(ip_address)}")
        if count > self._most:
            seconds = max(1, math.ceil(left))
            raise TooManyRequestsError(
                f"too many requests: try again in {seconds} s",
                retry_after=seconds,
                limit=(kind, self._most, math.ceil(self._window)),
            )

    async def _count(self, counter: str) -> tuple[int, float]:
        """How many requests there were, and for how many more seconds they count."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                count = await self._cache.increment(_PREFIX + counter, ttl=self._window)
                left = await self._cache.ttl(_PREFIX + counter) if count > self._most else self._window
        except (CacheError, TimeoutError) as error:
            log.debug("requests_counted_alone", reason=str(error) or "no answer in time")
            return self._count_here(counter)
        return count, left or 0.0

    def _count_here(self, counter: str) -> tuple[int, float]:
        now = self._clock()
        count, ends_at = self._own.pop(counter, (0, 0.0))
        if ends_at <= now:
            count, ends_at = 0, now + self._window
        while len(self._own) >= _MOST_NETWORKS:
            del self._own[next(iter(self._own))]
        self._own[counter] = (count + 1, ends_at)
        return count + 1, ends_at - now
