"""What a worker knows of its supervisor: its assignment, and the connection between the two.

The connection is a pair of sockets. The worker reports on it, one JSON object a line, that it could serve, that it
does, why it cannot start, or that it is alive; the supervisor says ``serve``, ``stop`` and ``force``, and asks
``alive``. When the connection ends,
the supervisor is gone, by ``kill -9`` for example, and the worker stops too.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from data_layer.errors import DataLayerError
from data_layer.server.stopping import StopRequest

FORWARDED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that the supervisor hands on to the workers, once they are ready."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker is started with.

    Attributes:
        number: from 0; a worker that replaces another one has the same.
        workers: how many there are.
        listener: descriptor of the listening socket.
        connection: descriptor of the connection to the supervisor.
        channel: descriptor of the socket that brings connections of clients; see ``server.starting``.
        folder: private folder of the service, removed with it.
    """

    number: int
    workers: int
    listener: int
    connection: int
    channel: int
    folder: str

    def as_text(self) -> str:
        """What stands on the worker's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Assignment:
        """Read it from there."""
        return cls(**json.loads(text))

    def open_listener(self) -> socket.socket:
        """The listening socket, which nothing that this process starts inherits."""
        return _adopt(self.listener)

    def open_channel(self) -> socket.socket:
        """The socket that brings connections that the supervisor has accepted."""
        return _adopt(self.channel)

    def open_link(self) -> SupervisorLink:
        """The connection to the supervisor."""
        return SupervisorLink(_adopt(self.connection), Path(self.folder))


class SupervisorLink:
    """The worker's end of the connection."""

    def __init__(self, connection: socket.socket, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._may_serve = asyncio.Event()
        # Until someone handles them: they would end the process.
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)

    async def may_serve(self) -> None:
        """Ask to take requests, and return when the supervisor takes none itself any more."""
        self._report({"asks": "serve"})
        await self._may_serve.wait()

    def report_ready(self) -> None:
        """Say that requests are being served."""
        self._report({"ready": True})

    def report_failure(self, error: DataLayerError) -> None:
        """Say why this worker cannot serve; the supervisor reports it, once for all workers."""
        self._report({"code": error.code, "message": str(error)})

    def obey(self, stop: StopRequest, loop: asyncio.AbstractEventLoop) -> None:
        """Listen to the supervisor from now on, in a thread: its end is noticed even if the loop hangs."""
        arguments = (stop, loop)
        threading.Thread(target=self._listen, args=arguments, name="supervisor-link", daemon=True).start()

    def _listen(self, stop: StopRequest, loop: asyncio.AbstractEventLoop) -> None:
        # Also the answer to ``alive`` comes from the event loop: it shows that the loop still turns.
        words = {
            "alive": self._report_alive,
            "force": stop.force_stop,
            "serve": self._may_serve.set,
            "stop": stop.ask,
        }
        with suppress(OSError), self._connection.makefile(encoding="ascii") as lines:
            for line in lines:
                with suppress(RuntimeError):  # The loop has ended already.
                    loop.call_soon_threadsafe(words[line.strip()])
        stop.watch()
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(RuntimeError):  # The loop has ended already.
            loop.call_soon_threadsafe(lambda: stop.ask(at_once=True))

    def _report_alive(self) -> None:
        self._report({"alive": True})

    def _report(self, report: dict[str, object]) -> None:
        with suppress(OSError):
            self._connection.sendall(json.dumps(report).encode() + b"\n")


def _adopt(descriptor: int) -> socket.socket:
    adopted = socket.socket(fileno=descriptor)
    adopted.set_inheritable(False)
    return adopted
