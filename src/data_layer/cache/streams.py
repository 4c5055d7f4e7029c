"""A bounded log that ends by itself: one process appends, any number of processes read on from where they are.

Readers block no connection. The server reports each change of a key to the connections that keep the near copy true
(``tracking.py``), so a reader waits for that report and then reads what is new over the connection that all commands
share. Without such a connection it asks ten times a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, NamedTuple, Self

from data_layer.cache.codec import Codec, UndecodableValueError, UnencodableValueError
from data_layer.cache.commands import CommandRunner, Script
from data_layer.cache.keys import Namespace, TimeToLive, to_milliseconds
from data_layer.cache.tracking import Tracking
from data_layer.errors import InvalidCacheValueError
from data_layer.observability.log import get_log

MAXIMUM_ENTRIES = 512
MAXIMUM_BYTES = 4 * 2**20
"""Most bytes of the entries that one writer keeps in a stream, after compression."""

_READ_AT_ONCE = 64
_POLL_SECONDS = 0.1
_FIELD = b"v"
# One script, so that no stream is ever left without an end.
_APPEND = Script(
    """
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[2], '*', 'v', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return id
"""
)

log = get_log(__name__)


class StreamEntry(NamedTuple):
    """An entry: its id, after which reading goes on, and its value; ``None`` if it cannot be decoded."""

    id: str
    value: Any


class Stream:
    """One stream, made by ``Cache.stream``. One object of it in one process appends at a time.

    The oldest entries are dropped when there are more than 512, or when those of this object have more than 4 MiB.
    """

    def __init__(
        self,
        key: str,
        *,
        runner: CommandRunner,
        tracking: Tracking,
        namespace: Namespace,
        codec: Codec,
        ttl: TimeToLive,
    ) -> None:
        self._runner = runner
        self._tracking = tracking
        self._key = namespace.key(key)
        self._shown = namespace.describe(self._key)
        self._codec = codec
        self._milliseconds = to_milliseconds(ttl)
        self._sizes: deque[int] = deque()
        self._size = 0

    async def append(self, value: object) -> str:
        """Add an entry, and let the stream end its time to live from now on; the id of the entry.

        After an error it is unknown whether the entry was added. It is never added twice.

        Raises:
            InvalidCacheValueError: the value cannot be stored.
            CacheError: the server cannot be reached, or refuses.
        """
        try:
            packed = self._codec.encode(value)
        except UnencodableValueError as error:
            raise InvalidCacheValueError(f"an entry of {self._shown} cannot be stored: {error}") from None
        kept = self._make_room(len(packed))
        entry_id = await self._runner.eval(_APPEND, self._key, packed, kept, self._milliseconds)
        return str(entry_id.decode())

    async def read(self, after: str | None = None) -> list[StreamEntry]:
        """What follows an entry, or everything; empty if nothing does, or if there is no stream.

        At most 64 entries: read again, until nothing comes.

        Raises:
            CacheError: the server cannot be reached, or something else is stored under the key.
        """
        start = "-" if after is None else f"({after}"
        found = await self._runner.run("XRANGE", self._key, start, "+", "COUNT", _READ_AT_ONCE)
        return [StreamEntry(entry_id.decode(), self._decoded(fields)) for entry_id, fields in found]

    def watch(self) -> StreamWatch:
        """``with stream.watch() as changes``, to wait for further entries."""
        return StreamWatch(self._tracking, self._key)

    def _make_room(self, size: int) -> int:
        """Count an entry, and return how many of the last ones may stay."""
        self._sizes.append(size)
        self._size += size
        is_full = False
        while len(self._sizes) > MAXIMUM_ENTRIES or (self._size > MAXIMUM_BYTES and len(self._sizes) > 1):
            self._size -= self._sizes.popleft()
            is_full = True
        # Entries that another object has added before may stay as long as this one has room.
        return len(self._sizes) if is_full else MAXIMUM_ENTRIES

    def _decoded(self, fields: list[bytes]) -> Any:
        try:
            return self._codec.decode(fields[1]) if fields[0] == _FIELD else None
        except UndecodableValueError as error:
            log.warning("cache_value_undecodable", key=self._shown, reason=str(error))
            return None


class StreamWatch:
    """Waits for changes from the beginning of its block on, so that none between reading and waiting is missed."""

    def __init__(self, tracking: Tracking, key: bytes) -> None:
        self._tracking = tracking
        self._key = key
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when the stream has changed since the last call, or after the time, if not before."""
        limit = seconds if self._tracking.is_listening else min(seconds, _POLL_SECONDS)
        try:
            async with asyncio.timeout(limit):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def wake(self) -> None:
        """Let ``wait`` return."""
        self._changed.set()

    def __enter__(self) -> Self:
        self._tracking.watch(self._key, self._changed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracking.unwatch(self._key, self._changed)
