"""Values at the keys that Redis has: encoded on the way in, decoded and counted on the way out, markers left aside."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, TypeVar

from data_layer.cache import markers
from data_layer.cache.background import Background
from data_layer.cache.codec import (
    HIGHEST_INTEGER,
    LOWEST_INTEGER,
    Codec,
    UndecodableValueError,
    UnencodableValueError,
    is_marker,
)
from data_layer.cache.commands import CommandRunner
from data_layer.cache.keys import Namespace
from data_layer.cache.near import MISSING, NearCopy
from data_layer.cache.statistics import Counters
from data_layer.cache.time_to_live import TimeToLive, shorten, to_milliseconds
from data_layer.cache.write_intents import WriteIntents
from data_layer.errors import CacheError, InvalidCacheValueError
from data_layer.observability.log import get_log

Item = TypeVar("Item")

_KEYS_PER_COMMAND = 500
_BYTES_PER_BATCH = 2**20

logger = get_log(__name__)


class Entries:
    """Reads and writes values by their full keys. Errors are those that ``Cache`` documents.

    Whoever changes a key drops it from the near copy before and after, so that this process never reads what it has
    just replaced: not from the near copy, and not by a read that was under way.
    """

    def __init__(
        self,
        *,
        runner: CommandRunner,
        codec: Codec,
        namespace: Namespace,
        near: NearCopy,
        intents: WriteIntents,
        background: Background,
        counters: Counters,
        jitter: float,
    ) -> None:
        self.runner = runner
        self.codec = codec
        self.near = near
        self.intents = intents
        self.background = background
        self.counters = counters
        self.describe = namespace.describe
        self._jitter = jitter

    # Reading

    async def read(self, key: bytes, as_type: Any) -> Any:
        """The value in Redis, or None."""
        value = await self.look(key, as_type)
        return None if value is MISSING else value

    async def look(self, key: bytes, as_type: Any) -> Any:
        """The value in Redis, or MISSING. It is kept near."""
        if self.intents.has_pending:
            await self.intents.require_none_pending()
        try:
            if self.near.is_filled:
                stored = await self.fetch(key, self.runner.get_with_life)
            else:
                stored = await self.runner.run("GET", key)
        except InvalidCacheValueError as error:
            self.counters.misses += 1
            self.note_undecodable(key, str(error))
            return MISSING
        return self.decode(key, stored, as_type)

    async def fetch(self, key: bytes, question: Callable[[bytes], Awaitable[tuple[Any, int]]]) -> Any:
        """The answer to a question about a key, which also says how many milliseconds it has left.

        If it is a value, it is kept near.
        """
        fetch = self.near.begin(key)
        started = monotonic()
        try:
            answer, milliseconds = await question(key)
            if fetch is not None and isinstance(answer, bytes) and not is_marker(answer):
                self.near.keep(key, fetch, started, answer, milliseconds)
            return answer
        finally:
            if fetch is not None:
                self.near.end(key, fetch)

    async def read_many(self, keys: Collection[bytes], as_type: Any) -> dict[bytes, Any]:
        """The values that were found, in the order of the keys; those near by without asking Redis."""
        values: dict[bytes, Any] = dict.fromkeys(keys, MISSING)
        if len(self.near):
            values.update((key, self.near.find(key, as_type)) for key in keys)
        far = [key for key, value in values.items() if value is MISSING]
        if far and self.intents.has_pending:
            await self.intents.require_none_pending()
        for chunk in _chunks(far, _KEYS_PER_COMMAND):
            for key, stored in zip(chunk, await self._fetch_many(chunk), strict=True):
                values[key] = self.decode(key, stored, as_type)
        return {key: value for key, value in values.items() if value is not MISSING}

    async def exists(self, key: bytes) -> bool:
        """Whether there is a value."""
        return bool(await self.runner.eval(markers.HAS_VALUE, key, repeatable=True))

    async def time_left(self, key: bytes) -> float | None:
        """Seconds; None without a value, infinite without an end."""
        milliseconds = int(await self.runner.eval(markers.TIME_LEFT, key, repeatable=True))
        if milliseconds < 0:
            return math.inf if milliseconds == -1 else None
        return milliseconds / 1000

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match a glob and hold values, in batches; one may come twice."""
        async for keys in self.runner.scan(pattern):
            beginnings = await self.runner.run_batch([("GETRANGE", key, 0, 1) for key in keys])
            # An error says that it is another data type, and so no marker.
            yield [
                key
                for key, beginning in zip(keys, beginnings, strict=True)
                if not (isinstance(beginning, bytes) and is_marker(beginning))
            ]

    # Writing

    async def write(self, key: bytes, value: object, ttl: TimeToLive, *, exactly: bool = False) -> None:
        """Store a value, for up to a tenth less than the time unless ``exactly``."""
        milliseconds = to_milliseconds(ttl)
        if not exactly:
            milliseconds = self.spread(milliseconds)
        await self._change(key, "SET", key, self.encode(key, value), "PX", milliseconds)

    async def write_if_absent(self, key: bytes, value: object, ttl: TimeToLive) -> bool:
        """Store a value unless there is one, and report whether it did."""
        milliseconds = to_milliseconds(ttl)
        stored = self.encode(key, value)
        # A repetition would find the key that the first attempt may have stored, and say False.
        if await self._change(key, "SET", key, stored, "NX", "PX", milliseconds, repeatable=False):
            return True
        return await self._replace_marker(key, stored, milliseconds)

    async def write_many(self, values: Mapping[bytes, object], ttl: TimeToLive) -> None:
        """Store values, all of them encoded before the first is sent."""
        milliseconds = to_milliseconds(ttl)
        encoded = [(key, self.encode(key, value)) for key, value in values.items()]
        for batch in _batches(encoded):
            commands: list[tuple[str | bytes | int, ...]] = [
                ("SET", key, stored, "PX", self.spread(milliseconds)) for key, stored in batch
            ]
            self._drop(values)
            try:
                await self.runner.run_all(commands)
            finally:
                self._drop(values)

    async def increment(self, key: bytes, amount: object, ttl: TimeToLive) -> int:
        """Add to a whole number, creating it with its time to live, in one transaction of the server."""
        milliseconds = to_milliseconds(ttl)
        if not isinstance(amount, int) or not LOWEST_INTEGER <= amount <= HIGHEST_INTEGER:
            raise InvalidCacheValueError("A cache counter is changed by a whole number of 64 bits")
        commands: list[tuple[str | bytes | int, ...]] = [
            ("SET", key, 0, "NX", "PX", milliseconds),
            ("INCRBY", key, int(amount)),
        ]
        self.near.drop(key)
        try:
            try:
                return await self._count(commands)
            except InvalidCacheValueError:
                if not await self._replace_marker(key):
                    raise
                return await self._count(commands)
        except InvalidCacheValueError as error:
            raise InvalidCacheValueError(f"{self.describe(key)} cannot be counted: {error}") from None
        finally:
            self.near.drop(key)

    async def set_life(self, key: bytes, ttl: TimeToLive, *, only_longer: bool = False) -> bool:
        """Give a value a new time to live, and report whether there was one."""
        milliseconds = to_milliseconds(ttl)
        self.near.drop(key)
        try:
            return bool(await self.runner.eval(markers.SET_LIFE, key, milliseconds, int(only_longer), repeatable=True))
        finally:
            self.near.drop(key)

    async def remove(self, *keys: bytes) -> int:
        """Remove values, leases of who loads them too, and report how many values there were.

        Raises:
            CacheError: when one could not be removed.
        """
        self._drop(keys)
        try:
            answers = await self.intents.scripts.answer_for_all(markers.SETTLE, keys, b"")
        finally:
            self._drop(keys)
        failure = next((answer for answer in answers.values() if isinstance(answer, CacheError)), None)
        if failure is not None:
            raise failure
        return [bool(answer) for answer in answers.values()].count(True)

    async def clean_up(self, pattern: bytes) -> int:
        """Remove values that this version cannot read, or that have no end, and report how many."""
        removed = 0
        async for keys in self.runner.scan(pattern):
            stored = await self.runner.run_batch([("GET", key) for key in keys])
            lives = await self.runner.run_batch([("PTTL", key) for key in keys])
            useless = [
                key
                for key, value, milliseconds in zip(keys, stored, lives, strict=True)
                if milliseconds == -1 or (self._is_unreadable(value) and not await self._is_stream(key))
            ]
            removed += await self.remove(*useless)
        return removed

    async def _is_stream(self, key: bytes) -> bool:
        return bool(await self.runner.run("TYPE", key) == b"stream")

    def spread(self, milliseconds: int) -> int:
        """Shortened at random, so that what was stored together does not end together."""
        return shorten(milliseconds, self._jitter)

    def encode(self, key: bytes, value: object) -> bytes:
        """The bytes for Redis.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        return self.codec.seal(*self.to_payload(key, value))

    def to_payload(self, key: bytes, value: object) -> tuple[int, bytes]:
        """The kind and the payload of a value, see ``Codec``.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        try:
            return self.codec.write(value)
        except UnencodableValueError as error:
            raise InvalidCacheValueError(f"The value for {self.describe(key)} cannot be cached: {error}") from None

    def decode(self, key: bytes, stored: bytes | None, as_type: Any) -> Any:
        """What is stored, as the type, or MISSING; counted as a hit or a miss."""
        if stored is not None:
            try:
                value = self.codec.decode(stored, as_type)
            except UndecodableValueError as error:
                if not is_marker(stored):  # Looked at only here, because a marker cannot be decoded.
                    self.note_undecodable(key, str(error))
            else:
                self.counters.hits += 1
                return value
        self.counters.misses += 1
        return MISSING

    def note_undecodable(self, key: bytes, reason: str) -> None:
        """Count and log what cannot be read."""
        self.counters.undecodable += 1
        logger.warning("cache_value_undecodable", key=self.describe(key), reason=reason)

    async def _fetch_many(self, keys: Collection[bytes]) -> list[bytes | None]:
        fetches = [(key, self.near.begin(key)) for key in keys]
        started = monotonic()
        try:
            found = await self.runner.get_many(list(keys))
            kept = [
                (key, fetch, stored)
                for (key, fetch), stored in zip(fetches, found, strict=True)
                if fetch is not None and stored is not None and not is_marker(stored)
            ]
            lives = await self.runner.run_batch([("PTTL", key) for key, _, _ in kept]) if kept else []
            for (key, fetch, stored), milliseconds in zip(kept, lives, strict=True):
                if isinstance(milliseconds, int):
                    self.near.keep(key, fetch, started, stored, milliseconds)
            return found
        finally:
            for key, announced in fetches:
                if announced is not None:
                    self.near.end(key, announced)

    async def _change(self, key: bytes, *command: str | bytes | int, repeatable: bool = True) -> Any:
        self.near.drop(key)
        try:
            return await self.runner.run(*command, repeatable=repeatable)
        finally:
            self.near.drop(key)

    async def _count(self, commands: list[tuple[str | bytes | int, ...]]) -> int:
        return int((await self.runner.run_all(commands, atomic=True, repeatable=False))[-1])

    async def _replace_marker(self, key: bytes, *stored_and_life: bytes | int) -> bool:
        """Whether a marker gave way to what is stored instead, if anything."""
        try:
            return bool(await self.runner.eval(markers.REPLACE_MARKER, key, *stored_and_life))
        finally:
            self.near.drop(key)

    def _is_unreadable(self, stored: object) -> bool:
        if isinstance(stored, InvalidCacheValueError):  # Another data type.
            return True
        if not isinstance(stored, bytes) or is_marker(stored):
            return False
        try:
            self.codec.decode(stored)
        except UndecodableValueError:
            return True
        return False

    def _drop(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self.near.drop(key)


def _chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
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
