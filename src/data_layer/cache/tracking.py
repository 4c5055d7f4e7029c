"""Listen for every change under this application's prefix, and know until when that knowledge is complete.

One connection to each primary carries ``CLIENT TRACKING ON BCAST PREFIX``. It leads to the same process as the
connection for commands, and ends when the server is no longer a primary. The server sends what changed before it
answers the client that asked for the change. Three times a second each connection is asked for its role. Answers and
messages come in order, so the answer proves that everything that changed before the question has arrived. (Everything
but what changed in the same turn of the server's loop, whose messages follow the answer. The answer to a *second*
question, sent after the first was answered, proves those too.) The near copy answers for 0.9 s from the first question:
however a loop stalls, a process is stopped, a connection hangs or a server is silent, it is never older than a second.

When the event loop was too busy to ask in time, a reader who finds the copy silent asks, and all readers wait for that
one proof. Asking for the values instead would keep the loop busier still (decision 0044).

After a failover or an outage, Redis may for a moment hold what other processes changed while they could not report it.
The ``FailoverGuard`` covers that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from data_layer.cache.commands import CommandRunner, NodeAccess
from data_layer.cache.errors import translate
from data_layer.cache.keys import Namespace
from data_layer.cache.near import NearCopy
from data_layer.cache.wire.connection import Connection
from data_layer.concurrency import Backoff, cancel_and_wait
from data_layer.errors import CacheError, CacheUnavailableError
from data_layer.observability.log import get_log

_PAUSE_SECONDS = 0.3
_PATIENCE_SECONDS = 0.5
_GRACE_SECONDS = 0.02


class Prover:
    """Prove again and again that everything was heard that changed before a moment.

    Each connection is asked twice, the second time as soon as it has answered. That takes two turns of the event loop
    and no task, however many tasks keep the loop busy. When it took longer than the usual pause, the next proof follows
    at once.

    Args:
        connections: those that listen; all have to answer.
        proved: called with each such moment, in monotonic time.
    """

    def __init__(self, connections: Sequence[Connection], proved: Callable[[float], None]) -> None:
        self._connections = connections
        self._proved = proved
        self._loop = asyncio.get_running_loop()
        self._asked = 0.0
        self._unanswered = 0
        self._outcome: asyncio.Future[bool] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def ask(self) -> None:
        """Begin a proof, unless one is under way."""
        if self._unanswered or self._is_closed:
            return
        self._asked, self._unanswered = monotonic(), len(self._connections)
        self._outcome = self._loop.create_future()
        self._wait(_PATIENCE_SECONDS, self._doubt)
        for connection in self._connections:
            connection.ask_role(partial(connection.ask_role, self._note_answer))

    async def prove(self) -> bool:
        """Wait for the proof that is under way, or for a new one; returns whether it came before patience ended."""
        self.ask()
        outcome = self._outcome
        await asyncio.wait([outcome])  # A caller that is cancelled does not end it for the others.
        return outcome.result()

    def close(self) -> None:
        """Stop asking; waiting callers learn that nothing was proved."""
        self._is_closed = True
        self._end(is_proved=False)
        if self._timer is not None:
            self._timer.cancel()

    def _note_answer(self) -> None:
        self._unanswered -= 1
        if self._unanswered or self._is_closed:
            return
        self._proved(self._asked)
        self._end(is_proved=True)
        pause = self._asked + _PAUSE_SECONDS - monotonic()
        if pause > 0:
            self._wait(pause, self.ask)
        else:  # A timer would take another turn.
            self.ask()

    def _doubt(self) -> None:
        # If the loop was busy for long, the answer may be there already and only has to be read.
        self._wait(_GRACE_SECONDS, partial(self._end, is_proved=False))

    def _end(self, *, is_proved: bool) -> None:
        if not self._outcome.done():
            self._outcome.set_result(is_proved)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)


GUARDED_SECONDS = 3.0
"""Longer than the longest pause between attempts to reconnect: by then each process has delivered its invalidations."""


class FailoverGuard:
    """While it lasts, ``get_or_load`` believes only the values that this process itself has loaded since it began.

    So a failover costs one load for each key and process that is read in these seconds.
    """

    def __init__(self) -> None:
        self._began = float("-inf")
        self._loaded: set[bytes] = set()

    @property
    def is_on(self) -> bool:
        """Whether it lasts."""
        return monotonic() < self._began + GUARDED_SECONDS

    def begin(self) -> None:
        """A primary was connected to that may lack something, now."""
        self._began = monotonic()
        self._loaded.clear()

    def covers(self, key: bytes) -> bool:
        """Whether the value in Redis is not to be believed."""
        return self.is_on and key not in self._loaded

    def release(self, key: bytes, loaded_at: float) -> bool:
        """The value in Redis was stored just now; return whether it was loaded after the last failover."""
        if loaded_at < self._began:
            return False
        if self.is_on:
            self._loaded.add(key)
        return True


TRUST_SECONDS = 0.9
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0
_SHORT_OUTAGE_SECONDS = 1.0
_START_SECONDS = 5.0

log = get_log(__name__)


class Tracking:
    """Keeps the near copy true: empties it key by key, or whole while it cannot listen."""

    def __init__(self, runner: CommandRunner, near: NearCopy, namespace: Namespace, guard: FailoverGuard) -> None:
        self._runner = runner
        self._near = near
        self._namespace = namespace
        self._guard = guard
        self._opened = monotonic()
        self._proven: float | None = None
        self._prover: Prover | None = None
        self._is_proved_late = False
        self._known: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None
        self._names: frozenset[str] = frozenset()
        self._is_broken = asyncio.Event()
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._watched: dict[bytes, set[asyncio.Event]] = {}
        runner.on_topology_change(self._note_connection)

    def start(self) -> None:
        """Listen in the background, and again whenever a connection is lost."""
        if self._near.capacity:
            self._task = asyncio.create_task(self._listen_for_ever(), name="cache tracking")

    async def stop(self) -> None:
        """Close the connections."""
        task, self._task = self._task, None
        await cancel_and_wait(task)

    async def renew_trust(self) -> bool:
        """Prove that the near copy is fresh, once for all who wait, and report whether it answers.

        A proof is waited for half a second. Where that did not help, nobody waits again until one has come in time.
        """
        for _ in range(2):  # What was asked before the loop stood still is answered too late.
            prover = self._prover
            if prover is None or self._is_proved_late or not self._near.is_filled:
                return self._near.is_answering
            if not await prover.prove():
                break
            if self._near.is_answering:
                return True
        self._is_proved_late = True
        return False

    async def wait_for_change(self, key: bytes, seconds: float) -> None:
        """Return when the key was changed, or after the time; without a connection only after the time."""
        change = self._waiting.get(key)
        if change is None:
            change = self._waiting[key] = asyncio.get_running_loop().create_future()
        # Not wait_for: several may wait for the same change, and one that gives up must not end it for the others.
        await asyncio.wait([change], timeout=seconds)
        if self._waiting.get(key) is change:
            del self._waiting[key]

    @property
    def is_listening(self) -> bool:
        """Whether changes are reported at this moment."""
        return bool(self._names) and not self._is_broken.is_set()

    def watch(self, key: bytes, changed: asyncio.Event) -> None:
        """Set this event at each change of the key, and whenever changes may have been missed."""
        self._watched.setdefault(key, set()).add(changed)

    def unwatch(self, key: bytes, changed: asyncio.Event) -> None:
        """End what ``watch`` began."""
        events = self._watched.get(key, set())
        events.discard(changed)
        if not events:
            self._watched.pop(key, None)

    async def _listen_for_ever(self) -> None:
        pauses = Backoff(_SHORTEST_PAUSE, _LONGEST_PAUSE, jitter=0.5)
        while True:
            started = monotonic()
            try:
                await self._listen()
            except CacheError as error:
                log.info("cache_tracking_interrupted", reason=str(error))
            finally:
                self._names = frozenset()
                self._near.turn_off()
            if monotonic() - started > _LONGEST_PAUSE:
                pauses.reset()
            await asyncio.sleep(pauses.next())

    async def _listen(self) -> None:
        """Return, or raises, as soon as one connection is lost or the primaries are no longer the same."""
        self._is_broken.clear()
        connections: list[Connection] = []
        try:
            primaries = await self._runner.primaries()
            for primary in primaries:
                # Connected to here, and not only when a command comes, so that a new primary learns at once what it
                # may lack.
                await self._runner.run_on(primary, "PING")
            self._is_broken.clear()
            for primary in primaries:
                connection = await self._runner.open_connection(
                    primary, on_push=self._note_push, on_closed=self._note_loss
                )
                connections.append(connection)
                if not connection.run_id:
                    raise CacheUnavailableError(
                        f"Redis at {primary.name} does not say which process it is; allow INFO (+info)"
                    )
                await connection.run("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._namespace.start)
            self._names = frozenset(primary.name for primary in primaries)
            self._note_changes(self._watched)
            self._prover = Prover(connections, self._note_proof)
            self._prover.ask()
            await self._is_broken.wait()
            for connection in connections:
                if connection.reason is not None:
                    raise translate(connection.reason, connection.name)
        finally:
            if self._prover is not None:
                self._prover.close()
                self._prover = None
            for connection in connections:
                connection.close()

    def _note_proof(self, moment: float) -> None:
        self._proven = moment
        if not self._is_broken.is_set() and not self._guard.is_on:
            self._near.turn_on()
            self._near.trusted_until = moment + TRUST_SECONDS
        if self._near.is_answering:
            self._is_proved_late = False

    def _note_push(self, message: list[Any]) -> None:
        if message[0] != b"invalidate":
            return
        keys: Iterable[bytes] | None = message[1]
        if keys is None:  # FLUSHALL or FLUSHDB.
            self._near.clear()
            keys = [*self._waiting, *self._watched]
        if self._watched:
            self._note_changes(keys)
        self._near.drop(*keys)
        if not self._waiting:
            return
        for key in keys:
            change = self._waiting.pop(key, None)
            if change is not None and not change.done():
                change.set_result(None)

    def _note_changes(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            for changed in self._watched.get(key, ()):
                changed.set()

    def _note_loss(self) -> None:
        self._near.turn_off()
        self._is_broken.set()
        self._note_changes(self._watched)

    async def _note_connection(self, access: NodeAccess) -> None:
        """Commands are about to go to a primary that is new, or has new keys: does a connection listen to it?"""
        if self._may_have_missed_something(access):
            log.info("cache_failover_guard_began", server=access.name)
            self._guard.begin()
            self._near.turn_off()
        self._known[access.name] = access.run_id
        if access.name in self._names:
            self._near.clear()
        else:
            self._note_loss()

    def _may_have_missed_something(self, access: NodeAccess) -> bool:
        """Whether this is another process than before, or it was out of reach for as long as others may have tried."""
        now = monotonic()
        known = self._known.get(access.name)
        if known is None:
            return now > self._opened + _START_SECONDS
        if not access.run_id or access.run_id != known:
            return True
        return self._proven is not None and now > self._proven + _SHORT_OUTAGE_SECONDS
