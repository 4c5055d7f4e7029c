"""The public cache: what callers see, in terms of keys, values and times to live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from data_layer.cache.address import find_cache
from data_layer.cache.codec import MAXIMUM_VALUE_SIZE, Codec
from data_layer.cache.entries import Entries
from data_layer.cache.keys import Namespace
from data_layer.cache.statistics import CacheStatistics, Counters, summarize
from data_layer.errors import InvalidCacheKeyError, NotInitializedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from redis.asyncio import Redis

    from data_layer.cache.commands import CommandRunner
    from data_layer.cache.time_to_live import TimeToLive
    from data_layer.config import Settings

Value = TypeVar("Value")

_SCANS_PER_COUNT = 100


class Cache:
    """Values with a time to live, shared by all processes of this application.

    A *key* is text of 1 to 512 bytes in UTF-8, any characters. A *value* is anything JSON can carry (a tuple comes
    back as a list), ``bytes``, or pydantic models, alone or inside lists and dicts; at most 8 MiB before
    compression. A *time to live* is a number of seconds or a timedelta, from one millisecond to ten years.

    What cannot be read back (written by another program or version, corrupt, not of the type that was asked for) is
    a miss and is logged as ``cache_value_undecodable``; it never raises.

    Every method that talks to the server may raise CacheUnavailableError, CacheLoginError, CacheTimeoutError or
    CacheError, and NotInitializedError outside ``open`` and ``close``.

    Args:
        settings: the ``redis_`` ones say which server, how long to wait, and the prefix of all keys.
        url: a server to use instead of the one in the settings, such as ``unix:///run/valkey.sock``.
        maximum_value_size: bytes that a value may have before compression.

    Raises:
        ConfigurationError: when no server is named, or its address cannot be used.
    """

    def __init__(
        self, settings: Settings, url: str | None = None, *, maximum_value_size: int = MAXIMUM_VALUE_SIZE
    ) -> None:
        self._settings = settings
        self._server = find_cache(settings, url)
        self._namespace = Namespace(settings.redis_key_prefix)
        self._codec = Codec(maximum_value_size)
        self._opened: Entries | None = None

    async def open(self) -> None:
        """Makes the cache usable. Nothing is sent until the first command; ``check`` says whether the server answers.

        Raises:
            ConfigurationError: when REDIS_TLS_CA holds no certificate.
        """
        # Here because importing redis-py takes longer than all else in this package.
        from data_layer.cache.commands import CommandRunner  # noqa: PLC0415

        if self._opened is None:
            counters = Counters()
            runner = CommandRunner(self._server, self._settings, counters)
            self._opened = Entries(runner, self._codec, self._namespace, counters)

    async def close(self) -> None:
        """Waits for commands under way, each of which has its time limit, and closes all connections.

        Further commands are refused. The cache can be opened again.
        """
        entries, self._opened = self._opened, None
        if entries is not None:
            await entries.runner.close()

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
    def client(self) -> Redis:
        """redis-py's client, for what this class does not cover. Keys there need the prefix; errors are redis-py's."""
        return self._commands.client

    async def check(self) -> None:
        """Returns if the server answers.

        Raises:
            CacheError: or the subclass that says why it does not.
        """
        await self._commands.run("PING")

    async def stats(self) -> CacheStatistics:
        """Figures of the server and of this process. Looks at 100 000 keys of the server at most."""
        from data_layer.cache.wire.info import parse_info  # noqa: PLC0415

        primary, *_ = await self._commands.primaries()
        info = parse_info(await self._commands.run_on(primary, "INFO"))
        keys = scans = 0
        keys_complete = True
        async for found in self._commands.scan(self._namespace.pattern("*")):
            if scans == _SCANS_PER_COUNT:
                keys_complete = False
                break
            keys += len(found)
            scans += 1
        return summarize(info, self._entries.counters, keys=keys, keys_complete=keys_complete)

    # One key

    @overload
    async def get(self, key: str) -> Any: ...
    @overload
    async def get(self, key: str, as_type: type[Value]) -> Value | None: ...
    async def get(self, key: str, as_type: Any = None) -> Any:
        """The value, or None when there is none.

        With ``as_type`` it is validated as that type: a pydantic model, ``list[Model]``, ``bytes`` … A stored None
        looks like a miss here; ``get_many`` and ``exists`` tell them apart.
        """
        return await self._entries.read(self._namespace.key(key), as_type)

    async def set(self, key: str, value: object, ttl: TimeToLive) -> None:
        """Stores a value, in place of any other.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        await self._entries.write(self._namespace.key(key), value, ttl)

    async def add(self, key: str, value: object, ttl: TimeToLive) -> bool:
        """Stores a value if the key is absent, and says whether it did.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the value, or it is too large.
        """
        return await self._entries.write_if_absent(self._namespace.key(key), value, ttl)

    async def delete(self, key: str) -> bool:
        """Removes a key, and says whether it was there."""
        return bool(await self._entries.remove(self._namespace.key(key)))

    async def exists(self, key: str) -> bool:
        """Whether the key is there."""
        return await self._entries.exists(self._namespace.key(key))

    async def expire(self, key: str, ttl: TimeToLive) -> bool:
        """Gives a key a new time to live from now, and says whether it was there."""
        return await self._entries.extend(self._namespace.key(key), ttl)

    async def ttl(self, key: str) -> float | None:
        """Seconds that the key has left, or None when it is not there; infinite if another program set no end."""
        return await self._entries.time_left(self._namespace.key(key))

    async def increment(self, key: str, amount: int = 1, *, ttl: TimeToLive) -> int:
        """Adds to a whole number in one atomic step and gives the sum; an absent key counts as 0.

        The time to live applies when the key is created and is not renewed afterwards, so that a limit of requests
        per minute ends with its minute. ``get`` reads the number, and ``set`` of a whole number makes one. It is
        never repeated by itself: after CacheUnavailableError it may or may not have been counted.

        Raises:
            InvalidCacheValueError: when the key holds something else, or the sum would leave 64 bits.
        """
        return await self._entries.increment(self._namespace.key(key), amount, ttl)

    # Many keys

    @overload
    async def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    @overload
    async def get_many(self, keys: Iterable[str], as_type: type[Value]) -> dict[str, Value]: ...
    async def get_many(self, keys: Iterable[str], as_type: Any = None) -> dict[str, Any]:
        """The values that were found, by key, in the order of the keys."""
        names = self._many(keys)
        found = await self._entries.read_many(names, as_type)
        return {names[redis_key]: value for redis_key, value in found.items()}

    async def set_many(self, values: Mapping[str, object], ttl: TimeToLive) -> None:
        """Stores values with one time to live. All are checked before the first is sent; it is no transaction.

        Raises:
            InvalidCacheValueError: when JSON cannot carry one of them, or it is too large.
        """
        await self._entries.write_many({self._namespace.key(key): value for key, value in values.items()}, ttl)

    async def delete_many(self, keys: Iterable[str]) -> int:
        """Removes keys, and says how many were there."""
        return await self._entries.remove(*self._many(keys))

    async def keys(self, pattern: str = "*") -> AsyncIterator[str]:
        """The keys that match a Redis glob (``*``, ``?``, ``[a-z]``, backslash), without prefix, in no order.

        A key that is there all the time is found; it may come twice, and what changes meanwhile may or may not be
        found. Sessions are ``session:`` and a hash. The whole server is looked through: not for every request.
        """
        async for redis_keys in self._commands.scan(self._namespace.pattern(pattern)):
            for redis_key in redis_keys:
                key = self._namespace.without_prefix(redis_key)
                if key is not None:
                    yield key

    async def flush(self) -> int:
        """Removes every key under this application's prefix, sessions too, and says how many it removed.

        Other applications' keys stay. A key that is written meanwhile may stay.
        """
        removed = 0
        async for redis_keys in self._commands.scan(self._namespace.pattern("*")):
            removed += await self._entries.remove(*redis_keys)
        return removed

    # Sessions: the id is a secret, so Redis sees only its hash

    async def set_session(self, session_id: str, data: object, ttl: TimeToLive) -> None:
        """Stores the data of a session, in place of any other.

        Raises:
            InvalidCacheValueError: when JSON cannot carry the data, or it is too large.
        """
        await self._entries.write(self._namespace.session(session_id), data, ttl)

    @overload
    async def get_session(self, session_id: str) -> Any: ...
    @overload
    async def get_session(self, session_id: str, as_type: type[Value]) -> Value | None: ...
    async def get_session(self, session_id: str, as_type: Any = None) -> Any:
        """The data of a session, or None when there is none or it has ended."""
        return await self._entries.read(self._namespace.session(session_id), as_type)

    async def extend_session(self, session_id: str, ttl: TimeToLive) -> bool:
        """Gives a session a new time to live from now, and says whether it was there."""
        return await self._entries.extend(self._namespace.session(session_id), ttl)

    async def delete_session(self, session_id: str) -> bool:
        """Removes a session, and says whether it was there."""
        return bool(await self._entries.remove(self._namespace.session(session_id)))

    @property
    def _commands(self) -> CommandRunner:
        return self._entries.runner

    @property
    def _entries(self) -> Entries:
        if self._opened is None:
            raise NotInitializedError("The cache is not open; call open() first, or use it inside `async with`")
        return self._opened

    def _many(self, keys: Iterable[str]) -> dict[bytes, str]:
        if isinstance(keys, str):
            raise InvalidCacheKeyError("Many cache keys are a list of texts, not one text")
        return {self._namespace.key(key): key for key in keys}
