"""What an operator wants to know of the servers of the cache; nothing is changed there."""

from __future__ import annotations

import time
from typing import Any, Self

from data_layer.cache.address import CacheAddress, ServerAddress, find_cache
from data_layer.cache.commands import CommandRunner
from data_layer.cache.keys import Namespace
from data_layer.cache.measuring import probe
from data_layer.cache.statistics import Counters, parse_info
from data_layer.cache.wire.connection import Connection, Connector
from data_layer.cache.wire.node import Node
from data_layer.errors import CacheError, CacheUnavailableError
from data_layer.settings.redis import RedisSettings

_PINGS = 10
_NO_RIGHT = "NOPERM"


class CacheInspection:
    """Asks the servers, for an ``async with`` block. Every answer is awaited for as long as the settings say.

    Args:
        settings: the ``redis_`` ones say where the servers are.
        url: a server to use instead, such as the embedded one.

    Raises:
        ConfigurationError: when no server is named, or REDIS_TLS_CA holds no certificate.
    """

    def __init__(self, settings: RedisSettings, url: str | None = None) -> None:
        self.address: CacheAddress = find_cache(settings, url)
        self._settings = settings
        self._namespace = Namespace(settings.redis_key_prefix)
        self._runner = CommandRunner(self.address, settings, Counters())
        self._connector = Connector(settings, tls=self.address.login.tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.close()

    @property
    def key_pattern(self) -> str:
        """The keys of this application, as ACL SETUSER names them."""
        return f"{self._namespace.start.decode()}*"

    async def log_in(self) -> list[str]:
        """The names of all servers that hold data and may be written.

        Raises:
            CacheError: or the subclass that says why one of them lets nobody in.
        """
        primaries = await self._runner.primaries()
        for primary in primaries:
            await self._runner.run_on(primary, "PING")
        return [_located(primary) for primary in primaries]

    async def info(self) -> dict[str, dict[str, int | str]]:
        """What INFO says, by server."""
        primaries = await self._runner.primaries()
        answers = {_located(primary): await self._runner.run_on(primary, "INFO") for primary in primaries}
        return {name: parse_info(answer) for name, answer in answers.items()}

    async def require_writes(self) -> None:
        """Ask every server for a write that changes nothing, because the key is absent.

        Raises:
            CacheError: when one of them does not take it.
        """
        await probe(self._runner, self._namespace)

    async def forbidden_commands(self) -> dict[str, list[str]]:
        """By server the commands that the cache uses and this user may not; tried so that they change nothing."""
        found: dict[str, list[str]] = {}
        for primary in await self._runner.primaries():
            connection = await self._open_connection(primary)
            try:
                commands = self._harmless_commands()
                found[_located(primary)] = [
                    str(name) for name, *rest in commands if await _is_refused(connection, (name, *rest))
                ]
            finally:
                connection.close()
        return found

    async def forbids_tracking(self) -> dict[str, str | None]:
        """By server the reason why it does not report changes, or None if it does."""
        found: dict[str, str | None] = {}
        for primary in await self._runner.primaries():
            connection = await self._open_connection(primary)
            try:
                await connection.run("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._namespace.start)
            except CacheError as error:
                found[_located(primary)] = str(error)
            else:
                found[_located(primary)] = None
            finally:
                connection.close()
        return found

    async def clock_differences(self) -> dict[str, tuple[float, float]]:
        """By server the seconds that its clock is ahead of this machine's, and how far that may be off."""
        found = {}
        for primary in await self._runner.primaries():
            before = time.time()
            seconds, microseconds = await self._runner.run_on(primary, "TIME")
            after = time.time()
            now = int(seconds) + int(microseconds) / 1e6
            found[_located(primary)] = (now - (before + after) / 2, (after - before) / 2)
        return found

    async def latencies(self) -> dict[str, float]:
        """By server the median of the seconds that some PINGs took, one after the other."""
        found = {}
        for primary in await self._runner.primaries():
            times = []
            for _ in range(_PINGS):
                started = time.perf_counter()
                await self._runner.run_on(primary, "PING")
                times.append(time.perf_counter() - started)
            found[_located(primary)] = sorted(times)[_PINGS // 2]
        return found

    async def ask_sentinel(self, sentinel: ServerAddress) -> str:
        """The primary that one sentinel names, as host:port.

        Raises:
            CacheError: it does not answer, knows no primary of this name, or sees too few others to elect a new one.
        """
        connection = await self._connector.open(sentinel)
        try:
            name = self.address.sentinel_master or ""
            answer = await connection.run("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            if answer is None:
                raise CacheUnavailableError(f"it knows no primary named {name!r}; check REDIS_SENTINEL_MASTER")
            await connection.run("SENTINEL", "CKQUORUM", name)
            return f"{answer[0].decode()}:{int(answer[1])}"
        finally:
            connection.close()

    async def cluster_state(self, node: ServerAddress) -> dict[str, int | str]:
        """What a node says of the cluster.

        Raises:
            CacheError: it does not answer, or is not a node of a cluster.
        """
        connection = await self._connector.open(node)
        try:
            return parse_info(await connection.run("CLUSTER", "INFO"))
        finally:
            connection.close()

    async def _open_connection(self, primary: Node) -> Connection:
        return await self._runner.open_connection(primary, on_push=_ignore_push, on_closed=_ignore)

    def _harmless_commands(self) -> list[tuple[str | int | bytes, ...]]:
        """Each command of the cache, on a key that is absent, or with an argument at which it fails."""
        key = self._namespace.key("doctor")
        return [
            ("GET", key),
            ("MGET", key),
            ("GETRANGE", key, 0, 1),
            ("SET", key, b"", "XX", "PX", 1),
            ("UNLINK", key),
            ("PTTL", key),
            ("PEXPIRE", key, 1),
            ("INCRBY", key, "no number"),
            ("XADD", key, "NOMKSTREAM", "*", "v", b""),
            ("XRANGE", key, "-", "+", "COUNT", 1),
            ("EVAL", "return redis.call('TIME')", 1, key),
            ("EVALSHA", "0" * 40, 1, key),
            ("SCRIPT", "LOAD", "return 1"),
            ("SCAN", 0, "MATCH", key, "COUNT", 1),
            ("INFO",),
            ("TIME",),
            # The last one: what would follow it on this connection would be queued.
            ("MULTI",),
        ]


def _located(primary: Node) -> str:
    """Where it is, which of a primary that sentinels name is known only after it was connected to."""
    return str(primary.address) if primary.address is not None else primary.name


async def _is_refused(connection: Connection, command: tuple[str | int | bytes, ...]) -> bool:
    try:
        await connection.run(*command)
    except CacheError as error:
        return _NO_RIGHT in str(error)
    return False


def _ignore_push(_: list[Any]) -> None:
    pass


def _ignore() -> None:
    pass
