"""The process that owns the servers of one folder, and ends with the last of their users.

Started by :mod:`data_layer.embedded.link` through ``start_guardian.py``, never by hand: it inherits the lock of the
folder and a listening socket. A user sends one line of JSON naming the programs of the servers that it needs and gets
one line back: their addresses, or an error. It then keeps the connection. Before it goes it may send ``leave`` and
learns whether it was the last; the connection of the last one closes when everything has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

from data_layer.embedded.postgresql import PostgresqlServer
from data_layer.embedded.server import report
from data_layer.embedded.valkey import ValkeyServer
from data_layer.errors import EmbeddedServerError


class Guardian:
    """Serves users until the last one is gone or it is asked to end."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._servers = {"postgresql": PostgresqlServer(folder, sockets), "valkey": ValkeyServer(folder, sockets)}
        self._socket = sockets / "guardian.sock"
        self._users: set[asyncio.StreamWriter] = set()
        self._last_users: list[asyncio.StreamWriter] = []
        self._finished = asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Serve, then stop both servers."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._finished.set)
        server = await asyncio.start_unix_server(self._serve, sock=listener)
        await self._finished.wait()
        # A process that connects from here on is turned away, and starts the next guardian, which waits for our lock.
        server.close()
        self._socket.unlink(missing_ok=True)
        await asyncio.gather(*(each.stop() for each in self._servers.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._users.add(writer)
        starting: asyncio.Task[None] | None = None
        try:
            while line := await reader.readline():
                request = json.loads(line)
                if request.get("leave"):
                    break
                starting = asyncio.create_task(self._start(request, writer))
            if line:
                self._send(writer, {"last": self._users == {writer}})
        except (OSError, ValueError) as error:
            report(f"a user was dropped: {error!r}")
        finally:
            self._forget(writer)
            if starting is not None:
                starting.cancel()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._users.discard(writer)
        if self._users:
            writer.close()
        else:
            # Left open, and referred to: its end shows the last user that this process has ended.
            self._last_users.append(writer)
            self._finished.set()

    async def _start(self, request: dict[str, str], writer: asyncio.StreamWriter) -> None:
        wanted = {name: server for name, server in self._servers.items() if request.get(name)}
        starts = [server.ensure(Path(request[name])) for name, server in wanted.items()]
        problems = [each for each in await asyncio.gather(*starts, return_exceptions=True) if each is not None]
        if self._finished.is_set():
            return  # The connection ends without an answer, and the user starts the next guardian.
        answer: dict[str, object] = {"pid": os.getpid()}
        if problems:
            answer["error"] = "\n".join(_describe(problem) for problem in problems)
        self._send(writer, answer | {name: server.address for name, server in wanted.items()})

    @staticmethod
    def _send(writer: asyncio.StreamWriter, answer: dict[str, object]) -> None:
        with suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")


def _describe(problem: BaseException) -> str:
    if not isinstance(problem, EmbeddedServerError):
        report(f"unexpected: {problem!r}")
    return str(problem) or repr(problem)


def main() -> None:
    """Run with the arguments FOLDER SOCKETS LOCK LISTENER, the last two being inherited descriptors.

    The lock's descriptor stays open, and the lock with it, until the process is gone.
    """
    folder, sockets = Path(sys.argv[1]), Path(sys.argv[2])
    os.umask(0o077)
    listener = socket.socket(fileno=int(sys.argv[4]))
    asyncio.run(Guardian(folder, sockets).run(listener))
    if sockets.parent != folder:
        with suppress(OSError):
            sockets.rmdir()
