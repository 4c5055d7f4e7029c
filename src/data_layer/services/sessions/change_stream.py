"""Reads the journal of changed sessions for as long as the process lives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import Context

from data_layer.concurrency import cancel_and_wait
from data_layer.database.listener import Listener
from data_layer.errors import DataLayerError
from data_layer.observability.log import get_log
from data_layer.repositories.session_changes import read_changes
from data_layer.services.sessions.copies import NearCopies
from data_layer.services.sessions.watermark import Watermark

log = get_log(__name__)

_POLL_SECONDS = 1.0
# Between two readings, so that many notifications in a row cost few.
_PAUSE_SECONDS = 0.02
_RECONNECT_SECONDS = 0.5

ANSWER_SECONDS = 2.0
"""How long the server may take to answer; copies are not believed for so long anyway."""


class ChangeStream:
    """Keeps ``watermark`` up to date over a connection of its own, and drops copies of changed sessions.

    Without a connection nothing is believed, so that sessions are checked in the database: slower, and right.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Listener]],
        watermark: Watermark,
        copies: NearCopies,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._watermark = watermark
        self._copies = copies
        self._clock = clock
        self._listener: Listener | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_lost = False

    def start(self) -> None:
        """Begin to follow the journal in the background. Harmless when it has begun."""
        if self._task is None:
            # In an empty context: it belongs to no request.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def close(self) -> None:
        """Stop and disconnect."""
        task, self._task = self._task, None
        await cancel_and_wait(task)
        await self.disconnect()

    async def catch_up(self) -> None:
        """Read the journal up to now, on a new connection if there is none.

        Raises:
            DatabaseError: when it cannot be read; the connection is closed then.
        """
        try:
            if self._listener is None:
                self._listener = await self._connect()
            while not await self._read(self._listener):
                pass
        except BaseException:
            await self.disconnect()
            raise

    async def disconnect(self) -> None:
        """Close the connection; ``catch_up`` opens another one."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    async def _read(self, listener: Listener) -> bool:
        """Whether this process is up to date now."""
        asked_at = self._clock()
        known = self._watermark.known_at(asked_at)
        reading = await read_changes(listener, known)
        changes = self._watermark.take(reading, asked_at=asked_at, known=known)
        if changes is None:
            self._copies.clear()
        else:
            self._copies.forget(changes)
        return self._watermark.fresh_until > asked_at

    async def _run(self) -> None:
        while True:
            try:
                await self.catch_up()
                self._tell(None)
                if self._listener is not None:
                    await self._listener.wait(_POLL_SECONDS)
                await asyncio.sleep(_PAUSE_SECONDS)
            except DataLayerError as error:
                self._tell(error)
                await self.disconnect()
                await asyncio.sleep(_RECONNECT_SECONDS)

    def _tell(self, error: DataLayerError | None) -> None:
        if error is not None and not self._is_lost:
            log.warning("session_changes_lost", reason=str(error))
        elif error is None and self._is_lost:
            log.info("session_changes_restored")
        self._is_lost = error is not None
