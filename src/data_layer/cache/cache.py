"""The public cache: what callers see, in terms of keys, values and times to live."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast, overload

from data_layer.cache import markers
from data_layer.cache.address import find_cache
from data_layer.cache.assembly import OpenCache
from data_layer.cache.codec import (
    HIGHEST_INTEGER,
    LOWEST_INTEGER,
    MAXIMUM_VALUE_SIZE,
    Codec,
    UndecodableValueError,
    is_marker,
)
from data_layer.cache.commands import CommandRunner
from data_layer.cache.entries import Entries
from data_layer.cache.keys import LONGEST_SECONDS, Namespace, TimeToLive, to_milliseconds
from data_layer.cache.locks import Lock
from data_layer.cache.near import MISSING, NearCopy
from data_layer.cache.observed import CommandObserver
from data_layer.cache.statistics import CacheStatistics, ProcessStatistics
from data_layer.cache.streams import Stream
from data_layer.cache.write_intents import TransactionKeys
from data_layer.errors import (
    DataLayerError,
    InvalidCacheKeyError,
    InvalidCacheValueError,
    InvalidValueError,
    NotInitializedError,
)
from data_layer.observability.metrics.counters import Durations
from data_layer.settings.redis import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster

Value = TypeVar("Value")
Loaded = TypeVar("Loaded")
Parameters = ParamSpec("Parameters")


class Cache:
    """Values with a time to live, shared by all processes of this application.

    A *key* is text of 1 to 512 bytes in UTF-8, any characters. A *value* is anything JSON can carry (a tuple comes
    back as a list), ``bytes``, or pydantic models, alone or inside lists and dicts; at most 8 MiB before
    compression. A *time to live* is a number of seconds or a timedelta, from one millisecond to ten years; values that
    are stored together would end together, so ``set``, ``set_many`` and ``get_or_load`` shorten it by up to a tenth
    at random (REDIS_TTL_JITTER).

    What was read is kept in this process as well (REDIS_NEAR_SIZE), where nobody can change it, and the server says
    when it changes: what another process has written is seen within milliseconds, and for sure after one second.

    What cannot be read back (written by another program or version, corrupt, not of the type that was asked for) is
    a miss and is logged as ``cache_value_undecodable``; it never raises.

    Every method that talks to the server may raise CacheUnavailableError, CacheLoginError, CacheTimeoutError or
    CacheError, and NotInitializedError outside ``open`` and ``close``.

    Args:
        settings: the ``redis_`` ones say which server, how long to wait, and the prefix of all keys.
        url: a server to use instead of the one in the settings, such as ``unix:///run/valkey.sock``.
        observer: called with each answered command, see ``cache.observed``.
        maximum_value_size: bytes that a value may have before compression.

    Raises:
        ConfigurationError: when no server is named, or its address cannot be used.
    """

    def __init__(
        self,
        settings: RedisSettings,
        url: str | None = None,
        *,
        maximum_value_size: int = MAXIMUM_VALUE_SIZE,
        observer: CommandObserver | None = None,
    ) -> None:
        self._settings = settings
        self._server = find_cache(settings, url)
        self._namespace = Namespace(settings.redis_key_prefix)
        self._codec = Codec(maximum_value_size)
        self._observer = observer
        self._opened: OpenCache | None = None
        # Beside the parts, because every read looks here first; while the cache is closed it is empty.
        self._near = NearCopy(self._codec, 0)

    async def open(self) -> None:
        """Make the cache usable. Nothing is awaited from the server; ``check`` says whether it answers.

        Raises:
            ConfigurationError: when REDIS_TLS_CA holds no certificate.
        """
        # Imported here because many users of the library open no cache.
        from data_layer.cache.assembly import assemble

        if self._opened is None:
            self._opened = assemble(self._settings, self._server, self._namespace, self._codec, self._observer)
            self._near = self._opened.near

    async def close(self) -> None:
        """Wait for commands under way, each of which has its time limit, and closes all connections.

        Further commands are refused, and loads under way are cancelled. The cache can be opened again.
        """
        parts, self._opened, self._near = self._opened, None, NearCopy(self._codec, 0)
        if parts is not None:
            await parts.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def address(self) -> str:
        """Where the server is: host:port, or the path of a Unix socket. Never a password."""
        return str(self._server)

    @property
    def client(self) -> Redis | RedisCluster:
        """redis-py's client, for what this class does not cover. Keys there need the prefix; errors are redis-py's."""
        return self._commands.client

    async def check(self) -> None:
        """Return if every server answers and takes writes; changes nothing.

        Raises:
            CacheError: or the subclass that says why one of them does not.
        """
        from data_layer.cache.measuring import probe

        await probe(self._commands, self._namespace)

    async def stats(self) -> CacheStatistics:
        """Figures of the servers and of this process. Looks at 100 000 keys at most.

        Raises:
            CacheError: when no server answers; ``process_stats`` works even then.
        """
        from data_layer.cache.measuring import measure

        return await measure(self._parts, self._codec, self._server.topology, self._namespace.pattern("*"))

    def process_stats(self) -> ProcessStatistics:
        """Figures of this process alone: nothing is sent, so it may be asked for at any time."""
        from data_layer.cache.measuring import measure_process

        return measure_process(self._parts, self._codec)

    @property
    def latencies(self) -> Durations:
        """How long this process waited for the answers to batches of commands."""
        return self._commands.latencies

    # One key

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, as_type: type[Value]) -> Value | None: ...
    async def get(self, key: str, as_type: Any = None) -> Any:
        """The value, or None when there is none.

        With ``as_type`` it is validated as that type: a pydantic model, ``list[Model]``, ``bytes`` … A stored None
        looks like a miss here; ``get_many`` and ``exists`` distinguish them.
        """
        redis_key = self._namespace.key(key)
        value = self._near.find(redis_key, as_type)
        if value is MISSING:
            value = await self._entries.look(redis_key, as_type)
        return None if value is MISSING else value

    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[Loaded]],
        ttl: TimeToLive,
        *,
        as_type: None = None,
        fresh: bool = False,
    ) -> Any: ...
    @overload
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[Loaded]],
        ttl: TimeToLive,
        *,
        as_type: type[Any],
        fresh: bool = False,
    ) -> Loaded: ...
    async def get_or_load(
        self,
        key: str,
        loader: Callable[[], Awaitable[Any]],
        ttl: TimeToLive,
        *,
        as_type: Any = None,
        fresh: bool = False,
    ) -> Any:
        """The value, or else what the loader gives, which is stored unless it was changed meanwhile.

        The loader runs once for all callers of this process, and other processes wait for it too. It must read what is
        committed: a transaction of its own, not one that is open around this call. Its exception goes to all
        callers and nothing is stored; None is a value and is stored. Every caller gets an object of its own, as it
        comes out of the cache. When the last caller is cancelled, the loader is.

        Writers call ``tx.invalidate(key)`` in the transaction that changes what the loader reads; then a loader that
        was late never puts an old value back, however the two overlap and whatever dies. Do not ``set`` such a key.
        While Redis cannot be reached the loader is asked each time. What was changed by a process that could not reach
        Redis and died is served until its time to live ends: choose ``ttl`` accordingly, 60 s as a rule, or
        ``fresh``, which always asks the loader and stores what it gives.

        Raises:
            InvalidCacheValueError: when what was loaded cannot be stored, or does not fit the type.
        """
        redis_key = self._namespace.key(key)
        if not fresh:
            value = self._near.find(redis_key, as_type)
            if value is not MISSING:
                return value
        return await self._parts.loading.get_or_load(redis_key, loader, ttl, as_type, fresh=fresh)

    async def invalidate(self, *keys: str) -> None:
        """Remove keys whose source has changed, together with what is being loaded for them; never fails.

        What Redis does not take now is delivered later, before this process reads anything from it. In a transaction
        use ``tx.invalidate``, which also covers the time around the commit.

        Raises:
            InvalidCacheKeyError: when one cannot be a key.
        """
        await self._parts.intents.settle([self._namespace.key(key) for key in keys])

    async def set(self, key: str, value: object, ttl: TimeToLive) -> None:
        """Store a value, in place of any other. Not for keys that are read by ``get_or_load``.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        entries, redis_key = self._entries, self._namespace.key(key)
        milliseconds = entries.spread(to_milliseconds(ttl))
        await entries.change(redis_key, "SET", redis_key, entries.encode(redis_key, value), "PX", milliseconds)

    async def add(self, key: str, value: object, ttl: TimeToLive) -> bool:
        """Store a value if the key is absent, and report whether it did.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        entries, redis_key, milliseconds = self._entries, self._namespace.key(key), to_milliseconds(ttl)
        stored = entries.encode(redis_key, value)
        command: tuple[str | bytes | int, ...] = ("SET", redis_key, stored, "NX", "PX", milliseconds)
        # A repetition would find the key that the first attempt may have stored, and report False.
        if await entries.change(redis_key, *command, repeatable=False):
            return True
        return await entries.replace_marker(redis_key, stored, milliseconds)

    async def delete(self, key: str) -> bool:
        """Remove a key, and report whether it was there."""
        return bool(await self._entries.remove(self._namespace.key(key)))

    async def exists(self, key: str) -> bool:
        """Whether the key is there."""
        return bool(await self._commands.eval(markers.HAS_VALUE, self._namespace.key(key), repeatable=True))

    async def expire(self, key: str, ttl: TimeToLive) -> bool:
        """Give a key a new time to live from now, and report whether it was there."""
        return await self._entries.set_life(self._namespace.key(key), ttl)

    async def touch(self, key: str, ttl: TimeToLive) -> bool:
        """Let a key live at least so long from now, never shorter than it would, and report whether it was there.

        For what is to stay as long as it is used: a full server evicts what was not touched for long.
        """
        return await self._entries.set_life(self._namespace.key(key), ttl, only_longer=True)

    async def ttl(self, key: str) -> float | None:
        """Seconds that the key has left, or None when it is not there; infinite if another program set no end."""
        left = int(await self._commands.eval(markers.TIME_LEFT, self._namespace.key(key), repeatable=True))
        if left < 0:
            return math.inf if left == -1 else None
        return left / 1000

    async def increment(self, key: str, amount: int = 1, *, ttl: TimeToLive) -> int:
        """Add to a whole number in one atomic step and return the sum; an absent key counts as 0.

        The time to live applies when the key is created and is not renewed afterwards, so that a limit of requests
        per minute ends with its minute. ``get`` reads the number, and ``set`` of a whole number makes one. It is
        never repeated by itself: after CacheUnavailableError it may or may not have been counted.

        Raises:
            InvalidCacheValueError: when the key holds something else, or the sum would leave 64 bits.
        """
        entries, redis_key, milliseconds = self._entries, self._namespace.key(key), to_milliseconds(ttl)
        given: object = amount
        if not isinstance(given, int) or not LOWEST_INTEGER <= given <= HIGHEST_INTEGER:
            raise InvalidCacheValueError("a cache counter is changed by a whole number of 64 bits")
        commands: list[tuple[str | bytes | int, ...]] = [
            ("SET", redis_key, 0, "NX", "PX", milliseconds),
            ("INCRBY", redis_key, int(given)),
        ]
        with entries.changing([redis_key]):
            try:
                return await self._count(redis_key, commands)
            except InvalidCacheValueError:
                if not await entries.replace_marker(redis_key):
                    raise
                return await self._count(redis_key, commands)

    # Many keys

    @overload
    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    @overload
    async def get_many(self, keys: Iterable[str], as_type: type[Value]) -> dict[str, Value]: ...
    async def get_many(self, keys: Iterable[str], as_type: Any = None) -> dict[str, Any]:
        """The values that were found, by key, in the order of the keys."""
        names = self._many(keys)
        found, missing = self._near.find_many(names, as_type)
        if missing and await self._entries.revive(missing):
            found, missing = self._near.find_many(names, as_type)
        if missing:
            looked_up = await self._entries.look_many(missing, as_type)
            found |= {names[key]: value for key, value in looked_up.items() if value is not MISSING}
            if len(missing) < len(names):
                found = {name: found[name] for name in names.values() if name in found}
        return found

    async def set_many(self, values: Mapping[str, object], ttl: TimeToLive) -> None:
        """Store values with one time to live. All are checked before the first is sent; it is not a transaction.

        Raises:
            InvalidCacheValueError: when JSON cannot carry one of them, or it is too large.
        """
        if not isinstance(values, Mapping):
            raise InvalidCacheValueError(f"values are given with their keys, as a mapping, not {type(values).__name__}")
        named = {self._namespace.key(key): value for key, value in values.items()}
        milliseconds = to_milliseconds(ttl)
        await self._entries.store([(key, self._entries.encode(key, named[key])) for key in named], milliseconds)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """Remove keys, and report how many were there."""
        return await self._entries.remove(*self._many(keys))

    async def keys(self, pattern: str = "*") -> AsyncIterator[str]:
        """The keys that match a Redis glob (``*``, ``?``, ``[a-z]``, backslash), without prefix, in no order.

        A key that is there all the time is found; it may come twice, and what changes meanwhile may or may not be
        found. Sessions are ``session:`` and a hash. The whole server is looked through: not for every request.
        """
        async for redis_keys in self._commands.scan(self._namespace.pattern(pattern)):
            beginnings = await self._commands.run_batch([("GETRANGE", redis_key, 0, 1) for redis_key in redis_keys])
            for redis_key, beginning in zip(redis_keys, beginnings, strict=True):
                key = self._namespace.without_prefix(redis_key)
                # An error in place of the beginning says that it is another data type, and so no marker.
                if key is not None and not (isinstance(beginning, bytes) and is_marker(beginning)):
                    yield key

    async def flush(self) -> int:
        """Remove every value under this application's prefix, sessions too, and report how many it removed.

        Other applications' keys stay, and so do locks. A key that is written meanwhile may stay.
        """
        removed = 0
        async for redis_keys in self._commands.scan(self._namespace.pattern("*")):
            removed += await self._entries.remove(*redis_keys)
        return removed

    async def cleanup(self) -> int:
        """Remove values of this application that nobody can read or that would stay for ever, and report how many.

        Those are values of another data type or version, and keys without a time to live, which only other programs
        make. Redis removes what has ended by itself; looking at all keys makes it do so at once.
        """
        removed = 0
        async for redis_keys in self._commands.scan(self._namespace.pattern("*")):
            stored = await self._commands.run_batch([("GET", redis_key) for redis_key in redis_keys])
            lives = await self._commands.run_batch([("PTTL", redis_key) for redis_key in redis_keys])
            removed += await self._entries.remove(
                *[
                    redis_key
                    for redis_key, value, milliseconds in zip(redis_keys, stored, lives, strict=True)
                    if milliseconds == -1 or await self._is_unreadable(redis_key, value)
                ]
            )
        return removed

    # Sessions: their ids are secrets, so Redis sees only their hashes

    async def set_session(self, session_id: str, data: object, ttl: TimeToLive) -> None:
        """Store the data of a session, in place of any other.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the data, or it is too large.
        """
        entries, redis_key = self._entries, self._namespace.session(session_id)
        milliseconds = to_milliseconds(ttl)
        stored = entries.encode(redis_key, data)
        await entries.change(redis_key, "SET", redis_key, stored, "PX", milliseconds)

    @overload
    async def get_session(self, session_id: str) -> Any: ...
    @overload
    async def get_session(self, session_id: str, as_type: type[Value]) -> Value | None: ...
    async def get_session(self, session_id: str, as_type: Any = None) -> Any:
        """The data of a session, or None when there is none or it has ended."""
        redis_key = self._namespace.session(session_id)
        value = self._near.find(redis_key, as_type)
        if value is MISSING:
            value = await self._entries.look(redis_key, as_type)
        return None if value is MISSING else value

    async def extend_session(self, session_id: str, ttl: TimeToLive) -> bool:
        """Give a session a new time to live from now, and report whether it was there."""
        return await self._entries.set_life(self._namespace.session(session_id), ttl)

    async def delete_session(self, session_id: str) -> bool:
        """Remove a session, and report whether it was there."""
        return bool(await self._entries.remove(self._namespace.session(session_id)))

    # Several commands, several processes

    def pipeline(self) -> Batch:
        """An empty batch of commands, to be filled and executed: a result for each, failures included."""
        return Batch(self)

    def lock(self, key: str, *, lease: TimeToLive = 10, wait: float = 10) -> Lock:
        """``async with cache.lock(key) as lock``: one holder at a time among all processes.

        The lease is renewed while the block runs. If it cannot be, the block is cancelled and LockLostError raised.
        ``lock.token`` grows with each holder: what is changed under the lock should refuse a smaller one.

        Args:
            key: what is locked; a value of the same name is another thing.
            lease: how long others wait when the holder dies.
            wait: seconds to wait for the lock; 0 tries once.

        Raises:
            InvalidCacheKeyError, InvalidTimeToLiveError: as for values.
            InvalidValueError: the wait is not a number.
            LockNotAcquiredError: on entering, when it stayed taken.
            LockLostError: on leaving, when it was lost before.
        """
        from data_layer.cache.locks import Lock

        given: object = wait
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LONGEST_SECONDS:
            raise InvalidValueError(f"wait must be a number of seconds from 0 to {LONGEST_SECONDS}", field="wait")
        return Lock(
            key,
            runner=self._commands,
            tracking=self._parts.tracking,
            namespace=self._namespace,
            lease=lease,
            wait=wait,
        )

    def stream(self, key: str, *, ttl: TimeToLive) -> Stream:
        """A bounded log under a key, to which one process appends and from which others read on.

        Args:
            key: as for values, but of another kind: a value and a stream cannot have the same key.
            ttl: how long the stream outlives its last entry.

        Raises:
            InvalidCacheKeyError, InvalidTimeToLiveError: as for values.
        """
        parts = self._parts
        return Stream(
            key,
            runner=parts.runner,
            tracking=parts.tracking,
            namespace=self._namespace,
            codec=self._codec,
            ttl=ttl,
        )

    def transaction_keys(self) -> TransactionKeys:
        """Collect the keys that one database transaction changes; ``tx.invalidate`` uses it."""
        from data_layer.cache.write_intents import TransactionKeys

        return TransactionKeys(self._parts.intents, self._namespace, self._parts.time_limit)

    @property
    def _parts(self) -> OpenCache:
        if self._opened is None:
            raise NotInitializedError("the cache is not open; call open() first, or use it inside `async with`")
        return self._opened

    @property
    def _commands(self) -> CommandRunner:
        return self._parts.runner

    @property
    def _entries(self) -> Entries:
        return self._parts.entries

    async def _count(self, redis_key: bytes, commands: list[tuple[str | bytes | int, ...]]) -> int:
        try:
            return int((await self._commands.run_all(commands, atomic=True, repeatable=False))[-1])
        except InvalidCacheValueError as error:
            name = self._namespace.describe(redis_key)
            raise InvalidCacheValueError(f"{name} cannot be counted: {error}") from None

    async def _is_unreadable(self, redis_key: bytes, stored: object) -> bool:
        if isinstance(stored, InvalidCacheValueError):  # Another data type.
            return bool(await self._commands.run("TYPE", redis_key) != b"stream")
        if not isinstance(stored, bytes) or is_marker(stored):
            return False
        try:
            self._codec.decode(stored)
        except UndecodableValueError:
            return True
        return False

    def _many(self, keys: Iterable[str]) -> dict[bytes, str]:
        if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
            raise InvalidCacheKeyError(f"Many cache keys are a list of texts, not one {type(keys).__name__}")
        name = self._namespace.key
        return {name(key): key for key in keys}


def _collected(
    method: Callable[Concatenate[Cache, Parameters], Awaitable[Any]],
) -> Callable[Concatenate[Batch, Parameters], Batch]:
    """The same operation as a command of a batch."""

    @functools.wraps(method)
    def collect(batch: Batch, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Batch:
        batch._commands.append(functools.partial(method, batch._cache, *args, **kwargs))  # noqa: SLF001  (its own method)
        return batch

    return collect


class Batch:
    """Collects commands; ``execute`` sends them in one go and returns their results. Made by ``Cache.pipeline``.

    Each method takes what the method of the same name on ``Cache`` takes, and its result is what that one returns.
    Commands on one key take effect in order; it is not a transaction. The cache pipelines concurrent calls anyway: a
    batch is for many commands whose results are wanted one by one, failures included.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._commands: list[Callable[[], Awaitable[Any]]] = []

    def __len__(self) -> int:
        return len(self._commands)

    get = _collected(cast("Callable[Concatenate[Cache, ...], Awaitable[Any]]", Cache.get))
    get_many = _collected(cast("Callable[Concatenate[Cache, ...], Awaitable[Any]]", Cache.get_many))
    set = _collected(Cache.set)
    set_many = _collected(Cache.set_many)
    add = _collected(Cache.add)
    delete = _collected(Cache.delete)
    delete_many = _collected(Cache.delete_many)
    exists = _collected(Cache.exists)
    expire = _collected(Cache.expire)
    touch = _collected(Cache.touch)
    ttl = _collected(Cache.ttl)
    increment = _collected(Cache.increment)

    async def execute(self) -> list[Any]:
        """Send the commands; a command that failed has its DataLayerError as its result.

        The batch is empty afterwards and can be filled again.
        """
        commands, self._commands = self._commands, []
        results = await asyncio.gather(*(command() for command in commands), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, DataLayerError):
                raise result
        return results
