"""Psycopg's connection, with a limit on every wait."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.generators import send
from psycopg.pq import PipelineStatus, TransactionStatus

from data_layer.database.failures import SilentServerError
from data_layer.database.statements import NumberedSql

Result = TypeVar("Result")

# How long a cancelled statement may keep its caller when the server does not even take the cancellation, and how long
# a closed connection is waited for.
_CANCEL_SECONDS = 1.0
_WAKE_SECONDS = 0.1


class _Pipeline(psycopg.AsyncPipeline):
    """Statements that are sent together, ended by Sync alone.

    The driver sends a Flush after it, and PostgreSQL then no longer counts for how long the transaction is idle.
    """

    def _fetch_gen(self, *, flush: bool) -> PQGen[None]:
        # The driver's step of communicating ends when the last statement is in libpq's buffer, which need not have
        # taken it off our hands: reading alone, we would wait for a server that waits for the rest of a large row.
        # ``send`` reads too while it waits, so that a server that cannot go on before its results are read does.
        yield from send(self.pgconn)
        yield from super()._fetch_gen(flush=flush)

    def _exit_gen(self) -> PQGen[None]:
        try:
            yield from self._sync_gen()
        except psycopg.Error:
            # What follows the statement that failed says only that it was skipped.
            with suppress(psycopg.Error):
                yield from self._fetch_gen(flush=False)
            raise


class DriverConnection(psycopg.AsyncConnection[Any]):
    """A connection that gives a server up that neither says nor takes anything for ``time_limit`` seconds."""

    time_limit: float | None = None
    """In seconds. It may be changed while somebody waits."""
    opened_at: float = 0.0
    """When it was opened, in seconds of the monotonic clock."""

    @classmethod
    async def open(
        cls, *address: str, connect_limit: float, time_limit: float, first: str = "", **options: Any
    ) -> Self:
        """Connect within ``connect_limit`` seconds, looking up the name included.

        Args:
            address: libpq's connection string.
            connect_limit: in seconds.
            time_limit: seconds for which the server may be silent.
            first: a statement that each new connection executes.
            options: libpq's, and the driver's.
        """
        try:
            async with asyncio.timeout(connect_limit):
                connection = await cls._connect(*address, first=first.encode(), **options)
        except TimeoutError:
            text = f"connection failed: no answer within {connect_limit:g} s (DB_CONNECT_TIMEOUT)"
            raise psycopg.errors.ConnectionTimeout(text) from None
        connection.time_limit = time_limit
        connection.opened_at = time.monotonic()
        return connection

    @classmethod
    async def _connect(cls, *address: str, first: bytes, **options: Any) -> Self:
        connection = None
        try:
            connection = await cls.connect(*address, autocommit=True, **options)
            if first:
                await connection.execute(first, prepare=False)
        except BaseException as error:
            # A half-made connection stays open for as long as somebody keeps the error, which knows it.
            traceback.clear_frames(error.__traceback__)
            if connection is not None:
                await connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Close; in the middle of something also wait for the server to let go, lest a successor be one too many."""
        if self.closed or self.is_idle:
            await super().close()
            return
        with socket.socket(fileno=os.dup(self.fileno())) as line, suppress(OSError, TimeoutError):
            await super().close()
            async with asyncio.timeout(_CANCEL_SECONDS):
                while await asyncio.get_running_loop().sock_recv(line, 4096):
                    pass

    async def execute(
        self, query: Any, params: Any = None, *, prepare: bool | None = None, binary: bool = False
    ) -> psycopg.AsyncCursor[Any]:
        """Execute a statement with a cursor of its own."""
        if not isinstance(query, NumberedSql):
            return await super().execute(query, params, prepare=prepare, binary=binary)
        return await psycopg.AsyncRawCursor(self).execute(query, params, prepare=prepare, binary=binary)

    async def wait(self, gen: PQGen[Result], interval: float = _WAKE_SECONDS, timeout: float | None = None) -> Result:  # noqa: ASYNC109  (the driver's interface)
        """Wait for the server, as everything that the driver does."""
        try:
            return await super().wait(self._while_heard(gen) if timeout is None else gen, interval, timeout)
        except SilentServerError:
            self.pgconn.finish()
            raise

    def _while_heard(self, gen: PQGen[Result]) -> PQGen[Result]:
        """Pass on what a generator waits for, as long as the server does not stay silent for too long.

        A large row on a slow connection may take longer than the limit: what counts is that it moves.
        """
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    heard = time.monotonic()
                elif self.time_limit is not None and time.monotonic() - heard >= self.time_limit:
                    text = f"PostgreSQL did not answer for {self.time_limit:g} s; the connection was given up"
                    raise SilentServerError(text)
                wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def cancel_safe(self, *, timeout: float = _CANCEL_SECONDS) -> None:  # noqa: ASYNC109  (the driver's interface)
        """Ask the server to cancel the statement; give the connection up when it cannot be asked."""
        try:
            await super().cancel_safe(timeout=min(timeout, _CANCEL_SECONDS))
        except psycopg.Error:
            self.pgconn.finish()
            raise

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[psycopg.AsyncPipeline]:
        """Send the statements inside together."""
        async with self.lock:
            self._check_connection_ok()
            pipeline = self._pipeline = self._pipeline or _Pipeline(self)
        try:
            async with pipeline:
                yield pipeline
        except BaseException:
            # PostgreSQL skipped everything after the statement that failed, also preparing statements, which the driver
            # believes to be prepared all the same: each later use of them on this connection would fail.
            self._prepared.clear()
            raise
        finally:
            if pipeline.level == 0:
                async with self.lock:
                    self._pipeline = None

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Have less patience inside."""
        usual, self.time_limit = self.time_limit, seconds
        try:
            yield
        finally:
            self.time_limit = usual

    @property
    def is_idle(self) -> bool:
        """Whether it is open, between transactions and between statements, as far as the driver knows.

        Cancellation while entering a pipeline leaves the connection in pipeline mode.
        """
        return not self.closed and not self.is_in_pipeline and self.pgconn.transaction_status == TransactionStatus.IDLE

    @property
    def is_in_pipeline(self) -> bool:
        """Whether statements are being collected, so that their results come later."""
        return self.pgconn.pipeline_status != PipelineStatus.OFF

    @property
    def has_hung_up(self) -> bool:
        """Whether the server has closed the connection, or its process has ended."""
        return self.closed or bool(self._poll() & _HUNG_UP)

    @property
    def is_stale(self) -> bool:
        """Whether the server has said something, which on an idle connection can only be its end.

        A parameter that changed on a reload looks the same; then one connection is replaced for nothing.
        """
        return self.closed or bool(self._poll())

    def _poll(self) -> int:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN | _HUNG_UP)
        return next((events for _, events in poll.poll(0)), 0)


# POLLRDHUP: on Linux, a TCP connection of which only the other side's half is closed.
_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)
