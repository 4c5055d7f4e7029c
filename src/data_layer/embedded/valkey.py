"""Valkey under the guardian."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from data_layer.embedded.processes import stop_stranger
from data_layer.embedded.server import Server


class ValkeyServer(Server):
    """A cache of at most 256 MB in ``valkey``; at most the last second of writes is lost with the machine."""

    title: ClassVar[str] = "Valkey"
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 5),)

    @property
    def address(self) -> str:
        """Its socket."""
        return str(self.sockets / "valkey.sock")

    @property
    def _pid_file(self) -> Path:
        return self.sockets / "valkey.pid"

    async def _prepare(self, programs: Path) -> None:  # noqa: ARG002 (Valkey needs no other program)
        with suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text(encoding="ascii"))
            await stop_stranger(pid, self.data_folder, (*self.stop_steps, (signal.SIGKILL, 2)))
        self._pid_file.unlink(missing_ok=True)
        (self.sockets / "valkey.sock").unlink(missing_ok=True)
        self.data_folder.mkdir(mode=0o700, exist_ok=True)

    def _command(self, programs: Path) -> list[str]:
        options = {
            "dir": str(self.data_folder),
            "port": "0",
            "unixsocket": self.address,
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": "256mb",
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
            "pidfile": str(self._pid_file),
            # The title would replace the arguments, by which a leftover is recognised.
            "set-proc-title": "no",
            "always-show-logo": "no",
        }
        return [str(programs), *(word for name, value in options.items() for word in (f"--{name}", value))]

    async def _is_ready(self, pid: int) -> bool:  # noqa: ARG002 (only our own process listens on this socket)
        try:
            reader, writer = await asyncio.open_unix_connection(self.address)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()
