"""A worker as its supervisor sees it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from data_layer.errors import WorkerFailedError
from data_layer.observability.log import get_log
from data_layer.server.supervisor_link import Assignment

log = get_log(__name__)

_QUESTION_SECONDS = 5.0
_GRACE_SECONDS = 1.0  # If the supervisor itself stood still, the answer may be there and only has to be read.


class Worker:
    """A process of its own, in a session of its own: Ctrl-C in a terminal reaches the supervisor only."""

    def __init__(
        self,
        number: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        channel: socket.socket,
    ) -> None:
        self._number = number
        self._failure: WorkerFailedError | None = None
        self._process = process
        self._reader = reader
        self._writer = writer
        self.channel = channel
        """Takes connections of clients to it."""
        self._may_serve = False
        self._ready_at: float | None = None
        self.ready = asyncio.Event()
        """Set when it serves."""
        self._answered = asyncio.Event()

    @classmethod
    async def start(
        cls, command: Sequence[str], number: int, *, workers: int, listener: socket.socket, folder: Path
    ) -> Self:
        """Start it; the command gets the assignment as its last argument."""
        ours, theirs = socket.socketpair()
        channel, far_end = socket.socketpair()
        channel.setblocking(False)
        with theirs, far_end:
            assignment = Assignment(number, workers, listener.fileno(), theirs.fileno(), far_end.fileno(), str(folder))
            process = await asyncio.create_subprocess_exec(
                *command,
                assignment.as_text(),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(listener.fileno(), theirs.fileno(), far_end.fileno()),
                start_new_session=True,
            )
        return cls(number, process, *await asyncio.open_connection(sock=ours), channel)

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def takes_requests(self) -> bool:
        """Whether it serves requests, or may begin to at any moment."""
        return self._may_serve and self._process.returncode is None

    @property
    def is_ready(self) -> bool:
        """Whether it serves requests."""
        return self._ready_at is not None and self._process.returncode is None

    @property
    def ready_seconds(self) -> float:
        """For how long it has served; 0 if it never has."""
        return 0.0 if self._ready_at is None else time.monotonic() - self._ready_at

    async def ended(self, *, before_serving: Callable[[], Awaitable[None]], on_ready: Callable[[], None]) -> None:
        """Return when the process has ended, for the reason in ``why_it_ended``.

        Args:
            before_serving: awaited when it could serve, before it does.
            on_ready: called when it serves.
        """
        try:
            while line := await self._reader.readline():
                report = json.loads(line)
                if "ready" in report:
                    self._ready_at = time.monotonic()
                    self.ready.set()
                    log.info("worker_ready", number=self._number, pid=self.pid)
                    on_ready()
                elif "asks" in report:
                    await before_serving()
                    self._may_serve = True
                    self.send("serve")
                elif "alive" in report:
                    self._answered.set()
                else:
                    self._failure = WorkerFailedError(report["message"], report["code"])
        except OSError:
            pass  # It ended with a word of ours unread.
        await self._process.wait()
        self._writer.close()
        self.channel.close()

    async def hangs(self, limit: float) -> None:
        """Return when its event loop, once it is ready, has not turned for ``limit`` seconds."""
        await self.ready.wait()
        while True:
            self._answered.clear()
            self.send("alive")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), limit)
            if not self._answered.is_set():
                await asyncio.sleep(_GRACE_SECONDS)
            if not self._answered.is_set():
                return
            await asyncio.sleep(_QUESTION_SECONDS)

    @property
    def why_it_ended(self) -> WorkerFailedError:
        """What it said itself, or what the way it ended shows."""
        status = self._process.returncode or 0
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        when = "" if self._ready_at else " before it was ready"
        return self._failure or WorkerFailedError(f"worker {self._number} (process {self.pid}) ended {how}{when}")

    @property
    def ended_well(self) -> bool:
        """Whether it has closed everything in order."""
        return self._process.returncode == 0

    def send(self, word: str) -> None:
        """Say ``serve``, ``stop``, ``force`` or ``alive``, if it is there to hear it."""
        if not self._writer.is_closing():
            self._writer.write(word.encode() + b"\n")

    def kill(self) -> None:
        """End it, if it is there: its time is over."""
        if self._process.returncode is None:
            log.warning("worker_killed", number=self._number, pid=self.pid)
            self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
