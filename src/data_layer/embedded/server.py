"""What the two servers have in common: made ready once, started, watched, restarted and stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from data_layer.concurrency import cancel_and_wait
from data_layer.embedded.folders import disk_problem, explain
from data_layer.embedded.processes import kill_group, start_program
from data_layer.errors import EmbeddedServerError

START_SECONDS = 30
_LOG_TAIL = 8
_PAUSE_BEFORE_RESTART = 1.0


class StoppedError(Exception):
    """The server was asked for after its guardian had begun to end."""


class Server(ABC):
    """One server under the guardian. Any number of users may ask for it; it is started once.

    Attributes:
        title: its name in messages.
        stop_steps: the signals that end it, each with the seconds to wait before the next. All of them together must
            leave time within the eight seconds that a caller waits.
    """

    title: ClassVar[str]
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, folder: Path, sockets: Path) -> None:
        self.folder = folder
        self.sockets = sockets
        self.data_folder = folder / self.title.lower()
        self.log = folder / "log" / f"{self.title.lower()}.log"
        self._process: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopped = False

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find it: a folder or a socket."""

    @abstractmethod
    async def _prepare(self, programs: Path) -> None:
        """Make the data folder, and clear away what a killed server left."""

    @abstractmethod
    def _command(self, programs: Path) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    async def _is_ready(self, pid: int) -> bool:
        """Whether the process answers clients."""

    @property
    def _identity(self) -> str:
        """The account under which it runs, as ``launch.py`` takes it."""
        return "same"

    async def ensure(self, programs: Path) -> None:
        """Return once the server runs; start it unless somebody has.

        Args:
            programs: the path of its program, or the folder of its programs.

        Raises:
            EmbeddedServerError: it cannot be started.
            StoppedError: it was stopped, for good.
        """
        if self._is_stopped:
            raise StoppedError
        if self._starting is None or (self._starting.done() and not self._is_running):
            self._starting = asyncio.create_task(self._start(programs))
        # One user that gives up must not take the server from the others.
        await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """End the server, or its start, and everything that belongs to it."""
        self._is_stopped = True
        await cancel_and_wait(self._starting, self._watching)
        await self._end()

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def _start(self, programs: Path) -> None:
        try:
            await self._prepare(programs)
            self._process = await self._launch(programs)
            await self._wait_until_ready(self._process)
        except OSError as error:
            await self._end()
            raise explain(error, self.folder) from error
        except EmbeddedServerError:
            await self._end()
            raise
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._restart_when_it_dies(programs))

    async def _launch(self, programs: Path) -> asyncio.subprocess.Process:
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        with self.log.open("wb") as output:
            return await start_program(
                self._command(programs),
                folder=self.data_folder,
                output=output,
                identity=self._identity,
                death_signal=self.stop_steps[0][0],
            )

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await self._is_ready(process.pid):
            if process.returncode is not None:
                raise self._failure(f"ended while starting ({describe_status(process.returncode)})", self._log_tail())
            if time.monotonic() > deadline:
                raise self._failure(f"did not come up in {START_SECONDS} seconds", self._log_tail())
            await asyncio.sleep(0.01)

    async def _restart_when_it_dies(self, programs: Path) -> None:
        while self._process is not None:
            status = await self._process.wait()
            report(f"{self.title} ended by itself ({describe_status(status)}); starting it again")
            await asyncio.sleep(_PAUSE_BEFORE_RESTART)
            try:
                await self.ensure(programs)
            except EmbeddedServerError as error:
                report(str(error))
                return

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number, seconds in self.stop_steps:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await process.wait()
                return
        kill_group(process)
        await process.wait()

    def _failure(self, what: str, said: str) -> EmbeddedServerError:
        """An error that says what happened to the server, with the last lines of what it said."""
        full = disk_problem(self.folder, said)
        if full is not None:
            return EmbeddedServerError(f"{self.title} {what}. {full}")
        lines = said.strip().splitlines()[-_LOG_TAIL:] or ["(nothing)"]
        said = "\n".join(f"  {line}" for line in lines)
        return EmbeddedServerError(
            f"{self.title} {what}. Its data is in {self.data_folder}, its log in {self.log}; it said:\n{said}\n"
            f"If the data is damaged, move {self.data_folder} away: the next start makes an empty one."
        )

    def _log_tail(self) -> str:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
            return log.read().decode(errors="replace")
        return ""


def describe_status(status: int) -> str:
    """An exit status in words."""
    return f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"


def report(text: str) -> None:
    """Write a line to the guardian's log."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError):
        sys.stderr.write(f"{now} {text}\n")
        sys.stderr.flush()
