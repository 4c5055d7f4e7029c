"""Report to Redis which keys are being changed, before and after the commit, whatever happens to Redis in between."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from data_layer.cache import markers
from data_layer.cache.commands import NodeAccess, Sent
from data_layer.cache.keys import Namespace
from data_layer.cache.markers import Scripts
from data_layer.cache.near import NearCopy
from data_layer.concurrency import Background, Backoff, cancel_and_wait, is_set_within
from data_layer.errors import CacheError, CacheFullError, CacheUnavailableError
from data_layer.observability.log import get_log
from data_layer.schemas.base import Outcome

INTENT_SECONDS = 60.0
"""How long a key stays uncachable when a writer died before the outcome of its intent. No COMMIT may take longer."""
MOST_REMEMBERED = 10_000
"""Keys that are remembered one by one while Redis is unreachable; beyond, all keys of the application count."""
REPLAYED_SECONDS = 30.0
"""A replica that becomes primary may lack the last writes: invalidations of so many seconds are repeated."""

_NOBODY = b""
_Settling = tuple[Sequence[bytes], bytes, Sent]
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

log = get_log(__name__)


class WriteIntents:
    """Between ``announce`` and ``settle`` nobody stores a value at the keys; afterwards they are absent.

    Neither of them fails. An invalidation that Redis did not take is *pending*: it is sent on the next connection
    before anything else, and until then this process reads nothing from Redis.
    """

    def __init__(self, scripts: Scripts, near: NearCopy, namespace: Namespace, background: Background) -> None:
        self.scripts = scripts
        self._near = near
        self._namespace = namespace
        self._background = background
        self._open: dict[bytes, tuple[bytes, ...]] = {}
        self._pending: dict[bytes, object] = {}
        self._everything: object | None = None
        self._recent: OrderedDict[bytes, float] = OrderedDict()
        self._forgot_at = float("-inf")
        self._delivery: asyncio.Task[None] | None = None
        self._is_wanted = asyncio.Event()
        self._attempt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failed_at = float("-inf")
        self._settling: deque[_Settling] = deque()
        self._settler: asyncio.Task[None] | None = None
        scripts.runner.on_topology_change(self._note_connection)

    @property
    def pending(self) -> int:
        """Number of keys with a pending invalidation; -1 when there were too many to remember."""
        return -1 if self._everything is not None else len(self._pending)

    @property
    def has_pending(self) -> bool:
        """Whether Redis may hold what is no longer true."""
        return bool(self._pending) or self._everything is not None

    async def announce(self, keys: Sequence[bytes], token: bytes, time_limit: float) -> None:
        """The keys are about to change: nobody stores a value there before ``settle``, or for a minute.

        Ends within ``time_limit`` seconds, whether Redis took it or not; half a second later where a connection that
        was silent has to prove first that its server is there.
        """
        self._open[token] = keys = tuple(keys)
        self._near.drop(*keys)
        arguments = token, round(INTENT_SECONDS * 1000)
        deadline = asyncio.get_running_loop().time() + time_limit
        sent = self.scripts.begin(markers.ANNOUNCE, keys, *arguments)
        try:
            answers = await self.scripts.finish(sent, markers.ANNOUNCE, keys, *arguments, deadline=deadline)
        except TimeoutError:
            self._add_pending(keys)
            return
        failures = {key: answer for key, answer in answers.items() if isinstance(answer, CacheError)}
        self._add_pending(key for key, error in failures.items() if not isinstance(error, CacheFullError))

    async def settle(self, keys: Sequence[bytes], token: bytes = _NOBODY) -> int:
        """The change is decided, or there was none: the keys are absent now. Says how many values were removed."""
        answers = await self._finish_one(*self._begin_settling(keys, token))
        return sum(answer for answer in answers.values() if isinstance(answer, int))

    def settle_soon(self, keys: Sequence[bytes], token: bytes) -> None:
        """As ``settle``, without waiting: until Redis has it, the intents keep values from being stored.

        What this process asks Redis for afterwards comes behind it.
        """
        self._settling.append(self._begin_settling(keys, token))
        if self._settler is None or self._settler.done():
            self._settler = self._background.start(self._finish_settling())

    def leave_undecided(self, token: bytes) -> None:
        """It is unknown whether the change happened, or still will: the intents stay until their deadline."""
        self._open.pop(token, None)

    async def require_none_pending(self) -> None:
        """Return when nothing is pending; try at once, unless that has only just failed.

        Raises:
            CacheUnavailableError: when Redis does not take it.
        """
        if not self.has_pending:
            return
        if monotonic() - self._failed_at > _FIRST_PAUSE:
            self._is_wanted.set()
            self._start_delivery()
            # One attempt, not all that may follow: a reader has a loader to fall back on.
            await asyncio.wait([self._attempt], timeout=self.scripts.time_limit)
        if self.has_pending:
            raise CacheUnavailableError(
                "invalidations are pending that Redis has not taken yet; nothing is read from it before"
            )

    async def close(self) -> None:
        """Try once more to deliver pending invalidations."""
        if self._settler is not None:
            await asyncio.wait([self._settler], timeout=self.scripts.time_limit)
            await cancel_and_wait(self._settler)
        if self.has_pending:
            with suppress(CacheError):
                await self.require_none_pending()
        await cancel_and_wait(self._delivery)

    def _begin_settling(self, keys: Sequence[bytes], token: bytes) -> _Settling:
        self._near.drop(*keys)
        return keys, token, self.scripts.begin(markers.SETTLE, keys, token)

    async def _finish_settling(self) -> None:
        while self._settling:
            await self._finish_one(*self._settling.popleft())

    async def _finish_one(self, keys: Sequence[bytes], token: bytes, sent: Sent) -> dict[bytes, Any | CacheError]:
        try:
            answers = await self.scripts.finish(sent, markers.SETTLE, keys, token)
        except asyncio.CancelledError:
            self._add_pending(keys)
            raise
        finally:
            self._open.pop(token, None)
            self._near.drop(*keys)
        self._remember(keys)
        self._add_pending(key for key, answer in answers.items() if isinstance(answer, CacheError))
        return answers

    def _add_pending(self, keys: Iterable[bytes]) -> None:
        # A new stamp each time, because a key may become pending again while it is being delivered.
        self._pending.update((key, object()) for key in keys)
        if len(self._pending) > MOST_REMEMBERED:
            self._pending.clear()
            self._everything = object()
        if self.has_pending:
            self._start_delivery()

    def _remember(self, keys: Iterable[bytes]) -> None:
        now = monotonic()
        for key in keys:
            self._recent[key] = now
            self._recent.move_to_end(key)
        while self._recent:
            key, moment = next(iter(self._recent.items()))
            if moment > now - REPLAYED_SECONDS:
                if len(self._recent) <= MOST_REMEMBERED:
                    break
                self._forgot_at = now
            del self._recent[key]

    def _start_delivery(self) -> asyncio.Task[None]:
        if self._delivery is None or self._delivery.done():
            self._delivery = self._background.start(self._deliver())
        return self._delivery

    async def _deliver(self) -> None:
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        log.warning("cache_invalidations_pending", keys=self.pending)
        while self.has_pending:
            self._is_wanted.clear()
            with suppress(CacheError):
                await self._deliver_once()
            self._end_attempt()
            if self.has_pending:
                await is_set_within(self._is_wanted, pauses.next())
        log.info("cache_invalidations_delivered")

    def _end_attempt(self) -> None:
        if self.has_pending:
            self._failed_at = monotonic()
        ended, self._attempt = self._attempt, asyncio.get_running_loop().create_future()
        ended.set_result(None)

    async def _deliver_once(self) -> None:
        everything = self._everything
        if everything is not None:
            async for keys in self.scripts.runner.scan(self._namespace.pattern("*")):
                failures = await self.scripts.run_for_all(markers.SETTLE, keys, _NOBODY)
                if failures:
                    raise next(iter(failures.values()))
            if self._everything is everything:  # Else more came meanwhile.
                self._everything = None
        pending = dict(self._pending)
        open_keys = {key for keys in self._open.values() for key in keys}
        failures = await self.scripts.run_for_all(
            markers.SETTLE, [key for key in pending if key not in open_keys], _NOBODY
        )
        for token, intended in list(self._open.items()):
            if token not in self._open:  # Settled meanwhile.
                continue
            # Not committed yet: the intent itself is pending.
            mine = [key for key in intended if key in pending]
            failures |= await self.scripts.run_for_all(markers.ANNOUNCE, mine, token, round(INTENT_SECONDS * 1000))
        self._remove_pending({key: stamp for key, stamp in pending.items() if key not in failures})

    def _remove_pending(self, delivered: dict[bytes, object]) -> None:
        for key, stamp in delivered.items():
            if self._pending.get(key) is stamp:
                del self._pending[key]

    async def _note_connection(self, primary: NodeAccess) -> None:
        """Before anything else goes to a primary that may have missed something: what is pending, recent and open."""
        now = monotonic()
        if self._forgot_at > now - REPLAYED_SECONDS:
            self._everything = object()
            self._start_delivery()
        pending = {key: stamp for key, stamp in self._pending.items() if primary.owns(key)}
        recent = [key for key, moment in self._recent.items() if moment > now - REPLAYED_SECONDS and primary.owns(key)]
        await self.scripts.run_at(primary, markers.SETTLE, dict.fromkeys([*pending, *recent]), _NOBODY)
        for token, keys in list(self._open.items()):
            mine = [key for key in keys if primary.owns(key)]
            await self.scripts.run_at(primary, markers.ANNOUNCE, mine, token, round(INTENT_SECONDS * 1000))
        self._remove_pending(pending)


class TransactionKeys:
    """The keys that one transaction changes, from ``add`` to the outcome. Made by ``Cache.transaction_keys``."""

    def __init__(self, intents: WriteIntents, namespace: Namespace, time_limit: float) -> None:
        self._intents = intents
        self._namespace = namespace
        self._time_limit = time_limit
        self._keys: dict[bytes, None] = {}
        self._token: bytes | None = None

    def add(self, *keys: str) -> None:
        """Remember keys.

        Raises:
            InvalidCacheKeyError: when one cannot be a key.
        """
        self._keys.update((self._namespace.key(key), None) for key in keys)

    async def before_commit(self) -> None:
        """Keep values from being stored at the keys. Never fails; ends within the time limit of a command."""
        self._token = markers.new_token()
        await self._intents.announce(tuple(self._keys), self._token, self._time_limit)

    def after(self, outcome: Outcome) -> None:
        """Remove what is at the keys, once it is known that the commit happened or never will. Never fails.

        Without ``before_commit`` nothing happened, and nothing is done.
        """
        token, self._token = self._token, None
        if token is None:
            return
        if outcome is Outcome.UNKNOWN:
            self._intents.leave_undecided(token)
        else:
            self._intents.settle_soon(tuple(self._keys), token)
