"""How many requests callers may send: all of them by identity (``RateLimiter``), and those without a login by network.

``RequestLimiter`` counts requests that guess, or cost much, one by one in Redis. ``RateLimiter`` counts every request
of a person, an API key or an address in this process, and shares its counts through Redis.

Most requests cost no round trip, and none costs more than one. Each process counts for itself, and adds what it has
counted to the shared counter when that is a sixteenth of what is left, so the closer the limit the more often. The
error is bounded: together they let through at most a sixteenth of the limit more for each process after the first.

| it happens | what follows |
| --- | --- |
| a process ends | what it had not shared is forgotten: at most a sixteenth of what was left |
| Redis cannot be used | each process counts for itself; what it counted meanwhile is not shared later |
| there are too many identities | the one that was seen first is forgotten, and begins with what Redis knows of it |

Windows are fixed and begin at a moment that the identity decides, so that not all callers come back at once. A caller
that sends everything around the end of a window sends twice the limit in a short time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import NamedTuple
from zlib import crc32

from data_layer.cache import Cache
from data_layer.errors import CacheError, TooManyRequestsError
from data_layer.observability.log import get_log
from data_layer.services.accounts.addresses import network_of

log = get_log(__name__)

_RATES = "rates:"
_REQUESTS = "requests:"
_PATIENCE_SECONDS = 0.25
_MOST_IDENTITIES = 20_000
_MOST_NETWORKS = 10_000
_SHARE = 16


@dataclass(frozen=True, slots=True)
class Policy:
    """How many requests of one identity are taken in a window.

    Attributes:
        name: what identities of this kind begin with, such as ``person`` in ``person:019b…``.
        most: requests; 0: any number.
        window: seconds.
    """

    name: str
    most: int
    window: int = 60


class Standing(NamedTuple):
    """Where an identity stands after a request.

    Attributes:
        policy: what it is counted by.
        remaining: requests that are left; negative when this one is refused.
        reset: seconds until the window ends.
    """

    policy: Policy
    remaining: int
    reset: int

    def require(self) -> None:
        """Refuse the request if it is one too many.

        Raises:
            TooManyRequestsError: it is; ``retry_after`` says when the window ends.
        """
        if self.remaining < 0:
            policy = self.policy
            raise TooManyRequestsError(
                f"too many requests: one {policy.name} may send {policy.most} in {policy.window} s; "
                f"try again in {self.reset} s",
                retry_after=self.reset,
            )


class _Counter:
    """What is known of one identity in its window.

    ``shared``: what all processes have sent, as far as this one knows, with its own share; of that ``unanswered`` is on
    the way to Redis. ``own``: what only this process knows.
    """

    __slots__ = ("ends_at", "number", "own", "shared", "unanswered")

    def __init__(self, number: int, ends_at: float) -> None:
        self.number = number
        self.ends_at = ends_at
        self.shared = 0
        self.unanswered = 0
        self.own = 0


class RateLimiter:
    """Counts requests by identity, such as ``person:019b…``, ``key:019b…`` or ``address:203.0.113.9``.

    Args:
        cache: where processes share what they have counted.
        policies: one for each kind of identity.
        clock: seconds since 1970, about the same on all machines.
    """

    def __init__(self, cache: Cache, policies: Iterable[Policy], *, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._policies = {policy.name: policy for policy in policies if policy.most}
        self._clock = clock
        self._counters: dict[str, _Counter] = {}

    async def count(self, identity: str) -> Standing | None:
        """Count a request; None where nothing limits this kind of identity."""
        policy = self._policies.get(identity.partition(":")[0])
        if policy is None:
            return None
        now = self._clock()
        counter = self._counters.get(identity)
        if counter is None or counter.ends_at <= now:
            counter = self._begin(identity, policy, now)
        used = counter.shared + counter.own + 1
        if used <= policy.most:
            counter.own += 1
            if (counter.own + counter.unanswered) * _SHARE >= policy.most - counter.shared:
                used = await self._share(identity, counter, policy.window)
        return Standing(policy, policy.most - used, max(1, math.ceil(counter.ends_at - now)))

    def _begin(self, identity: str, policy: Policy, now: float) -> _Counter:
        """A counter for the window that it is now."""
        offset = crc32(identity.encode()) % policy.window
        number = int(now - offset) // policy.window
        self._counters.pop(identity, None)
        # As one is added, so those whose window has ended do not pile up.
        for other in [each for each, counter in islice(self._counters.items(), 2) if counter.ends_at <= now]:
            del self._counters[other]
        while len(self._counters) >= _MOST_IDENTITIES:
            del self._counters[next(iter(self._counters))]
        counter = self._counters[identity] = _Counter(number, (number + 1) * policy.window + offset)
        return counter

    async def _share(self, identity: str, counter: _Counter, window: int) -> int:
        """Add what only this process knows to the shared counter; how many requests there were by this one."""
        added, counter.own = counter.own, 0
        counter.shared = total = counter.shared + added
        counter.unanswered += added
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                total = await self._cache.increment(f"{_RATES}{identity}:{counter.number}", added, ttl=window + 1)
        except (CacheError, TimeoutError) as error:
            log.debug("requests_counted_alone", reason=str(error) or "no answer in time")
        else:
            counter.shared = max(counter.shared, total)
        finally:
            counter.unanswered -= added
        return total


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
                count = await self._cache.increment(_REQUESTS + counter, ttl=self._window)
                left = await self._cache.ttl(_REQUESTS + counter) if count > self._most else self._window
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
