"""What the operations of ``Cache`` have in common: values at Redis's own keys, encoded, decoded, counted, kept near."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

from data_layer.cache import markers
from data_layer.cache.codec import (
    Codec,
    UndecodableValueError,
    UnencodableValueError,
    is_marker,
)
from data_layer.cache.commands import CommandRunner
from data_layer.cache.keys import Namespace, TimeToLive, shorten, to_milliseconds
from data_layer.cache.near import MISSING, DecodedValue, NearCopy
from data_layer.cache.objects import is_immutable
from data_layer.cache.recently_stored import RecentlyStored
from data_layer.cache.statistics import Counters
from data_layer.cache.write_intents import WriteIntents
from data_layer.concurrency import Background
from data_layer.errors import CacheError, InvalidCacheValueError
from data_layer.observability.log import get_log

Item = TypeVar("Item")

_KEYS_PER_COMMAND = 500
_BYTES_PER_BATCH = 2**20

logger = get_log(__name__)


class Entries:
    """Reads and writes values by their full keys. Errors are those that ``Cache`` documents.

    What changes a key drops it from the near copy before and after, so that this process never reads what it has just
    replaced: not from the near copy, and not by a read that was under way.
    """

    def __init__(
        self,
        *,
        runner: CommandRunner,
        codec: Codec,
        namespace: Namespace,
        near: NearCopy,
        recently_stored: RecentlyStored,
        renew_trust: Callable[[], Awaitable[bool]],
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
        self.recently_stored = recently_stored
        self.describe = namespace.describe
        self._renew_trust = renew_trust
        self._jitter = jitter

    # Reading

    async def revive(self, keys: Iterable[bytes]) -> bool:
        """Prove that the near copy is fresh if it has fallen silent about one of these; report whether it answers."""
        return not self.near.is_answering and any(key in self.near for key in keys) and await self._renew_trust()

    async def find_revived(self, key: bytes, as_type: Any) -> Any:
        """Return a value that the near copy held back until it was sure again, or MISSING."""
        return self.near.find(key, as_type) if await self.revive([key]) else MISSING

    async def look(self, key: bytes, as_type: Any) -> Any:
        """The value in Redis, or MISSING. It is kept near."""
        value = await self.find_revived(key, as_type)
        if value is not MISSING:
            return value
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

    async def look_many(self, keys: Collection[bytes], as_type: Any) -> dict[bytes, Any]:
        """The values in Redis, in the order of the keys. They are kept near."""
        if keys and self.intents.has_pending:
            await self.intents.require_none_pending()
        values: dict[bytes, Any] = {}
        for chunk in _chunks(list(keys), _KEYS_PER_COMMAND):
            for key, stored in zip(chunk, await self._fetch_many(chunk), strict=True):
                value = self.decode(key, stored, as_type)
                if value is not MISSING:
                    values[key] = value
        return values

    # Writing

    @contextmanager
    def changing(self, keys: Collection[bytes]) -> Iterator[None]:
        """Keep what is near from outliving a change that is made in this block."""
        for key in keys:
            self.near.drop(key)
        try:
            yield
        finally:
            for key in keys:
                self.near.drop(key)

    async def change(self, key: bytes, *command: str | bytes | int, repeatable: bool = True) -> Any:
        """The answer to a command that changes a key."""
        self.near.drop(key)
        try:
            return await self.runner.run(*command, repeatable=repeatable)
        finally:
            self.near.drop(key)

    async def replace_marker(self, key: bytes, *stored_and_life: bytes | int) -> bool:
        """Store something, or nothing, in place of a marker, and report whether there was one."""
        with self.changing([key]):
            return bool(await self.runner.eval(markers.REPLACE_MARKER, key, *stored_and_life))

    async def store(self, stored: Iterable[tuple[bytes, bytes]], milliseconds: int) -> None:
        """Store encoded values by their keys, each for a little less than the time."""
        for batch in _batches(stored):
            commands: list[tuple[str | bytes | int, ...]] = [
                ("SET", key, value, "PX", self.spread(milliseconds)) for key, value in batch
            ]
            with self.changing([key for key, _ in batch]):
                await self.runner.run_all(commands)

    async def set_life(self, key: bytes, ttl: TimeToLive, *, only_longer: bool = False) -> bool:
        """Give a value a new time to live, and report whether there was one."""
        milliseconds = to_milliseconds(ttl)
        with self.changing([key]):
            return bool(await self.runner.eval(markers.SET_LIFE, key, milliseconds, int(only_longer), repeatable=True))

    async def remove(self, *keys: bytes) -> int:
        """Remove values, leases of who loads them too, and report how many values there were.

        Raises:
            CacheError: when one could not be removed.
        """
        with self.changing(keys):
            answers = await self.intents.scripts.answer_for_all(markers.SETTLE, keys, b"")
        failure = next((answer for answer in answers.values() if isinstance(answer, CacheError)), None)
        if failure is not None:
            raise failure
        return [bool(answer) for answer in answers.values()].count(True)

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
            raise InvalidCacheValueError(f"the value for {self.describe(key)} cannot be cached: {error}") from None

    def decode(self, key: bytes, stored: bytes | None, as_type: Any) -> Any:
        """What is stored, as the type, or MISSING; counted as a hit or a miss."""
        if stored is not None:
            try:
                value = self._decode(key, stored, as_type)
            except UndecodableValueError as error:
                if not is_marker(stored):  # Looked at only here, because a marker cannot be decoded.
                    self.note_undecodable(key, str(error))
            else:
                self.counters.hits += 1
                return value
        self.counters.misses += 1
        return MISSING

    def _decode(self, key: bytes, stored: bytes, as_type: Any) -> Any:
        if as_type is None:
            return self.codec.decode(stored)
        decoded = self.recently_stored.find(key, stored, as_type)
        if decoded is None:
            kind, payload = self.codec.unseal(stored)
            value = self.codec.read(kind, payload, as_type)
            if not is_immutable(value):
                return value
            decoded = DecodedValue(stored, as_type, value, len(payload))
        self.near.adopt(key, decoded)
        return decoded.value

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
