"""Sends commands: within the time limit, once more where that is harmless, with typed errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from data_layer.cache.connection import MAXIMUM_CONNECTIONS
from data_layer.cache.errors import is_broken_connection, translate
from data_layer.errors import CacheTimeoutError, NotInitializedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from data_layer.cache.statistics import Counters

Command: TypeAlias = tuple[str | bytes | int, ...]
Result = TypeVar("Result")

SCAN_COUNT = 1000


class CommandRunner:
    """The one way from the cache to its server.

    A command on an open connection ends within the command timeout, one that has to connect first within the
    connect timeout more, and one that has to wait for a free connection within the command timeout more.

    A broken connection is replaced, and the command repeated once unless it is said not to be repeatable: the server
    may have carried it out before the connection broke.
    """

    def __init__(
        self, client: Redis, address: str, *, connect_timeout: float, command_timeout: float, counters: Counters
    ) -> None:
        self.client = client
        self._address = address
        self._waiting_limit = command_timeout
        self._time_limit = connect_timeout + command_timeout
        # Callers wait here and not in redis-py's pool: before Python 3.13 the condition that it waits on can lose a
        # wake-up when a caller is cancelled, and another caller would wait in vain.
        self._free = asyncio.Semaphore(MAXIMUM_CONNECTIONS)
        self._counters = counters
        self._retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.1), 1)
        self._closed = False

    async def run(self, *command: str | bytes | int, repeatable: bool = True) -> Any:
        """The answer to one command.

        Raises:
            CacheError: or the subclass that says what is wrong with the server, the login or the stored value.
        """

        async def send() -> Any:
            return await self.client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no type here

        return await self._guard(send, repeatable=repeatable)

    async def run_all(self, commands: Sequence[Command], *, atomic: bool = False, repeatable: bool = True) -> list[Any]:
        """The answers to commands that travel together; ``atomic`` makes them one transaction of the server.

        Raises:
            CacheError: as for ``run``, for the first command that failed; without ``atomic`` the others took effect.
        """

        async def send() -> list[Any]:
            async with self.client.pipeline(transaction=atomic) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                # redis-py would put the command, and so the value, into the text of the error.
                answers = await pipeline.execute(raise_on_error=False)
            failed = next((answer for answer in answers if isinstance(answer, Exception)), None)
            if failed is not None:
                raise failed
            return answers

        return await self._guard(send, repeatable=repeatable)

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """The keys that match a glob, in batches; a batch may be empty, and a key may come twice."""
        cursor = 0
        while True:
            cursor, keys = await self.run("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            yield keys
            if int(cursor) == 0:
                return

    async def close(self) -> None:
        """Refuses further commands, waits for those under way (each has its time limit), and closes all connections."""
        self._closed = True
        try:
            # redis-py may fail in strange ways when a connection is closed under a command.
            for _ in range(MAXIMUM_CONNECTIONS):
                await self._free.acquire()
        finally:
            await self.client.aclose()

    async def _guard(self, send: Callable[[], Awaitable[Result]], *, repeatable: bool) -> Result:
        self._refuse_if_closed()
        await self._wait_for_a_connection()
        try:
            self._refuse_if_closed()
            async with asyncio.timeout(self._time_limit):
                if not repeatable:
                    return await send()
                return await self._retry.call_with_retry(send, _go_on, is_retryable=is_broken_connection)
        except (RedisError, OSError) as error:
            self._counters.failures += 1
            # Without the cause, whose text may quote a value or a password.
            raise translate(error, self._address) from None
        finally:
            self._free.release()

    async def _wait_for_a_connection(self) -> None:
        try:
            async with asyncio.timeout(self._waiting_limit):
                await self._free.acquire()
        except TimeoutError:
            self._counters.failures += 1
            raise CacheTimeoutError(
                f"All {MAXIMUM_CONNECTIONS} connections to Redis at {self._address} stayed in use for "
                "REDIS_COMMAND_TIMEOUT"
            ) from None

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise NotInitializedError("The cache was closed")


async def _go_on(_error: Exception) -> None:
    """redis-py has dropped the broken connection by itself."""
