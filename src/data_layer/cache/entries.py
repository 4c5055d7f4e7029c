"""Values at the keys that Redis has: encoded on the way in, decoded and counted on the way out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, TypeVar

from data_layer.cache.codec import HIGHEST_INTEGER, LOWEST_INTEGER, Codec, UndecodableValueError, UnencodableValueError
from data_layer.cache.time_to_live import TimeToLive, to_milliseconds
from data_layer.errors import InvalidCacheValueError
from data_layer.observability.log import get_log

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from data_layer.cache.commands import Command, CommandRunner
    from data_layer.cache.keys import Namespace
    from data_layer.cache.statistics import Counters

Item = TypeVar("Item")

MISSING: Final = object()
_KEYS_PER_COMMAND = 500
_BYTES_PER_BATCH = 2**20

logger = get_log(__name__)


class Entries:
    """Reads and writes values by their full keys. Errors are those that ``Cache`` documents."""

    def __init__(self, runner: CommandRunner, codec: Codec, namespace: Namespace, counters: Counters) -> None:
        self.runner = runner
        self.counters = counters
        self._codec = codec
        self._namespace = namespace

    async def read(self, redis_key: bytes, as_type: Any) -> Any:
        """The value, or None."""
        try:
            stored = await self.runner.run("GET", redis_key)
        except InvalidCacheValueError as error:
            self._count_undecodable(redis_key, str(error))
            return None
        value = self._decode(redis_key, stored, as_type)
        return None if value is MISSING else value

    async def read_many(self, redis_keys: Collection[bytes], as_type: Any) -> dict[bytes, Any]:
        """The values that were found."""
        found = {}
        for chunk in _chunks(list(redis_keys), _KEYS_PER_COMMAND):
            for redis_key, stored in zip(chunk, await self.runner.run("MGET", *chunk), strict=True):
                value = self._decode(redis_key, stored, as_type)
                if value is not MISSING:
                    found[redis_key] = value
        return found

    async def write(self, redis_key: bytes, value: object, ttl: TimeToLive) -> None:
        """Stores a value."""
        milliseconds = to_milliseconds(ttl)
        await self.runner.run("SET", redis_key, self._encode(redis_key, value), "PX", milliseconds)

    async def write_if_absent(self, redis_key: bytes, value: object, ttl: TimeToLive) -> bool:
        """Stores a value unless there is one, and says whether it did."""
        milliseconds = to_milliseconds(ttl)
        stored = self._encode(redis_key, value)
        # A repetition would find the key that the first attempt may have stored, and say False.
        return bool(await self.runner.run("SET", redis_key, stored, "NX", "PX", milliseconds, repeatable=False))

    async def write_many(self, values: Mapping[bytes, object], ttl: TimeToLive) -> None:
        """Stores values, all of them encoded before the first is sent."""
        milliseconds = to_milliseconds(ttl)
        encoded = [(redis_key, self._encode(redis_key, value)) for redis_key, value in values.items()]
        for batch in _batches(encoded):
            await self.runner.run_all([("SET", redis_key, stored, "PX", milliseconds) for redis_key, stored in batch])

    async def increment(self, redis_key: bytes, amount: object, ttl: TimeToLive) -> int:
        """Adds to a whole number, creating it with its time to live, in one transaction of the server."""
        milliseconds = to_milliseconds(ttl)
        if not isinstance(amount, int) or not LOWEST_INTEGER <= amount <= HIGHEST_INTEGER:
            raise InvalidCacheValueError("A cache counter is changed by a whole number of 64 bits")
        commands: list[Command] = [
            ("SET", redis_key, 0, "NX", "PX", milliseconds),
            ("INCRBY", redis_key, int(amount)),
        ]
        try:
            return int((await self.runner.run_all(commands, atomic=True, repeatable=False))[-1])
        except InvalidCacheValueError as error:
            raise InvalidCacheValueError(f"{self._namespace.describe(redis_key)} cannot be counted: {error}") from None

    async def exists(self, redis_key: bytes) -> bool:
        """Whether the key is there."""
        return bool(await self.runner.run("EXISTS", redis_key))

    async def extend(self, redis_key: bytes, ttl: TimeToLive) -> bool:
        """Gives a key a new time to live, and says whether it was there."""
        return bool(await self.runner.run("PEXPIRE", redis_key, to_milliseconds(ttl)))

    async def time_left(self, redis_key: bytes) -> float | None:
        """Seconds; None without the key, infinite without an end."""
        milliseconds = int(await self.runner.run("PTTL", redis_key))
        if milliseconds < 0:
            return math.inf if milliseconds == -1 else None
        return milliseconds / 1000

    async def remove(self, *redis_keys: bytes) -> int:
        """Removes keys, and says how many were there."""
        removed = 0
        for chunk in _chunks(redis_keys, _KEYS_PER_COMMAND):
            removed += int(await self.runner.run("UNLINK", *chunk))
        return removed

    def _encode(self, redis_key: bytes, value: object) -> bytes:
        try:
            return self._codec.encode(value)
        except UnencodableValueError as error:
            name = self._namespace.describe(redis_key)
            raise InvalidCacheValueError(f"The value for {name} cannot be cached: {error}") from None

    def _decode(self, redis_key: bytes, stored: bytes | None, as_type: Any) -> Any:
        if stored is None:
            self.counters.misses += 1
            return MISSING
        try:
            value = self._codec.decode(stored, as_type)
        except UndecodableValueError as error:
            self._count_undecodable(redis_key, str(error))
            return MISSING
        self.counters.hits += 1
        return value

    def _count_undecodable(self, redis_key: bytes, reason: str) -> None:
        self.counters.misses += 1
        self.counters.undecodable += 1
        logger.warning("cache_value_undecodable", key=self._namespace.describe(redis_key), reason=reason)


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _batches(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Batches of bounded number and size, so that none takes longer than a command may."""
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(entry[1])
        if len(batch) == _KEYS_PER_COMMAND or size >= _BYTES_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
