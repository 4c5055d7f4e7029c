"""The metrics of several worker processes at one address: each reports its own, and the supervisor adds them up.

Every worker listens on a Unix socket in a folder that is private to the service; each connection is sent a snapshot.
What a worker had counted stays when it ends, so that no counter ever falls: its last act is to leave its snapshot in a
file, and after a worker that was killed the last answer counts, which is a few seconds old at most.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from data_layer.concurrency import cancel_and_wait
from data_layer.observability.log import get_log
from data_layer.observability.metrics.snapshots import Snapshot, decode, encode, merge, without_gauges

log = get_log(__name__)

LOOK_SECONDS = 5.0
"""How often the supervisor asks, whether or not anybody asks it."""

_ANSWER_SECONDS = 2.0
_SOCKET, _FINAL, _PARTIAL = ".sock", ".final", ".partial"


@asynccontextmanager
async def telling_supervisor(snapshot: Callable[[], Snapshot], folder: Path) -> AsyncIterator[None]:
    """Answer the supervisor inside, and leave a last snapshot at the end.

    Args:
        snapshot: what to report; called by this event loop.
        folder: the supervisor's. If it cannot be used, because its path is too long for a Unix socket for example, that
            is logged, and the worker goes on without reporting anything.
    """
    name = f"{os.getpid()}-{time.monotonic_ns()}"

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(encode(snapshot()))
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_unix_server(answer, sock=_listen(folder, name))
    except OSError as error:
        log.warning("worker_metrics_untold", reason=str(error))
        yield
        return
    try:
        yield
    finally:
        server.close()
        partial = folder / f"{name}{_PARTIAL}"
        with suppress(OSError):  # The supervisor has its last answer, if the folder is gone or the disk full.
            partial.write_bytes(encode(snapshot()))
            partial.rename(partial.with_suffix(_FINAL))
            (folder / f"{name}{_SOCKET}").unlink(missing_ok=True)


def _listen(folder: Path, name: str) -> socket.socket:
    """A socket that takes its name when it listens: one that refuses looks as if its worker had ended."""
    partial = folder / f"{name}{_PARTIAL}"
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(partial))
        listener.listen()
        partial.rename(partial.with_suffix(_SOCKET))
    except BaseException:
        listener.close()
        raise
    return listener


class AllWorkers:
    """What all workers of a folder have counted together, those that have ended included."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._answers: dict[str, Snapshot] = {}
        self._silent: set[str] = set()
        self._ended: Snapshot = {}
        self._looking = asyncio.Lock()

    async def snapshot(self) -> Snapshot:
        """Everything as it is now. A worker that does not answer within two seconds is left out of the gauges."""
        async with self._looking:
            names = {path.stem for path in self._folder.iterdir() if path.suffix in {_SOCKET, _FINAL}}
            await asyncio.gather(*(self._look_at(name) for name in sorted(names | self._answers.keys())))
            answers = (
                without_gauges(answer) if name in self._silent else answer for name, answer in self._answers.items()
            )
            return merge([*answers, self._ended])

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Ask them every few seconds inside, so that little is lost with a worker that is killed."""
        task = asyncio.create_task(self._keep_looking(), name="worker-metrics")
        try:
            yield
        finally:
            await cancel_and_wait(task)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.snapshot()
            except OSError as error:
                log.warning("worker_metrics_failed", reason=str(error))

    async def _look_at(self, name: str) -> None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                self._answers[name] = decode(await _ask(self._folder / f"{name}{_SOCKET}"))
            self._silent.discard(name)
        except (FileNotFoundError, ConnectionRefusedError):
            self._take_leave(name)
        except (OSError, TimeoutError, ValueError) as error:
            if name not in self._silent:
                log.warning("worker_metrics_unanswered", worker=name, reason=type(error).__name__)
            self._silent.add(name)

    def _take_leave(self, name: str) -> None:
        """Keep what a worker that has ended had counted, once."""
        last = self._answers.pop(name, {})
        final = self._folder / f"{name}{_FINAL}"
        with suppress(OSError, ValueError):
            last = decode(final.read_bytes())
        self._ended = merge([self._ended, without_gauges(last)])
        self._silent.discard(name)
        for path in (final, final.with_suffix(_SOCKET)):
            path.unlink(missing_ok=True)


async def _ask(path: Path) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        return await reader.read(-1)
    finally:
        writer.close()
