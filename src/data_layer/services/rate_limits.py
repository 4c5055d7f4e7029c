"""How many requests a person, an API key and an address may send in a minute: counted here, and shared through Redis.

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
from typing import NamedTuple
from zlib import crc32

from data_layer.cache import Cache
from data_layer.errors import CacheError, TooManyRequestsError
from data_layer.observability.log import get_log

log = get_log(__name__)

_PREFIX = "rates:"
_PATIENCE_SECONDS = 0.25
_MOST_IDENTITIES = 20_000
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
                total = await self._cache.increment(f"{_PREFIX}{identity}:{counter.number}", added, ttl=window + 1)
        except (CacheError, TimeoutError) as error:
            log.debug("requests_counted_alone", reason=str(error) or "no answer in time")
        else:
            counter.shared = max(counter.shared, total)
        finally:
            counter.unanswered -= added
        return total
